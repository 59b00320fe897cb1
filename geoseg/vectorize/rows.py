"""Objects from the pieces of tiles: parts joined, and everything in order of first pixels, a row of tiles at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import TileGrid
from geoseg.kernels.outline import Chains
from geoseg.pieces import Arrays, Pieces
from geoseg.results import PER_OBJECT, Outlines
from geoseg.vectorize.rings import assemble
from geoseg.vectorize.seams import Seams, numbered
from geoseg.vectorize.simplify import CornerTiles, simplified_row

WHOLE, PART, JOINED = "whole", "parts", "joined"
"""Kinds of pieces: objects within a tile; chains of objects that go on beyond it; those objects, whole, by the row of tiles
that they begin in and the one that they end in."""

LINE_SUMS = ("sides", "opened", "support")
"""What is summed along outlines, and known only when all parts of an object are traced."""

AT_ONCE = 5000
"""Objects that are handed out at a time."""


def whole_pieces(chains: Chains, numbers: NDArray[np.int64], measures: Arrays) -> Arrays:
    """The objects with these `numbers` (ascending), which lie in one tile, as the arrays of Outlines."""
    return _outlined([_chosen(chains, numbers)], numbers, measures)


def part_pieces(chains: Chains, numbers: NDArray[np.int64], sums: Arrays) -> Arrays:
    """The chains of the objects with these numbers, in any order and more than once, and their LINE_SUMS in this tile."""
    part = _chosen(chains, np.unique(numbers))
    return {name: np.asarray(getattr(part, name)) for name in Chains.__slots__} | sums | {"numbers": numbers}


def joined_objects(seams: Seams) -> None:
    """Joins the parts of objects that cross seams, and keeps them as soon as their last row of tiles is there.

    Holds the objects that are under way, of which a row of tiles has few.
    """
    grid, pieces, objects = seams.grid, seams.pieces, seams.objects
    under_way: list[Chains] = []
    along = {name: np.zeros(len(objects["number"]), np.int64) for name in LINE_SUMS}
    for row in grid.tile_range[0]:
        for col in grid.tile_range[1]:
            arrays = pieces.load(PART, (row, col))
            if arrays is not None and len(arrays["numbers"]):
                at = np.searchsorted(objects["number"], arrays.pop("numbers"))
                for name, sums in along.items():
                    np.add.at(sums, at, arrays.pop(name))
                under_way.append(Chains(**_scaled(arrays)))
        ended = np.flatnonzero(objects["row"] == row)
        if not len(ended):
            continue
        begun = (objects["first"][ended, 0] - grid.phase[0]) // grid.tile_size
        for start in np.unique(begun):
            chosen = ended[begun == start]
            numbers = objects["number"][chosen]
            arrays = _outlined(
                [_chosen(part, numbers) for part in under_way],
                numbers,
                {name: (objects | along)[name][chosen] for name in PER_OBJECT},
            )
            pieces.save(JOINED, (int(start), row), arrays)
        rest = np.delete(objects["number"], np.flatnonzero(objects["row"] <= row))
        under_way = [part for part in (_chosen(part, rest) for part in under_way) if len(part)]


def rows_of_objects(grid: TileGrid, pieces: Pieces, *, tolerance: float = 0) -> Iterator[Outlines]:
    """All objects in order of their first pixels, some thousands at a time, simplified with a tolerance above 0."""
    corners = CornerTiles(grid=grid, pieces=pieces)
    for row in grid.tile_range[0]:
        found = [pieces.load(WHOLE, (row, col)) for col in grid.tile_range[1]]
        found += [pieces.load(JOINED, index) for index in pieces.second(JOINED, row)]
        parts = [Outlines(**_scaled(arrays)) for arrays in found if arrays is not None and len(arrays["kind"])]
        if not parts:
            continue
        objects = Outlines.joined(parts)
        del found, parts
        if tolerance > 0:
            objects = simplified_row(objects, corners, tolerance=tolerance)
        order = np.argsort(numbered(objects.first, grid))
        for start in range(0, len(order), AT_ONCE):
            yield objects.taken(order[start : start + AT_ONCE])


def _outlined(chains: list[Chains], numbers: NDArray[np.int64], measures: Arrays) -> Arrays:
    """The arrays of Outlines for objects whose chains are all there."""
    vertices, junction, rings, objects = assemble(chains, numbers)
    return {
        **{name: measures[name] for name in PER_OBJECT}, "vertices": vertices, "junction": junction, "rings": rings,
        "objects": objects, "scale": np.array(max((part.scale for part in chains), default=1)),
    }  # fmt: skip


def _scaled(arrays: Arrays) -> dict[str, Any]:
    """Arrays as they were kept, ready for Chains or Outlines."""
    return {**arrays, "scale": int(arrays["scale"])}


def _chosen(chains: Chains, numbers: NDArray[np.int64]) -> Chains:
    """The chains of the objects with these numbers (ascending)."""
    if not len(numbers) or not len(chains):
        keep = np.zeros(len(chains), np.bool_)
    else:
        at = np.minimum(np.searchsorted(numbers, chains.labels), len(numbers) - 1)
        keep = numbers[at] == chains.labels
    return chains.taken(np.flatnonzero(keep))
