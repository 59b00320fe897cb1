"""The season of a field: a smooth curve through its dates, and where it starts, peaks and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonRules:
    smoothing: float = 300.0
    """Lambda of the Whittaker smoother on a grid of days: larger is smoother."""
    share: float = 0.2
    """Share of the amplitude on either side of the peak at which the season starts and ends."""
    begins: tuple[int, int] = (1, 1)
    """(month, day) on which a new season's curve begins."""
    min_amplitude: float = 0.1
    """Between the curve's lowest and highest value; flatter ones have no season."""
    min_dates: int = 5
    """Dates that a curve needs."""

    def season_of(self, day: date) -> int:
        """The year in which the season of a day begins."""
        return day.year - ((day.month, day.day) < self.begins)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Season:
    year: int
    """In which it begins."""
    dates: int
    """Dates that have a value."""
    first: date
    """Day of curve[0]: the first of those dates."""
    curve: Values | None
    """(day,) smooth values up to the last date; None with too few dates."""
    start: date | None = None
    peak: date | None = None
    end: date | None = None
    peak_value: float | None = None
    amplitude: float | None = None
    """Between the curve's highest and lowest value."""

    def at(self, day: date) -> float:
        """The curve on a day; nan outside."""
        place = (day - self.first).days
        return float(self.curve[place]) if self.curve is not None and 0 <= place < len(self.curve) else float("nan")


HALF_SEEN = 0.5
"""A side of the peak whose own amplitude is a smaller share of the whole was not seen: it has no start or end."""


def seasons(days: Sequence[date], values: Values, weights: Values, rules: SeasonRules) -> list[Season]:
    """The seasons of one field.

    Each season's curve runs from its first to its last date. The season starts where the curve has risen by `share` of the
    amplitude between its lowest value before the peak and the peak, and ends where it has fallen so far that `share` of the
    amplitude towards its lowest value after the peak is left: as in TIMESAT, Jönsson and Eklundh 2004.

    Args:
        days: in order, each once.
        values: (date,) finite.
        weights: (date,) above 0, 1 for a date that is wholly seen.
        rules: how.
    """
    out = []
    years = np.array([rules.season_of(day) for day in days], dtype=np.int64)
    for year in np.unique(years).tolist():
        here = np.flatnonzero(years == year)
        first = days[int(here[0])]
        if len(here) < rules.min_dates:
            out.append(Season(year=year, dates=len(here), first=first, curve=None))
            continue
        places = np.array([(days[int(i)] - first).days for i in here])
        curve = whittaker(places, values[here], weights[here], rules.smoothing)
        out.append(_season(year, len(here), first, curve, rules))
    return out


def whittaker(places: NDArray[np.int64], values: Values, weights: Values, smoothing: float) -> Values:
    """(day,) the curve z that minimises sum w (y - z)^2 + smoothing * sum (second differences of z)^2.

    Days without a value weigh 0. Eilers, A Perfect Smoother, Analytical Chemistry 75 (2003) 3631.

    Args:
        places: (value,) days from 0, in order, two or more, each once.
        values: (value,)
        weights: (value,) above 0.
        smoothing: above 0.
    """
    from scipy.linalg import solveh_banded

    count = int(places[-1]) + 1
    weighed, right = np.zeros(count), np.zeros(count)
    weighed[places], right[places] = weights, weights * values
    # D'D of second differences has five diagonals; these are the upper three, as solveh_banded takes them.
    banded = np.zeros((3, count))
    steps = np.arange(count - 2)
    for left, a in enumerate((1.0, -2.0, 1.0)):
        for right_, b in enumerate((1.0, -2.0, 1.0)):
            if right_ >= left:
                np.add.at(banded[2 - (right_ - left)], steps + right_, smoothing * a * b)
    banded[2] += weighed
    return np.asarray(solveh_banded(banded, right))


def _season(year: int, dates: int, first: date, curve: Values, rules: SeasonRules) -> Season:
    top = int(np.argmax(curve))
    amplitude = float(curve[top] - curve.min())
    if amplitude < rules.min_amplitude or top in (0, len(curve) - 1):
        return Season(year=year, dates=dates, first=first, curve=curve, amplitude=amplitude)
    before = _crossing(curve[top::-1], amplitude, rules.share)
    after = _crossing(curve[top:], amplitude, rules.share)

    def day(place: float | None) -> date | None:
        return None if place is None else first + timedelta(days=round(place))

    return Season(
        year=year, dates=dates, first=first, curve=curve, peak=day(top), peak_value=float(curve[top]), amplitude=amplitude,
        start=day(None if before is None else top - before), end=day(None if after is None else top + after),
    )  # fmt: skip


def _crossing(away: Values, amplitude: float, share: float) -> float | None:
    """Days from the peak to where the curve is down to `share` of that side's amplitude; None for a side that was not seen."""
    low = float(away.min())
    if away[0] - low < HALF_SEEN * amplitude:
        return None
    level = low + share * (float(away[0]) - low)
    place = int(np.argmax(away <= level))
    above, below = float(away[place - 1]), float(away[place])
    return place - 1 + (above - level) / (above - below)
