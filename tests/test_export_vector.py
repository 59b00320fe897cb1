"""Vector formats: what is read back is what was given; nothing is half written."""

from __future__ import annotations

import json
import logging
import resource
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from geoseg.errors import ExportError
from geoseg.export import exporter_for, exporter_names, exporters
from geoseg.export.dbf import short_names
from geoseg.export.geopackage import GeoPackage
from geoseg.export.shapefile import Shapefile
from geoseg.protocols import Exporter

ALL = ["fgb", "geojson", "gpkg", "parquet", "shp"]
PLANAR = ["fgb", "gpkg", "parquet", "shp"]
COLUMNS = ["id", "class", "area_m2", "perimeter_m", "confidence", "touches_edge"]


def make_fields(count: int = 5, crs: str | None = "EPSG:32632") -> gpd.GeoDataFrame:
    """Squares of 90 m with a triangular hole."""
    shapes = []
    for x in 500_000 + 100 * np.arange(count):
        shell = shapely.box(x, 5_000_000, x + 90, 5_000_090)
        hole = shapely.Polygon([(x + 20, 5_000_020), (x + 40, 5_000_020), (x + 40, 5_000_040)])
        shapes.append(shapely.difference(shell, hole))
    return gpd.GeoDataFrame(
        {
            "id": pd.Series([f"r-{number:012x}" for number in range(count)], dtype="str"),
            "class": pd.Series(["field"] * count, dtype="str"),
            "area_m2": 7900.0 + np.arange(count),
            "perimeter_m": 360.0 + np.arange(count),
            "confidence": np.linspace(0, 1, count),
            "touches_edge": np.arange(count) % 2 == 0,
        },
        geometry=shapes,
        crs=crs,
    )


def read(path: Path) -> gpd.GeoDataFrame:
    """What other programs see, ordered by id."""
    table = gpd.read_parquet(path) if path.suffix == ".parquet" else pyogrio.read_dataframe(path, layer=0)
    return table.sort_values("id", ignore_index=True) if "id" in table else table


def target(folder: Path, name: str, stem: str = "fields") -> Path:
    return folder / f"{stem}{exporter_for(name).suffix}"


