"""Outputs pass the validators of the standards they claim, offline, and wrong values do not.

Validators fetch schemas from the net. Here they are given what installed packages ship, and for the rest the short schemas of
tests/standards.py, which say in our own words what is checked: the extensions of STAC, fiboa and Vecorel, GeoParquet's metadata.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import shapely
import standards
from affine import Affine
from click.testing import CliRunner
from pystac.errors import STACValidationError
from pystac.validation import validate_dict
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.rio.main import main_group as rio
from rasterio.warp import transform_bounds

import geoseg
from geoseg.cli.main import cli
from geoseg.errors import GeosegError, InputError, RunError
from geoseg.export import exporter_for
from geoseg.models.package import read_item
from geoseg.models.registry import BUNDLED, bundled_names
from geoseg.readers import open_scene
from geoseg.readers.array import from_array
from geoseg.recipes import RunOptions
from geoseg.runtime.events import Events
from geoseg.testing.models import IdentityModel

TIME = "2023-06-04T10:00:29Z"
UTM = Affine(10, 0, 500_000, 0, -10, 5_600_000)


@pytest.fixture(scope="module")
def out(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a bundled model."""
    made = tmp_path_factory.mktemp("standards") / "out"
    geoseg.run(
        samples / "s2_smallholder.tif",
        out=made,
        format=("gpkg", "parquet", "shp"),
        probabilities=True,
        time=TIME,
        workers=2,
    )
    return made


def small_run(out: Path, pixels: Any = None, *, placed: bool = True, **options: Any) -> Path:
    """A run whose model says what it sees."""
    scene: dict[str, Any] = {"transform": UTM, "crs": "EPSG:32633"} if placed else {"pixel_size_m": 10}
    if pixels is None:
        pixels = np.zeros((40, 60), np.uint8)
        pixels[4:20, 5:30] = pixels[10:36, 35:55] = 254
    reader = from_array(pixels, names=["red"], **scene)
    geoseg.run(reader, out=out, model=IdentityModel(), format=("parquet",), **({"min_area_m2": 0} | options))
    return out


def fiboa_errors(path: Path) -> list[str]:
    """What `fiboa validate --num -1` finds wrong."""
    needs = "needs the validator: pip install --no-deps -c constraints.txt fiboa-cli vecorel-cli"
    validate = pytest.importorskip("fiboa_cli.validate", reason=needs)
    from vecorel_cli.vecorel.util import file_cache

    file_cache.update(copy.deepcopy(standards.FIELD_SCHEMAS))
    file_cache[standards.GEOPARQUET] = standards.geoparquet()
    found = validate.ValidateData().validate(path, num=None)
    assert found.is_valid() == (not found.errors)
    return [str(each) for each in [*found.errors, *found.warnings]]


def test_fields_are_fiboa(out: Path) -> None:
    assert fiboa_errors(out / "fields.parquet") == []
    fields = gpd.read_parquet(out / "fields.parquet")
    record = json.loads((out / "run.json").read_text())
    assert len(fields) == record["counts"]["fields"] > 100
    assert set(fields["determination:datetime"]) == {datetime(2023, 6, 4, 10, 0, 29, tzinfo=UTC)}
    assert set(fields["determination:method"]) == {"auto-imagery"}
    assert set(fields["collection"]) == {json.loads((out / "item.json").read_text())["id"]}
    np.testing.assert_allclose(fields["metrics:area"], fields["area_m2"], rtol=1e-6)
    np.testing.assert_allclose(fields["metrics:perimeter"], fields["perimeter_m"], rtol=1e-6)
    others = gpd.read_file(out / "fields.gpkg", layer="fields")
    assert set(fields.columns) - set(others.columns) == {
        "collection", "metrics:area", "metrics:perimeter", "determination:datetime", "determination:method",
    }  # fmt: skip
    own = json.loads(pq.read_schema(out / "fields.parquet").metadata[b"collection"])["schemas:custom"]["properties"]
    assert own["class"] == {"type": "string"}
    assert own["touches_edge"] == {"type": "boolean"}


