"""What all methods without labels have in common."""

from __future__ import annotations

import hashlib
import importlib.metadata
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.results import PROBABILITY_MAX
from geoseg.spec import ModelSpec, classes

MIN_AREA_M2 = 2000.0
"""Smaller fields than this are more often single trees, furrows or noise."""

PATCH = 1024


class Method(Protocol):
    """A model of NumPy that looks at one patch at a time."""

    @property
    def spec(self) -> ModelSpec: ...

    def one(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Stored pixels (band, row, col) and validity (row, col) of a patch to (output, row, col) stored probabilities."""
        ...

    @property
    def runtime(self) -> str:
        return "numpy"

    @property
    def libraries(self) -> tuple[str, ...]:
        """Packages whose version may change results."""
        return ("scipy",)

    def fingerprint(self) -> str:
        """Of options, of what was settled over the scene, and of the libraries' versions."""
        versions = [f"{name} {importlib.metadata.version(name)}" for name in self.libraries]
        return hashlib.sha256("; ".join([repr(self), *versions]).encode()).hexdigest()

    def predict(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """See geoseg.engines.numpy_engine.ArrayModel."""
        # A patch at a time: what is worked with is many times a patch.
        return np.stack([self.one(*patch) for patch in zip(pixels, valid, strict=True)])


def spec_of(name: str, title: str, outputs: tuple[str, ...], **values: Any) -> ModelSpec:
    """The spec of a method: any pixel size, bands as they are stored."""
    usual = {"patch": PATCH, "halo": 0, "stride": 1, "reach": "local", "units": "raw", "min_area_m2": MIN_AREA_M2}
    return ModelSpec(
        name=name, title=title, outputs=classes(*outputs), licence="Apache-2.0",
        trained_on="nothing: a method without labels", **{**usual, **values},
    )  # fmt: skip


def two_classes(second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(2, row, col) stored probabilities of two classes, given those of the second."""
    return np.stack([PROBABILITY_MAX - second, second])
