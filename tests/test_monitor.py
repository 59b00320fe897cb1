"""geoseg monitor: statistics of fields by date, against rasterio, NumPy, shapely and exactextract; gaps, windows, appending."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.mask import mask

from geoseg.errors import InputError
from geoseg.monitoring import MonitorOptions, footprints, monitor
from geoseg.monitoring.fields import WatchedFields
from geoseg.monitoring.footprints import bounding_window
from geoseg.monitoring.measuring import measure
from geoseg.monitoring.statistics import weighted_quantiles, weighted_statistics
from geoseg.monitoring.variables import Variables
from geoseg.protocols import Reader
from geoseg.readers.array import from_array

pytest.importorskip("exactextract", reason="needs the extra geoseg[monitor]")

CRS = "EPSG:32632"
PLACE = Affine(10, 0, 600_000, 0, -10, 5_800_000)
SHAPE = (90, 110)


def fields(*, count: int = 12, seed: int = 1) -> gpd.GeoDataFrame:
    """Turned rectangles of odd sizes, the last one partly and one wholly outside the scene."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        x, y = rng.uniform(120, 980), rng.uniform(120, 780)
        box = shapely.box(x, y, x + rng.uniform(8, 140), y + rng.uniform(8, 140))
        shapes.append(shapely.affinity.rotate(box, rng.uniform(0, 90)))
    shapes += [shapely.box(-75, 300, 133, 407), shapely.box(5000, 0, 5100, 100)]
    moved = shapely.transform(np.array(shapes), lambda xy: xy + np.array([600_000, 5_799_100]))
    return gpd.GeoDataFrame({"id": [f"f{i:02}" for i in range(len(moved))]}, geometry=moved, crs=CRS)


def scene_pixels(seed: int, *, bands: int = 4) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(200, 6000, (bands, *SHAPE)).astype(np.uint16)


def write(path: Path, pixels: NDArray[Any], names: str = "red,green,blue,nir") -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[1], width=pixels.shape[2], count=len(pixels), dtype=pixels.dtype,
        crs=CRS, transform=PLACE, nodata=0, tiled=True, blockxsize=32, blockysize=32,
    ) as file:  # fmt: skip
        file.write(pixels)
        file.descriptions = names.split(",")
    return path


