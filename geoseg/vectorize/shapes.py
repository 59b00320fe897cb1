"""Second pass: the pixels of objects, boundary pixels given to the nearest and gaps filled, as they are on the whole raster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.kernels.grow import gap_measures, grow, label_measures, rounds
from geoseg.kernels.label import label
from geoseg.kernels.runs import decode, encode
from geoseg.pieces import Arrays, Pieces
from geoseg.protocols import ClassSource
from geoseg.results import FieldRules
from geoseg.vectorize.regions import REGIONS, STRIPS, Numbers
from geoseg.vectorize.seams import RIM, Index, rim_pieces

SHAPES = "shapes"
"""The kind of pieces that the second pass leaves, beside what the union needs."""

NEIGHBOURS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0))

Numbered = tuple[NDArray[np.int64], NDArray[np.uint8]]
"""By region of a tile: number and class of its object."""


def depth_of(rules: FieldRules) -> int:
    """Pixels around a tile that decide its objects."""
    return rounds(rules.reach) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeItem:
    """What the second pass must be told about a tile."""

    index: Index
    numbers: dict[Index, NDArray[np.int64]]
    """Numbers of the sent regions of the tile and its neighbours."""


def shape_item(index: Index, numbers: Numbers) -> ShapeItem:
    around = [index, *((index[0] + down, index[1] + right) for down, right in NEIGHBOURS)]
    return ShapeItem(index=index, numbers={at: numbers.of(at) for at in around})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeTile:
    """The objects of a tile: which pixels are theirs, and their sums."""

    source: ClassSource
    pieces: Pieces
    rules: FieldRules

    def __call__(self, item: ShapeItem) -> Index:
        depth = depth_of(self.rules)
        core = self.source.grid.tile(item.index).core
        framed, numbers, kind, own, sums = self._numbered(item, core, depth)
        # Nothing here or around; but the whole tile may lie in a gap that is small enough to be filled.
        if len(numbers) == 1 and self.rules.hole_pixels <= core.size:
            self.pieces.save(SHAPES, item.index, {})
            return item.index
        classes = self.source.classes(core.grown(depth))
        free = self.source.lines.free_class
        if self.rules.reach > 0 and free is not None:
            grow(framed, classes == free, self.rules.reach)
        labels = np.ascontiguousarray(framed[depth:-depth, depth:-depth])
        near = (slice(depth - 1, 1 - depth or None),) * 2
        classes = np.ascontiguousarray(classes[near])
        gap = self._gaps(labels, np.ascontiguousarray(framed[near]), classes, numbers)
        pixels, touches = label_measures(labels, len(numbers) - 1, classes)
        present = np.flatnonzero(pixels)
        present = present[present > 0]
        # Objects that the tile holds, 1..n, then gaps on its rim, of which it takes all tiles to know what fills them.
        count = len(gap["pixels"])
        short = np.zeros(len(numbers) + count, np.int32)
        short[present] = np.arange(len(present)) + 1
        short[len(numbers) :] = len(present) + 1 + np.arange(count)
        labels = np.where(gap["labels"] > 0, gap["labels"] + np.int32(len(numbers) - 1), labels)
        labels = short[labels]
        nothing = np.zeros(count, np.int64)
        measures: Arrays = {
            "number": np.concatenate([numbers[present], nothing]),
            "kind": np.concatenate([kind[present], nothing.astype(np.uint8)]),
            "pixels": np.concatenate([pixels[present], gap["pixels"]]),
            "own": np.concatenate([own[present], nothing]),
            "sums": np.concatenate([sums[present], nothing]),
            "touches": np.concatenate([touches[present], nothing > 0]),
            "lowest": np.concatenate([np.zeros(len(present), np.int64), gap["lowest"]]),
            "highest": np.concatenate([np.zeros(len(present), np.int64), gap["highest"]]),
        }
        if len(measures["number"]):
            self.pieces.save(RIM, item.index, rim_pieces(labels, measures))
        self.pieces.save(SHAPES, item.index, measures | {"runs": encode(labels), "objects": np.array(len(present))})
        return item.index

    def _numbered(
        self, item: ShapeItem, core: Window, depth: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """Labels in order of the objects' numbers, of the core and `depth` pixels around; by label number, class, and what
        the tile's regions hold: pixels and summed probability."""
        own = self.pieces.load(REGIONS, item.index)
        assert own is not None, "the first pass has left regions of every tile"
        where = np.full(len(own["number"]), -1, np.int64)
        where[own["sent"] - 1] = np.arange(len(own["sent"]))
        known: dict[Index, Numbered] = {item.index: _known(own, where, item.numbers[item.index])}
        strips: dict[Index, Arrays] = {}
        for down, right in NEIGHBOURS:
            at = (item.index[0] + down, item.index[1] + right)
            piece = self.pieces.load(STRIPS, at)
            if piece is not None:
                strips[at] = piece
                known[at] = _known(piece, piece["where"], item.numbers[at])
        every, first = np.unique(np.concatenate([number for number, _ in known.values()]), return_index=True)
        kind = np.concatenate([kinds for _, kinds in known.values()])[first]
        ids = {
            at: np.concatenate([[0], np.searchsorted(every, number) + 1]).astype(np.int32)
            for at, (number, _) in known.items()
        }
        framed = np.zeros((core.height + 2 * depth, core.width + 2 * depth), np.int32)
        framed[depth:-depth, depth:-depth] = decode(own["runs"], core.shape, ids[item.index])
        outer = core.grown(depth)
        for at, piece in strips.items():
            other = self.source.grid.tile(at).core
            side, part = _facing(other, at[0] - item.index[0], at[1] - item.index[1], depth)
            seen = part & outer
            found = decode(piece[side], part.shape, ids[at])
            framed[seen.within(outer).slices] = found[seen.within(part).slices]
        held = np.zeros((2, len(every) + 1), np.int64)
        for total, name in zip(held, ("own", "sums"), strict=True):
            np.add.at(total, ids[item.index][1:], own[name])
        return framed, np.concatenate([[0], every]), np.concatenate([[0], kind]).astype(np.uint8), held[0], held[1]

    def _gaps(
        self, labels: NDArray[np.int32], framed: NDArray[np.int32], classes: NDArray[np.uint8], numbers: NDArray[np.int64]
    ) -> Arrays:  # fmt: skip
        """Fills the gaps that lie within the tile, in `labels`; returns those on its rim that may yet be filled."""
        none = np.empty(0, np.int64)
        left: Arrays = {"labels": np.zeros(labels.shape, np.int32), "pixels": none, "lowest": none, "highest": none}
        if self.rules.hole_pixels <= 0:
            return left
        gap, count = label((labels == 0).view(np.uint8), np.arange(256) == 1)
        pixels, lowest, highest, kept = gap_measures(gap, count, framed, classes)
        alone = (lowest == highest) | (highest == 0)
        small = ~kept & alone & (pixels < self.rules.hole_pixels)
        rim = np.zeros(count + 1, np.bool_)
        for side in (gap[0], gap[-1], gap[:, 0], gap[:, -1]):
            rim[side] = True
        within = np.flatnonzero(small & ~rim[1:] & (highest > 0))
        fill = np.zeros(count + 1, np.int32)
        fill[within + 1] = highest[within]
        labels += fill[gap]
        asked = np.flatnonzero(small & rim[1:])
        place = np.zeros(count + 1, np.int32)
        place[asked + 1] = np.arange(len(asked)) + 1
        left["labels"], left["pixels"] = place[gap], pixels[asked]
        left["highest"] = numbers[highest[asked]]
        left["lowest"] = np.where(highest[asked] > 0, left["highest"], np.iinfo(np.int64).max)
        return left


def _known(piece: Arrays, where: NDArray[np.int64], sent: NDArray[np.int64]) -> Numbered:
    number = piece["number"].copy()
    number[where >= 0] = sent[where[where >= 0]]
    return number, piece["kind"]


def _facing(other: Window, down: int, right: int, depth: int) -> tuple[str, Window]:
    """The strip of a neighbour that lies towards the tile: its name, and where it is."""
    height, width = min(depth, other.height), min(depth, other.width)
    if down:
        row = other.row_stop - height if down < 0 else other.row
        return ("bottom" if down < 0 else "top"), Window(row, other.col, height, other.width)
    col = other.col_stop - width if right < 0 else other.col
    return ("right" if right < 0 else "left"), Window(other.row, col, other.height, width)
