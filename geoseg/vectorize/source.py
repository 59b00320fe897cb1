"""A raster that somebody brings as a source of classes: a class mask, or one probability band a class."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import TileGrid, Window, lattice_phase
from geoseg.kernels.label import strongest, strongest_other
from geoseg.protocols import Reader
from geoseg.results import NODATA, PROBABILITY_MAX, Block, Lines
from geoseg.spec import Channel, Kind

_LAST = threading.local()
"""What each thread read last: passes ask for the same place twice."""

TILE = 1024
"""Side of a tile in pixels; never decides the result."""

OTHER, WANTED, FREE = range(3)
"""Class ids that a source gives: what is not asked for, the class that is, and boundary pixels. The channels of its
probabilities are the same, but that of FREE may be a distance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterClasses:
    """Implements ClassSource on a Reader: one band is class ids, several are probabilities in class order."""

    reader: Reader
    grid: TileGrid
    wanted: int
    """The class that becomes objects: a value of a mask, which may be any integer, or the number of a probability band."""
    count: int
    """How many bands are probabilities of classes; bands beyond them do not compete."""
    free: int | None = None
    """The class of boundary pixels."""
    line: int | None = None
    """The band that tells boundaries."""
    inverted: bool = False
    """True where that is a distance."""
    rest: bool = False
    """True where what the probabilities leave of 1 is that of the background."""

    @property
    def lines(self) -> Lines:
        return Lines(
            channel=None if self.line is None else FREE, inverted=self.inverted,
            free_class=None if self.free is None else FREE,
        )  # fmt: skip

    def classes(self, window: Window) -> NDArray[np.uint8]:
        """(row, col): WANTED for the class, FREE for boundary pixels, OTHER for the rest, 255 for no data."""
        out = np.full(window.shape, NODATA, np.uint8)
        part = window & self.grid.extent
        if not part:
            return out
        block = self._read(part)
        if len(block.pixels) == 1:
            found = np.zeros(part.shape, np.uint8)
            if self.free is not None:
                found[block.pixels[0] == self.free] = FREE
            found[block.pixels[0] == self.wanted] = WANTED
        else:
            codes = np.zeros(self.count + 1, np.uint8)
            if self.free is not None:
                codes[self.free] = FREE
            codes[self.wanted] = WANTED
            found = strongest(block.pixels[: self.count], self.rest, codes)
        found[~block.valid] = NODATA
        out[part.within(window).slices] = found
        return out

    def probabilities(self, window: Window) -> NDArray[np.uint8]:
        """(channel, row, col): the largest of the other classes', the class's own, and the band that tells boundaries if any."""
        if len(self.reader.scene.bands) == 1:
            return np.empty((0, *window.shape), np.uint8)
        out = np.full((FREE + (self.line is not None), *window.shape), NODATA, np.uint8)
        part = window & self.grid.extent
        if part:
            block = self._read(part)
            stored = block.pixels
            found = [strongest_other(stored[: self.count], self.wanted, self.rest), stored[self.wanted]]
            if self.line is not None:
                found.append(stored[self.line])
            for channel, values in zip(out, found, strict=True):
                channel[part.within(window).slices] = np.where(block.valid, values, np.uint8(NODATA))
        return out

    def _read(self, part: Window) -> Block:
        """A part of the raster, probabilities as stored; what this thread read last is not read again."""
        last: tuple[Reader, Block] | None = getattr(_LAST, "read", None)
        if last is not None and last[0] is self.reader and last[1].window.contains(part):
            rows, cols = part.within(last[1].window).slices
            return Block(pixels=last[1].pixels[:, rows, cols], valid=last[1].valid[rows, cols], window=part)
        block = self.reader.read(part)
        if len(block.pixels) > 1:
            block = replace(block, pixels=self._stored(block))
        _LAST.read = (self.reader, block)
        return block

    def _stored(self, block: Block) -> NDArray[np.uint8]:
        """Stored probabilities floor(254 p + .5): uint8 without a scale of its own is taken as stored already."""
        bands, pixels = self.reader.scene.bands, block.pixels
        if pixels.dtype == np.uint8 and all(not b.scaled or abs(b.scale * PROBABILITY_MAX - 1) < 1e-6 for b in bands):
            return np.asarray(np.minimum(pixels, PROBABILITY_MAX), np.uint8)
        shape = (-1, 1, 1)
        scale, offset = (np.array([getattr(b, name) for b in bands]).reshape(shape) for name in ("scale", "offset"))
        probability = np.nan_to_num(pixels.astype(np.float64) * scale + offset)
        known = np.where(block.valid, probability, 0.5)
        low, high = known.min(initial=0.5), known.max(initial=0.5)
        if not -0.01 <= low <= high <= 1.01:
            raise InputError(
                f"{self.reader.scene.name} holds values from {low:g} to {high:g}; expected probabilities from 0 to 1 (declare "
                f"nodata with --nodata, or a scale in the file)"
            )
        stored: NDArray[np.uint8] = np.floor(PROBABILITY_MAX * np.clip(probability, 0, 1) + 0.5).astype(np.uint8)
        return stored


