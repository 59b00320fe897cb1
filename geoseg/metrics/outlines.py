"""Outlines as lines, as points along them, and the distances between the two.

Distances are exact from a point to the other outline; only the points are a sample: the middles of equal pieces of each
ring, so that sums over them are integrals along the outline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Seen = Callable[[NDArray[np.float64]], NDArray[np.bool_]]
"""(point, 2) coordinates to (point,), True where what lies there counts."""

MAX_POINTS = 500_000
"""Points along all outlines of one layer; the step grows where there would be more."""

LEAST_POINTS = 8
"""Points on each ring, however short it is."""

PIECE = 16
"""Edges of an outline that are looked up together."""

LONG = 512
"""Edges from which on an outline is looked up in pieces."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rings:
    """All rings of a layer, shells and holes alike."""

    xy: NDArray[np.float64]
    """(vertex, 2), ring after ring; the first vertex of a ring is repeated as its last."""
    ring: NDArray[np.intp]
    """(vertex,) number of its ring, ascending."""
    owner: NDArray[np.intp]
    """(ring,) the object it belongs to, ascending."""

    @classmethod
    def of(cls, polygons: NDArray[Any]) -> Rings:
        """Rings of (object,) polygons and multipolygons."""
        import shapely

        parts, of_object = shapely.get_parts(polygons, return_index=True)
        rings, of_part = shapely.get_rings(parts, return_index=True)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        return cls(xy=xy, ring=np.asarray(ring, dtype=np.intp), owner=np.asarray(of_object[of_part], dtype=np.intp))

    @property
    def length(self) -> NDArray[np.float64]:
        """(ring,) lengths."""
        edge, ring = self._edges()
        return sums(ring, edge, self.owner.size)

    def _edges(self) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Lengths of the edges, and the ring of each."""
        inside = self.ring[1:] == self.ring[:-1]
        return np.hypot(*np.diff(self.xy, axis=0).T)[inside], self.ring[1:][inside]

    def vertices(self) -> Points:
        """Each vertex once, all of the same weight."""
        first = np.ones(self.ring.size, dtype=np.bool_)
        first[1:] = self.ring[1:] != self.ring[:-1]
        return Points(xy=self.xy[~first], owner=self.owner[self.ring[~first]], weight=np.ones(int((~first).sum())))

    def points(self, step: float) -> Points:
        """The middles of equal pieces, at most `step` long, and at least LEAST_POINTS a ring."""
        edge, of_ring = self._edges()
        length = sums(of_ring, edge, self.owner.size)
        count = np.where(length > 0, np.maximum(np.ceil(length / step), LEAST_POINTS), 0).astype(np.intp)
        ring = np.repeat(np.arange(count.size), count)
        piece = np.divide(length, count, out=np.zeros_like(length), where=count > 0)
        before = np.concatenate([[0], np.cumsum(count)])
        along = (np.arange(ring.size) - before[ring] + 0.5) * piece[ring]
        # One long road over all rings: where a ring begins on it, and where each edge ends.
        end = np.cumsum(edge)
        begin = np.concatenate([[0.0], np.cumsum(length)])
        first_edge = np.searchsorted(of_ring, np.arange(count.size + 1))
        at = np.searchsorted(end, begin[ring] + along, side="left")
        at = np.clip(at, first_edge[ring], first_edge[ring + 1] - 1)
        start = np.flatnonzero(self.ring[1:] == self.ring[:-1])[at]
        rest = end[at] - (begin[ring] + along)
        share = np.clip(1 - np.divide(rest, edge[at], out=np.zeros_like(rest), where=edge[at] > 0), 0, 1)
        xy = self.xy[start] + share[:, None] * (self.xy[start + 1] - self.xy[start])
        return Points(xy=xy, owner=self.owner[ring], weight=piece[ring])

    def pieces(self) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """The rings cut into lines of up to PIECE edges, and the object of each: short enough to be looked up."""
        import shapely

        if not self.ring.size:
            return np.empty(0, dtype=object), np.empty(0, dtype=np.intp)
        start = np.flatnonzero(self.ring[1:] == self.ring[:-1])
        first = np.searchsorted(self.ring[start], np.arange(self.owner.size))
        number = np.arange(start.size) - first[self.ring[start]]  # of the edge within its ring
        begins = number % PIECE == 0
        line = np.cumsum(begins) - 1
        # A line's vertices: the starts of its edges, and the end of the last one.
        last = np.append(begins[1:], True)
        order = np.argsort(np.concatenate([line, line[last]]), kind="stable")
        xy = np.concatenate([self.xy[start], self.xy[start[last] + 1]])[order]
        lines = shapely.linestrings(xy, indices=np.concatenate([line, line[last]])[order])
        return lines, self.owner[self.ring[start[begins]]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    xy: NDArray[np.float64]
    """(point, 2) coordinates."""
    owner: NDArray[np.intp]
    """(point,) the object on whose outline it lies."""
    weight: NDArray[np.float64]
    """(point,) length of outline that it stands for."""

    def where(self, keep: NDArray[np.bool_]) -> Points:
        return Points(xy=self.xy[keep], owner=self.owner[keep], weight=self.weight[keep])

    def seen(self, seen: Seen | None) -> Points:
        """Those where something counts."""
        return self if seen is None else self.where(seen(self.xy))

    def geometry(self) -> NDArray[Any]:
        import shapely

        return np.asarray(shapely.points(self.xy), dtype=object)


def step_for(rings: Rings, wanted: float) -> float:
    """`wanted`, or the step at which MAX_POINTS are enough for all rings."""
    return max(wanted, float(rings.length.sum()) / MAX_POINTS)


def near(points: Points, lines: NDArray[Any], distance: float) -> NDArray[np.bool_]:
    """(point,) True where a geometry of `lines` is at most `distance` away (inside polygons: at distance 0)."""
    import shapely

    hit = np.zeros(points.weight.size, dtype=np.bool_)
    if hit.size and lines.size:
        found, _ = shapely.STRtree(lines).query(points.geometry(), predicate="dwithin", distance=distance)
        hit[found] = True
    return hit


def distances(points: Points, outlines: NDArray[Any]) -> NDArray[np.float64]:
    """(point,) distance to the outline of the polygon `outlines[owner]`."""
    import shapely

    out = np.full(points.weight.size, np.nan)
    lines = shapely.boundary(outlines)
    long = shapely.get_num_coordinates(lines) > LONG
    short = ~long[points.owner]
    geometry = points.geometry()
    out[short] = shapely.distance(geometry[short], lines[points.owner[short]])
    order = np.argsort(points.owner, kind="stable")
    at = np.searchsorted(points.owner[order], np.arange(outlines.size + 1))
    for i in np.flatnonzero(long).tolist():
        mine = order[at[i] : at[i + 1]]
        pieces, _ = Rings.of(outlines[i : i + 1]).pieces()
        (here, _), apart = shapely.STRtree(pieces).query_nearest(
            geometry[mine], return_distance=True, all_matches=False
        )
        out[mine[here]] = apart
    return out


def mean_by(values: NDArray[np.float64], points: Points, objects: int) -> NDArray[np.float64]:
    """(object,) weighted mean of the values on its points; NaN where it has none."""
    weight = sums(points.owner, points.weight, objects)
    return quotient(sums(points.owner, values * points.weight, objects), weight)


def sums(owner: NDArray[np.intp], values: NDArray[Any], objects: int) -> NDArray[np.float64]:
    """(object,) sums of the values that belong to each."""
    total = np.zeros(objects)
    if owner.size:
        total += np.bincount(owner, weights=values, minlength=objects)
    return total


def quotient(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """part / whole, NaN where the whole is 0."""
    out = np.full(part.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
