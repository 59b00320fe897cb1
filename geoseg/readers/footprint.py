"""Which source pixels make a resampled pixel, and how much each counts.

Both axes are treated alike and alone. Target pixel j covers [start + j f, start + (j + 1) f) in source pixels. It is
made of the source pixels lo..hi-1; all count fully but the first and the last.

    shrinking   (f >= 1)  each source pixel counts by the part of it that is covered: an area-weighted mean
    enlarging   (f < 1)   the two pixels whose centres lie around the target's centre: bilinear
    nearest               the pixel that holds the target's centre
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

Method = Literal["average", "nearest"]

SNAP = 1e-6
"""Edges closer than this part of a source pixel to a source edge lie on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taps:
    """For each target pixel of a stretch of one axis. Both limits never decrease from one to the next."""

    lo: NDArray[np.int64]
    """First source pixel."""
    hi: NDArray[np.int64]
    """One past the last; equal to `lo` where nothing of the source is covered."""
    first: NDArray[np.float64]
    """Weight of the first source pixel, the only one where hi = lo + 1."""
    last: NDArray[np.float64]
    """Weight of the last source pixel."""
    full: float
    """Sum of the weights of a target pixel that lies inside the source."""

    def touching(self, start: int, stop: int) -> NDArray[np.bool_]:
        """True for the target pixels that source pixels of start..stop-1 are part of."""
        return (self.lo < stop) & (self.hi > start)


def axis_taps(*, start: float, factor: float, first: int, count: int, size: int, method: Method) -> Taps:
    """Taps of the target pixels first..first+count-1 on a source axis of `size` pixels.

    A target pixel's taps follow from its own number alone, never from `first` or `count`.
    """
    number = np.arange(first, first + count, dtype=np.float64)
    if method == "average" and factor >= 1:
        return _covered(start + number * factor, start + (number + 1) * factor, size, factor)
    centre = _snapped(start + (number + 0.5) * factor)
    inside = (centre >= 0) & (centre < size)
    outside = np.where(centre < 0, 0, size)
    if method == "nearest":
        place, share = np.clip(centre, 0, size - 1), np.zeros(count)
    else:
        place = np.clip(centre - 0.5, 0, size - 1)
        share = place - np.floor(place)
    lo = np.floor(place).astype(np.int64)
    pair = share > 0
    return Taps(
        lo=np.where(inside, lo, outside),
        hi=np.where(inside, lo + 1 + pair, outside),
        first=1 - share,
        last=share,
        full=1.0,
    )


def _covered(begin: NDArray[np.float64], end: NDArray[np.float64], size: int, factor: float) -> Taps:
    begin, end = np.clip(_snapped(begin), 0, size), np.clip(_snapped(end), 0, size)
    lo = np.floor(begin).astype(np.int64)
    hi = np.maximum(np.ceil(end).astype(np.int64), lo)
    alone = hi - lo <= 1
    return Taps(
        lo=lo,
        hi=np.where(end > begin, hi, lo),
        first=np.where(alone, end - begin, lo + 1 - begin),
        last=end - (hi - 1),
        full=factor,
    )


def _snapped(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = np.rint(edges)
    return np.where(np.abs(edges - whole) < SNAP, whole, edges)


@njit(nogil=True, cache=True)
def add_rows(
    pixels: NDArray[Any],
    valid: NDArray[np.bool_],
    row0: int,
    col0: int,
    row_lo: NDArray[np.int64],
    row_hi: NDArray[np.int64],
    row_first: NDArray[np.float64],
    row_last: NDArray[np.float64],
    col_lo: NDArray[np.int64],
    col_hi: NDArray[np.int64],
    col_first: NDArray[np.float64],
    col_last: NDArray[np.float64],
    total: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    """Adds a strip of source rows, (band, row, col) from (row0, col0) on, to weighted sums and weights of the target.

    A source row is first summed up for each target column, from left to right, then added to the target rows that it is
    part of. A target pixel's terms come in this order however the source is cut into strips and windows, so that the
    sums agree to the last bit.
    """
    bands, height, width = pixels.shape
    stored = np.empty(width, np.float64)
    summed = np.empty(col_lo.size, np.float64)
    begin = 0
    for here in range(height):
        row = row0 + here
        while begin < row_lo.size and row_hi[begin] <= row:
            begin += 1
        end = begin
        while end < row_lo.size and row_lo[end] <= row:
            end += 1
        if begin == end:
            continue
        for band in range(-1, bands):
            # Validity is summed up like a band of ones and zeros, once for all bands.
            for col in range(width):
                stored[col] = 0.0
                if valid[here, col]:
                    stored[col] = 1.0 if band < 0 else np.float64(pixels[band, here, col])
            _sum_columns(stored, col0, col_lo, col_hi, col_first, col_last, summed)
            for i in range(begin, end):
                share = 1.0
                if row == row_lo[i]:
                    share = row_first[i]
                elif row == row_hi[i] - 1:
                    share = row_last[i]
                target = weight[i] if band < 0 else total[band, i]
                for j in range(col_lo.size):
                    target[j] += share * summed[j]


@njit(nogil=True, cache=True)
def _sum_columns(
    stored: NDArray[np.float64],
    col0: int,
    lo: NDArray[np.int64],
    hi: NDArray[np.int64],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    summed: NDArray[np.float64],
) -> None:
    for j in range(lo.size):
        value = 0.0
        if hi[j] > lo[j]:
            value = first[j] * stored[lo[j] - col0]
        if hi[j] > lo[j] + 1:
            for col in range(lo[j] + 1 - col0, hi[j] - 1 - col0):
                value += stored[col]
            value += last[j] * stored[hi[j] - 1 - col0]
        summed[j] = value