@contextmanager
def disk_full_after(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_names_and_suffixes_find_their_exporter() -> None:
    assert set(ALL) <= set(exporter_names())
    assert set(exporters()) == set(exporter_names())
    for name in ALL:
        assert isinstance(exporter_for(name), Exporter)
        assert exporter_for(Path(f"a b.{name.upper()}")).name == name
    assert exporter_for("x.geoparquet").name == "parquet"


def test_unknown_format_lists_the_known() -> None:
    with pytest.raises(ExportError, match=r"no vector format 'dwg'.*known: fgb, geojson, gpkg, parquet, shp"):
        exporter_for("fields.dwg")


@pytest.mark.parametrize("name", ALL)
def test_what_is_read_back_is_what_was_given(name: str, tmp_path: Path) -> None:
    fields = make_fields()
    files = exporter_for(name).write(fields, target(tmp_path, name))
    assert files[0] == target(tmp_path, name)
    assert {path.name for path in files} == {path.name for path in tmp_path.iterdir()}
    found = read(files[0]).rename(columns={"perim_m": "perimeter_m", "at_edge": "touches_edge"})
    assert list(found.drop(columns="geometry").columns) == COLUMNS
    for column in COLUMNS:
        assert found[column].tolist() == fields[column].tolist()
    there = fields if name != "geojson" else fields.to_crs("OGC:CRS84")
    tolerance = 0 if name != "geojson" else 1e-7
    assert shapely.equals_exact(found.geometry.normalize(), there.geometry.normalize(), tolerance).all()
    assert found.crs.to_epsg() == (32632 if name != "geojson" else 4326)


@pytest.mark.parametrize("name", ALL)
def test_no_fields_give_a_valid_file_with_the_columns(name: str, tmp_path: Path) -> None:
    file = exporter_for(name).write(make_fields(0), target(tmp_path, name))[0]
    if name == "geojson":
        assert json.loads(file.read_text())["features"] == []
        return
    found = read(file)
    assert len(found) == 0
    assert len(found.columns) == len(COLUMNS) + 1
    assert found.crs.to_epsg() == 32632
    if name != "parquet":
        assert pyogrio.read_info(file, layer=0)["geometry_type"] == "Polygon"


@pytest.mark.parametrize("name", PLANAR)
def test_fields_without_crs_stay_without(name: str, tmp_path: Path) -> None:
    files = exporter_for(name).write(make_fields(crs=None), target(tmp_path, name))
    assert read(files[0]).crs is None
    assert not list(tmp_path.glob("*.prj"))


@pytest.mark.parametrize("name", ALL)
def test_equal_fields_give_equal_bytes(name: str, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        exporter_for(name).write(make_fields(), target(folder, name))
    assert content(folders[0]) == content(folders[1])


@pytest.mark.parametrize("name", ALL)
def test_writing_again_replaces_the_file(name: str, tmp_path: Path) -> None:
    for count in (5, 2):
        file = exporter_for(name).write(make_fields(count), target(tmp_path, name))[0]
    assert len(read(file)) == 2


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not exist"):
        exporter_for("gpkg").write(make_fields(), tmp_path / "none" / "fields.gpkg")


def test_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "fields.gpkg").mkdir()
    with pytest.raises(ExportError, match=r"fields\.gpkg"):
        exporter_for("gpkg").write(make_fields(), tmp_path / "fields.gpkg")
    assert [path.name for path in tmp_path.iterdir()] == ["fields.gpkg"]


def test_read_only_folder_is_an_export_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(ExportError, match=r"permission denied; choose a folder that you may write to"):
        exporter_for("gpkg").write(make_fields(), tmp_path / "fields.gpkg")


def test_geopackage_carries_a_style_and_an_index(tmp_path: Path) -> None:
    file = GeoPackage().write(make_fields(), tmp_path / "fields.gpkg", layer="parcels")[0]
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (10200,)
        style = database.execute("SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles")
        table, geometry, default, qml = style.fetchone()
        assert (table, geometry, default) == ("parcels", "geom", 1)
        assert "SimpleFill" in qml
        contents = dict(database.execute("SELECT table_name, data_type FROM gpkg_contents"))
        assert contents == {"parcels": "features", "layer_styles": "attributes"}
        assert database.execute("SELECT count(*) FROM rtree_parcels_geom").fetchone() == (5,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_geopackage_that_is_open_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fields.gpkg-wal").write_bytes(b"")
    with pytest.raises(ExportError, match="open in another program"):
        GeoPackage().write(make_fields(), tmp_path / "fields.gpkg")


def test_columns_called_fid_and_geom_are_kept(tmp_path: Path) -> None:
    fields = make_fields().assign(fid=["a", "b", "c", "d", "e"], geom=1)
    found = read(GeoPackage().write(fields, tmp_path / "fields.gpkg")[0])
    assert found["fid"].tolist() == ["a", "b", "c", "d", "e"]
    assert found["geom"].tolist() == [1] * 5


def test_geoparquet_states_version_covering_and_crs(tmp_path: Path) -> None:
    file = exporter_for("parquet").write(make_fields(), tmp_path / "fields.parquet")[0]
    schema = pq.read_schema(file)
    geo = json.loads(schema.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert geo["version"] == "1.1.0"
    assert column["covering"]["bbox"]["xmax"] == ["bbox", "xmax"]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32632}
    assert column["geometry_types"] == ["Polygon"]
    assert column["bbox"] == [500_000, 5_000_000, 500_490, 5_000_090]
    assert not schema.field("id").nullable
    assert str(schema.field("class").type) == "string"
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"
    part = gpd.read_parquet(file, bbox=(500_100, 5_000_000, 500_150, 5_000_050))
    assert part["id"].tolist() == ["r-000000000001"]


def test_empty_geoparquet_has_no_nan_in_its_metadata(tmp_path: Path) -> None:
    file = exporter_for("parquet").write(make_fields(0), tmp_path / "fields.parquet")[0]
    assert b"NaN" not in pq.read_schema(file).metadata[b"geo"]


def test_lists_become_json_text_except_in_parquet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fields = make_fields(2).assign(crops=[["rye", "oat"], []])
    with caplog.at_level(logging.WARNING):
        found = read(exporter_for("gpkg").write(fields, tmp_path / "fields.gpkg")[0])
    assert found["crops"].tolist() == ['["rye", "oat"]', "[]"]
    assert "crops" in caplog.text
    nested = read(exporter_for("parquet").write(fields, tmp_path / "fields.parquet")[0])
    assert [list(crops) for crops in nested["crops"]] == [["rye", "oat"], []]


# Shapefile


def ring_areas(path: Path) -> list[list[float]]:
    """Signed areas of each record's rings as they lie in the file; negative is clockwise."""
    data = path.read_bytes()
    position, records = 100, []
    while position < len(data):
        (words,) = struct.unpack_from(">i", data, position + 4)
        parts, points = struct.unpack_from("<2i", data, position + 8 + 36)
        starts = [*struct.unpack_from(f"<{parts}i", data, position + 52), points]
        xy = np.frombuffer(data, "<f8", 2 * points, position + 52 + 4 * parts).reshape(-1, 2)
        rings = [xy[a:b] - xy[0] for a, b in pairwise(starts)]
        records.append([float(np.sum(r[:-1, 0] * r[1:, 1] - r[1:, 0] * r[:-1, 1]) / 2) for r in rings])
        position += 8 + 2 * words
    return records


def test_shapefile_rings_turn_as_esri_says(tmp_path: Path) -> None:
    file = Shapefile().write(make_fields(), tmp_path / "fields.shp")[0]
    assert ring_areas(file) == [[-8100.0, 200.0]] * 5


def test_shapefile_names_are_short_unique_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fields = make_fields().assign(perimeter_measured=1, perimeter_method="gps", **{"Größe": 2.0, "2024": 3, "ID": 4})
    with caplog.at_level(logging.WARNING):
        file = Shapefile().write(fields, tmp_path / "fields.shp")[0]
    names = [name for name in read(file).columns if name != "geometry"]
    assert all(len(name.encode()) <= 10 for name in names)
    assert len({name.lower() for name in names}) == len(fields.columns) - 1
    assert {"id", "perim_m", "at_edge", "perimeter", "perimete_2", "Grosse", "f_2024", "ID_2"} <= {*names}
    assert "column perimeter_m is called perim_m" in caplog.text
    lines = (tmp_path / "fields.fields.csv").read_text().splitlines()
    assert lines[0] == "shapefile_name,name,note"
    assert "perim_m,perimeter_m," in lines
    assert (tmp_path / "fields.cpg").read_text().strip() == "UTF-8"
    assert (tmp_path / "fields.prj").read_text().startswith('PROJCS["WGS_1984_UTM_Zone_32N"')


def test_short_names_keep_what_fits() -> None:
    assert short_names(["a", "confidence", "CONFIDENCE", "confidence_2"]) == {
        "a": "a",
        "confidence": "confidence",
        "CONFIDENCE": "CONFIDEN_2",
        "confidence_2": "confiden_3",
    }


def test_shapefile_types_that_do_not_fit_are_changed_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fields = make_fields(2).assign(
        small=[1, -2],
        wide=[2**40, -1],
        huge=[2**62, 5],
        seen=pd.to_datetime(["2024-05-01T10:00:00Z", None]),
        long=["é" * 200, None],
        maybe=pd.array([7, None], dtype="Int64"),
        real=[1.5e12, np.inf],
    )
    with caplog.at_level(logging.WARNING):
        found = read(Shapefile().write(fields, tmp_path / "fields.shp")[0])
    assert found["small"].tolist() == [1, -2]
    assert found["wide"].tolist() == [2**40, -1]
    assert found["huge"].tolist() == [str(2**62), "5"]
    assert found["seen"].tolist()[0] == "2024-05-01T10:00:00+00:00"
    assert found["long"].tolist()[0] == "é" * 127
    assert found["maybe"].tolist()[0] == 7
    assert pd.isna(found["maybe"][1])
    assert found["real"].tolist()[0] == 1.5e12
    assert pd.isna(found["real"][1])
    for text in ("huge holds its numbers as text", "long is cut to 254 bytes in 1 rows", "seen holds times as ISO"):
        assert text in caplog.text


def test_shapefile_is_split_before_it_grows_too_large(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fields = make_fields(50)
    Shapefile().write(fields, tmp_path / "fields.shp")
    with caplog.at_level(logging.WARNING):
        files = Shapefile(max_bytes=9000).write(fields, tmp_path / "fields.shp")
    parts = [file for file in files if file.suffix == ".shp"]
    assert [part.name for part in parts] == [f"fields_{number}.shp" for number in range(1, len(parts) + 1)]
    assert len(parts) > 1
    for part in parts:
        assert part.stat().st_size <= 9000
        assert part.with_suffix(".dbf").stat().st_size <= 9000
        assert part.with_suffix(".prj").exists()
    assert [name for part in parts for name in read(part)["id"]] == fields["id"].tolist()
    assert not (tmp_path / "fields.shp").exists()
    assert "written as fields_1, fields_2" in caplog.text


def test_shapefile_leaves_no_stale_projection(tmp_path: Path) -> None:
    Shapefile().write(make_fields(), tmp_path / "fields.shp")
    Shapefile().write(make_fields(crs=None), tmp_path / "fields.shp")
    assert not (tmp_path / "fields.prj").exists()


def test_shapefile_refuses_mixed_geometry(tmp_path: Path) -> None:
    fields = make_fields(2)
    fields.loc[0, "geometry"] = shapely.Point(0, 0)
    with pytest.raises(ExportError, match=r"Point, Polygon.*one kind of geometry"):
        Shapefile().write(fields, tmp_path / "fields.shp")


def test_a_style_that_lies_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "fields.qml").write_text("mine")
    Shapefile().write(make_fields(), tmp_path / "fields.shp")
    assert (tmp_path / "fields.qml").read_text() == "mine"
