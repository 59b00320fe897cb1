"""Hysteresis over the whole scene: weak pixels count where they are connected to a strong one, in whatever tile that lies.

Two passes over the tiles. The first labels each tile's candidates (weak or strong) and hands over those on its rim; between
the passes they are united over the seams. The second labels again and writes the decided probabilities into a store of
their own, so that a run that was interrupted goes on with the tiles that are missing there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geoseg.disk import room_for
from geoseg.grid import TileGrid
from geoseg.kernels.label import roots, unite
from geoseg.kernels.runs import encode
from geoseg.results import NODATA, PROBABILITY_MAX
from geoseg.spec import Hysteresis
from geoseg.stitch.journal import Journal, TileRecord
from geoseg.stitch.store import MaskStore

Index = tuple[int, int]

SIDES: dict[str, tuple[Any, Any]] = {
    "top": (0, slice(None)), "bottom": (-1, slice(None)), "left": (slice(None), 0), "right": (slice(None), -1)
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rim:
    """The components of a tile's candidates that reach its rim."""

    index: Index
    strong: NDArray[np.bool_]
    """(n,) whether a component holds a strong pixel, in order of their labels."""
    sides: Mapping[str, NDArray[np.int32]]
    """By side: (run, 2) component 1..n, 0 for none, and length."""

    def along(self, side: str) -> NDArray[np.int64]:
        """(pixel,) component 1..n along a side, 0 for none."""
        runs = self.sides[side].astype(np.int64)
        return np.repeat(runs[:, 0], runs[:, 1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkItem:
    """What the second pass must be told about a tile."""

    index: Index
    linked: NDArray[np.bool_]
    """(n,) whether a component on its rim is connected to a strong pixel somewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCandidates:
    """The first pass."""

    source: MaskStore
    rule: Hysteresis

    def __call__(self, index: Index) -> Rim:
        stored = self.source.probabilities(self.source.grid.tile(index).core)[self.rule.channel]
        labels, strong = components(stored, self.rule)
        found = _on_rim(labels)
        places = np.zeros(len(strong), np.int32)
        places[found] = np.arange(1, len(found) + 1)
        sides = {side: encode(places[labels[at]]) for side, at in SIDES.items()}
        return Rim(index=index, strong=strong[found], sides=sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTile:
    """The second pass."""

    source: MaskStore
    target: MaskStore
    rule: Hysteresis
    journal: Journal

    def __call__(self, item: LinkItem) -> TileRecord:
        begun = time.perf_counter()
        tile = self.source.grid.tile(item.index)
        every = self.source.probabilities(tile.core)
        stored, valid = every[self.rule.channel], every[0] != NODATA
        labels, linked = components(stored, self.rule)
        linked[_on_rim(labels)] = item.linked
        decided = settled(stored, linked[labels], self.rule)
        every[self.rule.channel][valid] = decided[valid]
        every[self.rule.other][valid] = PROBABILITY_MAX - decided[valid]
        mask = np.where(valid, every.argmax(axis=0).astype(np.uint8), np.uint8(NODATA))
        with room_for(self.target.path):
            self.target.write(tile, mask, every)
        record = TileRecord(
            index=item.index, valid=int(valid.sum()), patches=0, model_pixels=0,
            write_s=round(time.perf_counter() - begun, 4),
        )  # fmt: skip
        with room_for(self.journal.folder):
            self.journal.append(record)
        return record


def components(stored: NDArray[np.uint8], rule: Hysteresis) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Connected candidates of an array.

    Args:
        stored: (row, col) stored probabilities of the class, 255 where there is no data.
        rule: says what is weak and strong.

    Returns:
        (row, col) labels, 0 for none; and (label + 1,) whether a component holds a strong pixel.
    """
    data = stored != NODATA
    structure = np.ones((3, 3)) if rule.diagonal else None
    labels, count = ndimage.label((stored >= rule.low) & data, structure)
    strong = np.zeros(count + 1, np.bool_)
    strong[labels[(stored >= rule.high) & data]] = True
    return labels.astype(np.int32, copy=False), strong


def settled(stored: NDArray[np.uint8], linked: NDArray[np.bool_], rule: Hysteresis) -> NDArray[np.uint8]:
    """(row, col) stored probabilities without weak ones: raised where `linked` (row, col) is True, else lowered."""
    weak = (stored >= rule.low) & (stored < rule.high)
    return np.where(weak, np.where(linked, np.uint8(rule.high), np.uint8(rule.low - 1)), stored)


def link_items(
    grid: TileGrid, rims: Mapping[Index, Rim], rule: Hysteresis, wanted: Iterable[Index]
) -> Iterator[LinkItem]:
    """What the tiles `wanted` must be told, from the rims of all tiles. Memory grows with the seams, not with pixels."""
    starts, count = dict[Index, int](), 0
    for index, rim in rims.items():
        starts[index] = count
        count += len(rim.strong)
    parent = np.arange(count, dtype=np.int64)
    rows, cols = grid.tile_range
    for index in rims:
        row, col = index
        for down, right, side, facing in ((0, 1, "right", "left"), (1, 0, "bottom", "top")):
            other = (row + down, col + right)
            if other in rims:
                _meet(parent, rims, starts, (index, side), (other, facing), rule)
        if rule.diagonal and row + 1 in rows:
            for right, here, there in ((1, -1, 0), (-1, 0, -1)):
                if col + right in cols:
                    below = (row + 1, col + right)
                    a, b = rims[index].along("bottom")[here], rims[below].along("top")[there]
                    _unite(parent, np.array([a]), starts[index], np.array([b]), starts[below])
    root = roots(parent)
    strong = np.zeros(count, np.bool_)
    every = np.concatenate([rim.strong for rim in rims.values()]) if rims else strong
    strong[root[every]] = True
    linked = strong[root]
    for index in wanted:
        start = starts[index]
        yield LinkItem(index=index, linked=linked[start : start + len(rims[index].strong)])


def _meet(
    parent: NDArray[np.int64], rims: Mapping[Index, Rim], starts: Mapping[Index, int],
    one: tuple[Index, str], other: tuple[Index, str], rule: Hysteresis,
) -> None:  # fmt: skip
    """Unites what touches along the seam between two tiles."""
    (index, side), (at, facing) = one, other
    a, b = rims[index].along(side), rims[at].along(facing)
    _unite(parent, a, starts[index], b, starts[at])
    if rule.diagonal:
        _unite(parent, a[1:], starts[index], b[:-1], starts[at])
        _unite(parent, a[:-1], starts[index], b[1:], starts[at])


def _unite(parent: NDArray[np.int64], a: NDArray[np.int64], first: int, b: NDArray[np.int64], second: int) -> None:
    both = (a > 0) & (b > 0)
    unite(parent, a[both] - 1 + first, b[both] - 1 + second)


def _on_rim(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Labels on the rim, ascending."""
    found = np.unique(np.concatenate([labels[at] for at in SIDES.values()]))
    return found[found > 0]
