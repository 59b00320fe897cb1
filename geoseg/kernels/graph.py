"""Basins as a graph: which of them are one region, by the depth of basins and the contrast of lines.

Both rules are deterministic and need sums only, which add up over tiles:

depth     Edges in ascending order of their saddles; the two regions become one unless both are at least `depth` deep as seen
          from the saddle (the dynamics of minima, Grimaud 1992). A basin that is shallower merges over its lowest saddle,
          whatever happens elsewhere: where all its edges are known, a tile can do so by itself.
contrast  The line whose mean evidence rises least above that of the regions beside it goes first, until every line that
          is left stands out, and every region that has a neighbour is large enough.
"""

from __future__ import annotations

import heapq
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def find(parent: NDArray[np.int64], i: int) -> int:
    """The root of i; shortens the way there."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@numba.njit(nogil=True, cache=True)
def join_shallow(
    parent: NDArray[np.int64],
    a: NDArray[Any],
    b: NDArray[Any],
    saddle: NDArray[Any],
    bottom: NDArray[np.int64],
    opened: NDArray[np.bool_],
    depth: int,
) -> None:
    """Joins regions over saddles from which one of them is less than `depth` deep, in place.

    Args:
        parent: (region,) union-find; the root of a region is that of its parts with the lowest bottom.
        a, b: (edge,) regions, in ascending order of the edges' (saddle, place).
        saddle: (edge,) evidence there.
        bottom: (region,) (evidence, row, column) of the lowest pixel as one number, evidence above 46 bits.
        opened: (region,) True where not all edges are known: such a region is not joined for being shallow itself.
        depth: in units of evidence.
    """
    for i in range(a.size):
        x, y = find(parent, a[i]), find(parent, b[i])
        if x == y:
            continue
        level = np.int64(saddle[i])
        if (not opened[x] and level - (bottom[x] >> 46) < depth) or (
            not opened[y] and level - (bottom[y] >> 46) < depth
        ):
            if bottom[y] < bottom[x]:
                x, y = y, x
            parent[y] = x
            opened[x] |= opened[y]


@numba.njit(nogil=True, cache=True)
def gathered(
    region: NDArray[np.int64],
    a: NDArray[Any],
    b: NDArray[Any],
    saddle: NDArray[np.int64],
    length: NDArray[np.int64],
    support: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Edges between regions out of edges between their parts.

    Args:
        region: (part,) the region of each part.
        a, b: (edge,) parts.
        saddle, length, support: (edge,) the first is kept where it is least, the others add up.

    Returns:
        The same of edges between different regions, each pair once, the smaller region first, in order of the pairs.
    """
    size = 16
    while size < 2 * a.size:
        size *= 2
    table = np.full(size, -1, np.int64)
    key = np.empty(a.size, np.int64)
    low = np.empty(a.size, np.int64)
    sums = np.empty((a.size, 2), np.int64)
    count = 0
    for i in range(a.size):
        x, y = region[a[i]], region[b[i]]
        if x == y:
            continue
        if y < x:
            x, y = y, x
        pair = x << 32 | y
        at = (pair * np.int64(-7046029254386353131)) >> 20 & (size - 1)
        while table[at] >= 0 and key[table[at]] != pair:
            at = (at + 1) & (size - 1)
        j = table[at]
        if j < 0:
            j = count
            count += 1
            table[at] = j
            key[j] = pair
            low[j] = saddle[i]
            sums[j] = 0
        low[j] = min(low[j], saddle[i])
        sums[j, 0] += length[i]
        sums[j, 1] += support[i]
    order = np.argsort(key[:count])
    pairs = key[:count][order]
    return pairs >> 32, pairs & 0xFFFFFFFF, low[:count][order], sums[:count, 0][order], sums[:count, 1][order]


@numba.njit(nogil=True, cache=True)
def _contrast(length: int, support: int, area_a: int, area_b: int, inner_a: int, inner_b: int) -> int:
    """How far a line's mean evidence is above that of the region beside it that has more, in 1/256 of its unit."""
    return (support << 8) // length - max((inner_a << 8) // area_a, (inner_b << 8) // area_b)