WRONG_FIELDS = {
    "metrics:area": (pa.array([-1.0], pa.float32()), "less than or equal to the exclusive minimum"),
    "metrics:perimeter": (pa.array([1.0], pa.float64()), "must be float"),
    "determination:method": (pa.array(["guessed"]), "not one of the allowed values"),
    "determination:datetime": (pa.array(["2024-05-13"]), "must be date-time"),
    "collection": (pa.array([""]), "shorter than the minimum length"),
    "confidence": (pa.array(["high"]), "must be double"),
}


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_wrong_fields_are_no_fiboa(out: Path, tmp_path: Path, name: str) -> None:
    values, says = WRONG_FIELDS[name]
    table = pq.read_table(out / "fields.parquet").slice(0, 1)
    number = table.schema.get_field_index(name)
    field = table.schema.field(name).with_type(values.type)
    pq.write_table(table.set_column(number, field, values), tmp_path / "wrong.parquet")
    assert any(name in error and says in error for error in fiboa_errors(tmp_path / "wrong.parquet"))


def test_fields_without_their_schemas_are_no_fiboa(out: Path, tmp_path: Path) -> None:
    table = pq.read_table(out / "fields.parquet")
    kept = {key: value for key, value in table.schema.metadata.items() if key != b"collection"}
    pq.write_table(table.replace_schema_metadata(kept), tmp_path / "wrong.parquet")
    assert any("Collection metadata is missing" in error for error in fiboa_errors(tmp_path / "wrong.parquet"))
    no_id = table.set_column(0, table.schema.field("id").with_nullable(True), table["id"])
    pq.write_table(no_id, tmp_path / "wrong.parquet")
    assert any("id: Nullability differs" in error for error in fiboa_errors(tmp_path / "wrong.parquet"))


def test_what_is_converted_claims_to_be_fiboa_where_it_was(out: Path, tmp_path: Path) -> None:
    again = exporter_for("parquet").write(gpd.read_parquet(out / "fields.parquet"), tmp_path / "again.parquet")[0]
    assert fiboa_errors(again) == []
    assert pq.read_table(again).equals(pq.read_table(out / "fields.parquet"))
    drawn = gpd.read_file(out / "fields.gpkg", layer="fields")
    plain = pq.read_schema(exporter_for("parquet").write(drawn, tmp_path / "plain.parquet")[0])
    assert b"collection" not in plain.metadata
    assert plain.names == [*drawn.columns, "bbox"]


@pytest.mark.parametrize("made", [True, False])
def test_vectorized_masks_say_whether_imagery_was_behind_them(out: Path, tmp_path: Path, made: bool) -> None:
    mask = Path(shutil.copy(out / "mask.tif", tmp_path / "mask.tif"))
    if not made:
        with rasterio.open(mask) as source, rasterio.open(tmp_path / "mine.tif", "w", **source.profile) as copied:
            copied.write(source.read())
        mask = tmp_path / "mine.tif"
    words = ["vectorize", str(mask), "-o", str(tmp_path / "f.parquet"), "--time", "2024-05-13", "-q"]
    assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    assert fiboa_errors(tmp_path / "f.parquet") == []
    fields = gpd.read_parquet(tmp_path / "f.parquet")
    assert set(fields["determination:method"]) == {"auto-imagery" if made else "unknown"}
    assert set(fields["determination:datetime"]) == {datetime(2024, 5, 13, tzinfo=UTC)}


def cogeo(path: Path) -> str:
    return CliRunner().invoke(rio, ["cogeo", "validate", "--strict", str(path)], catch_exceptions=False).output


def test_rasters_are_cogs(out: Path, tmp_path: Path) -> None:
    for name in ("mask.tif", "probabilities.tif"):
        assert "is a valid cloud optimized GeoTIFF" in cogeo(out / name)
    with (
        rasterio.open(out / "mask.tif") as mask,
        rasterio.open(
            tmp_path / "striped.tif",
            "w",
            **{**mask.profile, "tiled": False, "blockysize": 1, "width": 600, "height": 600},
        ) as striped,
    ):
        striped.write(np.zeros((1, 600, 600), np.uint8))
    assert "is NOT a valid cloud optimized GeoTIFF" in cogeo(tmp_path / "striped.tif")


def check_stac(item: dict[str, Any]) -> list[str]:
    """The schemas that an item has passed; STACValidationError if it is wrong."""
    validator = JsonSchemaSTACValidator()
    validator.schema_cache.update(standards.EXTENSIONS)
    return [uri for uri in validate_dict(copy.deepcopy(item), validator=validator) if uri]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # stac-model's, of pydantic
