"""Small real models whose results can be worked out by hand. They need no engine but NumPy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geoseg.errors import ModelError
from geoseg.results import PROBABILITY_MAX, Batch, Objects
from geoseg.spec import InstanceRule, ModelSpec, bands, classes


def _spec(name: str, title: str, *, names: tuple[str, ...] = ("background", "field"), **values: Any) -> ModelSpec:
    defaults: dict[str, Any] = {"patch": 64, "halo": 8, "stride": 1, "reach": "local", "bands": bands(("red",))}
    return ModelSpec(name=name, title=title, outputs=classes(*names), **{**defaults, **values})


def _digest(model: object) -> str:
    return hashlib.sha256(repr(model).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityModel:
    """Says what it sees: the first band is the answer.

    With two classes, stored 0..254 is the probability of class 1. With more, a stored value is the id of a class, which
    gets all the probability (ids beyond the classes count as 0).
    """

    classes: tuple[str, ...] = ("background", "field")
    patch: int = 64
    halo: int = 8
    stride: int = 1
    band: str = "red"

    @property
    def spec(self) -> ModelSpec:
        return _spec(
            "identity", "Says what it sees", names=self.classes,
            patch=self.patch, halo=self.halo, stride=self.stride, bands=bands((self.band,)),
        )  # fmt: skip

    @property
    def runtime(self) -> str:
        return "numpy"

    def fingerprint(self) -> str:
        return _digest(self)

    def predict(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(patch, channel, row, col) to (patch, class, row, col)."""
        first = np.where(valid, pixels[:, 0], 0)
        if len(self.classes) == 2:
            probability = np.clip(first, 0, PROBABILITY_MAX).astype(np.uint8)
            return np.stack([PROBABILITY_MAX - probability, probability], axis=1)
        ids = np.where(first < len(self.classes), first, 0)
        hot = ids[:, None] == np.arange(len(self.classes)).reshape(1, -1, 1, 1)
        return np.where(hot, PROBABILITY_MAX, 0).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalMeanModel:
    """The probability of class 1 is the mean of the first band (0..254) over a square, in whole numbers.

    A pixel depends on `radius` pixels around it and on nothing else; where there is no data it sees zeros, and beyond
    the frame its reflection. Frames end within the halo of a pixel that is kept only at the edge of the scene, and the
    reflection there is everybody's: with `radius` <= `halo`, tiled equals whole.
    """

    radius: int = 3
    patch: int = 64
    halo: int = 8
    stride: int = 1
    band: str = "red"

    def __post_init__(self) -> None:
        if not 0 <= self.radius <= self.halo:
            raise ModelError(f"radius {self.radius} reaches beyond the halo {self.halo}; use 0 to {self.halo}")

    @property
    def spec(self) -> ModelSpec:
        return _spec(
            "local-mean", f"Mean over {2 * self.radius + 1} pixels",
            patch=self.patch, halo=self.halo, stride=self.stride, bands=bands((self.band,)),
        )  # fmt: skip

    @property
    def runtime(self) -> str:
        return "numpy"

    def fingerprint(self) -> str:
        return _digest(self)

    def predict(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(patch, channel, row, col) to (patch, class, row, col)."""
        values = np.clip(np.where(valid, pixels[:, 0], 0), 0, PROBABILITY_MAX).astype(np.int64)
        side = 2 * self.radius + 1
        margin = ((0, 0), (self.radius, self.radius), (self.radius, self.radius))
        padded = np.pad(values, margin, mode="reflect")
        sums = np.pad(padded, ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)
        box = sums[:, side:, side:] - sums[:, :-side, side:] - sums[:, side:, :-side] + sums[:, :-side, :-side]
        mean = ((2 * box + side * side) // (2 * side * side)).astype(np.uint8)
        return np.stack([PROBABILITY_MAX - mean, mean], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdModel:
    """Field where the first band reaches `threshold`, and every probability is 0 or 254."""

    threshold: float = 128.0
    patch: int = 64
    halo: int = 8
    stride: int = 1
    bands: tuple[str, ...] = field(default=("red",))

    @property
    def spec(self) -> ModelSpec:
        return _spec(
            "threshold", f"Field where the first band is at least {self.threshold:g}",
            patch=self.patch, halo=self.halo, stride=self.stride, bands=bands(self.bands),
        )  # fmt: skip

    @property
    def runtime(self) -> str:
        return "numpy"

    def fingerprint(self) -> str:
        return _digest(self)

    def predict(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(patch, channel, row, col) to (patch, class, row, col)."""
        fields = (pixels[:, 0] >= self.threshold) & valid
        return np.where(np.stack([~fields, fields], axis=1), PROBABILITY_MAX, 0).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchMeanModel:
    """The probability of class 1 is a pixel's first band (0..254), half way to the mean of all that the patch shows.

    A pixel depends on its whole patch, as with networks that pool globally: equal results need equal patches.
    """

    patch: int = 64
    halo: int = 8
    stride: int = 1
    band: str = "red"

    @property
    def spec(self) -> ModelSpec:
        return _spec(
            "patch-mean", "Half a pixel, half its patch",
            patch=self.patch, halo=self.halo, stride=self.stride, bands=bands((self.band,)), reach="patch",
        )  # fmt: skip

    @property
    def runtime(self) -> str:
        return "numpy"

    def fingerprint(self) -> str:
        return _digest(self)

    def predict(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(patch, channel, row, col) to (patch, class, row, col)."""
        values = np.clip(np.where(valid, pixels[:, 0], 0), 0, PROBABILITY_MAX).astype(np.int64)
        mean = values.sum(axis=(1, 2), keepdims=True) // values[0].size
        probability = ((values + mean + 1) // 2).astype(np.uint8)
        return np.stack([PROBABILITY_MAX - probability, probability], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrightObjectsModel:
    """Finds objects one by one: connected pixels, also over corners, of one value of the first band, which is the score.

    Objects that touch are two where their values differ. With `unsure` pixels views differ: what a patch adds around an object,
    and takes from its score, depends on where the object lies in the patch.
    """

    unsure: int = 0
    patch: int = 64
    halo: int = 16
    stride: int = 1
    score: float = 0.001
    band: str = "red"

    @property
    def spec(self) -> ModelSpec:
        return _spec(
            "bright-objects", "Objects of one value", instances=InstanceRule(score=self.score),
            patch=self.patch, halo=self.halo, stride=self.stride, bands=bands((self.band,)),
        )  # fmt: skip

    @property
    def runtime(self) -> str:
        return "numpy"

    def fingerprint(self) -> str:
        return _digest(self)

    def find(self, batch: Batch) -> list[Objects]:
        """The objects of each patch."""
        return [self._objects(pixels[0], valid) for pixels, valid in zip(batch.pixels, batch.valid, strict=True)]

    def _objects(self, first: NDArray[Any], valid: NDArray[np.bool_]) -> Objects:
        values = np.where(valid, first, 0)
        scores, masks = [], []
        for value, place in enumerate(ndimage.find_objects(values), start=1):
            if place is None:
                continue
            labels, count = ndimage.label(values[place] == value, np.ones((3, 3)))
            for number in range(1, count + 1):
                mask = np.zeros(values.shape, np.bool_)
                mask[place] = labels == number
                more = int(np.argwhere(mask)[0].sum()) % (self.unsure + 1)
                masks.append(ndimage.binary_dilation(mask, iterations=more) if more else mask)
                scores.append((value - more) / PROBABILITY_MAX)
        every = np.stack(masks) if masks else np.empty((0, *first.shape), np.bool_)
        return Objects.of(np.ones(len(masks), np.uint8), np.array(scores), every)
