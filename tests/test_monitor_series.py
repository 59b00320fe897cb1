"""geoseg monitor: dates and ids, the file and what is appended to it, the command."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from test_monitor import dates as dates
from test_monitor import fields, measured, reader, scene_pixels

from geoseg.cli.main import cli
from geoseg.errors import GeosegError, InputError, Interrupted, RunError
from geoseg.monitoring import MonitorOptions, monitor
from geoseg.monitoring.dates import scene_date
from geoseg.monitoring.fields import WatchedFields
from geoseg.monitoring.series import read_series
from geoseg.runtime.events import Events

pytest.importorskip("exactextract", reason="needs the extra geoseg[monitor]")

# Dates and ids


def test_dates_of_names(tmp_path: Path) -> None:
    scene = reader(scene_pixels(1)).scene
    for name, day in {
        "stack_20210515.tif": date(2021, 5, 15), "a_2021-05-15.tif": date(2021, 5, 15), "S2A_MSIL2A_20230415T103021_N0509.SAFE":
        date(2023, 4, 15), "LC08_L2SP_194024_20210515_02_T1": date(2021, 5, 15), "ndvi_2022-07.tif": date(2022, 7, 1),
        "2021-06-03/red.tif": date(2021, 6, 3), "x_20219915_20210203.tif": date(2021, 2, 3),
    }.items():  # fmt: skip
        assert scene_date(name, scene) == day
    with pytest.raises(InputError, match="--date-pattern"):
        scene_date("scene_12.tif", scene)
    pattern = r"d(?P<day>\d+)_m(?P<month>\d+)_y(?P<year>\d+)"
    assert scene_date("d3_m4_y2020.tif", scene, pattern=pattern) == date(2020, 4, 3)
    with pytest.raises(InputError, match="finds no date"):
        scene_date("scene.tif", scene, pattern=pattern)
    with pytest.raises(InputError, match="2 dates for 1 scenes"):
        monitor(
            fields(), reader(scene_pixels(1)), out=tmp_path / "s.csv",
            options=MonitorOptions.checked(dates="2020-01-01,2020-02-02"),
        )  # fmt: skip


def test_ids_are_texts_and_come_once(tmp_path: Path) -> None:
    frame = fields().iloc[:3]
    assert WatchedFields.of(frame.drop(columns="id"), name="x").ids.tolist() == ["0", "1", "2"]
    assert WatchedFields.of(frame.assign(id=[5.0, 7.0, 9.0]), name="x").ids.tolist() == ["5", "7", "9"]
    with pytest.raises(InputError, match="several fields"):
        WatchedFields.of(frame.assign(id=["a", "b", "a"]), name="x")
    with pytest.raises(InputError, match="no column 'nr'"):
        WatchedFields.of(frame, name="x", id_column="nr")


def test_fields_in_another_crs_are_the_same_fields() -> None:
    scene = reader(scene_pixels(4))
    here, there = (measured(scene, frame, variables=["ndvi"]) for frame in (fields(), fields().to_crs(4326)))
    np.testing.assert_allclose(here.statistics, there.statistics, atol=1e-5)
    with pytest.raises(InputError, match="has no CRS"):
        measured(scene, fields().set_crs(None, allow_override=True))


# The file


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_appended_is_all_at_once(dates: list[Path], tmp_path: Path, suffix: str) -> None:
    whole, grown = tmp_path / f"whole.{suffix}", tmp_path / f"grown.{suffix}"
    monitor(fields(), *dates, out=whole)
    for path in dates:
        monitor(fields(), path, out=grown, append=True)
    pd.testing.assert_frame_equal(read_series(whole).table, read_series(grown).table)
    for what in ("seasons", "anomalies"):
        files = [path.with_name(f"{path.stem}.{what}.{suffix}") for path in (whole, grown)]
        one, other = (pd.read_csv(file) if suffix == "csv" else pd.read_parquet(file) for file in files)
        pd.testing.assert_frame_equal(one, other)
    assert [scene["name"] for scene in read_series(grown).record["scenes"]] == [path.name for path in dates]
    assert read_series(whole).record["scenes"] == read_series(grown).record["scenes"]


def test_geoparquet_and_csv_say_the_same(dates: list[Path], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    for suffix in ("parquet", "csv"):
        monitor(fields(), *dates, out=tmp_path / f"s.{suffix}")
    pd.testing.assert_frame_equal(read_series(tmp_path / "s.parquet").table, read_series(tmp_path / "s.csv").table)
    frame = gpd.read_parquet(tmp_path / "s.parquet")
    assert frame.crs == fields().crs
    first = frame.drop_duplicates("field_id").set_index("field_id").geometry
    assert (first.loc[fields()["id"]].to_numpy() == fields().geometry.to_numpy()).all()
    metadata = pq.read_metadata(tmp_path / "s.parquet").metadata
    record = json.loads(metadata[b"geoseg:monitor"])
    assert record["options"]["pixels"] == "coverage"
    assert {len(scene["hash"]) for scene in record["scenes"]} == {64}
    assert record["scenes"] == json.loads((tmp_path / "s.json").read_text())["scenes"]


def test_what_is_there_is_not_replaced_unasked(dates: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    monitor(fields(), *dates[:2], out=out)
    before = out.read_bytes()
    with pytest.raises(RunError, match="--append"):
        monitor(fields(), dates[2], out=out)
    with pytest.raises(RunError, match=r"in the series already; leave it out"):
        monitor(fields(), dates[0], out=out, append=True)
    other = reader(scene_pixels(9), name="x_20230401.tif")
    with pytest.raises(RunError, match="fields have values on 2023-04-01 already"):
        monitor(fields(), other, out=out, append=True)
    with pytest.raises(RunError, match="--pixels coverage"):
        monitor(fields(), dates[2], out=out, append=True, options=MonitorOptions.checked(pixels="centres"))
    moved = fields()
    moved.geometry = moved.geometry.translate(1, 0)
    with pytest.raises(RunError, match="another outline"):
        monitor(moved, dates[2], out=out, append=True)
    assert out.read_bytes() == before
    changed = monitor(fields(), other, out=out, append=True, overwrite=True).series.table
    rows = changed[(changed["date"] == "2023-04-01") & (changed["field_id"] == "f00")]
    assert rows["source"].unique().tolist() == ["x_20230401.tif"]
    assert (changed["date"] == "2023-04-15").any()


def test_a_gap_is_filled_by_another_scene_of_the_date(tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    left, right = scene_pixels(1), scene_pixels(2)
    left[:, :, 55:], right[:, :, :55] = 0, 0
    east = fields(count=30)
    east = east[[x > 600_620 for x in east.bounds["minx"]]]
    first = monitor(east, reader(left, nodata=0, name="left_20230401"), out=out).series.table
    assert first["mean"].isna().all()
    second = monitor(east, reader(right, nodata=0, name="right_20230401"), out=out, append=True).series.table
    assert len(second) == len(first)
    assert {*second["source"].dropna()} == {"right_20230401"}


def test_stopped_in_the_middle_nothing_changes(
    dates: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    out = tmp_path / "s.parquet"
    monitor(fields(), dates[0], out=out)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class Stopping:
        def stage_started(self, name: str, *, total: int, done: int) -> None: ...
        def stage_finished(self, name: str) -> None: ...
        def note(self, text: str) -> None: ...
        def stage_advanced(self, name: str, *, units: int, pixels: int) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="is as it was before"):
        monitor(fields(), *dates[1:], out=out, append=True, events=Events((Stopping(),)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geoseg.monitoring.series._write_geoparquet", broken)
    with pytest.raises(GeosegError, match="free some space"):
        monitor(fields(), *dates[1:], out=out, append=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_of_somebody_else_is_no_series(dates: list[Path], tmp_path: Path) -> None:
    fields().to_parquet(tmp_path / "s.parquet")
    with pytest.raises(InputError, match="no series of geoseg monitor"):
        monitor(fields(), dates[0], out=tmp_path / "s.parquet", append=True)
    with pytest.raises(InputError, match=r"end in \.parquet"):
        monitor(fields(), dates[0], out=tmp_path / "s.gpkg")


# The command


def test_command_on_real_dates(shared: Path, tmp_path: Path) -> None:
    folder = shared / "s2-magdeburg"
    scenes = [str(folder / f"stack_rgbn_{day}.tif") for day in ("20210515", "20210615")]
    arguments = [
        "monitor", str(folder / "magdeburger_boerde_train10.shp"), *scenes, "-o", str(tmp_path / "s.parquet"),
        "--scale", "0.0001", "--plots", str(tmp_path / "plots"), "--field", "3",
    ]  # fmt: skip
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "2021-05-15" in result.output
    assert "10 fields on 2 dates" in result.output
    rows = gpd.read_parquet(tmp_path / "s.parquet")
    assert {"ndvi", "evi", "ndwi", "red"} <= {*rows["variable"]}
    assert rows.query("variable == 'ndvi'")["mean"].between(0, 1).all()
    pictures = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert pictures == ["field_3.png", "map_2021-05-15_ndvi.png", "map_2021-06-15_ndvi.png"]


def test_recipe_runs_and_the_command_line_wins(dates: list[Path], tmp_path: Path) -> None:
    fields().to_file(tmp_path / "fields.gpkg")
    out = tmp_path / "s.csv"
    arguments = [
        "monitor",
        str(tmp_path / "fields.gpkg"),
        *map(str, dates),
        "-o",
        str(out),
        "--recipe",
        "crop_monitoring",
    ]
    told = CliRunner().invoke(cli, [*arguments, "-q", "--neighbours", "3"], catch_exceptions=False)
    assert (told.exit_code, told.output) == (0, "")
    record = json.loads((tmp_path / "s.json").read_text())
    assert record["options"]["neighbours"] == 3
    assert record["options"]["variables"] == ["ndvi", "ndwi", "gndvi"]
    recipe = tmp_path / "r.yaml"
    recipe.write_text("neighbors: 3\n")
    with pytest.raises(InputError, match="'neighbors' is not known"):
        CliRunner().invoke(cli, [*arguments[:-1], str(recipe)], catch_exceptions=False)