def test_item_is_stac_and_says_what_is_true(out: Path) -> None:
    told = json.loads((out / "item.json").read_text())
    assert set(check_stac(told)) >= set(standards.EXTENSIONS)
    item = pystac.Item.from_file(str(out / "item.json"))
    assert item.datetime == datetime(2023, 6, 4, 10, 0, 29, tzinfo=UTC)
    files = {path.name for path in out.iterdir()} - {"item.json"}
    assert {Path(asset.href).name for asset in item.assets.values()} == files
    for asset in item.assets.values():
        content = Path(str(asset.get_absolute_href())).read_bytes()
        if "run.json" not in asset.href:  # written after the item
            assert asset.extra_fields["file:size"] == len(content)
            assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    for name in ("mask", "probabilities"):
        with rasterio.open(item.assets[name].get_absolute_href()) as raster:
            assert item.properties["proj:code"] == raster.crs.to_string()
            assert item.properties["proj:shape"] == list(raster.shape)
            assert item.properties["proj:transform"] == list(raster.transform)[:6]
            bands = item.assets[name].extra_fields["bands"]
            assert [band["name"] for band in bands] == list(raster.descriptions)
            assert {(band["data_type"], band["nodata"]) for band in bands} == {(raster.dtypes[0], raster.nodata)}
            assert [band.get("raster:scale", 1) for band in bands] == list(raster.scales)
            corners = transform_bounds(raster.crs, "EPSG:4326", *raster.bounds)
    np.testing.assert_allclose(item.bbox, corners, atol=1e-6)
    fields = gpd.read_parquet(out / "fields.parquet").to_crs("EPSG:4326")
    assert shapely.covers(shapely.geometry.shape(item.geometry).buffer(1e-6), fields.geometry).all()
    schema = pytest.importorskip("stac_model.schema", reason="needs stac-model, of the extra `dev`")
    assert schema.MLModelProperties(**told["properties"]).name == "fields-s2"
    spec = geoseg.spec.ModelSpec.from_dict(json.loads((out / "model.json").read_text()))
    assert spec == geoseg.models.load("fields-s2").spec


@pytest.mark.parametrize("name", bundled_names())
def test_packages_carry_stac_items(name: str) -> None:
    item = read_item(BUNDLED / name)
    assert item is not None
    assert standards.SCHEMA in check_stac(item)
    del item["properties"]["bands"]
    with pytest.raises(STACValidationError, match="'bands' is a required property"):
        check_stac(item)


def without(*place: str) -> Any:
    def change(item: dict[str, Any]) -> None:
        for name in place[:-1]:
            item = item[name]
        del item[place[-1]]

    return change


def with_(value: Any, *place: str) -> Any:
    def change(item: dict[str, Any]) -> None:
        for name in place[:-1]:
            item = item[name]
        item[place[-1]] = value

    return change


WRONG_ITEMS = {
    "no box": without("bbox"),
    "no time": with_(None, "properties", "datetime"),
    "no time of day": with_("2024-05-13", "properties", "datetime"),
    "a code that is a number": with_(32635, "properties", "proj:code"),
    "one size": with_([512], "properties", "proj:shape"),
    "no software": with_({}, "properties", "processing:software"),
    "no tasks": without("properties", "mlm:tasks"),
    "no model": without("assets", "model"),
    "a model of no kind": without("assets", "model", "mlm:artifact_type"),
    "no reference": without("assets", "mask", "href"),
    "a short checksum": with_("1220ab", "assets", "mask", "file:checksum"),
    "an unknown type of data": with_([{"name": "class", "data_type": "byte"}], "assets", "mask", "bands"),
    "a scale in words": with_([{"raster:scale": "1/254"}], "assets", "probabilities", "bands"),
}


@pytest.mark.parametrize("name", WRONG_ITEMS)
def test_wrong_items_are_no_stac(out: Path, name: str) -> None:
    item = json.loads((out / "item.json").read_text())
    WRONG_ITEMS[name](item)
    with pytest.raises(STACValidationError):
        check_stac(item)