@pytest.fixture(scope="module")
def dates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three dates with clouds and holes; the second is wholly under cloud."""
    folder = tmp_path_factory.mktemp("scenes")
    out = []
    for number, day in enumerate(("20230401", "20230415", "20230501")):
        pixels = scene_pixels(number, bands=5)
        pixels[4] = np.random.default_rng(number + 7).random(SHAPE) < 0.3
        pixels[4] = 1 if number == 1 else pixels[4]
        pixels[4] += 1  # nodata is 0 in this file
        pixels[:4, 20:40, 30:60] = 0
        out.append(write(folder / f"s2_{day}.tif", pixels, "red,green,blue,nir,haze"))
    return out


def reader(pixels: NDArray[Any], names: str = "red,green,blue,nir", **more: Any) -> Reader:
    return from_array(pixels, transform=PLACE, crs=CRS, names=names.split(","), **more)


def measured(scene: Reader, frame: gpd.GeoDataFrame, *, variables: Any = None, **more: Any) -> Any:
    watched = WatchedFields.of(frame, name="fields")
    return measure(scene, watched.in_pixels(scene.scene), Variables.of(scene.scene, variables), **more)


def ndvi(red: NDArray[Any], nir: NDArray[Any]) -> NDArray[np.float64]:
    red, nir = red.astype(np.float64), nir.astype(np.float64)
    return np.asarray((nir - red) / (nir + red))


# Statistics


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60))
def test_equal_weights_are_numpy(values: list[float]) -> None:
    array = np.array(values)
    mean, median, std, *shares = weighted_statistics(array, np.full(len(array), 0.37))
    expected = [array.mean(), np.median(array), array.std(), *np.quantile(array, (0.1, 0.25, 0.75, 0.9))]
    np.testing.assert_allclose([mean, median, std, *shares], expected, atol=1e-9 * (1 + np.abs(array).max()))


def test_weighted_quantiles_are_those_of_exactextract() -> None:
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    values = np.random.default_rng(3).normal(size=(20, 20))
    shape = shapely.Point(9.3, 10.1).buffer(6.7)
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
    ops = ["values", "coverage", "mean", "stdev", "quantile(q=0.1)", "quantile(q=0.5)", "quantile(q=0.9)"]
    found = exact_extract(NumPyRasterSource(values), [feature], ops)[0]["properties"]
    pixels, weights = found["values"], found["coverage"].astype(np.float64)
    np.testing.assert_allclose(
        weighted_quantiles(pixels, weights, (0.1, 0.5, 0.9)),
        [found["quantile_10"], found["quantile_50"], found["quantile_90"]], atol=1e-6,
    )  # fmt: skip
    ours = weighted_statistics(pixels, weights)
    np.testing.assert_allclose(ours[[0, 2]], [found["mean"], found["stdev"]], atol=1e-6)


def test_weights_are_the_areas_that_shapely_finds() -> None:
    frame, pixels = fields(), scene_pixels(5)
    found = measured(reader(pixels), frame, variables=["ndvi", "red"])
    values = ndvi(pixels[0], pixels[3])
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    corner = np.stack(PLACE * (cols, rows))
    squares = shapely.box(corner[0], corner[1] - 10, corner[0] + 10, corner[1])
    for i, shape in enumerate(frame.geometry):
        share = shapely.area(shapely.intersection(squares, shape)) / 100
        if share.sum() == 0:
            assert np.isnan(found.statistics[i]).all()
            assert found.valid[i].tolist() == [0, 0]
            continue
        mean = (share * values).sum() / share.sum()
        assert found.statistics[i, 0, 0] == pytest.approx(mean, abs=1e-6)
        assert found.statistics[i, 0, 2] == pytest.approx(
            np.sqrt((share * (values - mean) ** 2).sum() / share.sum()), abs=1e-6
        )
        assert found.valid[i, 0] == pytest.approx(100 * share.sum() / shape.area, abs=1e-6)
    assert 0 < found.valid[-2, 0] < 0.7  # the field that is partly outside


def test_centres_are_rasterio_mask(tmp_path: Path) -> None:
    frame, pixels = fields(), scene_pixels(6)
    pixels[:, 10:30, 20:70] = 0
    path = write(tmp_path / "s_20230401.tif", pixels)
    out = monitor(frame, path, out=tmp_path / "s.csv", options=MonitorOptions.checked(pixels="centres"))
    rows = out.series.table.query("variable == 'ndvi'").set_index("field_id")
    some = 0
    with rasterio.open(path) as file:
        for name, shape in zip(frame["id"], frame.geometry, strict=True):
            if name == "f13":
                continue
            cut, _ = mask(file, [shape], crop=True, filled=False)
            values = ndvi(*(cut[band].data[~cut.mask.any(axis=0)] for band in (0, 3)))
            row = rows.loc[name]
            if not values.size:
                assert row.isna()["mean"]
                continue
            some += 1
            expected = [values.mean(), np.median(values), values.std(), *np.quantile(values, (0.1, 0.9))]
            np.testing.assert_allclose(row[["mean", "median", "std", "p10", "p90"]].astype(float), expected, atol=1e-9)
    assert some > 8


def test_ndvi_means_of_real_fields_are_rasterio_and_numpy(shared: Path, tmp_path: Path) -> None:
    folder = shared / "s2-magdeburg"
    scenes = [folder / f"stack_rgbn_{day}.tif" for day in ("20210515", "20210615")]
    path = folder / "magdeburger_boerde_train20.shp"
    out = monitor(path, *scenes, out=tmp_path / "s.parquet", options=MonitorOptions.checked(pixels="centres"))
    frame, table = gpd.read_file(path), out.series.table
    assert len(frame) == 20
    for scene in scenes:
        with rasterio.open(scene) as file:
            for number, shape in enumerate(frame.to_crs(file.crs).geometry):
                here = table[(table["source"] == scene.name) & (table["field_id"] == str(number))]
                cut, _ = mask(file, [shape], crop=True, filled=False)
                values = ndvi(*(cut[band].data[~cut.mask.any(axis=0)] for band in (0, 3)))
                row = here[here["variable"] == "ndvi"]
                assert row["mean"].item() == pytest.approx(values.mean(), abs=1e-6)
    weighted = monitor(path, *scenes, out=tmp_path / "w.parquet").series.table
    assert (weighted["mean"] - table["mean"]).abs().max() > 0  # another rule, nearly the same answer
    close = weighted["variable"] == "ndvi"
    assert (weighted["mean"] - table["mean"])[close].abs().max() < 0.02


def test_neither_windows_nor_strips_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, pixels = fields(count=30), scene_pixels(8)
    pixels[2, 30:50, 10:90] = 0
    scene = reader(pixels, nodata=0)
    whole = measured(scene, frame)
    for window_pixels in (1, 400, 3000):
        parts = measured(scene, frame, window_pixels=window_pixels)
        np.testing.assert_array_equal(parts.statistics, whole.statistics)
        np.testing.assert_array_equal(parts.valid, whole.valid)
    monkeypatch.setattr(footprints, "STRIP_PIXELS", 60)  # nearly every field is larger than a strip now
    monkeypatch.setattr("geoseg.monitoring.measuring.STRIP_PIXELS", 60)
    for way in ("coverage", "centres"):
        strips = measured(scene, frame, window_pixels=1, pixels=way)
        expected = whole if way == "coverage" else measured(scene, frame, window_pixels=10**6, pixels=way)
        np.testing.assert_allclose(strips.statistics, expected.statistics, rtol=1e-6)
        np.testing.assert_allclose(strips.valid, expected.valid, rtol=1e-6)


def test_only_what_is_needed_is_read() -> None:
    class Counting:
        def __init__(self, inner: Reader) -> None:
            self.inner, self.largest = inner, 0

        scene = property(lambda self: self.inner.scene)

        def content_hash(self) -> str:
            return self.inner.content_hash()

        def read(self, window: Any, bands: Any = None) -> Any:
            self.largest = max(self.largest, window.size)
            return self.inner.read(window, bands)

    scene = Counting(reader(scene_pixels(1)))
    frame = fields(count=40)
    measured(scene, frame, window_pixels=1000)
    watched = WatchedFields.of(frame, name="fields").in_pixels(scene.scene)
    largest_field = max(bounding_window(shape).size for shape in watched[:-2])
    assert 0 < scene.largest <= max(1000, largest_field)


# Variables


def test_scale_offset_and_indices_of_reflectances() -> None:
    pixels = scene_pixels(2, bands=7)
    names = "red,green,blue,nir08,rededge071,swir16,swir22"
    frame = fields().iloc[:1]
    wanted = ["evi", "ndre", "ndmi", "ndwi", "savi", "nbr", "red"]
    scene = reader(pixels, names, scale=1e-4, offset=-0.1)
    found = measured(scene, frame, variables=wanted, pixels="centres").statistics[0, :, 0]
    inside = rasterio.features.geometry_mask(frame.geometry, SHAPE, PLACE, invert=True)
    red, green, blue, nir, edge, swir, swir2 = pixels[:, inside] * 1e-4 - 0.1
    expected = [
        2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1), (nir - edge) / (nir + edge), (nir - swir) / (nir + swir),
        (green - nir) / (green + nir), 1.5 * (nir - red) / (nir + red + 0.5), (nir - swir2) / (nir + swir2), red,
    ]  # fmt: skip
    np.testing.assert_allclose(found, [values.mean() for values in expected], rtol=1e-9)


def test_indices_that_need_reflectances_are_not_made_of_counts() -> None:
    scene = reader(scene_pixels(1)).scene
    auto = Variables.of(scene, None)
    assert auto.left_out == ("evi", "savi")
    assert auto.names == ("red", "green", "blue", "nir", "ndvi", "gndvi", "ndwi")
    with pytest.raises(InputError, match="states no scale"):
        Variables.of(scene, ["evi"])
    with pytest.raises(InputError, match="ndre needs the bands nir, rededge071"):
        Variables.of(scene, ["ndre"])
    with pytest.raises(InputError, match="no variable 'ndvy'"):
        Variables.of(scene, ["ndvy"])


def test_pixels_without_an_index_are_not_counted() -> None:
    pixels = np.full((2, *SHAPE), 100, np.int16)
    pixels[1, :, :55] = -100  # red + nir is 0 in the left half
    frame = gpd.GeoDataFrame(geometry=[shapely.box(600_400, 5_799_500, 600_700, 5_799_700)], crs=CRS)
    found = measured(reader(pixels, "red,nir"), frame, variables=["ndvi", "nir"])
    assert found.valid[0].tolist() == pytest.approx([0.5, 1])
    assert found.statistics[0, 0, 0] == 0


# Clouds, nodata and gaps


def test_clouds_and_nodata_are_no_values() -> None:
    pixels = scene_pixels(3, bands=5)
    frame = gpd.GeoDataFrame(geometry=[shapely.box(600_100, 5_799_800, 600_200, 5_799_900)], crs=CRS)  # 10 x 10 pixels
    pixels[4] = 0
    pixels[4, 10:13, 10:20] = 3  # 30 pixels of cloud
    pixels[0, 18:20, 10:20] = 65535  # 20 without data
    scene = reader(pixels, "red,green,blue,nir,cloud", nodata=65535)
    found = measured(scene, frame, variables=["ndvi"])
    assert (found.valid[0, 0], found.cloud[0]) == (pytest.approx(0.5), pytest.approx(0.3))
    clear = ndvi(pixels[0, 13:18, 10:20], pixels[3, 13:18, 10:20])
    assert found.statistics[0, 0, 0] == pytest.approx(clear.mean(), abs=1e-9)


def test_gaps_stay_gaps(dates: list[Path], tmp_path: Path) -> None:
    options = MonitorOptions.checked(bands="red,green,blue,nir,cloud")
    shifted = []
    for path in dates:  # clouds are 1 + cloud in the files, whose nodata is 0
        with rasterio.open(path) as file:
            pixels = file.read()
        clouded = pixels.copy()
        clouded[4] = pixels[4] - 1
        shifted.append(reader(clouded, "red,green,blue,nir,cloud", name=path.name))
    out = monitor(fields(), *shifted, out=tmp_path / "s.parquet", options=options)
    rows = gpd.read_parquet(tmp_path / "s.parquet")
    assert len(rows) == 14 * 3 * len(rows["variable"].unique())  # every field, date and variable has a row
    clouded = rows[rows["date"] == date(2023, 4, 15)]
    assert clouded["mean"].isna().all()
    assert (clouded["valid_fraction"] == 0).all()
    inside = clouded[clouded["field_id"] == "f00"]
    assert inside["cloud_fraction"].iloc[0] == pytest.approx(1, abs=1e-6)
    away = rows[rows["field_id"] == "f13"]
    assert away[["mean", "cloud_fraction", "source"]].isna().all().all()
    assert rows["source"].dropna().unique().tolist() == [path.name for path in dates]
    assert out.curves is not None
    assert np.isnan(out.curves.values[:, 1]).all()


def test_scenes_of_one_date_complement_each_other(tmp_path: Path) -> None:
    left, right = scene_pixels(1), scene_pixels(2)
    left[:, :, 55:] = 0
    right[:, :, :45] = 0
    parts = [reader(p, nodata=0, name=n) for p, n in ((left, "left_20230401"), (right, "right_20230401"))]
    out = monitor(fields(count=30), *parts, out=tmp_path / "s.parquet").series.table
    assert not out.duplicated(["field_id", "date", "variable"]).any()
    alone = [
        monitor(fields(count=30), part, out=tmp_path / f"{i}.parquet").series.table for i, part in enumerate(parts)
    ]
    best = np.fmax(alone[0]["valid_fraction"], alone[1]["valid_fraction"])
    np.testing.assert_array_equal(out["valid_fraction"], best)
    assert {*out["source"].dropna()} == {"left_20230401", "right_20230401"}
