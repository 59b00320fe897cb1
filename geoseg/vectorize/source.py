"""A raster that somebody brings as a source of classes: a class mask, or one probability band a class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import TileGrid, Window
from geoseg.protocols import Reader
from geoseg.results import NODATA, PROBABILITY_MAX

TILE = 1024
"""Side of a tile in pixels; never decides the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterClasses:
    """Implements ClassSource on a Reader: one band is class ids, several are probabilities in class order."""

    reader: Reader
    grid: TileGrid

    def classes(self, window: Window) -> NDArray[np.uint8]:
        out = np.full(window.shape, NODATA, np.uint8)
        part = window & self.grid.extent
        if not part:
            return out
        block = self.reader.read(part)
        inside = part.within(window).slices
        if len(block.pixels) == 1:
            ids = block.pixels[0]
            beyond = block.valid & ((ids < 0) | (ids >= NODATA))
            if beyond.any():
                found = ids[beyond][0]
                raise InputError(
                    f"{self.reader.scene.name} holds the value {found}, but class ids are 0..254; "
                    f"give a class mask, or probabilities with one band a class"
                )
            out[inside] = np.where(block.valid, ids, NODATA).astype(np.uint8)
        else:
            stored = self._stored(block.pixels)
            out[inside] = np.where(block.valid, np.argmax(stored, axis=0), NODATA).astype(np.uint8)
        return out

    def probabilities(self, window: Window) -> NDArray[np.uint8]:
        count = len(self.reader.scene.bands)
        if count == 1:
            return np.empty((0, *window.shape), np.uint8)
        out = np.full((count, *window.shape), NODATA, np.uint8)
        part = window & self.grid.extent
        if part:
            block = self.reader.read(part)
            inside = (slice(None), *part.within(window).slices)
            out[inside] = np.where(block.valid, self._stored(block.pixels), NODATA)
        return out

    def _stored(self, pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Stored probabilities floor(254 p + .5): uint8 without a scale of its own is taken as stored already."""
        bands = self.reader.scene.bands
        if pixels.dtype == np.uint8 and all(not b.scaled or abs(b.scale * PROBABILITY_MAX - 1) < 1e-6 for b in bands):
            return np.asarray(np.minimum(pixels, PROBABILITY_MAX), np.uint8)
        shape = (-1, 1, 1)
        scale, offset = (np.array([getattr(b, name) for b in bands]).reshape(shape) for name in ("scale", "offset"))
        probability = np.nan_to_num(pixels.astype(np.float64) * scale + offset)
        stored: NDArray[np.uint8] = np.floor(PROBABILITY_MAX * np.clip(probability, 0, 1) + 0.5).astype(np.uint8)
        return stored


def raster_classes(reader: Reader, *, tile: int | None = None) -> RasterClasses:
    """A source on the lattice of the raster's CRS; `tile` is the side of a tile in pixels."""
    dtype = reader.scene.dtype
    if len(reader.scene.bands) == 1 and dtype.kind not in "iu":
        raise InputError(
            f"{reader.scene.name} has one band of {dtype}: neither class ids (integers) nor a probability band a class; "
            f"give a class mask, or all classes' probabilities"
        )
    from geoseg.grid import lattice_phase

    scene = reader.scene
    phase = lattice_phase(scene.transform) if scene.crs is not None else (0, 0)
    return RasterClasses(reader=reader, grid=TileGrid(shape=scene.shape, phase=phase, patch=tile or TILE, halo=0))