def test_what_is_not_known_is_not_claimed(tmp_path: Path) -> None:
    out = small_run(tmp_path / "out", placed=False)
    item = json.loads((out / "item.json").read_text())
    assert set(check_stac(item)) >= set(standards.EXTENSIONS)
    assert item["geometry"] is None
    assert "bbox" not in item
    assert item["properties"]["proj:code"] is None
    assert item["properties"]["datetime"] is None
    assert item["properties"]["start_datetime"] < item["properties"]["end_datetime"]
    assert fiboa_errors(out / "fields.parquet") == []
    assert "determination:datetime" not in pq.read_schema(out / "fields.parquet").names
    empty = small_run(tmp_path / "empty", np.zeros((40, 60), np.uint8), time=TIME)
    assert fiboa_errors(empty / "fields.parquet") == []
    assert pq.read_metadata(empty / "fields.parquet").num_rows == 0


def test_the_same_run_gives_the_same_item(tmp_path: Path) -> None:
    one, other = (small_run(tmp_path / name, time=TIME, tile=tile, workers=tile) for name, tile in (("a", 1), ("b", 2)))
    for name in ("item.json", "model.json", "fields.parquet", "mask.tif"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


class Ending:
    """Ends a run before its files are made."""

    def stage_started(self, name: str, *, total: int, done: int) -> None:
        if name == "export":
            raise GeosegError("the cable was pulled")

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None: ...

    def stage_finished(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...


def test_another_time_resumes_and_what_is_finished_is_not_changed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(GeosegError, match="the cable was pulled"):
        small_run(out, events=Events(listeners=(Ending(),)))
    journal = {path.name: path.read_bytes() for path in out.rglob("journal/*")}
    assert journal
    with pytest.raises(GeosegError, match="the cable was pulled"):
        small_run(out, time="2024-05-13T09:40:31", events=Events(listeners=(Ending(),)))
    assert {path.name: path.read_bytes() for path in out.rglob("journal/*")} == journal
    small_run(out, time="2024-05-13T09:40:31")
    assert json.loads((out / "item.json").read_text())["properties"]["datetime"] == "2024-05-13T09:40:31Z"
    assert json.loads((out / "run.json").read_text())["scene"]["time"] == "2024-05-13T09:40:31Z"
    with pytest.raises(RunError, match=r"vectorize.time: \"2024-05-13T09:40:31Z\" there, null now.*--overwrite"):
        small_run(out)
    other = small_run(tmp_path / "other")
    with rasterio.open(out / "mask.tif") as one, rasterio.open(other / "mask.tif") as two:
        np.testing.assert_array_equal(one.read(), two.read())


def test_files_say_when_they_were_taken_and_not_when_they_were_written(tmp_path: Path) -> None:
    profile = {
        "driver": "GTiff",
        "width": 8,
        "height": 8,
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:32633",
        "transform": UTM,
    }
    told = {"red": "2024-05-13 09:40:31", "nir": "2024-05-13T09:40:31Z", "blue": "2024-06-01 09:40:31", "green": None}
    paths = {name: tmp_path / f"{name}.tif" for name in told}
    for name, time in told.items():
        with rasterio.open(paths[name], "w", **profile) as file:
            file.write(np.ones((1, 8, 8), np.uint8))
            file.set_band_description(1, name)
            file.update_tags(TIFFTAG_DATETIME="2020:01:01 00:00:00")
            if time is not None:
                file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=time)

    def time_of(*names: str) -> datetime | None:
        return open_scene([paths[name] for name in names]).scene.time

    taken = datetime(2024, 5, 13, 9, 40, 31, tzinfo=UTC)
    assert time_of("red") == time_of("red", "nir") == time_of("red", "green") == taken
    assert time_of("green") is None
    assert time_of("red", "blue") is None


def test_times_are_read_as_utc_and_nonsense_is_refused() -> None:
    for text, expected in {
        "2024-05-13": "2024-05-13T00:00:00Z",
        "2024-05-13T09:40Z": "2024-05-13T09:40:00Z",
        "2024-05-13 11:40:31.7+02:00": "2024-05-13T09:40:31Z",
    }.items():
        assert RunOptions.checked(time=text).model_dump(mode="json")["time"] == expected
    for wrong in ("yesterday", "13.05.2024", "0001-01-01T00:00+14:00"):
        with pytest.raises(InputError, match=r"--time.*no time in ISO 8601; give e\.g\. 2024-05-13T09:40:31Z"):
            RunOptions.checked(time=wrong)
