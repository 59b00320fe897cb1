"""A model in one file: fields are where the vegetation index is high."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.spec import ModelSpec, bands, classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Greenness:
    """p(field) rises from 0 to 1 between two values of NDVI = (nir - red) / (nir + red)."""

    low: float = 0.2
    high: float = 0.6

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(
            name="greenness",
            title="Green land, by NDVI alone",
            bands=bands(("red", "nir")),
            outputs=classes("background", "field"),
            patch=256,
            halo=0,
            stride=1,
            reach="local",
            resolution_m=(0.5, 60.0),
            nominal_m=10.0,
            licence="Apache-2.0",
        )

    @property
    def runtime(self) -> str:
        return "numpy"

    def fingerprint(self) -> str:
        return hashlib.sha256(f"greenness 1 {self!r}".encode()).hexdigest()

    def predict(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Stored values (patch, band, row, col) and validity (patch, row, col) to (patch, class, row, col)."""
        red, nir = pixels[:, 0].astype(np.float64), pixels[:, 1].astype(np.float64)
        total = np.where(valid & (red + nir > 0), red + nir, 1.0)
        ndvi = np.where(valid, (nir - red) / total, 0.0)
        share = np.clip((ndvi - self.low) / (self.high - self.low), 0, 1)
        field = np.floor(254 * share + 0.5).astype(np.uint8)
        return np.stack([254 - field, field], axis=1)
