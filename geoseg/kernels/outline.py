"""Exact pixel outlines of a label raster, as directed chains of integer vertices.

Each outline runs with its label on the right-hand side: clockwise on screen for shells, the other way for holes. Where two
pixels of one label touch at a corner only, the outline crosses from one to the other: shells never touch themselves,
and a hole that reaches its shell in one point stays a ring of its own, as the OGC's rules ask.

A tile traces the edges of its own pixels, one pixel of neighbours given around it. An outline that leaves the tile ends
in an open chain, whose continuation is named exactly: the (vertex, heading) of the next directed edge, which is the first edge of
just one chain of a neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from geoseg.results import members

# Headings, clockwise: east, south, west, north.
_STEP_ROW = np.array([0, 1, 0, -1], np.int64)
_STEP_COL = np.array([1, 0, -1, 0], np.int64)
# From the vertex that an edge starts at to the pixel on its right, by heading.
_RIGHT_ROW = np.array([0, 0, -1, -1], np.int64)
_RIGHT_COL = np.array([0, -1, -1, 0], np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Outlines of one tile. Vertices are (row, col) of pixel corners in the caller's frame."""

    vertices: NDArray[np.int32]
    """(vertex, 2), chain after chain; corners only, collinear points left out, except at the ends of open chains."""
    offsets: NDArray[np.int64]
    """(chain + 1,) where each chain begins in `vertices`."""
    labels: NDArray[np.int64]
    """(chain,) the label on the right."""
    starts: NDArray[np.int32]
    """(chain, 3) row, col, heading of the first edge."""
    nexts: NDArray[np.int32]
    """(chain, 3) row, col, heading of the edge after the last; equal to `starts` for closed chains."""

    def __len__(self) -> int:
        return len(self.labels)

    def shifted(self, row: int, col: int) -> Chains:
        """The same chains in a frame whose first pixel is (-row, -col)."""
        move = np.array([row, col, 0], np.int32)
        return Chains(
            vertices=self.vertices + move[:2],
            offsets=self.offsets,
            labels=self.labels,
            starts=self.starts + move,
            nexts=self.nexts + move,
        )

    def taken(self, chosen: NDArray[np.int64]) -> Chains:
        """Some of the chains, in this order."""
        vertices, offsets = members(self.offsets, chosen)
        return Chains(
            vertices=self.vertices[vertices],
            offsets=offsets,
            labels=self.labels[chosen],
            starts=self.starts[chosen],
            nexts=self.nexts[chosen],
        )

    @property
    def closed(self) -> NDArray[np.bool_]:
        """(chain,) True for whole rings."""
        return np.asarray((self.starts == self.nexts).all(axis=1))


@numba.njit(nogil=True, cache=True)
def _turn(framed: NDArray[np.int64], row: int, col: int, heading: int, label: int) -> int:
    """Heading of the next edge of `label` at vertex (row, col), reached with `heading`."""
    left = (heading + 3) % 4
    ahead_left_row, ahead_left_col = row + _RIGHT_ROW[left], col + _RIGHT_COL[left]
    if framed[ahead_left_row + 1, ahead_left_col + 1] == label:
        return left
    if framed[row + _RIGHT_ROW[heading] + 1, col + _RIGHT_COL[heading] + 1] == label:
        return heading
    return (heading + 1) % 4


@numba.njit(nogil=True, cache=True)
def _begins_outside(framed: NDArray[np.int64], row: int, col: int, heading: int, label: int) -> bool:
    """True where the edge before this one belongs to a pixel outside the tile."""
    rows, cols = framed.shape[0] - 2, framed.shape[1] - 2
    # The two pixels behind the edge: on its left, then on its right.
    for side in range(2):
        h = (heading + 2) % 4 if side == 0 else (heading + 1) % 4
        r, c = row + _RIGHT_ROW[h], col + _RIGHT_COL[h]
        if framed[r + 1, c + 1] == label:
            return bool(r < 0 or c < 0 or r >= rows or c >= cols)
    return False


