"""Simplified outlines of objects: their arcs thinned among the vertices of all outlines around them, from tiles on disk."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import TileGrid
from geoseg.kernels.simplify import Corners, near_tiles, sorted_corners, staying
from geoseg.pieces import Arrays, Pieces
from geoseg.results import PER_OBJECT, Outlines
from geoseg.vectorize.rings import ordered

CORNERS = "corners"
"""The kind of pieces that hold the vertices of a tile's outlines: `vertices` (n, 2) in the scene, `sides` (n,)."""

CELL = 8
"""Side in pixels of the cells that vertices are sorted into."""

ACROSS = 4
"""Columns of tiles whose objects are simplified at a time, which bounds the vertices in memory; never decides the result."""

KEPT = 3 * (ACROSS + 2)
"""Tiles whose vertices are kept for the next objects."""

Index = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CornerTiles:
    """The vertices of all outlines, tile by tile on disk; those of the tiles that were used last are kept in memory."""

    grid: TileGrid
    pieces: Pieces
    _read: OrderedDict[Index, Arrays | None] = field(default_factory=OrderedDict, repr=False)

    def around(self, outlines: Outlines, *, reach: float) -> Corners:
        """At least all vertices within `reach` pixels of some outlines, of which there is one or more."""
        wanted = self._tiles(outlines, reach=reach)
        found = [piece for piece in map(self._piece, wanted) if piece is not None]
        while len(self._read) > KEPT:
            self._read.popitem(last=False)
        vertices, sides = (np.concatenate([piece[name] for piece in found]) for name in ("vertices", "sides"))
        return sorted_corners(vertices, sides, size=CELL * outlines.scale)

    def _tiles(self, outlines: Outlines, *, reach: float) -> list[Index]:
        (rows, cols), hull, scale = self.grid.tile_range, self.grid.hull, outlines.scale
        found = np.zeros((len(rows), len(cols)), np.bool_)
        # A smooth outline's vertex may lie less than a pixel outside the tile that has made it.
        near_tiles(
            outlines.vertices, outlines.rings, hull.row * scale, hull.col * scale, self.grid.tile_size * scale,
            math.ceil(reach + 1) * scale, found,
        )  # fmt: skip
        return [(rows[i], cols[j]) for i, j in np.argwhere(found).tolist()]

    def _piece(self, index: Index) -> Arrays | None:
        if index not in self._read:
            self._read[index] = self.pieces.load(CORNERS, index)
        self._read.move_to_end(index)
        return self._read[index]


def corner_pieces(vertices: NDArray[np.int32], sides: NDArray[np.uint8]) -> Arrays:
    """What a tile leaves: its outlines' vertices in the scene, as kernels.outline.corners gives them."""
    return {"vertices": vertices, "sides": sides}


def simplified_row(outlines: Outlines, corners: CornerTiles, *, tolerance: float) -> Outlines:
    """The objects of a row of tiles, simplified some columns of tiles at a time; in another order."""
    grid = corners.grid
    of = (outlines.first[:, 1] - grid.phase[1]) // (grid.tile_size * ACROSS)
    some = (outlines.taken(np.flatnonzero(of == at)) for at in np.unique(of))
    return Outlines.joined([simplified(part, corners, tolerance=tolerance) for part in some])


def simplified(outlines: Outlines, corners: CornerTiles, *, tolerance: float) -> Outlines:
    """The same objects with fewer vertices, none farther than `tolerance` pixels from the outlines before, nor those from them.

    Neighbours keep the same vertices, whatever objects come together in `outlines`: see kernels.simplify.
    """
    if not len(outlines):
        return outlines
    stay = staying(
        outlines.vertices, outlines.junction, outlines.rings, corners.around(outlines, reach=2 * tolerance),
        tolerance=tolerance * outlines.scale, edge=5 * outlines.scale // 4 if outlines.scale > 1 else 0,
    )  # fmt: skip
    starts = np.concatenate([[0], np.cumsum(stay)])[outlines.rings]
    numbers = np.arange(len(outlines))
    vertices, junction, rings, objects = ordered(
        outlines.vertices[stay], outlines.junction[stay], starts, np.repeat(numbers, np.diff(outlines.objects)), numbers
    )
    return Outlines(
        **{name: getattr(outlines, name) for name in PER_OBJECT}, vertices=vertices, junction=junction, rings=rings,
        objects=objects, scale=outlines.scale,
    )  # fmt: skip
