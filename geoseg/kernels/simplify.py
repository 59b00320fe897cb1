"""Outlines of a coverage with fewer vertices: still a coverage, whatever the tiles and their order.

The outlines of all labels together are a plane graph: arcs, which meet in junctions and nowhere else. Each arc is simplified
alone, after Douglas and Peucker, from the same end whichever label asks, so that neighbours keep the same vertices. A
shortcut takes the place of a part of an arc if

    (1) each vertex of the part is within the tolerance of the shortcut, a segment;
    (2) no vertex of another outline, nor another one of this arc, is on the shortcut or between it and the part (even-odd);
    (3) where the part is a whole arc: another one between the same ends is no edge along the shortcut, nor can all its
        vertices be within the tolerance of it: those of others that are leave a gap longer than an edge.

Why shortcuts A, B of parts a, b do not cross: an edge of b does not meet a, and its ends lie outside the closed curve a + A by
(2). It crosses that curve an even number of times, so only A, and a segment once at most: not at all. Nor does a cross B. The
ends of B lie outside a + A, too, and B does not meet a, so that it does not cross A for the same reason. Nor do they touch: an
end of one on the other is a vertex on a shortcut. With one end in common, one could only lie along the other, and its
far end with it. With two, a and b are whole arcs between the same junctions, or the halves of a ring: if both passed (1), each
has all its vertices within the tolerance of the other's shortcut, and (3) refuses both; where one is a single edge, (3)
refuses the other. Edges that stay are shortcuts of themselves.

No edge changes sides with a shortcut, so rings keep their direction and holes their shells. The distance from the old
outline to the new is at most the tolerance by (1), and so is that back: the part's projection covers the shortcut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

_INNER, _ARC, _HALF, _LAST_HALF = 0, 1, 2, 3
"""What a shortcut would take the place of: less than an arc; an arc between two junctions; half of a ring; half of a ring whose
other half is one edge."""

# A little more than 1, on distances that must not be missed by rounding.
_MORE = 1 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Corners:
    """Vertices of all outlines in a part of the scene, sorted into the cells of a grid."""

    vertices: NDArray[np.int32]
    """(vertex, 2) cell after cell, in the outlines' units; some may be there twice."""
    sides: NDArray[np.uint8]
    """(vertex,) which pixel sides that leave it are boundaries, by bits 1 << heading; 0 for smooth outlines."""
    starts: NDArray[np.int64]
    """(cell + 1,) where each cell begins in `vertices`, row after row of cells."""
    origin: tuple[int, int]
    """Row and column at which the first cell begins."""
    shape: tuple[int, int]
    """Rows and columns of cells."""
    size: int
    """A cell's side."""


