"""`geoseg convert`: any vector file in, any format out, nothing lost silently."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import pyogrio
import pytest
from click.testing import CliRunner, Result
from test_export_vector import COLUMNS, make_fields, read

from geoseg.cli.convert import command, read_vector
from geoseg.errors import ExportError, GeosegError, InputError
from geoseg.export import exporter_for


def convert(*words: str | Path) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


@pytest.mark.parametrize("source", ["fgb", "gpkg", "parquet"])
@pytest.mark.parametrize("wanted", ["fgb", "gpkg", "parquet"])
def test_columns_and_shapes_survive(source: str, wanted: str, tmp_path: Path) -> None:
    src, dst = tmp_path / f"a.{source}", tmp_path / f"b.{wanted}"
    exporter_for(source).write(make_fields(), src)
    result = convert(src, dst)
    assert result.exit_code == 0, result.output
    assert "5 features written to" in result.stdout
    found = read(dst)
    assert [name for name in found.columns if name != "geometry"] == COLUMNS
    assert found.geometry.geom_equals(make_fields().geometry).all()


def test_shapefile_changes_are_told_once_on_stderr(tmp_path: Path) -> None:
    exporter_for("gpkg").write(make_fields(), tmp_path / "a.gpkg")
    result = convert(tmp_path / "a.gpkg", tmp_path / "b.shp")
    assert result.stderr.count("column perimeter_m is called perim_m") == 1
    assert "perim_m" not in result.stdout


def test_a_style_table_is_no_second_layer(tmp_path: Path) -> None:
    exporter_for("gpkg").write(make_fields(), tmp_path / "a.gpkg", layer="parcels")
    assert read_vector(tmp_path / "a.gpkg")[1] == "parcels"


def test_several_layers_need_a_choice(tmp_path: Path) -> None:
    for layer in ("one", "two"):
        pyogrio.write_dataframe(make_fields(), tmp_path / "a.gpkg", layer=layer, append=True)
    result = convert(tmp_path / "a.gpkg", tmp_path / "b.fgb")
    assert isinstance(result.exception, InputError)
    assert "one, two; choose one with --layer" in str(result.exception)
    assert convert(tmp_path / "a.gpkg", tmp_path / "b.fgb", "--layer", "two").exit_code == 0


def test_existing_file_needs_overwrite(tmp_path: Path) -> None:
    exporter_for("gpkg").write(make_fields(), tmp_path / "a.gpkg")
    (tmp_path / "b.fgb").write_text("old")
    assert isinstance(convert(tmp_path / "a.gpkg", tmp_path / "b.fgb").exception, InputError)
    assert (tmp_path / "b.fgb").read_text() == "old"
    assert convert(tmp_path / "a.gpkg", tmp_path / "b.fgb", "--overwrite").exit_code == 0
    assert len(read(tmp_path / "b.fgb")) == 5


def test_crs_is_stated_for_files_without(tmp_path: Path) -> None:
    exporter_for("gpkg").write(make_fields(crs=None), tmp_path / "a.gpkg")
    refused = convert(tmp_path / "a.gpkg", tmp_path / "b.geojson")
    assert isinstance(refused.exception, ExportError)
    assert "--crs" in str(refused.exception)
    for crs in ("EPSG:32632", "32632"):
        assert convert(tmp_path / "a.gpkg", tmp_path / "b.geojson", "--crs", crs, "--overwrite").exit_code == 0
    assert read(tmp_path / "b.geojson").total_bounds[0] == pytest.approx(9.0)


@pytest.mark.parametrize(("crs", "message"), [("EPSG:32633", "leave it out"), ("mars", "no CRS that PROJ knows")])
def test_wrong_crs_is_explained(crs: str, message: str, tmp_path: Path) -> None:
    exporter_for("gpkg").write(make_fields(), tmp_path / "a.gpkg")
    result = convert(tmp_path / "a.gpkg", tmp_path / "b.fgb", "--crs", crs)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet", "a.csv"])
def test_what_is_no_vector_file_is_explained(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x,y\n1,2\n")
    result = convert(tmp_path / name, tmp_path / "b.gpkg")
    assert isinstance(result.exception, InputError)
    assert not (tmp_path / "b.gpkg").exists()


def test_help_is_light() -> None:
    code = "import sys, geoseg.cli.convert; print([m for m in ('geopandas', 'pyogrio', 'numpy', 'shapely') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_parcel_files_in_the_wild(shared: Path, tmp_path: Path) -> None:
    sources = sorted((shared / "vec-lpis-fiboa").glob("*.[gp]*"))
    for src in [*sources, shared / "vec-azerbaijan-eogrow" / "test_area_crops.geojson"]:
        for suffix in ("gpkg", "parquet", "shp", "fgb", "geojson"):
            dst = tmp_path / f"{src.name.split('.')[0]}.{suffix}"
            result = convert(src, dst)
            assert result.exit_code == 0, (src, suffix, result.exception)
            found = gpd.read_parquet(dst) if suffix == "parquet" else pyogrio.read_dataframe(dst, layer=0)
            assert len(found) == len(read_vector(src)[0])


def test_errors_are_geosegs(tmp_path: Path) -> None:
    exporter_for("gpkg").write(make_fields(), tmp_path / "a.gpkg")
    assert isinstance(convert(tmp_path / "a.gpkg", tmp_path / "b.dwg").exception, GeosegError)
