"""geoseg vectorize on rasters of probabilities that others made."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import shapes
from scipy import ndimage

from geoseg.cli.main import cli
from geoseg.errors import GeosegError
from geoseg.metrics import evaluate

PLACE = Affine(10, 0, 500_000, 0, -10, 5_500_000)
DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def write(path: Path, bands: NDArray[Any], names: tuple[str, ...] = (), **profile: Any) -> Path:
    count, height, width = bands.shape
    given = {"crs": "EPSG:32633", "transform": PLACE} | profile
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype, **given
    ) as file:
        file.write(bands)
        if names:
            file.descriptions = names
    return path


def parcels(rows: int = 240, cols: int = 260) -> NDArray[np.float64]:
    """(field, boundary) probabilities of two rows of touching parcels with lines of .45 between them."""
    field = np.zeros((rows, cols))
    field[10:-10, 10:-10] = 0.95
    line = np.zeros((rows, cols))
    line[10:-10, 70:-10:60] = 0.45
    line[rows // 2, 10:-10] = 0.45
    line = np.where(field > 0, np.maximum(line, 0.02), 0)
    return np.stack([np.where(line > 0.3, 0.52, field), line])


def read_mask(path: Path) -> NDArray[np.bool_]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return np.asarray(file.read(1) > 0)


def vectorize(source: Path, out: Path, *options: str) -> gpd.GeoDataFrame:
    done = CliRunner().invoke(cli, ["vectorize", str(source), "-o", str(out), *options, "--min-area-m2", "0", "-q"])
    assert done.exit_code == 0, done.exception
    return gpd.read_file(out, layer="fields")


def refused(source: Path, out: Path, *options: str) -> str:
    done = CliRunner().invoke(cli, ["vectorize", str(source), "-o", str(out), *options])
    assert isinstance(done.exception, GeosegError), done.output
    assert {path.suffix for path in out.parent.iterdir()} == {".tif"}, "nothing is left behind"
    return str(done.exception)


def test_two_bands_without_a_background_are_divided_where_components_are_one(tmp_path: Path) -> None:
    stored = np.floor(254 * parcels() + 0.5).astype(np.uint8)
    source = write(tmp_path / "p.tif", stored, ("field", "boundary"))
    fields = vectorize(source, tmp_path / "f.gpkg", "--classes", "field,boundary")
    assert len(fields) == 8
    assert len(vectorize(source, tmp_path / "c.gpkg", "--instances", "components")) == 1
    assert shapely.coverage_is_valid(fields.geometry.to_numpy())
    assert fields["boundary_support"].between(0.1, 0.5).all()
    assert fields["confidence"].between(0.9, 0.96).all()


def test_floats_and_other_scales_give_the_same_fields(tmp_path: Path) -> None:
    values = parcels()
    values[:, :30, :30] = np.nan
    exact = write(tmp_path / "f.tif", values.astype(np.float32), ("field", "boundary"), nodata=np.nan)
    stored = np.where(np.isnan(values), 255, np.floor(254 * np.nan_to_num(values) + 0.5)).astype(np.uint8)
    bytes_ = write(tmp_path / "u.tif", stored, ("field", "boundary"), nodata=255)
    a, b = vectorize(exact, tmp_path / "a.gpkg"), vectorize(bytes_, tmp_path / "b.gpkg")
    assert a.geometry.geom_equals(b.geometry).all()
    assert (a["nodata_fraction"] > 0).sum() == 1


def test_a_distance_divides_too(tmp_path: Path) -> None:
    field = np.zeros((200, 200))
    for centre in ((100, 60), (100, 140)):  # two discs that touch
        field[np.hypot(*(np.indices(field.shape) - np.reshape(centre, (2, 1, 1)))) < 42] = 0.9
    distance = ndimage.distance_transform_edt(field > 0) / 45
    source = write(tmp_path / "d.tif", np.stack([1 - field, field, distance]).astype(np.float32))
    assert len(vectorize(source, tmp_path / "d.gpkg", "--classes", "background,field,distance")) == 2
    assert len(vectorize(source, tmp_path / "c.gpkg", "--classes", "background,field")) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--classes", "background,field,boundary,water"), "has 2 bands, and --classes names 4"),
        (("--classes", "distance,field"), "name the classes first"),
        (("--classes", "field,boundary", "--give-back-m", "-1"), "greater than or equal to 0"),
        (("--classes", "field,boundary", "--give-back-m", "900", "--tile", "50"), "larger tiles"),
        (("--classes", "field,boundary", "--give-back-m", "30000"), "no more than 707 are possible"),
        (("--classes", "field,distance", "--field-class", "distance"), "is no class; choose"),
        (("--classes", "field,"), "names a class twice or not at all"),
        (("--classes", "crop,pasture"), "which of crop, pasture becomes polygons"),
        (("--classes", "field,boundary", "--tile", "-5"), "--tile -5 is no side"),
        (("--classes", "field,boundary", "--instances", "watersheds"), "installed: components, watershed"),
    ],
)
def test_wrong_options_are_told_in_one_sentence(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    source = write(tmp_path / "p.tif", np.floor(254 * parcels() + 0.5).astype(np.uint8))
    assert told in refused(source, tmp_path / "f.gpkg", *options)


def test_a_watershed_of_a_mask_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "m.tif", (parcels()[:1] > 0.5).astype(np.uint8))
    assert "a watershed needs probabilities" in refused(source, tmp_path / "f.gpkg", "--instances", "watershed")


def test_what_are_no_probabilities_is_told(tmp_path: Path) -> None:
    whole = write(tmp_path / "w.tif", (10000 * parcels()).astype(np.uint16))
    assert "holds uint16 without a scale" in refused(whole, tmp_path / "f.gpkg", "--classes", "field,boundary")
    percent = write(tmp_path / "p.tif", (100 * parcels()).astype(np.float32))
    assert "holds values from 0 to 95" in refused(percent, tmp_path / "f.gpkg", "--classes", "field,boundary")
    values = parcels().astype(np.float32)
    values[:, :9, :9] = -9999
    far = write(tmp_path / "n.tif", values, nodata=-9999)
    assert len(vectorize(far, tmp_path / "f.gpkg", "--classes", "crop,boundary")) == 8


def test_perfect_probabilities_come_back_as_the_fields_they_are(tmp_path: Path) -> None:
    folder = DATA / "gf2-fieldseg"
    if not folder.exists():
        pytest.skip("the data lies outside the project")
    inside, line = (read_mask(folder / f"label_{name}.tif") for name in ("extent", "boundary"))
    field, line = inside & ~line, line & inside
    bands = np.stack([~(field | line), field, line]).astype(np.uint8) * 254
    metres = {"crs": "EPSG:32650", "transform": Affine(1, 0, 500_000, 0, -1, 4_000_000)}
    source = write(tmp_path / "gf2.tif", bands, ("background", "field", "boundary"), **metres)
    truth = gpd.GeoDataFrame(
        geometry=[
            shapely.geometry.shape(found)
            for found, _ in shapes(inside.astype(np.uint8), mask=inside, transform=metres["transform"])
        ],
        crs=metres["crs"],
    )
    vectorize(source, tmp_path / "fields.gpkg")
    scores = evaluate(f"{tmp_path / 'fields.gpkg'}|layername=fields", truth).objects
    assert scores.f1 is not None
    assert scores.f1 > 0.97
