"""Connected components of one tile, and the union of components over seams."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from geoseg.results import PROBABILITY_MAX


@numba.njit(nogil=True, cache=True)
def _find(parent: NDArray[np.int32], i: int) -> int:
    root = i
    while parent[root] != root:
        root = parent[root]
    while parent[i] != root:
        parent[i], i = root, parent[i]
    return root


@numba.njit(nogil=True, cache=True)
def strongest(stored: NDArray[np.uint8], rest: bool, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The class with the largest probability, of equals the first.

    Args:
        stored: (class, row, col) stored probabilities.
        rest: True where what they leave of 254 is the probability of a class of its own, which comes before the others.
        codes: (class + 1,) what to write for each class; the last entry is for that class.

    Returns:
        (row, col) codes.
    """
    count, rows, cols = stored.shape
    out = np.empty((rows, cols), np.uint8)
    best, used = np.empty(cols, np.uint8), np.empty(cols, np.uint32)
    for r in range(rows):  # a row at a time and without branches: ten times as fast
        line = out[r]
        best[:], used[:], line[:] = stored[0, r], stored[0, r], codes[0]
        for i in range(1, count):
            values, code = stored[i, r], codes[i]
            for c in range(cols):
                value = values[c]
                used[c] += value
                more = value > best[c]
                best[c] = value if more else best[c]
                line[c] = code if more else line[c]
        if rest:
            code = codes[count]
            for c in range(cols):
                line[c] = code if used[c] + best[c] <= PROBABILITY_MAX else line[c]
    return out


@numba.njit(nogil=True, cache=True)
def strongest_other(stored: NDArray[np.uint8], wanted: int, rest: bool) -> NDArray[np.uint8]:
    """(row, col) the largest probability among the classes but one; `stored` and `rest` as `strongest` takes them."""
    count, rows, cols = stored.shape
    out = np.zeros((rows, cols), np.uint8)
    used = np.empty(cols, np.uint32)
    for r in range(rows):
        best = out[r]
        used[:] = 0
        for i in range(count):
            values = stored[i, r]
            for c in range(cols):
                used[c] += values[c]
            if i != wanted:
                for c in range(cols):
                    best[c] = max(best[c], values[c])
        if rest:
            for c in range(cols):
                best[c] = max(best[c], PROBABILITY_MAX - min(used[c], PROBABILITY_MAX))
    return out


@numba.njit(nogil=True, cache=True)
def label(classes: NDArray[Any], wanted: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """4-connected components of equal class.

    Args:
        classes: (row, col) class ids, 255 for no data; or any numbers from 0.
        wanted: (256,) True for the classes whose components are labelled; (0,) for all numbers but 0.

    Returns:
        (row, col) int32 labels, 0 for none, 1..n in row-major order of the components' first pixels; and n.
    """
    rows, cols = classes.shape
    labels = np.zeros((rows, cols), np.int32)
    # In a checkerboard of two wanted classes every pixel begins a component.
    parent = np.zeros(rows * cols + 1, np.int32)
    count = 0
    every = wanted.size == 0
    for r in range(rows):
        for c in range(cols):
            value = classes[r, c]
            if value == 0 if every else not wanted[value]:
                continue
            above = labels[r - 1, c] if r > 0 and classes[r - 1, c] == value else 0
            left = labels[r, c - 1] if c > 0 and classes[r, c - 1] == value else 0
            if above == 0 and left == 0:
                count += 1
                parent[count] = count
                labels[r, c] = count
            elif above == 0:
                labels[r, c] = left
            elif left == 0 or left == above:
                labels[r, c] = above
            else:
                a, b = _find(parent, above), _find(parent, left)
                low = min(a, b)
                parent[max(a, b)] = low
                labels[r, c] = low
    final = np.zeros(count + 1, np.int32)
    n = 0
    for i in range(1, count + 1):
        root = _find(parent, i)
        if root == i:
            n += 1
            final[i] = n
        else:
            final[i] = final[root]
    for r in range(rows):
        for c in range(cols):
            labels[r, c] = final[labels[r, c]]
    return labels, n


@numba.njit(nogil=True, cache=True)
def label_sums(
    labels: NDArray[np.int32], count: int, classes: NDArray[np.uint8], probabilities: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of labels and their probability, ready to be added up over tiles.

    Args:
        labels: (row, col), 0 for none, 1..count.
        count: how many there are.
        classes: (row, col) class ids.
        probabilities: (channel, row, col) stored probabilities; a pixel's own class is the channel that is summed.
            An array with no channel gives sums of zero.

    Returns:
        pixels: (count,); sums: (count,) of the stored probability.
    """
    pixels = np.zeros(count, np.int64)
    sums = np.zeros(count, np.int64)
    rows, cols = labels.shape
    channels = probabilities.shape[0]
    for r in range(rows):
        for c in range(cols):
            i = labels[r, c] - 1
            if i < 0:
                continue
            pixels[i] += 1
            if classes[r, c] < channels:
                sums[i] += probabilities[classes[r, c], r, c]
    return pixels, sums


@numba.njit(nogil=True, cache=True)
def unite(parent: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]) -> None:
    """Union of a[i] with b[i] for all i, in place; the smaller id becomes the root."""
    for i in range(a.size):
        x, y = a[i], b[i]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        if x < y:
            parent[y] = x
        elif y < x:
            parent[x] = y


@numba.njit(nogil=True, cache=True)
def roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of every id."""
    out = np.empty(parent.size, np.int64)
    for i in range(parent.size):
        x = i
        while parent[x] != x:
            x = parent[x]
        out[i] = x
        parent[i] = x
    return out


def border_pairs(a: NDArray[Any], b: NDArray[Any], class_a: NDArray[Any], class_b: NDArray[Any]) -> NDArray[np.int64]:
    """Pairs of labels that touch across a seam.

    Args:
        a, b: (n,) labels on either side, 0 for none.
        class_a, class_b: (n,) their classes, or the numbers of their objects.

    Returns:
        (m, 2) distinct pairs, sorted.
    """
    touch = (a > 0) & (b > 0) & (class_a == class_b)
    return np.unique(np.stack([a[touch], b[touch]], axis=1).astype(np.int64), axis=0)
