"""Fields that come in parts are written like a whole table: the same bytes, the same errors, a few parts in memory."""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from pyproj import CRS
from test_export_preview import make_reader
from test_export_vector import ALL, content, disk_full_after, make_fields, read, target

from geoseg.errors import ExportError
from geoseg.export import exporter_for
from geoseg.export.arrow import Rows
from geoseg.export.batches import FrameBatches, in_parts
from geoseg.export.geoparquet import GeoParquet
from geoseg.export.preview import write_preview
from geoseg.export.shapefile import Shapefile
from geoseg.export.shapes import kinds_of, layer_kind, promoted
from geoseg.protocols import FieldBatches


@dataclass
class Parts:
    """A table that comes some rows at a time; counts the parts that are in memory."""

    frame: gpd.GeoDataFrame
    rows: int
    change: Callable[[int, gpd.GeoDataFrame], gpd.GeoDataFrame] = lambda _, part: part
    """What becomes of the part that begins at a row."""
    most_alive: int = 0
    _alive: list[weakref.ref[gpd.GeoDataFrame]] = field(default_factory=list)

    @property
    def crs(self) -> CRS | None:
        return self.frame.crs

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[gpd.GeoDataFrame]:
        for start in range(0, max(len(self.frame), 1), self.rows):
            part = self.change(start, self.frame.iloc[start : start + self.rows].copy())
            self._alive = [weakref.ref(part), *(other for other in self._alive if other() is not None)]
            self.most_alive = max(self.most_alive, len(self._alive))
            yield part