def raster_classes(reader: Reader, *, wanted: int, names: Sequence[str] = (), tile: int | None = None) -> RasterClasses:
    """A source on the lattice of the raster's CRS.

    Args:
        reader: one band of class ids, or one band a class with its probability.
        wanted: the class that becomes objects.
        names: of the classes by id, in the order of bands; a band named `distance` is none. Without a class named
            `background` its probability is what the others leave of 1. None given: all bands are classes.
        tile: side of a tile in pixels.
    """
    bands, dtype = len(reader.scene.bands), reader.scene.dtype
    if bands == 1 and dtype.kind not in "iu":
        raise InputError(
            f"{reader.scene.name} has one band of {dtype}: neither class ids (integers) nor a probability band a class; "
            f"give a class mask, or all classes' probabilities"
        )
    if 1 < bands < len(names):
        raise InputError(
            f"{reader.scene.name} has {bands} bands, and --classes names {len(names)} ({', '.join(names)}); name one a band"
        )
    if bands > 1 and dtype.kind in "iu" and dtype != np.uint8 and not any(band.scaled for band in reader.scene.bands):
        raise InputError(
            f"{reader.scene.name} holds {dtype} without a scale; expected probabilities as uint8 from 0 to 254, as floats from 0 "
            f"to 1, or with the scale and offset that make them so (gdal_edit.py -scale)"
        )
    if bands > 1 and ("" in names or len(set(names)) < len(names)):
        raise InputError(f"--classes {','.join(names)} names a class twice or not at all; give each a name of its own")
    kinds: list[Kind] = ["distance" if name == "distance" else "class" for name in names]
    if bands > 1 and kinds != sorted(kinds):
        raise InputError(f"--classes {','.join(names)} has a class after a distance; name the classes first")
    count = kinds.count("class") or bands
    if bands > 1 and (wanted >= count or (kinds and "class" not in kinds)):
        raise InputError(
            f"band {wanted} of {reader.scene.name} is no class; choose the field class among "
            f"{', '.join(names[:count]) or f'bands 0 to {count - 1}'}"
        )
    lines = Lines.of([Channel(name=name, kind=kind) for name, kind in zip(names, kinds, strict=True)])
    scene = reader.scene
    phase = lattice_phase(scene.transform) if scene.crs is not None else (0, 0)
    grid = TileGrid(shape=scene.shape, phase=phase, patch=tile or TILE, halo=0)
    return RasterClasses(
        reader=reader, grid=grid, wanted=wanted, count=count, free=lines.free_class,
        line=lines.channel if bands > 1 else None, inverted=lines.inverted and bands > 1,
        rest=bands > 1 and bool(names) and "background" not in names,
    )  # fmt: skip
