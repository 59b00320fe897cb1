"""monitor(): fields and scenes in, a series of statistics by field and date out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import InputError, Interrupted, RunError
from geoseg.monitoring.curves import Curves
from geoseg.monitoring.dates import given_dates, scene_date
from geoseg.monitoring.fields import WatchedFields, open_fields
from geoseg.monitoring.footprints import require_exactextract
from geoseg.monitoring.measuring import Measured, measure
from geoseg.monitoring.options import MonitorOptions, checked_out
from geoseg.monitoring.series import COLUMNS, Series, read_series, sorted_table, with_new, write_series
from geoseg.monitoring.statistics import STATISTICS
from geoseg.monitoring.variables import Variables
from geoseg.protocols import Reader
from geoseg.readers import open_scene
from geoseg.runtime.events import Events
from geoseg.runtime.stop import Stop, signals_set
from geoseg.version import VERSION

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Monitored:
    series: Series
    """All of the file, what was there before too."""
    curves: Curves | None
    """Seasons and anomalies; None where the index was not measured."""
    files: tuple[Path, ...]
    """The series first."""
    dates: tuple[date, ...]
    """That were measured now."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Dated:
    day: date
    reader: Reader
    variables: Variables
    digest: str

    def record(self) -> dict[str, Any]:
        scene = self.reader.scene
        return {
            "name": scene.name,
            "date": self.day.isoformat(),
            "hash": self.digest,
            "crs": None if scene.crs is None else scene.crs.to_string(),
            "bands": list(scene.band_names),
            "variables": list(self.variables.names),
            "cloud": self.variables.cloud,
        }


def monitor(
    fields: str | Path | gpd.GeoDataFrame,
    *scenes: str | os.PathLike[str] | Reader,
    out: str | Path,
    options: MonitorOptions | None = None,
    append: bool = False,
    overwrite: bool = False,
    plots: str | Path | None = None,
    plot_ids: Sequence[str] = (),
    events: Events | None = None,
) -> Monitored:
    """Measures fields in scenes of one date or more and writes the series.

    Args:
        fields: a vector file (`FILE|layername=NAME` picks a layer), or a table of polygons.
        scenes: one path, or Reader, each. Scenes of one date complement each other: a field is taken from that which shows
            most of it.
        out: the series, .parquet (GeoParquet) or .csv; seasons and anomalies are written beside it.
        options: how.
        append: put new dates into the series that is there; the first time there need be none.
        overwrite: replace `out`, or, with `append`, values of fields on dates that are there already.
        plots: folder for a picture a field and a map of each date that is measured now.
        plot_ids: fields to plot; none means the first few.
        events: listeners for progress.

    Raises:
        GeosegError: one clear sentence on what was found, expected, and what to do.
    """
    events, stop, target, options = events or Events(), Stop(), Path(out), options or MonitorOptions()
    checked_out(target)
    if target.exists() and not (append or overwrite):
        raise RunError(f"{target} exists; add to it with --append, replace it with --overwrite, or choose another -o")
    if options.pixels == "coverage":
        require_exactextract()
    if plots is not None:
        from geoseg.monitoring.plots import plot_folder

        plot_folder(plots)
    with signals_set(stop):
        old = read_series(target) if append and target.exists() else None
        watched = (
            open_fields(str(fields), id_column=options.id_column)
            if isinstance(fields, str | Path)
            else WatchedFields.of(fields, name="fields", id_column=options.id_column)
        )
        for note in watched.notes:
            events.note(note)
        dated = _dated(scenes, options)
        if old is not None and not overwrite:
            _refuse_known(old, watched, dated)
        _tell_left_out(dated, events)
        check = _checker(stop, target)
        series = _measured(watched, dated, options, events, check)
        if old is not None:
            series = with_new(old, series, overwrite=overwrite)
        curves = _curves(series, watched, options, events)
        tables = {} if curves is None else {"seasons": curves.season_table(), "anomalies": curves.anomaly_table()}
        check()
        files = write_series(series, target, tables)
        if plots is not None and curves is not None:
            from geoseg.monitoring.plots import draw_all

            shapes = {**series.shapes, **dict(zip(watched.ids, watched.shapes, strict=True))}
            wanted = list(plot_ids) or None
            days = {one.day for one in dated}
            files += draw_all(curves, shapes, watched.crs, Path(plots), wanted, options.plot_fields, days, events, stop)
            if stop:
                raise Interrupted(
                    f"stopped by {stop.signal_number.name}; {target} is written, and some pictures are not drawn",
                    exit_code=128 + stop.signal_number,
                )
    return Monitored(
        series=series, curves=curves, files=tuple(files), dates=tuple(dict.fromkeys(one.day for one in dated))
    )


def _dated(scenes: Sequence[str | os.PathLike[str] | Reader], options: MonitorOptions) -> list[_Dated]:
    """The scenes in the order of their dates; one that comes twice is an error."""
    if not scenes:
        raise InputError("no scene is given; expected one raster or more, with a date each")
    days = None if options.dates is None else given_dates(options.dates, len(scenes))
    out: list[_Dated] = []
    for number, scene in enumerate(scenes):
        if isinstance(scene, Reader):
            path, reader = scene.scene.name, scene
        else:
            path = os.fspath(scene)
            reader = open_scene([path], **options.reading())
        day = scene_date(path, reader.scene, pattern=options.date_pattern) if days is None else days[number]
        variables = Variables.of(reader.scene, options.variables)
        digest = reader.content_hash()
        twice = next((one for one in out if (one.day, one.digest) == (day, digest)), None)
        if twice is not None:
            raise InputError(
                f"{reader.scene.name} is the same scene of {day} as {twice.reader.scene.name}; give it once"
            )
        out.append(_Dated(day=day, reader=reader, variables=variables, digest=digest))
    return sorted(out, key=lambda one: one.day)