@numba.njit(nogil=True, cache=True)
def _trace(
    framed: NDArray[np.int64],
    vertices: NDArray[np.int32],
    offsets: NDArray[np.int64],
    labels: NDArray[np.int64],
    starts: NDArray[np.int32],
    nexts: NDArray[np.int32],
) -> tuple[int, int]:
    rows, cols = framed.shape[0] - 2, framed.shape[1] - 2
    done = np.zeros((rows, cols), np.uint8)
    chains = 0
    used = 0
    # Open chains first: what is left then are whole rings.
    for whole in range(2):
        for r in range(rows):
            for c in range(cols):
                label = framed[r + 1, c + 1]
                if label == 0:
                    continue
                if whole == 0 and 0 < r < rows - 1 and 0 < c < cols - 1:
                    continue
                for heading in range(4):
                    if done[r, c] & (1 << heading):
                        continue
                    # The pixel on the left of the edge: north of the pixel for heading east, and so on.
                    left = (heading + 3) % 4
                    if framed[r + 1 + _STEP_ROW[left], c + 1 + _STEP_COL[left]] == label:
                        continue
                    row, col = r - _RIGHT_ROW[heading], c - _RIGHT_COL[heading]
                    if whole == 0 and not _begins_outside(framed, row, col, heading, label):
                        continue
                    start_row, start_col, start_heading = row, col, heading
                    if used >= vertices.shape[0] or chains >= labels.shape[0]:
                        return -1, -1
                    labels[chains] = label
                    starts[chains, 0], starts[chains, 1], starts[chains, 2] = row, col, heading
                    offsets[chains] = used
                    h = heading
                    if whole == 0:
                        vertices[used, 0], vertices[used, 1] = row, col
                        used += 1
                    while True:
                        pr, pc = row + _RIGHT_ROW[h], col + _RIGHT_COL[h]
                        if pr < 0 or pc < 0 or pr >= rows or pc >= cols:
                            break
                        done[pr, pc] |= 1 << h
                        row += _STEP_ROW[h]
                        col += _STEP_COL[h]
                        turned = _turn(framed, row, col, h, label)
                        if used >= vertices.shape[0]:
                            return -1, -1
                        if turned != h:
                            vertices[used, 0], vertices[used, 1] = row, col
                            used += 1
                        h = turned
                        if row == start_row and col == start_col and h == start_heading:
                            break
                    if whole == 0 and (vertices[used - 1, 0] != row or vertices[used - 1, 1] != col):
                        if used >= vertices.shape[0]:
                            return -1, -1
                        vertices[used, 0], vertices[used, 1] = row, col
                        used += 1
                    nexts[chains, 0], nexts[chains, 1], nexts[chains, 2] = row, col, h
                    chains += 1
    if chains < offsets.shape[0]:
        offsets[chains] = used
    return chains, used


@numba.njit(nogil=True, cache=True)
def _count_corners(framed: NDArray[np.int64]) -> int:
    """Vertices at which more than a straight line passes: no chain set has more vertices than 2 a corner and its ends."""
    rows, cols = framed.shape[0] - 1, framed.shape[1] - 1
    total = 0
    for r in range(rows):
        for c in range(cols):
            a, b = framed[r, c], framed[r, c + 1]
            d, e = framed[r + 1, c], framed[r + 1, c + 1]
            if not ((a == b and d == e) or (a == d and b == e)):
                total += 1
    return total


def trace(framed: NDArray[np.int64]) -> Chains:
    """Outlines of the labels of a tile.

    Args:
        framed: (row + 2, col + 2) labels, 0 for none, with one pixel of the neighbours' labels around the tile.

    Returns:
        Chains in the tile's frame: vertex (0, 0) is the upper left corner of its first pixel.
    """
    framed = np.ascontiguousarray(framed, np.int64)
    edge = 2 * (framed.shape[0] + framed.shape[1])
    # At a corner at most four labels turn; an open chain adds its two ends, and each chain owns a corner or crosses the rim.
    corners = _count_corners(framed)
    room = 4 * corners + 4 * edge + 8
    chain_room = 2 * corners + 2 * edge + 4
    vertices = np.empty((room, 2), np.int32)
    offsets = np.empty(chain_room + 1, np.int64)
    labels = np.empty(chain_room, np.int64)
    starts = np.empty((chain_room, 3), np.int32)
    nexts = np.empty((chain_room, 3), np.int32)
    chains, used = _trace(framed, vertices, offsets, labels, starts, nexts)
    if chains < 0:
        raise AssertionError("outline arrays were sized too small; this is a defect in geoseg")
    return Chains(
        vertices=vertices[:used].copy(),
        offsets=offsets[: chains + 1].copy(),
        labels=labels[:chains].copy(),
        starts=starts[:chains].copy(),
        nexts=nexts[:chains].copy(),
    )
