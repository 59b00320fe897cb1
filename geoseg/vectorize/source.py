"""A raster that somebody brings as a source of classes: a class mask, or one probability band a class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import TileGrid, Window, lattice_phase
from geoseg.protocols import Reader
from geoseg.results import NODATA, PROBABILITY_MAX

TILE = 1024
"""Side of a tile in pixels; never decides the result."""

WANTED = 1
"""Class id under which a source gives the one class that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterClasses:
    """Implements ClassSource on a Reader: one band is class ids, several are probabilities in class order."""

    reader: Reader
    grid: TileGrid
    wanted: int
    """The class that becomes objects: a value of a mask, which may be any integer, or the number of a probability band."""
    count: int
    """How many bands are probabilities of classes; bands beyond them do not compete."""

    def classes(self, window: Window) -> NDArray[np.uint8]:
        """(row, col): WANTED for the class, 0 for others, 255 for no data."""
        out = np.full(window.shape, NODATA, np.uint8)
        part = window & self.grid.extent
        if not part:
            return out
        block = self.reader.read(part)
        ids = block.pixels[0] if len(block.pixels) == 1 else np.argmax(self._stored(block.pixels)[: self.count], axis=0)
        out[part.within(window).slices] = np.where(block.valid, np.where(ids == self.wanted, WANTED, 0), NODATA)
        return out

    def probabilities(self, window: Window) -> NDArray[np.uint8]:
        """(channel, row, col): nothing for channel 0, the class's own probability as channel WANTED."""
        if len(self.reader.scene.bands) == 1:
            return np.empty((0, *window.shape), np.uint8)
        out = np.full((WANTED + 1, *window.shape), NODATA, np.uint8)
        part = window & self.grid.extent
        if part:
            block = self.reader.read(part, [self.wanted])
            out[(WANTED, *part.within(window).slices)] = np.where(block.valid, self._stored(block.pixels)[0], NODATA)
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


def raster_classes(reader: Reader, *, wanted: int, classes: int = 0, tile: int | None = None) -> RasterClasses:
    """A source on the lattice of the raster's CRS.

    Args:
        reader: one band of class ids, or one band a class with its probability.
        wanted: the class that becomes objects.
        classes: how many bands are classes; 0 for all of them.
        tile: side of a tile in pixels.
    """
    dtype = reader.scene.dtype
    if len(reader.scene.bands) == 1 and dtype.kind not in "iu":
        raise InputError(
            f"{reader.scene.name} has one band of {dtype}: neither class ids (integers) nor a probability band a class; "
            f"give a class mask, or all classes' probabilities"
        )
    scene = reader.scene
    phase = lattice_phase(scene.transform) if scene.crs is not None else (0, 0)
    grid = TileGrid(shape=scene.shape, phase=phase, patch=tile or TILE, halo=0)
    return RasterClasses(reader=reader, grid=grid, wanted=wanted, count=classes or len(scene.bands))
