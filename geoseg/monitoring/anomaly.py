"""What is unusual: a field against its own past, and against its neighbours on the same date."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

MAD_TO_STD = 1.4826
"""The median absolute deviation of a normal distribution times this is its standard deviation."""

LEAST = 3
"""Earlier years, or neighbours, that a z-score needs."""

YEAR_DAYS = 365.25


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyRules:
    past_days: int = 15
    """How far from the same day of the year earlier years are looked at."""
    neighbours: int = 8
    """How many of the nearest fields are compared with."""
    radius_m: float = 5000.0
    """No neighbour is farther away, from centre to centre."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Against:
    """(field, date) each; nan where there is nothing to compare with."""

    difference: Values
    z: Values
    """nan also with fewer than LEAST to compare with, or where these are all alike."""
    count: NDArray[np.int64]
    """Earlier years, or neighbours, that were compared with."""


def against_past(values: Values, days: NDArray[np.datetime64], rules: AnomalyRules) -> Against:
    """Differences from the mean of a field's earlier years, a value a year: the mean of its dates near the same day.

    z is the difference over the standard deviation of those years (divisor n - 1).

    Args:
        values: (field, date) nan for gaps.
        days: (date,) datetime64[D].
        rules: how.
    """
    out = _nothing(values)
    day_of_year = (days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.float64)
    for place in range(len(days)):
        apart = np.abs(day_of_year - day_of_year[place])
        near = np.minimum(apart, YEAR_DAYS - apart) <= rules.past_days
        # The end of December and the beginning of January are near: years are counted to the nearest turn.
        ago = np.rint((days[place] - days).astype(np.float64) / YEAR_DAYS)
        earlier = near & (ago >= 1) & (days < days[place])
        yearly = [_mean(values[:, earlier & (ago == back)]) for back in np.unique(ago[earlier])]
        if yearly:
            _compare(out, place, values[:, place], np.stack(yearly, axis=1), robust=False)
    return out


def against_neighbours(values: Values, centres: Values, rules: AnomalyRules) -> Against:
    """Differences from the median of the nearest fields on the same date; z is over 1.4826 times their MAD.

    Neighbours are the nearest fields within the radius, whether they have a value on that date or not.

    Args:
        values: (field, date) nan for gaps.
        centres: (field, 2 or 3) in metres.
        rules: how.
    """
    from scipy.spatial import cKDTree

    out = _nothing(values)
    count = len(values)
    if count < 2:
        return out
    # One more than asked for: a field is its own nearest, or shares its centre with another.
    _, near = cKDTree(centres).query(
        centres, k=min(rules.neighbours + 1, count), distance_upper_bound=np.nextafter(rules.radius_m, np.inf)
    )
    near = near.reshape(count, -1)
    own = near == np.arange(count)[:, None]
    own[~own.any(axis=1), -1] = True
    near = near[~own].reshape(count, -1)
    padded = np.vstack([values, np.full(values.shape[1], np.nan)])  # what is not found has the number `count`
    for place in range(values.shape[1]):
        _compare(out, place, values[:, place], padded[near, place], robust=True)
    return out


def _nothing(values: Values) -> Against:
    return Against(
        difference=np.full(values.shape, np.nan),
        z=np.full(values.shape, np.nan),
        count=np.zeros(values.shape, np.int64),
    )


def _compare(out: Against, place: int, values: Values, others: Values, *, robust: bool) -> None:
    """Fills one date; `others` is (field, other)."""
    known = np.isfinite(others)
    count = np.where(np.isfinite(values), known.sum(axis=1), 0)
    some = count > 0
    out.count[:, place] = count
    if not some.any():
        return
    held = others[some]
    middle = np.nanmedian(held, axis=1) if robust else np.nanmean(held, axis=1)
    difference = values[some] - middle
    spread = np.full(len(held), np.nan)
    enough = count[some] >= LEAST
    if enough.any():
        if robust:
            spread[enough] = MAD_TO_STD * np.nanmedian(np.abs(held[enough] - middle[enough, None]), axis=1)
        else:
            spread[enough] = np.nanstd(held[enough], axis=1, ddof=1)
    spread[spread <= 1e-12] = np.nan
    out.difference[some, place] = difference
    out.z[some, place] = difference / spread


def _mean(values: Values) -> Values:
    """(field,) mean over dates; nan where there is none."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=1)
    return np.asarray(np.divide(total, known.sum(axis=1), out=np.full(len(values), np.nan), where=known.any(axis=1)))
