"""Labels grown into free pixels, the gaps between labels, and what is measured of both."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray


def rounds(reach: float) -> int:
    """Pixels around a window that `grow` looks at: steps along rows and columns to a pixel `reach` pixels away."""
    return math.floor(math.sqrt(2) * reach + 1e-9)


@numba.njit(nogil=True, cache=True)
def grow(labels: NDArray[np.int32], free: NDArray[np.bool_], reach: float) -> None:
    """Gives free pixels to the nearest label, step by step over edges of pixels, in place.

    A pixel takes the label of the neighbour whose origin, the labelled pixel it was reached from, is nearest; of equals
    the smallest label. All pixels of a round are decided before any is written: the result at a pixel depends on
    `rounds(reach)` pixels around it and on nothing else, and labels stay 4-connected.

    Args:
        labels: (row, col), 0 for none.
        free: (row, col), True where a pixel may be given away.
        reach: largest distance in pixels between the centres of a pixel and its origin.
    """
    rows, cols = labels.shape
    limit = reach * reach + 1e-9
    state = np.zeros((rows, cols), np.uint8)  # 1: waits in this round
    off = np.zeros((rows, cols, 2), np.int16)
    count = 0
    for r in range(rows):
        for c in range(cols):
            if free[r, c] and labels[r, c] == 0 and (
                (r > 0 and labels[r - 1, c] != 0) or (c > 0 and labels[r, c - 1] != 0)
                or (c + 1 < cols and labels[r, c + 1] != 0) or (r + 1 < rows and labels[r + 1, c] != 0)
            ):  # fmt: skip
                state[r, c] = 1
                count += 1
    queue = np.empty(count, np.int64)
    n = 0
    for r in range(rows):
        for c in range(cols):
            if state[r, c]:
                queue[n] = r * cols + c
                n += 1
    steps = math.floor(math.sqrt(2.0) * reach + 1e-9)
    for _ in range(steps):
        taken = np.zeros(queue.size, np.int32)
        taken_off = np.zeros((queue.size, 2), np.int16)
        for i in range(queue.size):
            r, c = queue[i] // cols, queue[i] % cols
            best = np.int32(0)
            best_distance = np.int64(1 << 40)
            for k in range(4):
                y = r + (k == 3) - np.int64(k == 0)
                x = c + (k == 2) - np.int64(k == 1)
                if y < 0 or x < 0 or y >= rows or x >= cols or labels[y, x] == 0:
                    continue
                down, right = np.int64(off[y, x, 0]) + (r - y), np.int64(off[y, x, 1]) + (c - x)
                distance = down * down + right * right
                if distance < best_distance or (distance == best_distance and labels[y, x] < best):
                    best_distance = distance
                    best = labels[y, x]
                    taken_off[i, 0], taken_off[i, 1] = down, right
            if best_distance <= limit:
                taken[i] = best
        more = 0
        for i in range(queue.size):
            r, c = queue[i] // cols, queue[i] % cols
            state[r, c] = 0
            if taken[i]:
                labels[r, c] = taken[i]
                off[r, c] = taken_off[i]
                more += 1
        follow = np.empty(4 * more, np.int64)
        n = 0
        for i in range(queue.size):
            if not taken[i]:
                continue
            r, c = queue[i] // cols, queue[i] % cols
            for k in range(4):
                y = r + (k == 3) - np.int64(k == 0)
                x = c + (k == 2) - np.int64(k == 1)
                if y < 0 or x < 0 or y >= rows or x >= cols:
                    continue
                if free[y, x] and labels[y, x] == 0 and state[y, x] == 0:
                    state[y, x] = 1
                    follow[n] = y * cols + x
                    n += 1
        queue = follow[:n]
        if n == 0:
            break


@numba.njit(nogil=True, cache=True)
def gap_measures(
    gap: NDArray[np.int32], count: int, framed: NDArray[np.int32], classes: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """What decides whether a gap is filled, ready to be put together over tiles.

    Args:
        gap: (row, col) 4-connected components of the pixels without a label, 0 for none, 1..count.
        count: how many there are.
        framed: (row + 2, col + 2) labels with one pixel of the neighbours around.
        classes: (row + 2, col + 2) class ids, 255 where there is no data and beyond the scene.

    Returns:
        pixels: (count,); lowest, highest: (count,) of the labels beside it, 2^31 - 1 and 0 where there are none;
        kept: (count,) True where it holds or touches a pixel without data: it is never filled.
    """
    pixels = np.zeros(count, np.int64)
    lowest = np.full(count, (1 << 31) - 1, np.int64)
    highest = np.zeros(count, np.int64)
    kept = np.zeros(count, np.bool_)
    rows, cols = gap.shape
    for r in range(rows):
        for c in range(cols):
            i = gap[r, c] - 1
            if i < 0:
                continue
            pixels[i] += 1
            if classes[r + 1, c + 1] == 255:
                kept[i] = True
            for k in range(4):
                y = r + 1 + (k == 3) - np.int64(k == 0)
                x = c + 1 + (k == 2) - np.int64(k == 1)
                beside = framed[y, x]
                if beside != 0:
                    lowest[i] = min(lowest[i], beside)
                    highest[i] = max(highest[i], beside)
                elif classes[y, x] == 255:
                    kept[i] = True
    return pixels, lowest, highest, kept


@numba.njit(nogil=True, cache=True)
def label_measures(
    labels: NDArray[np.int32], count: int, classes: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Areas of labels, and which of them reach where there is no data.

    Args:
        labels: (row, col), 0 for none, 1..count.
        count: how many there are.
        classes: (row + 2, col + 2) class ids with one pixel of the neighbours around; 255 where there is no data,
            beyond the scene too.

    Returns:
        pixels: (count + 1,) areas; touches: (count + 1,) True where a pixel has a side without data beyond it.
    """
    pixels = np.zeros(count + 1, np.int64)
    touches = np.zeros(count + 1, np.bool_)
    rows, cols = labels.shape
    for r in range(rows):
        for c in range(cols):
            i = labels[r, c]
            if i == 0:
                continue
            pixels[i] += 1
            if (
                classes[r, c + 1] == 255
                or classes[r + 2, c + 1] == 255
                or classes[r + 1, c] == 255
                or classes[r + 1, c + 2] == 255
            ):
                touches[i] = True
    return pixels, touches


