"""Thresholds that divide a histogram best: Otsu's (1979), and his extension to several classes."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


def otsu(counts: NDArray[np.int64], centers: NDArray[np.float64]) -> int:
    """The last bin of the lower class where the variance between two classes is largest, of equals the first.

    N. Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9 (1979).

    Args:
        counts: (bin,) pixels.
        centers: (bin,) ascending values.

    Returns:
        A bin; the only one that is not empty where there is only one, 0 where there is none.
    """
    filled = np.flatnonzero(counts)
    if len(filled) < 2:
        return int(filled[0]) if len(filled) else 0
    weight = counts[filled].astype(np.float64)
    values = centers[filled] - centers[filled[0]]
    lower, total = np.cumsum(weight)[:-1], weight.sum()
    lower_sum, whole_sum = np.cumsum(weight * values)[:-1], (weight * values).sum()
    upper = total - lower
    between = lower * upper * (lower_sum / lower - (whole_sum - lower_sum) / upper) ** 2
    return int(filled[np.argmax(between)])


def multi_otsu(counts: NDArray[np.int64], centers: NDArray[np.float64], classes: int) -> list[int]:
    """The last bins of all classes but the highest where the variance between the classes is largest.

    P.-S. Liao, T.-S. Chen, P.-C. Chung, "A fast algorithm for multilevel thresholding" (2001), states the problem; it is
    solved exactly by dynamic programming. The best place to cut off a class never moves down when another bin is added, so
    that halving the bins finds all places in O(classes x bins x log bins).

    Args:
        counts: (bin,) pixels.
        centers: (bin,) ascending values.
        classes: 2 or more.

    Returns:
        classes - 1 bins, ascending. Where fewer bins are filled than classes are asked for, the filled ones but the last.
    """
    filled = np.flatnonzero(counts)
    if len(filled) <= classes:
        return [int(i) for i in filled[:-1]]
    weight = counts[filled].astype(np.float64)
    values = centers[filled] - centers[filled[0]]
    weights = np.concatenate([[0.0], np.cumsum(weight)])
    sums = np.concatenate([[0.0], np.cumsum(weight * values)])
    cuts = _cuts(weights, sums, classes)
    stop, found = len(filled), list[int]()
    for k in range(classes - 1, 0, -1):
        stop = int(cuts[k, stop])
        found.append(int(filled[stop - 1]))
    return found[::-1]


@numba.njit(nogil=True, cache=True)
def _cuts(weights: NDArray[np.float64], sums: NDArray[np.float64], classes: int) -> NDArray[np.int64]:
    """(class, bin + 1) where the last of 1 + class classes over the first bins begins.

    A class from bin a to b brings (its sum)^2 / (its weight) to what is to be as large as possible.
    """
    n = weights.size - 1
    best = np.zeros(n + 1)
    for j in range(1, n + 1):
        best[j] = sums[j] ** 2 / weights[j]
    cuts = np.zeros((classes, n + 1), np.int64)
    stack = np.empty((64 + 2 * 64, 4), np.int64)
    for k in range(1, classes):
        made = np.full(n + 1, -1.0)
        size = 1
        stack[0] = (k + 1, n, k, n - 1)
        while size:
            size -= 1
            first, last, low, high = stack[size]
            if first > last:
                continue
            middle = (first + last) // 2
            at, largest = low, -1.0
            for a in range(low, min(high, middle - 1) + 1):
                value = best[a] + (sums[middle] - sums[a]) ** 2 / (weights[middle] - weights[a])
                if value > largest:
                    at, largest = a, value
            made[middle], cuts[k, middle] = largest, at
            stack[size] = (first, middle - 1, low, at)
            stack[size + 1] = (middle + 1, last, at, high)
            size += 2
        best = made
    return cuts
