"""Label rasters as runs of equal values, which is how tiles keep them on disk."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def _count(flat: NDArray[np.int32]) -> int:
    count = 1
    for i in range(1, flat.size):
        count += flat[i] != flat[i - 1]
    return count


@numba.njit(nogil=True, cache=True)
def _encode(flat: NDArray[np.int32], runs: NDArray[np.int32]) -> None:
    at = 0
    start = 0
    for i in range(1, flat.size + 1):
        if i == flat.size or flat[i] != flat[start]:
            runs[at, 0] = flat[start]
            runs[at, 1] = i - start
            at += 1
            start = i


def encode(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """(run, 2) value and length, in row-major order."""
    flat = np.ascontiguousarray(labels, np.int32).reshape(-1)
    runs = np.empty((_count(flat) if flat.size else 0, 2), np.int32)
    if flat.size:
        _encode(flat, runs)
    return runs


@numba.njit(nogil=True, cache=True)
def _decode(runs: NDArray[np.int32], values: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    at = 0
    for i in range(runs.shape[0]):
        value = values[runs[i, 0]]
        for _ in range(runs[i, 1]):
            out[at] = value
            at += 1


def decode(runs: NDArray[np.int32], shape: tuple[int, int], values: NDArray[np.int32]) -> NDArray[np.int32]:
    """(row, col) what `encode` was given, each value v as values[v]."""
    out = np.empty(shape[0] * shape[1], np.int32)
    _decode(runs, values, out)
    return out.reshape(shape)
