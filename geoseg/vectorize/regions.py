"""Regions: what a first pass finds in each tile, and their numbers in the scene.

A region is a set of pixels that belongs to one object. Of most regions a tile knows all by itself; those that it must ask
about are `sent`, and a method of its own says over all tiles which of them belong together. An object's number is
1 + the place of its first pixel in the scene, so that a tile numbers by itself what it knows all of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import TileGrid, Window
from geoseg.kernels.label import border_pairs, label, label_sums, roots, unite
from geoseg.kernels.runs import encode
from geoseg.pieces import Arrays, Pieces
from geoseg.protocols import ClassSource, ObjectSource
from geoseg.vectorize.seams import SIDES, Index, as_runs, spread

REGIONS, STRIPS, LINKS = "regions", "strips", "links"
"""Kinds of pieces: the regions of a tile; those along its sides; what the union of the sent ones needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The final numbers of the regions that were sent. 8 bytes each."""

    starts: dict[Index, int]
    """By tile that sent some, in order: where they begin."""
    values: NDArray[np.int64]
    counts: dict[Index, int]

    @classmethod
    def none(cls) -> Numbers:
        return cls(starts={}, values=np.empty(0, np.int64), counts={})

    def of(self, index: Index) -> NDArray[np.int64]:
        """Those of a tile, in the order of its regions."""
        start = self.starts.get(index, 0)
        return self.values[start : start + self.counts.get(index, 0)]


def save_regions(
    pieces: Pieces, index: Index, core: Window, labels: NDArray[np.int32], *, first: NDArray[np.int64],
    classes: NDArray[np.uint8], stored: NDArray[np.uint8], sent: NDArray[np.int64], links: Arrays, width: int, depth: int,
) -> None:  # fmt: skip
    """Keeps what a tile found.

    Args:
        pieces: where.
        index: of the tile.
        core: of the tile.
        labels: (row, col) regions 1..n of the core, 0 for none.
        first: (n,) place row * columns + col, in the core, of the first pixel.
        classes: (row, col) class ids; stored: (channel, row, col) stored probabilities.
        sent: (m,) labels that are sent, ascending.
        links: what the union needs of them.
        width: columns of the scene.
        depth: pixels along the sides that neighbours need to know.
    """
    kind = classes.reshape(-1)[first]
    own, sums = label_sums(labels, len(first), classes, stored)
    rows, cols = first // core.width + core.row, first % core.width + core.col
    number = rows * np.int64(width) + cols + 1
    where = np.full(len(number) + 1, -1, np.int64)
    where[sent] = np.arange(len(sent))
    strips = {
        "top": labels[:depth], "bottom": labels[-depth:], "left": labels[:, :depth], "right": labels[:, -depth:]
    }  # fmt: skip
    pieces.save(STRIPS, index, {
        **{side: encode(part) for side, part in strips.items()},
        "number": number, "kind": kind, "where": where[1:],
    })  # fmt: skip
    if len(sent):
        pieces.save(LINKS, index, links)
    # Last, as it tells that the tile is done.
    pieces.save(
        REGIONS, index,
        {"runs": encode(labels), "number": number, "kind": kind, "own": own, "sums": sums, "sent": sent},
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTile:
    """First pass of the method `components`: 4-connected pixels of one class, or of one object; those on the tile's rim are
    sent."""

    source: ClassSource
    wanted: tuple[int, ...]
    pieces: Pieces
    depth: int

    def __call__(self, index: Index) -> Index:
        core = self.source.grid.tile(index).core
        stored, classes = self.source.probabilities(core), self.source.classes(core)
        table = np.zeros(256, np.bool_)
        table[list(self.wanted)] = True
        values: NDArray[Any] = np.ascontiguousarray(classes)
        objects = self.source.objects(index) if isinstance(self.source, ObjectSource) else None
        if objects is not None:  # what touches is not one for that
            values, table = np.where(table[classes], objects, np.int32(0)), np.empty(0, np.bool_)
        labels, count = label(values, table)
        first = first_places(labels, count)
        value = values.reshape(-1)[first].astype(np.int64)
        sides = {side: labels[rim] for side, (rim, _, _) in SIDES.items()}
        sent = np.unique(np.concatenate(list(sides.values())))
        sent = sent[sent > 0].astype(np.int64)
        places = np.zeros(count + 1, np.int64)
        places[sent] = np.arange(len(sent)) + 1
        links: Arrays = {side: as_runs(places[values]) for side, values in sides.items()}
        save_regions(
            self.pieces, index, core, labels, first=first, classes=classes, stored=stored, sent=sent,
            links=links | {"value": value[sent - 1], "first": first[sent - 1]},
            width=self.source.grid.shape[1], depth=self.depth,
        )  # fmt: skip
        return index


def first_places(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """(count,) place row * columns + col of the first pixel of each label."""
    runs = encode(labels)
    starts = np.cumsum(runs[:, 1], dtype=np.int64) - runs[:, 1]
    first = np.full(count + 1, -1, np.int64)
    first[runs[::-1, 0]] = starts[::-1]
    return first[1:]


def united_components(grid: TileGrid, pieces: Pieces) -> Numbers:
    """Components of one class, or of one object, that touch across a seam are one."""
    starts: dict[Index, int] = {}
    counts: dict[Index, int] = {}
    firsts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    pairs: list[NDArray[np.int64]] = []
    above: dict[Index, Arrays] = {}
    count = 0
    for row in grid.tile_range[0]:
        here: dict[Index, Arrays] = {}
        for index in ((row, col) for col in grid.tile_range[1]):
            piece = pieces.load(LINKS, index)
            if piece is None:
                continue
            here[index], starts[index], counts[index] = piece, count, len(piece["value"])
            count += counts[index]
            firsts.append(in_scene(piece["first"], grid, index))
            for side, neighbours in (("top", above), ("left", here)):
                _, (down, right), facing = SIDES[side]
                at = (row + down, index[1] + right)
                if at in neighbours:
                    found = _touching(piece, side, neighbours[at], facing)
                    pairs.append(found + np.array([starts[index], starts[at]]))
        above = here
    parent = np.arange(count, dtype=np.int64)
    for some in pairs:
        unite(parent, some[:, 0], some[:, 1])
    return Numbers(starts=starts, counts=counts, values=least_first(np.concatenate(firsts), roots(parent)))


def in_scene(first: NDArray[np.int64], grid: TileGrid, index: Index) -> NDArray[np.int64]:
    """Numbers of places row * columns + col in the core of a tile."""
    core = grid.tile(index).core
    return (first // core.width + core.row) * np.int64(grid.shape[1]) + first % core.width + core.col + 1


def least_first(first: NDArray[np.int64], root: NDArray[np.int64]) -> NDArray[np.int64]:
    """(region,) the least of `first` over all regions with the same root."""
    least = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(least, root, first)
    return least[root]


def _touching(piece: Arrays, side: str, other: Arrays, facing: str) -> NDArray[np.int64]:
    """(pair, 2) places, from 0, of regions of one class or object that touch across a seam."""
    a, b = spread(piece[side]), spread(other[facing])
    value, its = (np.concatenate([[0], one["value"]]) for one in (piece, other))
    return border_pairs(a, b, value[a], its[b]) - 1