@numba.njit(nogil=True, cache=True)
def outline_measures(
    labels: NDArray[np.int32], count: int, framed: NDArray[np.int64], classes: NDArray[np.uint8],
    evidence: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """What lies along the outline of every label, ready to be added up over tiles.

    Args:
        labels: (row, col), 0 for none, 1..count.
        count: how many there are.
        framed: (row + 2, col + 2) the final numbers of the pixels' objects, 0 for none, with one pixel of the neighbours.
        classes: (row + 2, col + 2), 255 where there is no data.
        evidence: (row + 2, col + 2) of a boundary, 0..254; an empty array gives sums of zero.

    Returns:
        sides: (count + 1,) sides of pixels along the outline; open: (count + 1,) those of them towards no data;
        support: (count + 1,) evidence summed over the others, of either pixel the larger.
    """
    sides = np.zeros(count + 1, np.int64)
    opened = np.zeros(count + 1, np.int64)
    support = np.zeros(count + 1, np.int64)
    rows, cols = labels.shape
    for r in range(rows):
        for c in range(cols):
            number = framed[r + 1, c + 1]
            if number == 0 or (
                framed[r, c + 1] == number and framed[r + 2, c + 1] == number
                and framed[r + 1, c] == number and framed[r + 1, c + 2] == number
            ):  # fmt: skip
                continue
            i = labels[r, c]
            for k in range(4):
                y = r + 1 + (k == 3) - np.int64(k == 0)
                x = c + 1 + (k == 2) - np.int64(k == 1)
                if framed[y, x] == number:
                    continue
                sides[i] += 1
                if classes[y, x] == 255:
                    opened[i] += 1
                elif evidence.size > 0:
                    support[i] += max(evidence[r + 1, c + 1], evidence[y, x])
    return sides, opened, support
