"""Filters whose value at a pixel follows from the pixels around it alone, bit for bit, and that see no edge at nodata.

A patch ends within the halo of a pixel that is kept only at the edge of the scene, where it is grown by reflection or not at
all. All filters mirror at the end of the array, and every kernel is symmetric or antisymmetric: what they see beyond the
scene's edge is the same in every patch. Running sums (scipy.ndimage.uniform_filter) would not do: their last bits depend on
where the array begins.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Values = NDArray[np.float64]

TRUNCATE = 4.0
"""Standard deviations at which a Gaussian ends."""

NOISE = 1e-10
"""Differences below this share of the values are rounding."""


def gaussian_reach(sigma: float) -> int:
    """Pixels on each side that a Gaussian looks at."""
    return int(TRUNCATE * sigma + 0.5)


def smoothed(values: Values, valid: NDArray[np.bool_], sigma: float) -> Values:
    """(row, col) Gaussian means of the valid pixels around (normalised convolution: Knutsson & Westin 1993).

    Where not valid the mean of the valid ones nearby; 0 where there are none. `sigma` 0 leaves values as they are.
    """
    weights = _gaussian(sigma)
    return _mean(np.where(valid, values, 0.0), valid, weights)


def spread(values: Values, valid: NDArray[np.bool_], radius: int) -> Values:
    """(row, col) variance of the valid pixels in a square of 2 x radius + 1."""
    ones = np.ones(2 * radius + 1)
    filled = np.where(valid, values, 0.0)
    mean = _mean(filled, valid, ones)
    return np.asarray(np.maximum(_mean(filled * filled, valid, ones) - mean * mean, 0.0))


def sobel(values: Values) -> tuple[Values, Values]:
    """Derivatives along rows and columns (I. Sobel and G. Feldman, 1968), with the usual weights 1 2 1: 8 x the slope."""
    return (
        np.asarray(ndimage.sobel(values, axis=0, mode="mirror")),
        np.asarray(ndimage.sobel(values, axis=1, mode="mirror")),
    )


def magnitude(down: Values, right: Values, values: Values) -> Values:
    """(row, col) length of the gradient; 0 where it is no more than rounding of the values."""
    length = np.sqrt(down * down + right * right)
    return np.where(length <= NOISE * np.abs(values), 0.0, length)


def surrounded(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(row, col) True where a pixel and its eight neighbours are valid; beyond the array is no reason against it."""
    return np.asarray(ndimage.binary_erosion(valid, np.ones((3, 3), np.bool_), border_value=1))


def _gaussian(sigma: float) -> Values:
    reach = gaussian_reach(sigma)
    if not reach:
        return np.ones(1)
    weights = np.array([math.exp(-0.5 * (x / sigma) ** 2) for x in range(-reach, reach + 1)])
    return np.asarray(weights / weights.sum())


def _mean(filled: Values, valid: NDArray[np.bool_], weights: Values) -> Values:
    if valid.all():  # what _sums() gives for it anyhow
        side = np.ones((2 * len(weights) - 1,) * 2)
        return np.asarray(_sums(filled, weights) / _sums(side, weights)[len(weights) - 1, len(weights) - 1])
    count = _sums(valid.astype(np.float64), weights)
    return np.asarray(np.divide(_sums(filled, weights), count, out=np.zeros_like(filled), where=count > 0))


def _sums(values: Values, weights: Values) -> Any:
    down = ndimage.correlate1d(values, weights, axis=0, mode="mirror")
    return ndimage.correlate1d(down, weights, axis=1, mode="mirror")
