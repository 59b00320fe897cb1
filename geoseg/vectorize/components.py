"""Connected components as objects, equal to those of the whole raster whatever the tiling, in memory that follows the tile.

Two passes over the tiles. The first labels each tile alone and leaves on disk what is known of the components that reach
its rim; those that touch across a seam are then united. The second labels again (cheaper than keeping labels), traces
outlines, and leaves on disk whole objects and parts of objects. Parts are joined and all objects put in order row by row of
tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.kernels.label import label, measure
from geoseg.kernels.outline import trace
from geoseg.protocols import ClassSource, TileMap
from geoseg.results import Outlines
from geoseg.vectorize.pieces import Arrays, Pieces
from geoseg.vectorize.rows import PART, WHOLE, joined_objects, part_pieces, rows_of_objects, whole_pieces
from geoseg.vectorize.seams import MEASURES, RIM, Index, TraceItem, numbered, rim_pieces, united


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTile:
    """First pass: what is known of the components that reach a tile's rim."""

    source: ClassSource
    wanted: tuple[int, ...]
    pieces: Pieces

    def __call__(self, index: Index) -> Index:
        core = self.source.grid.tile(index).core
        labels, measures = _measured(self.source, core, self.wanted)
        if len(measures["kind"]):
            self.pieces.save(RIM, index, rim_pieces(labels, measures))
        return index


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceTile:
    """Second pass: the outlines of a tile, in scene pixels."""

    source: ClassSource
    wanted: tuple[int, ...]
    pieces: Pieces
    min_pixels: float

    def __call__(self, item: TraceItem) -> Index:
        grid = self.source.grid
        core = grid.tile(item.index).core
        labels, measures = _measured(self.source, core, self.wanted)
        numbers = np.concatenate([[0], numbered(measures["first"], grid)])
        numbers[1:][measures["pixels"] < self.min_pixels] = 0
        rim = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        rim = rim[rim > 0]
        numbers[rim] = item.numbers
        crossing = np.zeros(len(numbers), np.bool_)
        crossing[rim] = item.crossing
        chains = trace(item.frame(numbers[labels])).shifted(core.row, core.col)
        inner = np.flatnonzero(~crossing & (numbers > 0))
        self.pieces.save(WHOLE, item.index, whole_pieces(chains, numbers[inner], _rows(measures, inner - 1)))
        self.pieces.save(PART, item.index, part_pieces(chains, np.unique(numbers[crossing & (numbers > 0)])))
        return item.index


@dataclass(frozen=True, slots=True)
class Components:
    """The vectorizer `components`: 4-connected pixels of one class are one object."""

    def outlines(
        self, source: ClassSource, wanted: Sequence[int], *, map_tiles: TileMap, min_pixels: float, folder: Path
    ) -> Iterator[Outlines]:
        grid, pieces, classes = source.grid, Pieces(folder), tuple(wanted)
        missing = [tile.index for tile in grid if not pieces.holds(RIM, tile.index)]
        map_tiles(
            LabelTile(source=source, wanted=classes, pieces=pieces), missing,
            done=_nothing, stage="components", total=len(grid), finished=len(grid) - len(missing),
        )  # fmt: skip
        seams = united(grid, pieces, min_pixels=min_pixels)
        missing = [index for index in seams.starts if not (pieces.holds(WHOLE, index) and pieces.holds(PART, index))]
        map_tiles(
            TraceTile(source=source, wanted=classes, pieces=pieces, min_pixels=min_pixels), map(seams.item, missing),
            done=_nothing, stage="outlines", total=len(seams.starts), finished=len(seams.starts) - len(missing),
        )  # fmt: skip
        joined_objects(seams)
        yield from rows_of_objects(grid, pieces)


def _nothing(_: Index) -> None:
    """What tasks leave is on disk."""


def _measured(source: ClassSource, core: Window, wanted: tuple[int, ...]) -> tuple[NDArray[np.int32], Arrays]:
    """(row, col) labels of a core, and the components' measures with first pixels in the scene."""
    framed = source.classes(core.grown(1))
    table = np.zeros(256, np.bool_)
    table[list(wanted)] = True
    labels, count = label(np.ascontiguousarray(framed[1:-1, 1:-1]), table)
    stored = source.probabilities(core) if count else np.empty((0, 1, 1), np.uint8)
    first, pixels, sums, kind, touches = measure(labels, count, framed, stored)
    values = (first + np.array([core.row, core.col]), kind, pixels, sums, touches)
    return labels, dict(zip(MEASURES, values, strict=True))


def _rows(arrays: Arrays, rows: NDArray[np.int64]) -> Arrays:
    return {name: values[rows] for name, values in arrays.items()}