def failing(error: BaseException, *, at: int) -> Callable[[int, gpd.GeoDataFrame], gpd.GeoDataFrame]:
    def change(start: int, part: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        if start >= at:
            raise error
        return part

    return change


@pytest.fixture(params=["gpkg", "fgb", "shp"])
def gdal_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows at a time where there are thousands."""
    for module in ("drivers", "shapefile"):
        monkeypatch.setattr(f"geoseg.export.{module}.AT_ONCE", 7)


def test_batches_are_batches() -> None:
    assert isinstance(Parts(make_fields(), 2), FieldBatches)
    for fields in (make_fields(), Parts(make_fields(), 2)):
        parts = in_parts(fields)
        assert isinstance(parts, FieldBatches)
        assert len(parts) == sum(len(part) for part in parts) == 5


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("name", ALL)
def test_the_size_of_batches_does_not_change_the_bytes(name: str, tmp_path: Path) -> None:
    fields = make_fields(30)
    exporter = GeoParquet(rows_per_group=8) if name == "parquet" else exporter_for(name)
    contents = []
    for number, source in enumerate([fields, *(Parts(fields, rows) for rows in (1, 7, 11, 30))]):
        folder = tmp_path / str(number)
        folder.mkdir()
        exporter.write(source, target(folder, name))
        contents.append(content(folder))
    assert all(found == contents[0] for found in contents)


@pytest.mark.parametrize("name", ALL)
def test_no_fields_in_one_part_are_as_no_fields(name: str, tmp_path: Path) -> None:
    contents = []
    for number, source in enumerate([make_fields(0), Parts(make_fields(0), 5)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        exporter_for(name).write(source, target(folder, name))
        contents.append(content(folder))
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", ALL)
def test_an_empty_part_changes_nothing(name: str, tmp_path: Path) -> None:
    parts = Parts(make_fields(6), 2, change=lambda start, part: part.iloc[:0] if start == 0 else part)
    file = exporter_for(name).write(parts, target(tmp_path, name))[0]
    assert read(file)["id"].tolist() == make_fields(6)["id"].tolist()[2:]


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("name", ALL)
def test_few_parts_are_in_memory(name: str, tmp_path: Path) -> None:
    parts = Parts(make_fields(200), 5)
    exporter = GeoParquet(rows_per_group=20) if name == "parquet" else exporter_for(name)
    exporter.write(parts, target(tmp_path, name))
    assert parts.most_alive <= 3


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("error", [ValueError("torn"), ExportError("torn"), KeyboardInterrupt("torn")])
@pytest.mark.parametrize("name", ALL)
def test_what_a_part_raises_comes_out_as_it_is(name: str, error: BaseException, tmp_path: Path) -> None:
    exporter_for(name).write(make_fields(3), target(tmp_path, name))
    before = content(tmp_path)
    with pytest.raises(type(error), match=r"^torn$"):
        exporter_for(name).write(Parts(make_fields(60), 10, change=failing(error, at=40)), target(tmp_path, name))
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["geojson", "gpkg"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: part.assign(area_m2=1), r"part 3 .*differs from the first in area_m2 \(float64\), area_m2 \(int64\)"),
        (lambda part: part.drop(columns="class"), r"part 3 .*differs from the first in class \(text\)"),
        (lambda part: part[part.columns[::-1]], r"part 3 .*differs from the first in their order"),
        (lambda part: part.assign(id=[[1]] * len(part)), r"column id holds mixed values in part 3"),
        (lambda part: part.to_crs(4326), r"part 3 is in EPSG:4326, expected EPSG:32632"),
        (lambda part: part.assign(id=None), r"fields in part 3 have no id"),
        (lambda part: part.set_geometry([None] * len(part), crs=part.crs), r"2 fields in part 3 have no geometry"),
    ],
)  # fmt: skip
def test_a_part_unlike_the_first_is_refused(
    name: str, change: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame], message: str, tmp_path: Path
) -> None:
    parts = Parts(make_fields(6), 2, change=lambda start, part: change(part) if start == 4 else part)
    with pytest.raises(ExportError, match=message):
        exporter_for(name).write(parts, target(tmp_path, name))
    assert not list(tmp_path.iterdir())


def test_text_may_lack_in_all_of_a_part(tmp_path: Path) -> None:
    fields = make_fields(4).assign(owner=pd.Series([None, None, "Ada", None], dtype=object))
    for name in ALL:
        found = read(exporter_for(name).write(Parts(fields, 2), target(tmp_path, name))[0])
        assert [owner if isinstance(owner, str) else None for owner in found["owner"]] == [None, None, "Ada", None]


@pytest.mark.usefixtures("small_steps")
def test_a_kind_that_comes_late_is_covered(gdal_name: str, tmp_path: Path) -> None:
    fields = make_fields(30)
    fields.loc[25, "geometry"] = shapely.multipolygons([fields.geometry[25]])
    file = exporter_for(gdal_name).write(Parts(fields, 4), target(tmp_path, gdal_name))[0]
    assert pyogrio.read_info(file, layer=0)["geometry_type"] == ("Polygon" if gdal_name == "shp" else "MultiPolygon")
    assert read(file).geometry.normalize().area.tolist() == fields.geometry.area.tolist()
    whole = tmp_path / "whole"
    whole.mkdir()
    exporter_for(gdal_name).write(fields, target(whole, gdal_name))
    assert target(whole, gdal_name).read_bytes() == file.read_bytes()


def test_kinds_are_named_as_files_name_them() -> None:
    square, point = shapely.box(0, 0, 1, 1), shapely.Point(1, 2)
    shapes = np.array([square, None, shapely.MultiPolygon([square]), shapely.force_3d(point), shapely.Polygon()])
    assert kinds_of(shapes) == {"Polygon", "MultiPolygon", "Point Z"}
    assert layer_kind(set()) == "Polygon"
    assert layer_kind({"Point Z"}) == "Point Z"
    assert layer_kind({"Polygon", "MultiPolygon Z"}) == "MultiPolygon Z"
    assert layer_kind({"Polygon", "Point"}) == "Unknown"
    assert [None if shape is None else shape.geom_type for shape in promoted(shapes, "MultiPolygon")] == [
        "MultiPolygon", None, "MultiPolygon", "Point", "MultiPolygon",
    ]  # fmt: skip


def test_rows_are_taken_across_tables() -> None:
    rows = Rows(pa.table({"x": part}) for part in np.split(np.arange(10), [3, 3, 4]))
    assert [rows.take(count)["x"].to_pylist() for count in (2, 5, 0, 9, 4)] == [
        [0, 1], [2, 3, 4, 5, 6], [], [7, 8, 9], [],
    ]  # fmt: skip


def test_times_and_zones_survive(tmp_path: Path) -> None:
    seen = pd.to_datetime(["2024-01-01T10:00Z", None, "2024-07-01T10:00Z"])
    fields = make_fields(3).assign(plain=seen.tz_localize(None), utc=seen, zone=seen.tz_convert("Europe/Berlin"))
    for name in ("fgb", "parquet"):
        file = exporter_for(name).write(fields, target(tmp_path, name))[0]
        for column in ("plain", "utc", "zone"):
            found = pd.to_datetime(read(file)[column], utc=True)
            assert found.tolist() == seen.tolist()
    info = pyogrio.read_info(tmp_path / "fields.fgb")
    assert dict(zip(info["fields"], info["dtypes"], strict=True))["zone"] == "datetime64[ms]"


def test_parquet_tells_its_geometry_to_every_reader(tmp_path: Path) -> None:
    file = GeoParquet(rows_per_group=8).write(Parts(make_fields(20), 5), tmp_path / "fields.parquet")[0]
    parquet = pq.ParquetFile(file)
    geo = parquet.metadata.metadata[b"geo"]
    assert geo == pq.read_schema(file).metadata[b"geo"]
    assert json.loads(geo)["columns"]["geometry"]["bbox"] == [500_000, 5_000_000, 501_990, 5_000_090]
    assert [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)] == [8, 8, 4]


# Shapefile


def test_a_column_called_geometry_is_kept(tmp_path: Path) -> None:
    fields = make_fields(3).rename_geometry("outline").assign(geometry=["a", "b", "c"])
    file = Shapefile().write(fields, tmp_path / "fields.shp")[0]
    assert list(pyogrio.raw.read(file, columns=["geometry"])[3][0]) == ["a", "b", "c"]
    assert pyogrio.read_info(file)["features"] == 3


def test_shapefile_notes_are_of_all_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fields = make_fields(6).assign(
        wide=[1, 1, 1, 1, 2**40, 1], huge=[1, 1, 1, 1, 1, -(2**62)], long=["a"] * 4 + ["é" * 200] * 2, real=1.0
    )
    fields.loc[5, "real"] = np.inf
    with caplog.at_level(logging.WARNING):
        file = Shapefile().write(Parts(fields, 2), tmp_path / "fields.shp")[0]
    notes = ("huge holds its numbers as text", "long is cut to 254 bytes in 2 rows", "real is empty for 1 infinite")
    assert all(caplog.text.count(note) == 1 for note in notes)
    found = read(file)
    assert found["wide"].tolist() == fields["wide"].tolist()
    assert found["huge"].tolist() == [str(number) for number in fields["huge"]]


@pytest.mark.usefixtures("small_steps")
def test_shapefile_is_split_inside_a_batch(tmp_path: Path) -> None:
    fields = make_fields(50)
    files = Shapefile(max_bytes=9000).write(Parts(fields, 20), tmp_path / "fields.shp")
    parts = [read(file) for file in files if file.suffix == ".shp"]
    assert len(parts) > 1
    assert all(len(part) % 20 for part in parts)
    assert [name for part in parts for name in part["id"]] == fields["id"].tolist()


# Faults


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("source", ["frame", "parts"])
@pytest.mark.parametrize("name", ALL)
def test_a_disk_that_fills_anywhere_leaves_the_old_file(name: str, source: str, tmp_path: Path) -> None:
    fields: Any = make_fields(200) if source == "frame" else Parts(make_fields(200), 30)
    probe = tmp_path / "probe"
    probe.mkdir()
    full = max(file.stat().st_size for file in exporter_for(name).write(fields, target(probe, name)))
    folder = tmp_path / "out"
    folder.mkdir()
    exporter_for(name).write(make_fields(3), target(folder, name))
    before = content(folder)
    for size in [*np.linspace(0, full, 13, dtype=int)[:-1].tolist(), *range(full - 3, full)]:
        with disk_full_after(size), pytest.raises(ExportError, match=r"^cannot write") as caught:
            exporter_for(name).write(fields, target(folder, name))
        assert "\n" not in str(caught.value)
        assert content(folder) == before


# Preview


@pytest.mark.parametrize("few", [4000, 20])
def test_the_preview_of_parts_is_that_of_the_whole(few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg.export.outlines.FEW", few)
    monkeypatch.setattr("geoseg.export.preview.FEW", few)
    reader = make_reader()
    rng = np.random.default_rng(0)
    x, y = 400_000 + rng.uniform(0, 4000, 100), 5_800_000 - rng.uniform(0, 3000, 100)
    side = rng.uniform(5, 300, 100)
    shapes = shapely.difference(shapely.box(x, y, x + side, y + side), shapely.Point(402_000, 5_798_500).buffer(200))
    fields = gpd.GeoDataFrame({"area_m2": shapely.area(shapes)}, geometry=shapes, crs=32632)
    pictures = []
    for source in (fields, Parts(fields, 7), FrameBatches(frame=fields, rows=30), Parts(fields.to_crs(4326), 50)):
        (file,) = write_preview(reader, source, tmp_path / "preview.png", size=500)
        pictures.append(file.read_bytes())
    assert pictures[0] == pictures[1] == pictures[2]
