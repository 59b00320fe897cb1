"""Reading around what cannot be decoded: the damaged blocks of a file, and nothing else, become not valid.

A block counts as damaged if it cannot be read as a whole, so that a pixel's fate follows from the file and never from
the window that was asked for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.readers.decoding import decode
from geoseg.readers.handles import PASS_OVER, UndecodedError, gdal_errors, signature
from geoseg.readers.inspection import Source

logger = logging.getLogger(__name__)

RUN_BYTES = 64 * 2**20
"""Pixels read at a time where blocks reach beyond the window."""

MOST_BLOCKS = 2**18
"""Damaged blocks remembered for a file; beyond it they are met anew."""


@dataclass(slots=True)
class _Damage:
    """What was found damaged in a file so far, for one choice of bands, so that it is tried once."""

    file: tuple[Any, ...]
    """Its path and signature."""
    blocks: set[tuple[int, int]] = field(default_factory=set)
    """(row, col) on the file's grid of blocks."""
    end: int = sys.maxsize
    """The row of blocks from which on nothing can be read, in files that are decoded in order."""

    def add(self, block: Window, *, in_order: bool) -> None:
        if in_order:
            self.end = min(self.end, block.row)
            return
        if len(self.blocks) >= MOST_BLOCKS:
            self.blocks.clear()
        self.blocks.add((block.row, block.col))

    def count(self, run: Window) -> int:
        """How many blocks of a run are known to be damaged."""
        below = max(0, run.row_stop - max(run.row, self.end)) * run.width
        if not self.blocks:
            return below
        cells = product(range(run.row, run.row_stop), range(run.col, run.col_stop))
        return sum(cell in self.blocks for cell in cells)


_found: dict[tuple[Any, ...], _Damage] = {}

_told: dict[tuple[Any, ...], object] = {}
"""Files, by path and signature, whose damage was told."""


def decode_around(
    pixels: NDArray[Any],
    places: list[int],
    source: Source,
    window: Window,
    bands: list[int],
    *,
    unread: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """As decode(), but what lies in damaged blocks becomes 0 and not valid, and True in (row, col) `unread`."""
    valid = np.ones(window.shape, np.bool_)

    def read(part: Window) -> None:
        inside = part & window
        here = (slice(None), *inside.within(window).slices)
        if part == inside:
            good = decode(pixels[here], places, source, part, bands, shared=False)
        else:
            whole = np.empty((len(bands), *part.shape), pixels.dtype)
            good = decode(whole, [*range(len(bands))], source, part, bands, shared=False)
            there = inside.within(part).slices
            pixels[here][places] = whole[(slice(None), *there)]
            good = None if good is None else good[there]
        if good is not None:
            valid[here[1:]] = good

    with gdal_errors(source.path, "read"):
        file = (source.path, *signature(source.path))
    damage = _found.setdefault((*file, *bands), _Damage(file))
    for run in _damaged(source, _blocks(source, window), window, read, damage, len(bands) * pixels.itemsize):
        inside = (_pixels(source, run) & window).within(window).slices
        pixels[(places, *inside)] = 0
        valid[inside], unread[inside] = False, True
    return valid


def _damaged(
    source: Source, run: Window, window: Window, read: Callable[[Window], None], damage: _Damage, pixel_bytes: int
) -> Iterator[Window]:
    """Reads a run of blocks, or its halves if that fails; yields the blocks that cannot be read, in runs."""
    known = damage.count(run)
    if known == run.size:
        yield run
        return
    part = _pixels(source, run)
    part = part if source.whole_blocks else part & window
    if not known and (run.size == 1 or not source.whole_blocks or part.size * pixel_bytes <= RUN_BYTES):
        try:
            return read(part)
        except UndecodedError as error:
            if run.size == 1:
                damage.add(run, in_order=source.in_order)
                _tell(damage.file, part, error)
                yield run
                return
    for half in _halves(run, damage.end):
        yield from _damaged(source, half, window, read, damage, pixel_bytes)


def _halves(run: Window, end: int) -> tuple[Window, Window]:
    """Above and below `end` where it lies within the run, else two halves of its longer side."""
    if run.height > 1 and (run.height >= run.width or run.row < end < run.row_stop):
        rows = end - run.row if run.row < end < run.row_stop else run.height // 2
        return Window(run.row, run.col, rows, run.width), Window(run.row + rows, run.col, run.height - rows, run.width)
    cols = run.width // 2
    return Window(run.row, run.col, run.height, cols), Window(run.row, run.col + cols, run.height, run.width - cols)


def _blocks(source: Source, window: Window) -> Window:
    """The file's blocks that a window of the scene touches, counted in blocks."""
    native = source.orientation.native_window(window, source.native_shape)
    height, width = source.block
    row, col = native.row // height, native.col // width
    return Window(row, col, -(-native.row_stop // height) - row, -(-native.col_stop // width) - col)


def _pixels(source: Source, run: Window) -> Window:
    """The part of the scene that a run of blocks holds."""
    height, width = source.block
    native = Window(run.row * height, run.col * width, run.height * height, run.width * width)
    return source.orientation.canonical_window(native & Window(0, 0, *source.native_shape), source.native_shape)


def _tell(file: tuple[Any, ...], part: Window, error: UndecodedError) -> None:
    told = object()
    if _told.setdefault(file, told) is told:
        logger.warning(
            "%s; what cannot be read is left out, first %d x %d pixels at row %d, column %d",
            str(error).removesuffix(PASS_OVER), part.width, part.height, part.row, part.col,
        )  # fmt: skip
