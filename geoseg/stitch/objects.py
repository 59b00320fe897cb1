"""Objects that patches found one by one, put together over the scene: each comes out once, whole, whatever the tiles.

Patches overlap, so that an object near a seam is seen by several. Views of different patches are one object where they agree on
what both patches see. Of the views of one object the best is kept: one that sees all of it and has its first pixel in its own
cell, then any that sees all of it, by score; and parts of objects that no patch sees whole are joined.

Three passes over the tiles: what patches saw is kept (`Views`); which views agree is found between near tiles; and, after it is
settled over the whole scene what becomes of each, objects are painted, those of the highest score on top.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from geoseg.disk import room_for
from geoseg.errors import RunError
from geoseg.grid import Tile, TileGrid, Window
from geoseg.kernels.label import roots, unite
from geoseg.pieces import Pieces
from geoseg.results import NODATA, PROBABILITY_MAX
from geoseg.stitch.journal import Journal, TileRecord
from geoseg.stitch.store import MaskStore
from geoseg.stitch.views import CUT, Views, agreement

Index = tuple[int, int]

AT_A_TIME = 256
"""Views that are compared with all of a tile at a time."""

VIEWS, VALID = "views", "valid"
"""Kinds of pieces that the first pass leaves: what patches saw, and runs of the valid pixels of a tile's core."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Agreed:
    """What the second pass tells of a tile."""

    index: Index
    score: NDArray[np.uint8]
    sight: NDArray[np.uint8]
    first: NDArray[np.int64]
    cell: NDArray[np.int64]
    """Of its views, see Views."""
    pairs: Mapping[Index, NDArray[np.int64]]
    """By tile, itself or a later one: (pair, 2) views, of this tile and of that one, that are one object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareViews:
    """The second pass: which views of a tile agree with others of it, and with those of tiles that come later."""

    grid: TileGrid
    pieces: Pieces
    overlap: float

    def __call__(self, index: Index) -> Agreed:
        own = load_views(self.pieces, index)
        pairs: dict[Index, NDArray[np.int64]] = {}
        if len(own):
            for other in near(self.grid, index, 2 * self.grid.halo):
                if other < index:
                    continue
                theirs = own if other == index else load_views(self.pieces, other)
                found = self._pairs(own, theirs, same=other == index)
                if len(found):
                    pairs[other] = found
        return Agreed(
            index=index, score=own.score, sight=own.sight, first=own.first, cell=own.cell, pairs=pairs
        )  # fmt: skip

    def _pairs(self, own: Views, theirs: Views, *, same: bool) -> NDArray[np.int64]:
        found, ours, other = [], cache(own.mask), cache(theirs.mask)
        for i, j in _near_pairs(own, theirs):
            both_cut = own.sight[i] == CUT == theirs.sight[j]
            if (same and j <= i) or (
                both_cut and own.kind[i] != theirs.kind[j]
            ):  # parts of one object are of one class
                continue
            common = Window(*own.patch[i].tolist()) & Window(*theirs.patch[j].tolist())
            cut = CUT in (own.sight[i], theirs.sight[j])
            if agreement(own.window(i), ours(i), theirs.window(j), other(j), common, cut=cut) > self.overlap:
                found.append((i, j))
        return np.array(found, np.int64).reshape(-1, 2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaintItem:
    """What the third pass must be told about a tile."""

    index: Index
    numbers: Mapping[Index, NDArray[np.int32]]
    """By tile near it: (view,) the number of the object that each view is part of, 0 for views that are not kept. Smaller
    ones come on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaintTile:
    """The third pass: classes, scores and numbers of objects of a tile's pixels."""

    grid: TileGrid
    """Of the first pass, which may reach beyond the area of interest."""
    found: Pieces
    """What the first pass left."""
    target: MaskStore
    journal: Journal
    clip: Callable[[Window], NDArray[np.bool_]] | None = None
    """The area of interest: True inside it, for any window in scene pixels."""

    def __call__(self, item: PaintItem) -> TileRecord:
        begun = time.perf_counter()
        tile = self.target.grid.tile(item.index)
        valid = self._valid(tile)
        numbers, kind, score = painted(tile.core, item.numbers, self.found)
        numbers[~valid] = 0
        mask = np.where(numbers > 0, kind, np.uint8(0))
        probabilities = np.zeros((self.target.channels, *mask.shape), np.uint8)
        probabilities[0] = PROBABILITY_MAX - score
        for channel in range(1, self.target.channels):
            probabilities[channel] = np.where(mask == channel, score, np.uint8(0))
        probabilities[:, ~valid] = NODATA
        mask[~valid] = NODATA
        with room_for(self.target.path):
            self.target.write(tile, mask, probabilities, numbers)
        record = TileRecord(
            index=item.index, valid=int(valid.sum()), patches=0, model_pixels=0,
            write_s=round(time.perf_counter() - begun, 4),
        )  # fmt: skip
        with room_for(self.journal.folder):
            self.journal.append(record)
        return record

    def _valid(self, tile: Tile) -> NDArray[np.bool_]:
        """(row, col) of the core."""
        kept = self.found.load(VALID, tile.index)
        whole = self.grid.tile(tile.index).core
        if kept is None:
            raise RunError(f"{self.found.folder} has lost tile {tile.index}; --restart begins anew")
        runs = kept["runs"]
        valid = np.repeat(runs[:, 0] > 0, runs[:, 1]).reshape(whole.shape)[tile.core.within(whole).slices].copy()
        return valid if self.clip is None else valid & self.clip(tile.core)


