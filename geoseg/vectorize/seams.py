"""Components that reach a tile's rim, united over the seams: all that must be known of the whole raster at a time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import TileGrid
from geoseg.pieces import Arrays, Pieces

Index = tuple[int, int]

RIM = "rims"
"""The kind of pieces that the first pass leaves."""

SIDES: dict[str, tuple[tuple[Any, Any], Index, str]] = {
    "top": ((0, slice(None)), (-1, 0), "bottom"),
    "bottom": ((-1, slice(None)), (1, 0), "top"),
    "left": ((slice(None), 0), (0, -1), "right"),
    "right": ((slice(None), -1), (0, 1), "left"),
}
"""The sides of a tile: index of its own rim, step to the neighbour, name of the neighbour's facing side."""


def rim_pieces(labels: NDArray[np.int32], measures: Arrays) -> Arrays:
    """What is kept of a tile's components: those that reach its rim.

    Args:
        labels: (row, col) labels of the core, 0 for none.
        measures: by name, one row a component; `first` in scene pixels.

    Returns:
        `labels` (n,) that occur on the rim, ascending; their `measures`; for each side the places (1..n, 0 for none) along
        it as runs.
    """
    sides = {side: labels[rim] for side, (rim, _, _) in SIDES.items()}
    found = np.unique(np.concatenate(list(sides.values())))
    found = found[found > 0]
    out: Arrays = {name: values[found - 1] for name, values in measures.items()}
    out["labels"] = found
    for side, values in sides.items():
        out[side] = as_runs(np.where(values > 0, np.searchsorted(found, values) + 1, 0))
    return out


def as_runs(values: NDArray[Any]) -> NDArray[np.int32]:
    """(run, 2) value and length of a line of values."""
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    return np.stack([values[starts], np.diff(starts, append=len(values))], axis=1).astype(np.int32)


def spread(runs: NDArray[np.int32]) -> NDArray[np.int32]:
    """The line of values that `as_runs` was given."""
    return np.repeat(runs[:, 0], runs[:, 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceItem:
    """What the second pass must be told about a tile."""

    index: Index
    numbers: NDArray[np.int64]
    """(n,) final number of each component on its rim, in order of their labels; 0 where the object is left out."""
    crossing: NDArray[np.bool_]
    """(n,) True where the object goes on beyond the tile."""
    outside: dict[str, NDArray[np.int64]]
    """By side: (run, 2) final number and length along the neighbour's pixels; absent where there is no neighbour."""
    corners: tuple[int, int, int, int]
    """Final numbers of the pixels diagonally outside: upper left, upper right, lower left, lower right."""

    def frame(self, inner: NDArray[np.int64]) -> NDArray[np.int64]:
        """(row + 2, col + 2) the tile's numbers with those of its neighbours around."""
        framed = np.zeros((inner.shape[0] + 2, inner.shape[1] + 2), np.int64)
        framed[1:-1, 1:-1] = inner
        places: dict[str, tuple[Any, Any]] = {
            "top": (0, slice(1, -1)), "bottom": (-1, slice(1, -1)), "left": (slice(1, -1), 0), "right": (slice(1, -1), -1)
        }  # fmt: skip
        for side, runs in self.outside.items():
            framed[places[side]] = np.repeat(runs[:, 0], runs[:, 1])
        framed[0, 0], framed[0, -1], framed[-1, 0], framed[-1, -1] = self.corners
        return framed


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """The union of all components that reach a rim. Grows with the seams, by 34 bytes a component (170 while they are
    united), and not with pixels."""

    grid: TileGrid
    pieces: Pieces
    starts: dict[Index, int]
    """By tile that holds components, in order: where those on its rim begin among all."""
    numbers: NDArray[np.int64]
    """(component,) final number: 1 + the position of the object's first pixel in the scene; 0 where it is left out."""
    crossing: NDArray[np.bool_]
    """(component,) True where its object has parts in several tiles."""
    objects: Arrays
    """The objects that cross seams, by `number` ascending, with their measures and their last `row` of tiles."""
    _read: OrderedDict[Index, Arrays] = field(default_factory=OrderedDict, repr=False)
    """The pieces used last: items are made row by row of tiles."""

    def item(self, index: Index) -> TraceItem:
        """What the second pass needs for a tile."""
        own = self._piece(index)
        numbers = self._numbers(index, own)
        outside = {}
        for side, (_, (down, right), facing) in SIDES.items():
            at = (index[0] + down, index[1] + right)
            other = self._piece(at)
            if other is not None:
                runs = other[facing].astype(np.int64)
                runs[:, 0] = np.concatenate([[0], self._numbers(at, other)])[runs[:, 0]]
                outside[side] = runs
        start = self.starts.get(index, 0)
        return TraceItem(
            index=index, numbers=numbers, crossing=self.crossing[start : start + len(numbers)], outside=outside,
            corners=(
                self._corner(index, -1, -1), self._corner(index, -1, 1), self._corner(index, 1, -1), self._corner(index, 1, 1)
            ),
        )  # fmt: skip

    def _corner(self, index: Index, down: int, right: int) -> int:
        at = (index[0] + down, index[1] + right)
        other = self._piece(at)
        if other is None:
            return 0
        place = int(other["bottom" if down < 0 else "top"][-1 if right < 0 else 0, 0])
        return int(self._numbers(at, other)[place - 1]) if place else 0

    def _piece(self, index: Index) -> Arrays | None:
        if index not in self.starts:
            return None
        if index not in self._read:
            piece = self.pieces.load(RIM, index)
            assert piece is not None, "a piece that was there a moment ago is gone"
            self._read[index] = piece
            if len(self._read) > 3 * len(self.grid.tile_range[1]) + 3:
                self._read.popitem(last=False)
        return self._read[index]

    def _numbers(self, index: Index, piece: Arrays | None) -> NDArray[np.int64]:
        if piece is None:
            return np.empty(0, np.int64)
        start = self.starts[index]
        return self.numbers[start : start + len(piece["labels"])]


def numbered(first: NDArray[np.int64], grid: TileGrid) -> NDArray[np.int64]:
    """(object,) final numbers: 1 + the position of the first pixel (row, col) in the scene, in row-major order."""
    return np.asarray(first[:, 0] * np.int64(grid.shape[1]) + first[:, 1] + 1, np.int64)