@numba.njit(nogil=True, cache=True)
def join_weak(
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    length: NDArray[np.int64],
    support: NDArray[np.int64],
    area: NDArray[np.int64],
    inner: NDArray[np.int64],
    least: int,
    fragment: float,
) -> NDArray[np.int64]:
    """Joins regions over lines without contrast: always the weakest line first, sums added up as regions join.

    Args:
        a, b: (edge,) regions, each pair once. Regions are numbered in an order that does not depend on tiles.
        length: (edge,) how many pairs of pixels face each other along the line.
        support: (edge,) evidence summed over them.
        area: (region,) pixels; inner: (region,) evidence summed over them.
        least: contrast, in 1/256 of a unit of evidence, that a line needs to divide.
        fragment: regions below this many pixels are joined with a neighbour whatever the line.

    Returns:
        (region,) the first of the regions that it is joined with.
    """
    parent = np.arange(area.size)
    area, inner, length, support = area.copy(), inner.copy(), length.copy(), support.copy()
    alive = np.ones(a.size, np.bool_)
    # The lines of a region as a linked list: entry 2 e is edge e seen from a, 2 e + 1 from b.
    head = np.full(area.size, -1, np.int64)
    follow = np.full(2 * a.size, -1, np.int64)
    heap: list[Any] = [
        (np.int64(0), np.int64(0), np.int64(0), np.int64(0))
    ]  # of numba's type, which an empty list lacks
    heap.clear()
    for e in range(a.size):
        x, y = a[e], b[e]
        follow[2 * e], head[x] = head[x], 2 * e
        follow[2 * e + 1], head[y] = head[y], 2 * e + 1
        contrast = _contrast(length[e], support[e], area[x], area[y], inner[x], inner[y])
        if contrast < least or min(area[x], area[y]) < fragment:
            heap.append((contrast, min(x, y), max(x, y), np.int64(e)))
    heapq.heapify(heap)
    seen = np.full(area.size, -1, np.int64)
    while len(heap) > 0:
        before, first, second, e = heapq.heappop(heap)
        if not alive[e]:
            continue
        x, y = find(parent, a[e]), find(parent, b[e])
        if y < x:
            x, y = y, x
        # An entry is out of date where its line or one of its regions has changed since: there is a newer one then.
        if x != first or y != second:
            continue
        if before != _contrast(length[e], support[e], area[x], area[y], inner[x], inner[y]):
            continue
        if before >= least and min(area[x], area[y]) >= fragment:
            continue
        alive[e] = False
        parent[y] = x
        area[x] += area[y]
        inner[x] += inner[y]
        kept = np.int64(-1)
        for part in range(2):
            entry = head[x] if part == 0 else head[y]
            while entry >= 0:
                step = follow[entry]
                line = entry // 2
                if alive[line]:
                    other = find(parent, b[line] if entry % 2 == 0 else a[line])
                    if seen[other] < 0:
                        seen[other] = line
                        follow[entry] = kept
                        kept = entry
                    else:  # both parts had a line with it: one line from now on
                        alive[line] = False
                        length[seen[other]] += length[line]
                        support[seen[other]] += support[line]
                entry = step
            if part == 0:
                head[x] = -1
        head[x] = kept
        entry = kept
        while entry >= 0:
            line = entry // 2
            other = find(parent, b[line] if entry % 2 == 0 else a[line])
            seen[other] = -1
            contrast = _contrast(length[line], support[line], area[x], area[other], inner[x], inner[other])
            if contrast < least or min(area[x], area[other]) < fragment:
                heapq.heappush(heap, (contrast, min(x, other), max(x, other), np.int64(line)))
            entry = follow[entry]
    out = np.empty(area.size, np.int64)
    for i in range(area.size):
        out[i] = find(parent, i)
    return out