def painted(
    core: Window, numbers: Mapping[Index, NDArray[np.int32]], found: Pieces
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.uint8]]:
    """(row, col) numbers of objects, their classes and scores; 0 for none. Of several objects the smallest number stays."""
    out = np.zeros(core.shape, np.int32)
    kind, score = np.zeros(core.shape, np.uint8), np.zeros(core.shape, np.uint8)
    every: list[tuple[int, int, tuple[int, ...], int, Index]] = []
    views: dict[Index, Views] = {}
    for index, of in numbers.items():
        views[index] = load_views(found, index)
        every += [
            (number, -int(views[index].score[i]), tuple(views[index].cell[i].tolist()), i, index)
            for i, number in enumerate(of.tolist())
            if number
        ]
    for number, _, _, i, index in sorted(every, reverse=True):
        window = views[index].window(i)
        if not (part := window & core):
            continue
        pixels = views[index].mask(i)[part.within(window).slices]
        here = part.within(core).slices
        out[here][pixels] = number
        kind[here][pixels] = views[index].kind[i]
        score[here][pixels] = views[index].score[i]
    return out, kind, score


def paint_items(grid: TileGrid, agreed: Mapping[Index, Agreed], wanted: Iterable[Index]) -> Iterator[PaintItem]:
    """What the tiles `wanted` must be told. In memory are about 250 bytes a view."""
    order = sorted(agreed)
    starts = dict(zip(order, np.cumsum([0, *(len(agreed[index].score) for index in order)]).tolist(), strict=False))
    numbers = _numbers([agreed[index] for index in order], starts)
    parts = {index: numbers[starts[index] : starts[index] + len(agreed[index].score)] for index in order}
    for index in wanted:
        near_by = {other: parts[other] for other in near(grid, index, grid.halo) if len(parts.get(other, ()))}
        yield PaintItem(index=index, numbers=near_by)


def near(grid: TileGrid, index: Index, pixels: int) -> Iterator[Index]:
    """Tiles with a pixel at most so far from a tile, it among them, in order; they may lie outside the grid."""
    reach = -(-pixels // grid.tile_size)
    for row in range(index[0] - reach, index[0] + reach + 1):
        for col in range(index[1] - reach, index[1] + reach + 1):
            yield row, col


def load_views(pieces: Pieces, index: Index) -> Views:
    """What the first pass left of a tile; nothing where it left nothing."""
    found = pieces.load(VIEWS, index)
    return Views.none() if found is None else Views(**found)


def _numbers(tiles: list[Agreed], starts: Mapping[Index, int]) -> NDArray[np.int32]:
    """(view,) numbers of objects from 1 in order of score and first pixel, 0 for views that give way to others."""
    if not tiles or not sum(len(tile.score) for tile in tiles):
        return np.empty(0, np.int32)
    sight, score, first, cell = (
        np.concatenate([getattr(tile, name) for tile in tiles]) for name in ("sight", "score", "first", "cell")
    )
    pairs = np.concatenate(
        [np.empty((0, 2), np.int64)]
        + [
            found + np.array([starts[tile.index], starts[other]])
            for tile in tiles
            for other, found in tile.pairs.items()
            if other in starts
        ]
    )
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    bounds = np.searchsorted(both[:, 0], np.arange(len(sight) + 1))
    order = np.lexsort((cell[:, 1], cell[:, 0], first[:, 1], first[:, 0], 254 - score, sight))
    whole = np.zeros(len(sight), np.bool_)
    for view in order.tolist():  # cut ones come last
        others = both[bounds[view] : bounds[view + 1], 1]
        if sight[view] != CUT:
            whole[view] = not whole[others].any()
    gives_way = np.zeros(len(sight), np.bool_)
    gives_way[both[sight[both[:, 1]] != CUT, 0]] = True
    kept = whole | ((sight == CUT) & ~gives_way)
    cut = kept & (sight == CUT)
    parent = np.arange(len(sight), dtype=np.int64)
    joined = pairs[cut[pairs].all(axis=1)]
    unite(parent, joined[:, 0], joined[:, 1])
    root = roots(parent)
    best, least = np.zeros(len(sight), np.int64), np.full(len(sight), np.iinfo(np.int64).max)
    place = first[:, 0] << 32 | first[:, 1]
    np.maximum.at(best, root[kept], score[kept])
    np.minimum.at(least, root[kept], place[kept])
    objects = np.unique(root[kept])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    foremost = np.full(len(sight), len(order))
    np.minimum.at(foremost, root[kept], rank[kept])
    objects = objects[np.lexsort((foremost[objects], least[objects], -best[objects]))]
    number = np.zeros(len(sight), np.int32)
    number[objects] = np.arange(1, len(objects) + 1)
    return np.where(kept, number[root], np.int32(0))


def _near_pairs(own: Views, theirs: Views) -> Iterator[tuple[int, int]]:
    """Views of different cells whose boxes intersect."""
    for start in range(0, len(own), AT_A_TIME):
        part = slice(start, start + AT_A_TIME)
        apart = (own.cell[part, None] != theirs.cell[None]).any(axis=2)
        a, b = np.nonzero(_meeting(own.box[part], theirs.box) & apart)
        yield from zip((a + start).tolist(), b.tolist(), strict=True)


def _meeting(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(a, b) True where boxes (n, 4) intersect."""
    rows, cols = (
        (a[:, None, axis] < (b[:, axis] + b[:, axis + 2])[None])
        & (b[None, :, axis] < (a[:, axis] + a[:, axis + 2])[:, None])
        for axis in (0, 1)
    )
    return np.asarray(rows & cols)
