"""Basins of an evidence surface, pixel by pixel: each pixel belongs to the minimum that steepest descent leads it to.

Pixels are in total order by (evidence, row, column), so that every pixel's lowest neighbour is one and the same whatever is
around: with one pixel of its neighbours a tile finds the steps of all its pixels. A descent that leaves the tile ends there
in a basin of its own, an exit, which continues in the neighbour's basin at that place.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

BLUR = 2
"""Pixels around a window that `smoothed` looks at."""

EVIDENCE_MAX = 254 * 256
"""Largest value that `smoothed` gives."""

PLACE_BITS = 23
"""Of a row or column: two of them and 16 bits of evidence fit into 63 bits."""


@numba.njit(nogil=True, cache=True)
def smoothed(evidence: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Binomial filter (1 4 6 4 1) along both axes in whole numbers, without division.

    Ridges of quantised probabilities are flat on top: after it they have a crest.

    Args:
        evidence: (row + 4, col + 4) values 0..254.

    Returns:
        (row, col) values 0..EVIDENCE_MAX.
    """
    rows, cols = evidence.shape[0] - 2 * BLUR, evidence.shape[1] - 2 * BLUR
    down = np.empty(cols + 2 * BLUR, np.int32)
    out = np.empty((rows, cols), np.uint16)
    for r in range(rows):
        for c in range(cols + 2 * BLUR):
            down[c] = (
                np.int32(evidence[r, c]) + np.int32(evidence[r + 4, c])
                + 4 * (np.int32(evidence[r + 1, c]) + np.int32(evidence[r + 3, c]))
                + 6 * np.int32(evidence[r + 2, c])
            )  # fmt: skip
        for c in range(cols):
            out[r, c] = down[c] + down[c + 4] + 4 * (down[c + 1] + down[c + 3]) + 6 * down[c + 2]
    return out


