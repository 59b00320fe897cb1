"""Thresholds: fixed, Otsu's, and several of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ModelError
from geoseg.models.methods.histogram import Histogram, scene_histograms
from geoseg.models.methods.image import AUTO_BANDS, Image, seen
from geoseg.models.methods.method import Method, spec_of, two_classes
from geoseg.models.methods.options import checked, one_of, option
from geoseg.protocols import Reader
from geoseg.results import PROBABILITY_MAX
from geoseg.spec import ModelSpec, bands

HALF = PROBABILITY_MAX // 2
INDEX = "ndvi, gndvi, ndwi, exg, luminance, or a band by name; auto takes what the scene has"
SIDE = {"told": "where fields lie: above or below the threshold", **one_of("above", "below")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold(Method):
    """Field where an index lies above a number, or below one, or between two."""

    index: str = option("auto", INDEX)
    above: float | None = option(None, "field where the index is larger; 0 where neither this nor `below` is given")
    below: float | None = option(None, "field where the index is smaller")
    image: Image | None = None

    def __post_init__(self) -> None:
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ModelError(
                f"threshold: nothing is above {self.above:g} and below {self.below:g}; give the smaller number as `above`"
            )

    @property
    def spec(self) -> ModelSpec:
        return spec_of("threshold", "Fixed threshold of an index", ("background", "field"), bands=_bands(self.image))

    def settled(self, reader: Reader, check: Callable[[], None] = lambda: None) -> Threshold:  # noqa: ARG002
        """With the image that the scene's bands allow; needs no look at its pixels."""
        above = 0.0 if self.above is None and self.below is None else self.above
        return replace(self, above=above, image=Image.of(reader.scene, self.index, method="threshold"))

    def one(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(2, row, col), every probability 0 or 254."""
        values = seen(self.image).values(pixels, valid)
        field = np.ones(values.shape, np.bool_)
        if self.above is not None:
            field &= values > self.above
        if self.below is not None:
            field &= values < self.below
        return two_classes(np.where(field, np.uint8(PROBABILITY_MAX), np.uint8(0)))

    def record(self) -> dict[str, Any]:
        return {"index": seen(self.image).index, "above": self.above, "below": self.below}


@dataclass(frozen=True, slots=True, kw_only=True)
class Otsu(Method):
    """Field above (or below) the threshold that divides the scene's histogram best.

    The probability of a pixel is 0 and 1 at the means of the two classes, one half at the threshold.
    """

    index: str = option("auto", INDEX)
    field: str = option("above", **SIDE)
    image: Image | None = None
    threshold: float = 0.0
    means: tuple[float, float] = (0.0, 0.0)
    """Of the values up to the threshold, and above it."""

    def __post_init__(self) -> None:
        checked(self, "otsu")

    @property
    def spec(self) -> ModelSpec:
        return spec_of("otsu", "Otsu's threshold of an index", ("background", "field"), bands=_bands(self.image))

    def settled(self, reader: Reader, check: Callable[[], None] = lambda: None) -> Otsu:
        """With the threshold over all of the scene."""
        from geoseg.kernels.otsu import otsu  # numba takes a while to import

        image = Image.of(reader.scene, self.index, method="otsu")
        made = image_histogram(reader, image, check)
        code = otsu(made.counts, made.binning.centers())
        means = made.moments(0, code)[0], made.moments(code + 1, len(made.counts) - 1)[0]
        return replace(self, image=image, threshold=made.upper(code), means=means)

    def one(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(2, row, col)."""
        values = seen(self.image).values(pixels, valid)
        stored = graded_threshold(values, self.threshold, self.means)
        return two_classes(stored) if self.field == "above" else two_classes(PROBABILITY_MAX - stored)

    def record(self) -> dict[str, Any]:
        low, high = self.means
        return {
            "index": seen(self.image).index, "threshold": self.threshold, "field": self.field,
            "mean_below": low, "mean_above": high,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiOtsu(Method):
    """Classes between the thresholds that divide the scene's histogram best; one of them is the field class.

    Class 0 is background, of which there is none: a class's id is its number, 1 for the lowest.
    """

    index: str = option("auto", INDEX)
    classes: int = option(3, "how many classes", check=lambda value: 2 <= value <= 8, expected="2 to 8")
    field: int = option(0, "which of them becomes polygons, 1 for the lowest; 0 for the highest")
    image: Image | None = None
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        checked(self, "multi-otsu")
        if not 0 <= self.field <= self.classes:
            raise ModelError(
                f"multi-otsu: field={self.field} is no class of {self.classes}; give 1 to {self.classes}, 0 for the highest"
            )

    @property
    def spec(self) -> ModelSpec:
        wanted = self.field or self.classes
        names = ("background", *("field" if i == wanted else f"level_{i}" for i in range(1, self.classes + 1)))
        return spec_of("multi-otsu", "Several thresholds of an index", names, bands=_bands(self.image))

    def settled(self, reader: Reader, check: Callable[[], None] = lambda: None) -> MultiOtsu:
        """With the thresholds over all of the scene."""
        from geoseg.kernels.otsu import multi_otsu

        image = Image.of(reader.scene, self.index, method="multi-otsu")
        made = image_histogram(reader, image, check)
        codes = multi_otsu(made.counts, made.binning.centers(), self.classes)
        return replace(self, image=image, thresholds=tuple(map(made.upper, codes)))

    def one(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(class, row, col), every probability 0 or 254."""
        values = seen(self.image).values(pixels, valid)
        ids = 1 + np.searchsorted(np.array(self.thresholds), values, side="left")
        hot = np.arange(1 + self.classes).reshape(-1, 1, 1) == ids
        return np.where(hot, np.uint8(PROBABILITY_MAX), np.uint8(0))

    def record(self) -> dict[str, Any]:
        return {"index": seen(self.image).index, "thresholds": list(self.thresholds)}


def graded_threshold(values: NDArray[np.float64], threshold: float, means: tuple[float, float]) -> NDArray[np.uint8]:
    """Stored probabilities: 0 at the lower mean, 127 at the threshold, more only above it, 254 at the upper mean."""
    low, high = (max(abs(mean - threshold), np.finfo(np.float64).tiny) for mean in means)
    away = values - threshold
    with np.errstate(over="ignore"):
        below = np.floor(np.maximum(HALF + HALF * (away / low), 0))
        above = np.ceil(np.minimum(HALF + HALF * (away / high), PROBABILITY_MAX))
    return np.where(away > 0, np.maximum(above, HALF + 1), np.minimum(below, HALF)).astype(np.uint8)


def image_histogram(reader: Reader, image: Image, check: Callable[[], None]) -> Histogram:
    """Of the image's values over all of the scene."""

    def measure(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        return image.values(pixels, valid)[None], valid

    return scene_histograms(reader, image.bands.positions(reader.scene), measure, [image.binning], check=check)[0]


def _bands(image: Image | None) -> Any:
    return AUTO_BANDS if image is None else bands(image.bands.names)
