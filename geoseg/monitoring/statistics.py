"""Weighted statistics of the pixels of one field."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

STATISTICS = ("mean", "median", "std", "p10", "p25", "p75", "p90")
SHARES = (0.5, 0.1, 0.25, 0.75, 0.9)
"""Quantiles, in the order of STATISTICS."""


def weighted_statistics(values: Values, weights: Values) -> Values:
    """(statistic,) of STATISTICS; nan where there are no pixels.

    `std` is that of the pixels themselves, sqrt(sum w (x - mean)^2 / sum w).

    Args:
        values: (pixel,)
        weights: (pixel,) above 0.
    """
    if not values.size:
        return np.full(len(STATISTICS), np.nan)
    total = weights.sum()
    mean = (weights * values).sum() / total
    std = np.sqrt((weights * (values - mean) ** 2).sum() / total)
    middle, *others = weighted_quantiles(values, weights, SHARES)
    return np.array([mean, middle, std, *others])


def weighted_quantiles(values: Values, weights: Values, shares: tuple[float, ...]) -> Values:
    """(share,) quantiles by linear interpolation; with equal weights those of numpy.quantile, and the same as exactextract's.

    The k-th smallest of n values stands at S_k = (k - 1) w_k + (n - 1) (w_1 + ... + w_(k-1)), and the quantile p at p S_n:
    https://stats.stackexchange.com/a/13223

    Args:
        values: (pixel,), one or more.
        weights: (pixel,) above 0.
        shares: of 0 to 1.
    """
    order = np.argsort(values, kind="stable")
    ordered, w = values[order], weights[order]
    count = len(ordered)
    before = np.concatenate([[0.0], np.cumsum(w)[:-1]])
    places = np.arange(count) * w + (count - 1) * before
    return np.asarray(np.interp(np.array(shares) * places[-1], places, ordered))
