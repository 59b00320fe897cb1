"""What users bring: each odd scene runs from file to polygons, or is refused in one clear sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from test_reader_raster import NORTH_UP, write

import geoseg
from geoseg.errors import GeosegError, InputError
from geoseg.grid import Window
from geoseg.readers import inspection, open_scene
from geoseg.testing.models import ThresholdModel

MODEL = ThresholdModel(threshold=100)
SQUARE = np.full((1, 40, 50), 10, "int16")
SQUARE[0, 10:30, 20:40] = 200


def run(path: Path | str, out: Path, **options: Any) -> tuple[NDArray[np.uint8], gpd.GeoDataFrame]:
    """The mask and the fields of a run with the first band as red."""
    with rasterio.open(path) as file:
        names = ["red", *"-" * (file.count - 1)]
    geoseg.run(path, out=out, model=MODEL, bands=names, min_area_m2=0, **options)
    with rasterio.open(out / "mask.tif") as file:
        return file.read(1), gpd.read_file(out / "fields.gpkg", layer="fields")


ANTIMERIDIAN = Affine(0.0001, 0, 179.9970, 0, -0.0001, -16.5)
GRIDS = {
    "degrees": ("EPSG:4326", Affine(0.0001, 0, 13, 0, -0.0001, 52), 0.0001**2 * 111_264 * 68_679),
    "over the antimeridian": ("EPSG:4326", ANTIMERIDIAN, 0.0001**2 * 110_650 * 106_757),
    "beyond 180 degrees west": ("EPSG:4326", ANTIMERIDIAN @ Affine.translation(-3_600_000, 0), 0.0001**2 * 110_650 * 106_757),
    "over the antimeridian in metres": ("EPSG:32601", Affine(10, 0, 179_000, 0, -10, 8_170_000), 100 / 1.001_9),
    "south up": ("EPSG:32633", Affine(10, 0, 500_000, 0, 10, 4_999_600), 100 / 0.9996**2),
    "x flipped": ("EPSG:32633", Affine(-10, 0, 500_500, 0, -10, 5_000_000), 100 / 0.9996**2),
    "turned by 90 degrees": ("EPSG:32633", Affine(0, 10, 500_000, 10, 0, 5_000_000), 100 / 0.9996**2),
    "rotated": ("EPSG:32633", NORTH_UP @ Affine.rotation(30), 100 / 0.9996**2),
    "feet": ("EPSG:2227", Affine(30, 0, 6_000_000, 0, -30, 2_000_000), 30 * 30 * 0.3048006096**2),
}  # fmt: skip


@pytest.mark.parametrize("grid", GRIDS)
def test_a_field_has_its_true_area_on_any_grid(tmp_path: Path, grid: str) -> None:
    crs, transform, pixel_m2 = GRIDS[grid]
    path = write(tmp_path / "a.tif", SQUARE, crs=crs, transform=transform)
    mask, fields = run(path, tmp_path / "out")
    assert (mask == 1).sum() == 400
    assert len(fields) == 1
    assert fields.geometry.is_valid.all()
    assert fields["area_m2"][0] == pytest.approx(400 * pixel_m2, rel=5e-3)


@pytest.mark.parametrize(
    ("shape", "options"),
    [((1, 1), {}), ((1, 300), {"tiled": True, "blockxsize": 16, "blockysize": 16}), ((300, 1), {})],
)
def test_strips_and_scenes_smaller_than_a_patch(
    tmp_path: Path, shape: tuple[int, int], options: dict[str, Any]
) -> None:
    pixels = np.full((1, *shape), 200, "uint8")
    pixels[0, 0, 0] = 1
    mask, fields = run(write(tmp_path / "a.tif", pixels, **options), tmp_path / "out")
    assert np.array_equal(mask, pixels[0] > 100)
    assert len(fields) == (mask.size > 1)


def deep_nodata(path: Path) -> str:
    pixels = SQUARE.copy()
    pixels[0, :5] = -32768
    return write(path, pixels, nodata=-32768)


def not_a_number(path: Path) -> str:
    pixels = SQUARE.astype("float32")
    pixels[0, :5] = np.nan
    return write(path, pixels)


def float_lowest(path: Path) -> str:
    pixels = SQUARE.astype("float32")
    pixels[0, :5] = np.finfo("float32").min
    return write(path, pixels, nodata=float(np.finfo("float32").min))


def alpha(path: Path) -> str:
    pixels = np.concatenate([SQUARE] * 3 + [np.full_like(SQUARE, 255)]).astype("uint8")
    pixels[3, :5] = 0
    return write(path, pixels, photometric="rgb", alpha="yes")


def mask_inside(path: Path) -> str:
    write(path, SQUARE)
    valid = np.ones(SQUARE.shape[1:], bool)
    valid[:5] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(valid)
    return str(path)


@pytest.mark.parametrize("made", [deep_nodata, not_a_number, float_lowest, alpha, mask_inside])
def test_no_field_is_drawn_where_there_is_no_data(tmp_path: Path, made: Callable[[Path], str]) -> None:
    path = made(tmp_path / "großer Acker, 1º corte.tif")
    mask, fields = run(path, tmp_path / "Ergebnis für ‘Süd’")
    assert (mask[:5] == 255).all()
    assert np.array_equal(mask[5:] == 1, SQUARE[0, 5:] > 100)
    assert len(fields) == 1


def test_bands_of_other_resolutions_are_refused_with_a_way_out(tmp_path: Path) -> None:
    fine = write(tmp_path / "B04.tif", SQUARE)
    coarse = write(tmp_path / "B11.tif", SQUARE[:, ::2, ::2], transform=NORTH_UP @ Affine.scale(2))
    with pytest.raises(InputError, match=r"25 x 20 pixels, not 50 x 40.*gdalwarp -tr"):
        open_scene([fine, coarse])


def test_an_offset_in_the_file_is_the_offset_of_its_values(tmp_path: Path) -> None:
    """Sentinel-2 since processing baseline 04.00: reflectance = (stored - 1000) / 10000."""
    path = write(tmp_path / "T33UUS_20220701T100601_B04_10m.tif", SQUARE + 1000)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,), (-0.1,)
    for scene in (open_scene([path]).scene, open_scene([path], scale=1e-4, offset=-0.1).scene):
        (band,) = scene.bands
        assert (band.name, band.scale, band.offset, band.scaled) == ("red", 1e-4, -0.1, True)


def test_bigtiff_is_read_as_tiff(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", SQUARE, BIGTIFF="YES", compress="zstd")
    assert Path(path).read_bytes()[2] == 43
    assert np.array_equal(open_scene([path]).read(Window(0, 0, 40, 50)).pixels, SQUARE)


def test_too_many_bands_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif", np.concatenate([SQUARE] * 3))
    monkeypatch.setattr(inspection, "MAX_BANDS", 2)
    with pytest.raises(InputError, match="claims 3 bands, at most 2"):
        open_scene([path])


def test_coordinates_that_are_no_place_on_earth_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", SQUARE, crs="EPSG:4326", transform=NORTH_UP)
    with pytest.raises(GeosegError, match="no place"):
        run(path, tmp_path / "out")


def test_a_pixel_size_makes_no_place_of_a_northing_beyond_the_globe(tmp_path: Path) -> None:
    path = write(tmp_path / "far.tif", SQUARE, crs="EPSG:32633", transform=Affine(10, 0, 5e5, 0, -10, 1e13))
    with pytest.raises(InputError, match=r"1e\+13.*no place in WGS 84 / UTM zone 33N"):
        run(path, tmp_path / "out", pixel_size_m=10)
