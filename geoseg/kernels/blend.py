"""Blending of overlapping patches in whole numbers: sums do not depend on their order."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

WEIGHT_MAX = 255
"""Of one axis; a pixel's weight is the product of both, and four patches of stored probabilities stay below 2^27."""


def hann_weights(
    start: int, count: int, *, before: bool, after: bool, cell: tuple[int, int], halo: int
) -> NDArray[np.uint32]:
    """(count,) weights 1..255 of the positions start, start + 1, ... along one axis of a patch.

    Half a Hann window, sin^2, over the overlap of 2 x halo with a neighbour before or after; 255 elsewhere. Neighbours'
    weights add up to 255 but for rounding.

    Args:
        start: first position.
        count: number of positions, all within the patch.
        before: whether there is a neighbouring patch before this one.
        after: and one after it.
        cell: first position of the patch's cell, and the first beyond it.
        halo: how far the patch reaches beyond its cell.
    """
    middle = start + np.arange(count) + 0.5
    weight = np.ones(count)
    for there, inside in ((before, middle - cell[0] + halo), (after, cell[1] + halo - middle)):
        if there:
            weight = np.minimum(weight, np.sin(np.pi / 2 * np.clip(inside / (2 * halo), 0, 1)) ** 2)
    return np.maximum(1, np.floor(WEIGHT_MAX * weight + 0.5)).astype(np.uint32)


@numba.njit(nogil=True, cache=True)
def add_weighted(
    sums: NDArray[np.uint32],
    total: NDArray[np.uint32],
    values: NDArray[np.uint8],
    rows: NDArray[np.uint32],
    cols: NDArray[np.uint32],
) -> None:
    """Adds (channel, row, col) values with weights rows x cols to `sums`, and the weights to (row, col) `total`."""
    channels, height, width = values.shape
    for r in range(height):
        for c in range(width):
            total[r, c] += rows[r] * cols[c]
        for i in range(channels):
            for c in range(width):
                sums[i, r, c] += rows[r] * cols[c] * np.uint32(values[i, r, c])


@numba.njit(nogil=True, cache=True)
def weighted_means(sums: NDArray[np.uint32], total: NDArray[np.uint32], out: NDArray[np.uint8]) -> None:
    """sums / total, halves rounded up, into (channel, row, col) `out`; places without weight keep what they hold."""
    channels, height, width = sums.shape
    for i in range(channels):
        for r in range(height):
            for c in range(width):
                if total[r, c]:
                    out[i, r, c] = (2 * sums[i, r, c] + total[r, c]) // (2 * total[r, c])
