"""Thin edges: pixels whose gradient is the largest across the edge."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def _mirrored(i: int, size: int) -> int:
    if i < 0:
        i = -i
    if i >= size:
        i = 2 * size - 2 - i
    return max(0, min(i, size - 1))


@numba.njit(nogil=True, cache=True)
def ridges(
    down: NDArray[np.float64], right: NDArray[np.float64], magnitude: NDArray[np.float64], least: float
) -> NDArray[np.bool_]:
    """True where the magnitude is at least `least` and no smaller than one pixel onwards and one pixel back.

    Canny's non-maximum suppression (J. Canny, "A computational approach to edge detection", IEEE Trans. PAMI 8, 1986): the
    two magnitudes along the gradient are interpolated between the two neighbours that lie beside its direction. The image
    goes on as its mirror image.

    Args:
        down: (row, col) derivative along the rows.
        right: (row, col) derivative along the columns.
        magnitude: (row, col).
        least: below it there is no edge; where the magnitude is 0 there is none either.
    """
    rows, cols = magnitude.shape
    out = np.zeros((rows, cols), np.bool_)
    for r in range(rows):
        for c in range(cols):
            m = magnitude[r, c]
            if m < least or m <= 0:
                continue
            dr, dc = down[r, c], right[r, c]
            ar, ac = abs(dr), abs(dc)
            sr = 1 if dr >= 0 else -1
            sc = 1 if dc >= 0 else -1
            up, below = _mirrored(r - sr, rows), _mirrored(r + sr, rows)
            left, beyond = _mirrored(c - sc, cols), _mirrored(c + sc, cols)
            if ar >= ac:
                w = ac / ar
                onward = magnitude[below, beyond] * w + magnitude[below, c] * (1 - w)
                back = magnitude[up, left] * w + magnitude[up, c] * (1 - w)
            else:
                w = ar / ac
                onward = magnitude[below, beyond] * w + magnitude[r, beyond] * (1 - w)
                back = magnitude[up, left] * w + magnitude[r, left] * (1 - w)
            out[r, c] = onward <= m and back <= m
    return out