def sorted_corners(vertices: NDArray[np.int32], sides: NDArray[np.uint8], *, size: int) -> Corners:
    """The vertices (n, 2), n > 0, in cells of `size`, or larger ones where they would be mostly empty."""
    (row, row_end), (col, col_end) = ((int(axis.min()), int(axis.max())) for axis in vertices.T)
    while ((row_end - row) // size + 1) * ((col_end - col) // size + 1) > 2 * len(vertices) + 1024:
        size *= 2
    rows, cols = (row_end - row) // size + 1, (col_end - col) // size + 1
    order, starts = _cells(vertices, row, col, size, cols, rows * cols)
    return Corners(
        vertices=vertices[order], sides=sides[order], starts=starts, origin=(row, col), shape=(rows, cols),
        size=size,
    )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def _cells(
    vertices: NDArray[np.int32], row: int, col: int, size: int, cols: int, cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    starts = np.zeros(cells + 1, np.int64)
    of = np.empty(vertices.shape[0], np.int64)
    for i in range(vertices.shape[0]):
        of[i] = (vertices[i, 0] - row) // size * cols + (vertices[i, 1] - col) // size
        starts[of[i] + 1] += 1
    for cell in range(cells):
        starts[cell + 1] += starts[cell]
    at = starts[:-1].copy()
    order = np.empty(vertices.shape[0], np.int64)
    for i in range(vertices.shape[0]):
        order[at[of[i]]] = i
        at[of[i]] += 1
    return order, starts


@numba.njit(nogil=True, cache=True)
def _squared(row: int, col: int, r0: int, c0: int, r1: int, c1: int) -> float:
    """Squared distance of (row, col) from the segment between two places."""
    dr, dc, er, ec = r1 - r0, c1 - c0, row - r0, col - c0
    along, length = er * dr + ec * dc, dr * dr + dc * dc
    if along <= 0:
        return float(er * er + ec * ec)
    if along >= length:
        return float((row - r1) * (row - r1) + (col - c1) * (col - c1))
    aside = float(er * dc - ec * dr)
    return aside * aside / float(length)


@numba.njit(nogil=True, cache=True)
def _crosses(row: int, col: int, r0: int, c0: int, r1: int, c1: int) -> bool:
    """True where the ray from (row, col) along rising columns crosses the segment."""
    if (r0 > row) == (r1 > row):
        return False
    turn = (c1 - c0) * (row - r0) - (col - c0) * (r1 - r0)
    return bool(turn > 0) if r1 > r0 else bool(turn < 0)


@numba.njit(nogil=True, cache=True)
def _place(row: int, col: int, path: NDArray[np.int64], boxes: NDArray[np.int64], block: int, i: int, j: int) -> int:
    """Where a place lies that may be a vertex of path[i:j + 1]: -1 if it is; 1 between path and shortcut or on that; else 0."""
    inside = _crosses(row, col, path[j, 0], path[j, 1], path[i, 0], path[i, 1])
    for b in range(i // block, j // block + 1):
        if row < boxes[b, 0] or row > boxes[b, 1] or col > boxes[b, 3]:
            continue
        begin, end = max(i, b * block), min(j, (b + 1) * block)
        if col < boxes[b, 2]:
            inside ^= (path[begin, 0] > row) != (path[end, 0] > row)
            continue
        for k in range(begin, end):
            if path[k, 0] == row and path[k, 1] == col:
                return -1
            inside ^= _crosses(row, col, path[k, 0], path[k, 1], path[k + 1, 0], path[k + 1, 1])
        if path[end, 0] == row and path[end, 1] == col:
            return -1
    if inside:
        return 1
    return int(_squared(row, col, path[i, 0], path[i, 1], path[j, 0], path[j, 1]) == 0)


@numba.njit(nogil=True, cache=True)
def _is_edge(
    path: NDArray[np.int64],
    j: int,
    vertices: NDArray[np.int32],
    sides: NDArray[np.uint8],
    starts: NDArray[np.int64],
    frame: NDArray[np.int64],
) -> bool:
    """True where an edge of another arc may join the ends of path[:j + 1], an arc along whose shortcut no vertex lies."""
    down, right = path[j, 0] - path[0, 0], path[j, 1] - path[0, 1]
    if down != 0 and right != 0:
        return False
    heading = (0 if right > 0 else 2) if down == 0 else (1 if down > 0 else 3)
    first_down, first_right = path[1, 0] - path[0, 0], path[1, 1] - path[0, 1]
    if first_down * down + first_right * right > 0:
        return False  # it is this arc that leaves the junction that way
    cell = (path[0, 0] - frame[0]) // frame[4] * frame[3] + (path[0, 1] - frame[1]) // frame[4]
    for k in range(starts[cell], starts[cell + 1]):
        if vertices[k, 0] == path[0, 0] and vertices[k, 1] == path[0, 1] and sides[k] & (1 << heading):
            return True
    return False


@numba.njit(nogil=True, cache=True)
def _longest_gap(down: int, right: int, tolerance: float, edge: int) -> float:
    """How far the vertices of an arc may lie apart along a shortcut (down, right), all within the tolerance of it.

    Edges along pixel sides reach from one side of the tolerance's band to the other; those of smooth outlines are short.
    """
    if edge > 0:
        return float(edge)
    if down == 0 or right == 0:
        return np.inf
    slope = abs(float(down) / float(right))
    return 2 * tolerance * max(slope, 1 / slope) * _MORE


@numba.njit(nogil=True, cache=True)
def _is_free(
    path: NDArray[np.int64],
    boxes: NDArray[np.int64],
    block: int,
    i: int,
    j: int,
    kind: int,
    tolerance: float,
    vertices: NDArray[np.int32],
    sides: NDArray[np.uint8],
    starts: NDArray[np.int64],
    frame: NDArray[np.int64],
) -> bool:
    """(2) and (3) for the shortcut of path[i:j + 1], which passes (1)."""
    if kind == _LAST_HALF:
        return False
    r0, c0, r1, c1 = path[i, 0], path[i, 1], path[j, 0], path[j, 1]
    row, col, rows, cols, size = frame[0], frame[1], frame[2], frame[3], frame[4]
    top = max(int(np.floor((min(r0, r1) - tolerance - row) / size)), 0)
    bottom = min(int(np.floor((max(r0, r1) + tolerance - row) / size)), rows - 1)
    limit = tolerance * tolerance * _MORE
    length = np.sqrt(float((r1 - r0) ** 2 + (c1 - c0) ** 2))
    gap = _longest_gap(r1 - r0, c1 - c0, tolerance, frame[5])
    at_start = at_end = False
    amid = gap >= length
    for cell_row in range(top, bottom + 1):
        near, far = 0.0, 1.0
        if r1 != r0:
            # The stretch of the shortcut that is within the tolerance of this row of cells.
            upper = (row + cell_row * size - tolerance - r0) / (r1 - r0)
            lower = (row + (cell_row + 1) * size + tolerance - r0) / (r1 - r0)
            near, far = max(min(upper, lower), 0.0), min(max(upper, lower), 1.0)
        a, b = c0 + near * (c1 - c0), c0 + far * (c1 - c0)
        left = max(int(np.floor((min(a, b) - tolerance - 1 - col) / size)), 0)
        right = min(int(np.floor((max(a, b) + tolerance + 1 - col) / size)), cols - 1)
        if right < left:
            continue
        for k in range(starts[cell_row * cols + left], starts[cell_row * cols + right + 1]):
            y, x = int(vertices[k, 0]), int(vertices[k, 1])
            if _squared(y, x, r0, c0, r1, c1) > limit:
                continue
            place = _place(y, x, path, boxes, block, i, j)
            if place == 1:
                return False
            if place == 0 and kind != _INNER:
                along = ((y - r0) * (r1 - r0) + (x - c0) * (c1 - c0)) / length
                at_start |= along <= gap
                at_end |= along >= length - gap
                amid |= abs(along - length / 2) <= gap / 2
                if at_start and at_end and amid:
                    return False
    return not (kind == _ARC and _is_edge(path, j, vertices, sides, starts, frame))


@numba.njit(nogil=True, cache=True)
def _thin_arc(
    path: NDArray[np.int64],
    last: int,
    kept: NDArray[np.bool_],
    boxes: NDArray[np.int64],
    stack: NDArray[np.int64],
    tolerance: float,
    vertices: NDArray[np.int32],
    sides: NDArray[np.uint8],
    starts: NDArray[np.int64],
    frame: NDArray[np.int64],
) -> None:
    """Says in kept[:last + 1] which vertices of the arc path[:last + 1] stay."""
    block = max(16, int(np.sqrt(last)))
    for b in range(last // block + 1):
        begin, end = b * block, min((b + 1) * block, last)
        boxes[b, 0] = boxes[b, 1] = path[begin, 0]
        boxes[b, 2] = boxes[b, 3] = path[begin, 1]
        for k in range(begin, end + 1):
            boxes[b, 0], boxes[b, 1] = min(boxes[b, 0], path[k, 0]), max(boxes[b, 1], path[k, 0])
            boxes[b, 2], boxes[b, 3] = min(boxes[b, 2], path[k, 1]), max(boxes[b, 3], path[k, 1])
    kept[: last + 1] = False
    kept[0] = kept[last] = True
    if path[0, 0] == path[last, 0] and path[0, 1] == path[last, 1]:
        far, most = 0, np.int64(0)
        for k in range(1, last):
            apart = (path[k, 0] - path[0, 0]) ** 2 + (path[k, 1] - path[0, 1]) ** 2
            smaller = path[k, 0] < path[far, 0] or (path[k, 0] == path[far, 0] and path[k, 1] < path[far, 1])
            if apart > most or (apart == most and smaller):
                far, most = k, apart
        kept[far] = True
        stack[0, 0], stack[0, 1], stack[0, 2] = 0, far, _LAST_HALF if last - far == 1 else _HALF
        stack[1, 0], stack[1, 1], stack[1, 2] = far, last, _LAST_HALF if far == 1 else _HALF
        depth = 2
    else:
        stack[0, 0], stack[0, 1], stack[0, 2] = 0, last, _ARC
        depth = 1
    limit = tolerance * tolerance
    while depth > 0:
        depth -= 1
        i, j, kind = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        if j - i < 2:
            continue
        far, farthest = (i + j) // 2, 0.0
        for k in range(i + 1, j):
            apart = _squared(path[k, 0], path[k, 1], path[i, 0], path[i, 1], path[j, 0], path[j, 1])
            if apart > farthest:
                far, farthest = k, apart
        if farthest <= limit and _is_free(path, boxes, block, i, j, kind, tolerance, vertices, sides, starts, frame):
            continue
        kept[far] = True
        stack[depth, 0], stack[depth, 1], stack[depth, 2] = i, far, _INNER
        stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2] = far, j, _INNER
        depth += 2


@numba.njit(nogil=True, cache=True)
def _staying(
    outlines: NDArray[np.int32],
    junction: NDArray[np.bool_],
    rings: NDArray[np.int64],
    tolerance: float,
    vertices: NDArray[np.int32],
    sides: NDArray[np.uint8],
    starts: NDArray[np.int64],
    frame: NDArray[np.int64],
) -> NDArray[np.bool_]:
    stay = np.zeros(outlines.shape[0], np.bool_)
    longest = 0
    for ring in range(rings.size - 1):
        longest = max(longest, rings[ring + 1] - rings[ring])
    path = np.empty((longest + 1, 2), np.int64)
    kept = np.empty(longest + 1, np.bool_)
    boxes = np.empty((longest // 16 + 2, 4), np.int64)
    stack = np.empty((longest + 3, 3), np.int64)
    for ring in range(rings.size - 1):
        begin, size = rings[ring], rings[ring + 1] - rings[ring] - 1
        first = 0
        while first < size and not junction[begin + first]:
            first += 1
        if first == size:
            first = 0
        at = 0
        while at < size:
            last = 1
            while at + last < size and not junction[begin + (first + at + last) % size]:
                last += 1
            for k in range(last + 1):
                place = begin + (first + at + k) % size
                path[k, 0], path[k, 1] = outlines[place, 0], outlines[place, 1]
            closed = path[0, 0] == path[last, 0] and path[0, 1] == path[last, 1]
            one, other = (1, last - 1) if closed else (0, last)
            turned = path[other, 0] < path[one, 0] or (path[other, 0] == path[one, 0] and path[other, 1] < path[one, 1])
            if turned:
                for k in range((last + 1) // 2):
                    for axis in range(2):
                        path[k, axis], path[last - k, axis] = path[last - k, axis], path[k, axis]
            _thin_arc(path, last, kept, boxes, stack, tolerance, vertices, sides, starts, frame)
            for k in range(last):
                stay[begin + (first + at + k) % size] = kept[last - k] if turned else kept[k]
            at += last
    return stay


def staying(
    outlines: NDArray[np.int32], junction: NDArray[np.bool_], rings: NDArray[np.int64], corners: Corners, *,
    tolerance: float, edge: int,
) -> NDArray[np.bool_]:  # fmt: skip
    """Which vertices of some rings stay when all outlines are simplified.

    Args:
        outlines: (vertex, 2) of closed rings, each from its smallest vertex.
        junction: (vertex,) True at junctions.
        rings: (ring + 1,) where each ring begins.
        corners: holds at least all vertices of all outlines within twice the tolerance of these rings.
        tolerance: largest distance between the outline before and after, in the outlines' units.
        edge: longest edge of smooth outlines; 0 for those along the pixels' sides.

    Returns:
        (vertex,) True for those that stay; False for the last vertex of a ring, which is its first one again.
    """
    frame = np.array([*corners.origin, *corners.shape, corners.size, edge], np.int64)
    stay: NDArray[np.bool_] = _staying(
        outlines, junction, rings, tolerance, corners.vertices, corners.sides, corners.starts, frame
    )
    return stay


@numba.njit(nogil=True, cache=True)
def near_tiles(
    outlines: NDArray[np.int32],
    rings: NDArray[np.int64],
    row: int,
    col: int,
    size: int,
    reach: int,
    found: NDArray[np.bool_],
) -> None:
    """Marks the tiles that rings pass within `reach`.

    Args:
        outlines: (vertex, 2) of closed rings.
        rings: (ring + 1,) where each ring begins.
        row, col: where the first tile begins.
        size: side of a tile, in the outlines' units like all the others.
        reach: how near counts.
        found: (tile row, tile column), marked in place.
    """
    rows, cols = found.shape
    for ring in range(rings.size - 1):
        for k in range(rings[ring], rings[ring + 1] - 1):
            top = (min(outlines[k, 0], outlines[k + 1, 0]) - reach - row) // size
            bottom = (max(outlines[k, 0], outlines[k + 1, 0]) + reach - row) // size
            left = (min(outlines[k, 1], outlines[k + 1, 1]) - reach - col) // size
            right = (max(outlines[k, 1], outlines[k + 1, 1]) + reach - col) // size
            for r in range(max(top, 0), min(bottom, rows - 1) + 1):
                for c in range(max(left, 0), min(right, cols - 1) + 1):
                    found[r, c] = True