@numba.njit(nogil=True, cache=True)
def basins(
    evidence: NDArray[np.uint16], kinds: NDArray[np.uint8]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Basins of one tile.

    Args:
        evidence: (row + 2, col + 2), with one pixel of the neighbours around.
        kinds: (row + 2, col + 2) 0 for pixels that belong to no basin; a basin is of one kind.

    Returns:
        labels: (row, col) int32, 0 outside, 1..n;
        bottoms: (n,) place, row * columns + col in the tile, of the pixel that a basin descends to;
        exits: (n,) 0 where that is a minimum; else the step that leads out of the tile: 1 up, 2 left, 3 right, 4 down.
    """
    rows, cols = evidence.shape[0] - 2, evidence.shape[1] - 2
    step = np.zeros((rows, cols), np.uint8)
    count = 0
    for r in range(rows):
        for c in range(cols):
            kind = kinds[r + 1, c + 1]
            if kind == 0:
                continue
            # In the order of their places: of equals the first is the lowest.
            lowest = np.int32(1 << 30)
            way = 0
            if kinds[r, c + 1] == kind:
                lowest = np.int32(evidence[r, c + 1])
                way = 1
            if kinds[r + 1, c] == kind and evidence[r + 1, c] < lowest:
                lowest = np.int32(evidence[r + 1, c])
                way = 2
            if evidence[r + 1, c + 1] < lowest:
                lowest = np.int32(evidence[r + 1, c + 1])
                way = 0
            if kinds[r + 1, c + 2] == kind and evidence[r + 1, c + 2] < lowest:
                lowest = np.int32(evidence[r + 1, c + 2])
                way = 3
            if kinds[r + 2, c + 1] == kind and evidence[r + 2, c + 1] < lowest:
                way = 4
            step[r, c] = way
            if (
                way == 0 or (way == 1 and r == 0) or (way == 2 and c == 0)
                or (way == 3 and c == cols - 1) or (way == 4 and r == rows - 1)
            ):  # fmt: skip
                count += 1
    labels = np.zeros((rows, cols), np.int32)
    bottoms = np.empty(count, np.int64)
    exits = np.empty(count, np.int64)
    n = 0
    for r in range(rows):
        for c in range(cols):
            if labels[r, c] != 0 or kinds[r + 1, c + 1] == 0:
                continue
            y, x = r, c
            found = 0
            while True:
                found = labels[y, x]
                if found:
                    break
                way = step[y, x]
                down = (way == 4) - np.int64(way == 1)
                right = (way == 3) - np.int64(way == 2)
                if way == 0 or y + down < 0 or y + down >= rows or x + right < 0 or x + right >= cols:
                    bottoms[n] = y * cols + x
                    exits[n] = way
                    n += 1
                    found = n
                    labels[y, x] = n
                    break
                y += down
                x += right
            y, x = r, c
            while labels[y, x] == 0:
                labels[y, x] = found
                way = step[y, x]
                y += (way == 4) - np.int64(way == 1)
                x += (way == 3) - np.int64(way == 2)
    return labels, bottoms, exits


@numba.njit(nogil=True, cache=True)
def borders(
    labels: NDArray[np.int32], evidence: NDArray[np.uint16], kinds: NDArray[np.uint8]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint16], NDArray[np.int32]]:
    """Pairs of neighbouring pixels in different basins of one kind, in ascending order of (saddle, place).

    Args:
        labels: (row, col), 0 for none.
        evidence, kinds: (row + 2, col + 2), as `basins` takes them.

    Returns:
        a, b: (pair,) labels of the upper or left pixel and of the other;
        saddle: (pair,) the larger evidence of the two;
        place: (pair,) 2 * (row * columns + col) of the upper or left pixel, + 1 where the other is below it.
    """
    rows, cols = labels.shape
    starts = np.zeros(EVIDENCE_MAX + 2, np.int64)
    for r in range(rows):
        for c in range(cols):
            here = labels[r, c]
            if here == 0:
                continue
            for down in range(2):
                y, x = r + down, c + 1 - down
                if y == rows or x == cols or labels[y, x] == here or labels[y, x] == 0:
                    continue
                if kinds[r + 1, c + 1] == kinds[y + 1, x + 1]:
                    starts[max(evidence[r + 1, c + 1], evidence[y + 1, x + 1]) + 1] += 1
    for i in range(1, starts.size):
        starts[i] += starts[i - 1]
    total = starts[-1]
    a = np.empty(total, np.int32)
    b = np.empty(total, np.int32)
    saddle = np.empty(total, np.uint16)
    place = np.empty(total, np.int32)
    for r in range(rows):
        for c in range(cols):
            here = labels[r, c]
            if here == 0:
                continue
            for down in range(2):
                y, x = r + down, c + 1 - down
                if y == rows or x == cols or labels[y, x] == here or labels[y, x] == 0:
                    continue
                if kinds[r + 1, c + 1] != kinds[y + 1, x + 1]:
                    continue
                value = max(evidence[r + 1, c + 1], evidence[y + 1, x + 1])
                at = starts[value]
                starts[value] += 1
                a[at] = here
                b[at] = labels[y, x]
                saddle[at] = value
                place[at] = 2 * (r * cols + c) + down
    return a, b, saddle, place


@numba.njit(nogil=True, cache=True)
def line_support(evidence: NDArray[np.uint8], place: NDArray[np.int32]) -> NDArray[np.int64]:
    """(pair,) the larger evidence of the two pixels of each pair.

    Args:
        evidence: (row, col) values 0..254.
        place: (pair,) as `borders` gives it.
    """
    cols = evidence.shape[1]
    out = np.empty(place.size, np.int64)
    for i in range(place.size):
        r, c = place[i] // 2 // cols, place[i] // 2 % cols
        down = place[i] % 2
        out[i] = max(evidence[r, c], evidence[r + down, c + 1 - down])
    return out


@numba.njit(nogil=True, cache=True)
def totals(
    labels: NDArray[np.int32], region: NDArray[np.int64], count: int, evidence: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Sums over the pixels of regions, and their first pixels.

    Args:
        labels: (row, col), 0 for none, else an index into `region`.
        region: (label + 1,) number of the region of a label, from 0.
        count: how many regions there are.
        evidence: (row, col).

    Returns:
        pixels: (count,); evidence summed: (count,); first: (count,) place row * columns + col of the first pixel.
    """
    pixels = np.zeros(count, np.int64)
    inner = np.zeros(count, np.int64)
    first = np.full(count, -1, np.int64)
    rows, cols = labels.shape
    for r in range(rows):
        for c in range(cols):
            if labels[r, c] == 0:
                continue
            i = region[labels[r, c]]
            pixels[i] += 1
            inner[i] += evidence[r, c]
            if first[i] < 0:
                first[i] = r * cols + c
    return pixels, inner, first