def _refuse_known(old: Series, watched: WatchedFields, dated: Iterable[_Dated]) -> None:
    """RunError before anything is measured, where a scene was measured before for some of the fields."""
    known = {(scene["hash"], scene["date"], scene["name"]) for scene in old.record["scenes"]}
    for one in dated:
        name = one.reader.scene.name
        if (one.digest, one.day.isoformat(), name) not in known:
            continue
        rows = old.table
        here = rows[(rows["source"] == name) & (rows["date"] == np.datetime64(one.day)) & (rows["valid_fraction"] > 0)]
        if here["field_id"].isin(watched.ids).any():
            raise RunError(
                f"{name} of {one.day} is in the series already; leave it out, or measure it again with --overwrite"
            )


def _tell_left_out(dated: Sequence[_Dated], events: Events) -> None:
    names = next((one.variables.left_out for one in dated if one.variables.left_out), ())
    if names:
        events.note(
            f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} left out: made of reflectances of 0 to 1, and the scenes "
            f"state no scale; give it, e.g. --scale 0.0001 where 10000 means 1"
        )


def _measured(
    watched: WatchedFields,
    dated: Sequence[_Dated],
    options: MonitorOptions,
    events: Events,
    check: Callable[[], None],
) -> Series:
    import pandas as pd

    events.stage_started("measure", total=len(watched) * len(dated))

    def done(count: int) -> None:
        events.stage_advanced("measure", units=count)
        check()

    parts: list[pd.DataFrame] = []
    for day, some in groupby(dated, key=lambda one: one.day):
        same = list(some)
        found = [
            measure(one.reader, watched.in_pixels(one.reader.scene), one.variables, pixels=options.pixels, done=done)
            for one in same
        ]
        parts.append(_rows(watched, day, found, [one.reader.scene.name for one in same]))
    events.stage_finished("measure")
    recorded = options.recorded()
    table = sorted_table(pd.concat(parts, ignore_index=True))
    if not (table["valid_fraction"] > 0).any() and table["source"].isna().all():
        raise InputError(
            f"none of the {len(watched)} fields of {watched.name} lies in a scene; see whether the CRS of both is right"
        )
    return Series(
        table=table,
        shapes=dict(zip(watched.ids, watched.shapes, strict=True)),
        crs=watched.crs,
        record={
            "geoseg": VERSION,
            "fields": watched.name,
            "options": recorded,
            "scenes": [one.record() for one in dated],
        },
    )


def _rows(watched: WatchedFields, day: date, found: Sequence[Measured], names: Sequence[str]) -> pd.DataFrame:
    """One date's rows: of each field those of the scene that shows most of it, of the first where that is equal.

    A scene that sees a field under cloud goes before one that does not see it.
    """
    import pandas as pd

    score = np.stack([one.clear + 1e-9 * one.seen for one in found])
    chosen = score.argmax(axis=0)
    parts = []
    for number, one in enumerate(found):
        here = np.flatnonzero(chosen == number)
        width = len(one.variables)
        source = np.where(one.seen[here], names[number], None)  # type: ignore[call-overload]
        rows: dict[str, Any] = {
            "field_id": np.repeat(watched.ids[here], width),
            "date": np.full(len(here) * width, np.datetime64(day).astype("datetime64[s]")),
            "variable": np.tile(np.array(one.variables, dtype=object), len(here)),
            **{name: one.statistics[here, :, k].ravel() for k, name in enumerate(STATISTICS)},
            "valid_fraction": one.valid[here].ravel(),
            "cloud_fraction": np.repeat(one.cloud[here], width),
            "area_m2": np.repeat(watched.area_m2[here], width),
            "source": np.repeat(source.astype(object), width),
        }
        parts.append(pd.DataFrame(rows)[COLUMNS])
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def _curves(series: Series, watched: WatchedFields, options: MonitorOptions, events: Events) -> Curves | None:
    """Seasons and anomalies of the whole series."""
    known = series.table["variable"].unique()
    if options.index not in known:
        events.note(
            f"no seasons and anomalies: the series has no {options.index}, which --index asks for; it has {', '.join(known)}"
        )
        return None
    everywhere = (
        WatchedFields(
            ids=np.array(list(series.shapes), dtype=object), shapes=np.array(list(series.shapes.values()), dtype=object),
            crs=series.crs, area_m2=np.empty(0), name="",
        )
        if len(series.shapes) > len(watched)
        else watched
    )  # fmt: skip
    return Curves.of(
        series.table, options.index, dict(zip(everywhere.ids, everywhere.centres_m(), strict=True)),
        min_valid=options.min_valid, season_rules=options.season_rules(), anomaly_rules=options.anomaly_rules(),
    )  # fmt: skip


def _checker(stop: Stop, out: Path) -> Callable[[], None]:
    def check() -> None:
        if stop:
            raise Interrupted(
                f"stopped by {stop.signal_number.name}; {out} is as it was before", exit_code=128 + stop.signal_number
            )

    return check
