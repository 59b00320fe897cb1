"""Several scenes as one: overlaps decided by validity and time, seams that leave no trace, grids that do not fit."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from geoseg import RunOptions, open_scene, run
from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.readers.array import ArrayReader
from geoseg.readers.mosaicking import MosaicReader
from geoseg.scene import Band, Scene
from geoseg.testing.products import make_safe

UTM = CRS.from_epsg(32632)


def scene_at(row: int, col: int, values: np.ndarray, *, day: int | None = None, offset: float = 0.0) -> ArrayReader:
    """A reader of (row, col) uint16 values, 0 for no data, whose corner is that pixel of a common lattice of 10 m."""
    band = Band(name="red", dtype="uint16", nodata=0, scale=1e-4, offset=offset, scaled=True)
    scene = Scene(
        shape=values.shape, transform=Affine(10, 0, 600_000 + 10 * col, 0, -10, 5_800_000 - 10 * row), crs=UTM, bands=(band,),
        name=f"{row},{col}", time=None if day is None else datetime(2023, 6, day, tzinfo=UTC),
    )  # fmt: skip
    return ArrayReader(pixels=values[None].astype("uint16"), scene=scene)


@given(st.data())
def test_each_pixel_is_that_of_the_first_scene_that_sees_it(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    readers, days = [], data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    prefer = data.draw(st.sampled_from(["newest", "oldest", "first"]))
    for day in days:
        row, col, height, width = (int(n) for n in rng.integers([0, 0, 1, 1], [12, 12, 14, 14]))
        readers.append(scene_at(row, col, rng.integers(0, 4, (height, width)) * day, day=day))
    mosaic = MosaicReader(readers=tuple(readers), prefer=prefer)
    rows, cols = mosaic.scene.shape
    keys = {"newest": [-day for day in days], "oldest": days, "first": [0] * len(days)}[prefer]
    expected = np.zeros((rows, cols), "uint16")
    for number in sorted(range(len(days)), key=lambda i: keys[i]):
        reader = readers[number]
        col, row = ~mosaic.scene.transform @ (reader.scene.transform.c, reader.scene.transform.f)
        place = np.s_[round(row) : round(row) + reader.scene.shape[0], round(col) : round(col) + reader.scene.shape[1]]
        expected[place] = np.where(expected[place] == 0, reader.pixels[0], expected[place])
    whole = mosaic.read(Window(0, 0, rows, cols))
    assert np.array_equal(whole.pixels[0], expected)
    assert np.array_equal(whole.valid, expected != 0)
    top, left = int(rng.integers(rows)), int(rng.integers(cols))
    window = Window(top, left, int(rng.integers(1, rows - top + 1)), int(rng.integers(1, cols - left + 1)))
    part = mosaic.read(window)
    assert np.array_equal(part.pixels[0], expected[window.slices])
    assert np.array_equal(part.valid, (expected != 0)[window.slices])


def test_values_of_another_offset_are_brought_to_the_lowest() -> None:
    old, new = scene_at(0, 0, np.full((4, 4), 1500)), scene_at(0, 2, np.full((4, 4), 3500), offset=-0.1)
    block = MosaicReader(readers=(old, new)).read(Window(0, 0, 4, 6))
    assert block.pixels[0, 0].tolist() == [2500] * 4 + [3500] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crs": CRS.from_epsg(32633)}, "is in EPSG:32633 and .* in EPSG:32632"),
        ({"transform": Affine(10, 0, 600_004, 0, -10, 5_800_000)}, "is not on the grid of"),
        ({"transform": Affine(20, 0, 600_000, 0, -20, 5_800_000)}, "is not on the grid of"),
        ({"bands": (Band(name="nir", dtype="uint16"),)}, "no band in common"),
        ({"bands": (Band(name=None, dtype="uint16"),)}, "name them with --bands"),
        ({"transform": Affine(10, 0, 90_600_000, 0, -10, 5_800_000)}, "more than 2,000,000 along a side"),
    ],
)
def test_scenes_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    from dataclasses import replace

    one = scene_at(0, 0, np.ones((4, 4)))
    other = ArrayReader(pixels=one.pixels, scene=replace(one.scene, **change))
    with pytest.raises(InputError, match=message):
        MosaicReader(readers=(one, other))


def test_scenes_cut_from_one_give_the_fields_of_the_whole(samples: Path, tmp_path: Path) -> None:
    """The seam between scenes leaves no trace: same mask, same polygons."""
    with rasterio.open(samples / "s2_farmland.tif") as file:
        pixels, profile, names = file.read()[:, :256, :300], file.profile, file.descriptions
    parts = {"whole": (0, 300), "west": (0, 170), "east": (130, 300)}
    for name, (start, stop) in parts.items():
        place = profile["transform"] @ Affine.translation(start, 0)
        more = {"height": 256, "width": stop - start, "transform": place}
        with rasterio.open(tmp_path / f"{name}.tif", "w", **(profile | more)) as file:
            file.write(pixels[:, :, start:stop])
            file.descriptions = names
    options = RunOptions(model="otsu:index=ndvi", min_area_m2=2000)
    whole = run(tmp_path / "whole.tif", out=tmp_path / "a", options=options)
    joined = run(tmp_path / "east.tif", tmp_path / "west.tif", out=tmp_path / "b", options=options)
    assert len(joined.fields) == len(whole.fields) > 20
    assert joined.fields.geometry.geom_equals(whole.fields.geometry).all()
    with rasterio.open(tmp_path / "a" / "mask.tif") as one, rasterio.open(tmp_path / "b" / "mask.tif") as other:
        assert np.array_equal(one.read(), other.read())
        assert one.transform == other.transform


def test_products_of_two_dates_and_baselines_fill_each_others_clouds(tmp_path: Path) -> None:
    red = np.random.default_rng(0).integers(100, 5000, (120, 120)) / 1e4
    clouds = np.full((60, 60), 4, "uint8")
    clouds[:20] = 9
    old = make_safe(tmp_path, {"B04": red}, baseline="02.14", taken="20210610T102609")
    new = make_safe(tmp_path, {"B04": red + 0.1}, classes=clouds)
    reader = open_scene([old, new], clouds="mask")
    assert reader.scene.band_names == ("red",)
    block = reader.read(Window(0, 0, 120, 120))
    assert block.valid.all()
    band = reader.scene.bands[0]
    values = block.pixels[0] * band.scale + band.offset
    assert np.allclose(values[:40], red[:40], atol=1e-9)
    assert np.allclose(values[40:], red[40:] + 0.1, atol=1e-9)
