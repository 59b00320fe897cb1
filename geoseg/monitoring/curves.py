"""Seasons and anomalies of a whole series, from one of its variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geoseg.monitoring.anomaly import Against, AnomalyRules, against_neighbours, against_past
from geoseg.monitoring.season import Season, SeasonRules, seasons

if TYPE_CHECKING:
    import pandas as pd

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curves:
    """One variable of a series, by field and date."""

    variable: str
    ids: NDArray[np.object_]
    """(field,)"""
    days: NDArray[np.datetime64]
    """(date,) datetime64[D], in order."""
    values: Values
    """(field, date) medians; nan for gaps and for dates of which too little is valid."""
    low: Values
    """(field, date) first quartiles."""
    high: Values
    valid: Values
    """(field, date) share of the field that is valid."""
    seasons: Mapping[str, list[Season]]
    """By field."""
    past: Against
    neighbours: Against

    @classmethod
    def of(
        cls, table: pd.DataFrame, variable: str, centres: Mapping[str, Values], *,
        min_valid: float, season_rules: SeasonRules, anomaly_rules: AnomalyRules,
    ) -> Curves:  # fmt: skip
        """Curves of a series' table.

        Args:
            table: see series.Series.
            variable: one that it holds.
            centres: places of the fields in metres; fields without one have no neighbours.
            min_valid: share of a field that must be valid for a date to count.
            season_rules, anomaly_rules: how.
        """
        rows = table[table["variable"] == variable]
        ids, field = np.unique(rows["field_id"].to_numpy(dtype=object).astype(str), return_inverse=True)
        days, day = np.unique(rows["date"].to_numpy().astype("datetime64[D]"), return_inverse=True)

        def grid(column: str) -> Values:
            out = np.full((len(ids), len(days)), np.nan)
            out[field, day] = rows[column].to_numpy()
            return out

        valid = np.nan_to_num(grid("valid_fraction"))
        values = np.where(valid >= min_valid, grid("median"), np.nan)
        calendar = [date.fromisoformat(str(one)) for one in days]
        found = {}
        for i, name in enumerate(ids.tolist()):
            some = np.flatnonzero(np.isfinite(values[i]))
            found[name] = seasons([calendar[j] for j in some], values[i, some], valid[i, some], season_rules)
        placed = [name in centres for name in ids]
        around = against_neighbours(values[placed], _stacked([centres[n] for n in ids if n in centres]), anomaly_rules)
        return cls(
            variable=variable, ids=ids.astype(object), days=days, values=values, low=grid("p25"), high=grid("p75"),
            valid=valid, seasons=found, past=against_past(values, days, anomaly_rules),
            neighbours=_spread(around, np.array(placed, dtype=np.bool_), values.shape),
        )  # fmt: skip

    def season_table(self) -> pd.DataFrame:
        """A row a field and season; null where there is none, or where it was not seen."""
        import pandas as pd

        rows = [(name, season) for name in self.ids for season in self.seasons[name]]
        days = {
            which: pd.to_datetime(pd.Series([getattr(s, which) for _, s in rows], dtype=object)).astype("datetime64[s]")
            for which in ("start", "peak", "end")
        }
        return pd.DataFrame(
            {
                "field_id": pd.Series([name for name, _ in rows], dtype=object),
                "year": np.array([season.year for _, season in rows], dtype=np.int64),
                "variable": pd.Series([self.variable for _ in rows], dtype=object),
                **days,
                "peak_value": np.array([_number(season.peak_value) for _, season in rows], dtype=np.float64),
                "amplitude": np.array([_number(season.amplitude) for _, season in rows], dtype=np.float64),
                "dates": np.array([season.dates for _, season in rows], dtype=np.int64),
            }
        )

    def anomaly_table(self) -> pd.DataFrame:
        """A row a field and date; value, smooth curve, and what is unusual."""
        import pandas as pd

        count, width = self.values.shape
        return pd.DataFrame(
            {
                "field_id": np.repeat(self.ids, width),
                "date": np.tile(self.days.astype("datetime64[s]"), count),
                "variable": np.full(count * width, self.variable, dtype=object),
                "value": self.values.ravel(),
                "smooth": self._smooth().ravel(),
                **_columns("past", self.past, "years"),
                **_columns("neighbour", self.neighbours, "fields"),
            }
        )

    def _smooth(self) -> Values:
        out = np.full(self.values.shape, np.nan)
        calendar = [date.fromisoformat(str(one)) for one in self.days]
        for i, name in enumerate(self.ids):
            for season in self.seasons[name]:
                at = np.array([season.at(day) for day in calendar])
                out[i] = np.where(np.isfinite(at), at, out[i])
        return out


def _columns(name: str, against: Against, unit: str) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
    return {
        f"{name}_difference": against.difference.ravel(),
        f"{name}_z": against.z.ravel(),
        f"{name}_{unit}": against.count.ravel(),
    }


def _spread(some: Against, here: NDArray[np.bool_], shape: tuple[int, ...]) -> Against:
    """Fields that have no place get nothing."""
    difference, z = np.full(shape, np.nan), np.full(shape, np.nan)
    count = np.zeros(shape, np.int64)
    difference[here], z[here], count[here] = some.difference, some.z, some.count
    return Against(difference=difference, z=z, count=count)


def _stacked(rows: list[Values]) -> Values:
    return np.stack(rows) if rows else np.empty((0, 3))


def _number(value: float | None) -> float:
    return np.nan if value is None else value
