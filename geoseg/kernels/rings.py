"""Rings of integer vertices in canonical form: each from its smallest vertex, shells told from holes."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def survey(vertices: NDArray[np.int32], starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What canonical order needs to know of each ring.

    Args:
        vertices: (vertex, 2) row and column, ring after ring, the first vertex not repeated at the end.
        starts: (ring + 1,) where each ring begins.

    Returns:
        (ring,) index of the smallest vertex by row, then column; (ring,) True for shells (clockwise on screen).
    """
    count = starts.size - 1
    lowest = np.empty(count, np.int64)
    shell = np.empty(count, np.bool_)
    for i in range(count):
        begin, end = starts[i], starts[i + 1]
        best = begin
        # Twice the signed area, with columns to the right and rows downward: positive is clockwise on screen.
        area = np.int64(0)
        before = end - 1
        for j in range(begin, end):
            row, col = vertices[j, 0], vertices[j, 1]
            if row < vertices[best, 0] or (row == vertices[best, 0] and col < vertices[best, 1]):
                best = j
            area += np.int64(vertices[before, 1]) * row - np.int64(col) * vertices[before, 0]
            before = j
        lowest[i] = best
        shell[i] = area > 0
    return lowest, shell


@numba.njit(nogil=True, cache=True)
def arranged(
    vertices: NDArray[np.int32],
    junction: NDArray[np.bool_],
    starts: NDArray[np.int64],
    lowest: NDArray[np.int64],
    rank: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int64]]:
    """Rings in the order of `rank`, each from its smallest vertex and closed (first vertex again at the end).

    Returns:
        vertices (n, 2), which of them are junctions (n,), and ring offsets (ring + 1,).
    """
    out = np.empty((vertices.shape[0] + rank.size, 2), np.int32)
    joint = np.empty(out.shape[0], np.bool_)
    offsets = np.empty(rank.size + 1, np.int64)
    at = 0
    for i in range(rank.size):
        ring = rank[i]
        begin, end, first = starts[ring], starts[ring + 1], lowest[ring]
        offsets[i] = at
        for j in range(first, end):
            out[at, 0], out[at, 1] = vertices[j, 0], vertices[j, 1]
            joint[at] = junction[j]
            at += 1
        for j in range(begin, first + 1):
            out[at, 0], out[at, 1] = vertices[j, 0], vertices[j, 1]
            joint[at] = junction[j]
            at += 1
    offsets[rank.size] = at
    return out, joint, offsets
