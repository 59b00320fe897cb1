"""Seasons of geoseg monitor against curves whose start, peak and end are known; anomalies against plain NumPy; pictures."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.sparse.linalg
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.monitoring import AnomalyRules, SeasonRules
from geoseg.monitoring.anomaly import against_neighbours, against_past
from geoseg.monitoring.curves import Curves
from geoseg.monitoring.season import Season, seasons, whittaker
from geoseg.runtime.events import Events
from geoseg.runtime.stop import Stop

YEAR = date(2023, 1, 1)
ROSE, FELL = 120, 225
"""Days on which the double logistic is half-way up and down."""


def crop(day: NDArray[Any], *, low: float = 0.15, high: float = 0.85) -> NDArray[np.float64]:
    """Double logistic, Beck et al. 2006."""
    rise, fall = 1 / (1 + np.exp(-(day - ROSE) / 8)), 1 / (1 + np.exp((day - FELL) / 6))
    return np.asarray(low + (high - low) * (rise + fall - 1))


def crossings(share: float) -> tuple[float, float, float]:
    """True start, peak and end."""
    day = np.arange(0, 365, 0.01)
    curve = crop(day)
    top = int(curve.argmax())
    level = curve.min() + share * (curve.max() - curve.min())
    return day[np.argmax(curve >= level)], day[top], day[top + np.argmax(curve[top:] <= level)]


def season_of(days: NDArray[np.int64], values: NDArray[np.float64], **rules: Any) -> Season:
    calendar = [YEAR + timedelta(days=int(day)) for day in days]
    (found,) = seasons(calendar, values, np.ones(len(days)), SeasonRules(**rules))
    return found


def number(day: date | None) -> int:
    assert day is not None
    return (day - YEAR).days


@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize("every", [3, 5, 10])
def test_start_peak_and_end_of_a_known_season(every: int, share: float) -> None:
    days = np.arange(2, 350, every)
    found = season_of(days, crop(days), share=share)
    start, peak, end = crossings(share)
    assert abs(number(found.start) - start) <= 3
    assert abs(number(found.end) - end) <= 4
    assert abs(number(found.peak) - peak) <= 20  # the top is flat: within 0.01 over a month
    assert found.peak_value == pytest.approx(0.85, abs=0.02)
    assert found.amplitude == pytest.approx(0.7, abs=0.04)


def test_noise_and_gaps_move_a_season_by_days_only() -> None:
    rng = np.random.default_rng(0)
    start, _, end = crossings(0.2)
    off = []
    for _ in range(40):
        days = np.sort(rng.choice(np.arange(5, 350, 5), 45, replace=False))  # a third of the dates is missing
        found = season_of(days, crop(days) + rng.normal(0, 0.02, len(days)))
        off.append((number(found.start) - start, number(found.end) - end))
    assert np.median(np.abs(off), axis=0).max() <= 5
    assert np.abs(off).max() <= 15


POINT = st.tuples(st.integers(0, 80), st.floats(-1, 1), st.floats(0.1, 1))
"""Day, value and weight."""


@given(
    st.lists(POINT, min_size=3, max_size=20, unique_by=lambda point: point[0]),
    st.floats(0.1, 1e5),
)  # fmt: skip
def test_whittaker_is_the_least_of_its_sum(points: list[tuple[int, float, float]], smoothing: float) -> None:
    points = sorted(points)
    places = np.array([p[0] for p in points]) - points[0][0]
    values, weights = np.array([p[1] for p in points]), np.array([p[2] for p in points])
    count = int(places[-1]) + 1
    y, w = np.zeros(count), np.zeros(count)
    y[places], w[places] = values, weights
    second = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(count - 2, count))
    expected = scipy.sparse.linalg.spsolve((scipy.sparse.diags_array(w) + smoothing * second.T @ second).tocsc(), w * y)
    np.testing.assert_allclose(whittaker(places, values, weights, smoothing), expected, atol=1e-5)


def test_what_was_not_seen_has_no_day() -> None:
    late = np.arange(150, 350, 5)  # the field was green already on the first date
    found = season_of(late, crop(late))
    assert found.start is None
    assert abs(number(found.end) - crossings(0.2)[2]) <= 4
    days = np.arange(2, 350, 5)
    assert season_of(days, np.full(len(days), 0.4)).peak is None
    few = season_of(days[:4], crop(days[:4]))
    assert (few.curve, few.peak, few.dates) == (None, None, 4)
    assert season_of(days[::14], crop(days[::14])).curve is not None  # five dates are enough


def test_a_season_may_begin_in_autumn() -> None:
    days = np.arange(-115, 240, 5)  # from September
    calendar = [YEAR + timedelta(days=int(day)) for day in days]
    (found,) = seasons(calendar, crop(days), np.ones(len(days)), SeasonRules(begins=(9, 1)))
    assert found.year == 2022
    assert abs(number(found.start) - crossings(0.2)[0]) <= 3
    assert [s.year for s in seasons(calendar, crop(days), np.ones(len(days)), SeasonRules())] == [2022, 2023]


def test_against_past_is_plain_numpy() -> None:
    days = np.array(
        ["2019-12-28", "2021-01-02", "2021-06-01", "2022-01-04", "2022-01-09", "2023-01-02"], "datetime64[D]"
    )
    values = np.array([[0.2, 0.3, 0.9, 0.5, 0.7, 0.1], [0.2, np.nan, 0.9, np.nan, np.nan, 0.1]])
    found = against_past(values, days, AnomalyRules(past_days=15))
    yearly = np.array([0.2, 0.3, 0.6])  # the turn of 2019 to 2020, of 2021, and the mean of two dates of 2022
    assert found.difference[0, 5] == pytest.approx(0.1 - yearly.mean())
    assert found.z[0, 5] == pytest.approx((0.1 - yearly.mean()) / yearly.std(ddof=1))
    assert found.count[:, 5].tolist() == [3, 1]
    assert found.difference[1, 5] == pytest.approx(-0.1)
    assert np.isnan(found.z[1]).all()
    assert np.isnan(found.difference[:, 2]).all()  # no June before
    assert found.count[0, 4] == 2  # 2022-01-04 is the same year


def test_against_neighbours_is_plain_numpy() -> None:
    rng = np.random.default_rng(4)
    centres, values = rng.uniform(0, 10_000, (60, 2)), rng.normal(0.5, 0.1, (60, 3))
    values[rng.random(values.shape) < 0.2] = np.nan
    rules = AnomalyRules(neighbours=6, radius_m=2500)
    found = against_neighbours(values, centres, rules)
    apart = np.linalg.norm(centres[:, None] - centres, axis=2)
    np.fill_diagonal(apart, np.inf)
    for i in range(60):
        near = [j for j in np.argsort(apart[i])[:6] if apart[i, j] <= 2500]
        for day in range(3):
            others = values[near, day]
            others = others[np.isfinite(others)]
            if np.isnan(values[i, day]) or not len(others):
                assert np.isnan(found.difference[i, day])
                assert found.count[i, day] == 0
                continue
            assert found.count[i, day] == len(others)
            assert found.difference[i, day] == pytest.approx(values[i, day] - np.median(others))
            if len(others) >= 3:
                spread = 1.4826 * np.median(np.abs(others - np.median(others)))
                assert found.z[i, day] == pytest.approx((values[i, day] - np.median(others)) / spread)
            else:
                assert np.isnan(found.z[i, day])


def table(days: NDArray[np.int64], count: int = 6) -> pd.DataFrame:
    """A series of NDVI; field 2 has gaps."""
    rows = []
    for i in range(count):
        for day in days:
            value = float(crop(day - 4 * i)) if i != 2 or day % 4 else np.nan
            rows.append((f"f{i}", np.datetime64(YEAR + timedelta(days=int(day)), "s"), value))
    frame = pd.DataFrame(rows, columns=["field_id", "date", "median"])
    valid = frame["median"].notna().astype(float)
    return frame.assign(variable="ndvi", p25=frame["median"] - 0.03, p75=frame["median"] + 0.02, valid_fraction=valid)


def curves(days: NDArray[np.int64]) -> Curves:
    places = {f"f{i}": np.array([400.0 * i, 0.0]) for i in range(6)}
    return Curves.of(
        table(days), "ndvi", places, min_valid=0.5, season_rules=SeasonRules(), anomaly_rules=AnomalyRules(neighbours=4)
    )


def test_tables_of_seasons_and_anomalies() -> None:
    days = np.arange(5, 350, 9)
    found = curves(days)
    told = found.season_table().set_index("field_id")
    starts = [number(day.date()) for day in told["start"]]
    np.testing.assert_allclose(np.diff(starts), 4, atol=2)  # each field is four days behind the one before
    rows = found.anomaly_table().set_index(["field_id", "date"])
    assert len(rows) == 6 * len(days)
    gap = rows.loc["f2"][rows.loc["f2"]["value"].isna()]
    assert len(gap) > 3
    assert gap["smooth"].notna().sum() > 3  # the curve goes on over gaps, the value does not
    assert (rows["value"] - rows["smooth"]).abs().max() < 0.06


def test_pictures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra geoseg[monitor]")
    from PIL import Image

    from geoseg.monitoring.plots import draw_all

    shapes = {f"f{i}": shapely.box(400 * i, 0, 400 * i + 300, 300) for i in range(6)}
    found = curves(np.array([120, 150]))
    notes: list[str] = []
    days = [YEAR + timedelta(days=150)]

    class Listening:
        def note(self, text: str) -> None:
            notes.append(text)

    made = draw_all(found, shapes, None, tmp_path, None, 2, days, Events((Listening(),)), Stop())  # type: ignore[arg-type]
    assert [path.name for path in made[:2]] == ["field_f0.png", "field_f1.png"]
    assert len(made) == 2 + 1
    assert notes == ["the first 2 of 6 fields are plotted; name others with --field, or see --plot-fields"]
    for path in made:
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(10**7) or ()) > 20
    with pytest.raises(InputError, match="no field 'f9'"):
        draw_all(found, shapes, None, tmp_path, ["f9"], 2, days, Events(), Stop())
