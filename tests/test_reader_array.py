"""ArrayReader: pixels in memory behave like a file's."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.protocols import Reader
from geoseg.readers import open_scene
from geoseg.readers.array import ArrayReader, from_array, from_dataarray

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)
PIXELS = np.arange(1, 2 * 7 * 9 + 1, dtype=np.int16).reshape(2, 7, 9)
ALL = Window(0, 0, 7, 9)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=2, height=7, width=9, dtype="int16", crs="EPSG:32633",
        transform=Affine(10, 0, 500_000, 0, 10, 4_999_930), nodata=5,
    ) as dataset:  # fmt: skip
        dataset.write(PIXELS[:, ::-1])
        dataset.descriptions = ("red", "B08")
        dataset.scales, dataset.offsets = (0.5, 0.5), (1, 1)
    return path


def test_it_reads_what_it_holds() -> None:
    valid = PIXELS[0] != 20
    reader = from_array(PIXELS, transform=NORTH_UP, crs="EPSG:32633", names=["red", None], nodata=11, valid=valid)
    assert isinstance(reader, Reader)
    assert reader.scene.band_names == ("red", None)
    block = reader.read(Window(1, 2, 4, 5), [1])
    assert np.array_equal(block.pixels, PIXELS[1:, 1:5, 2:7])
    assert np.array_equal(reader.read(ALL).valid, valid & (PIXELS != 11).all(axis=0))
    block.pixels[:] = 0
    assert np.array_equal(reader.read(ALL).pixels, PIXELS), "blocks are copies"


def test_it_is_canonical_whatever_it_is_given() -> None:
    flipped = from_array(PIXELS[:, ::-1], transform=Affine(10, 0, 500_000, 0, 10, 4_999_930), crs="EPSG:32633")
    straight = from_array(PIXELS, transform=NORTH_UP, crs="EPSG:32633")
    assert flipped.scene == straight.scene
    assert flipped.content_hash() == straight.content_hash()
    assert np.array_equal(flipped.read(ALL).pixels, PIXELS)


def test_it_pickles_and_hashes_by_content() -> None:
    reader = from_array(PIXELS)
    assert pickle.loads(pickle.dumps(reader)).content_hash() == reader.content_hash()
    assert from_array(PIXELS + 1).content_hash() != reader.content_hash()
    assert from_array(PIXELS, nodata=3).content_hash() != reader.content_hash()


def test_a_dataarray_is_read_like_its_file(file: Path) -> None:
    rioxarray = pytest.importorskip("rioxarray")
    truth = open_scene([file])
    with rioxarray.open_rasterio(file) as da:
        reader = from_dataarray(da)
        flat = from_dataarray(da.isel(band=1))
    assert reader.scene.shape == truth.scene.shape
    assert reader.scene.transform == truth.scene.transform
    assert reader.scene.crs == truth.scene.crs
    assert reader.scene.bands == truth.scene.bands
    one, other = reader.read(ALL), truth.read(ALL)
    assert np.array_equal(one.pixels, other.pixels)
    assert np.array_equal(one.valid, other.valid)
    assert np.array_equal(flat.read(ALL).pixels, other.pixels[1:])


def test_a_dataarray_without_georeference_has_pixel_coordinates() -> None:
    pytest.importorskip("rioxarray")
    reader = from_dataarray(xr.DataArray(PIXELS, dims=("band", "y", "x")))
    assert reader.scene.crs is None
    assert reader.scene.transform == Affine(1, 0, 0, 0, -1, 0)


def test_shapes_and_types_that_do_not_fit_are_refused() -> None:
    scene = from_array(PIXELS).scene
    with pytest.raises(InputError, match="make them agree"):
        ArrayReader(pixels=PIXELS[:1], scene=scene)
    with pytest.raises(InputError, match="True means valid"):
        ArrayReader(pixels=PIXELS, scene=scene, valid=np.ones((7, 9), np.uint8))
    with pytest.raises(InputError, match="integers or floats"):
        from_array(PIXELS.astype(complex))
    with pytest.raises(InputError, match="dimensions"):
        from_array(PIXELS[0, 0])
    with pytest.raises(InputError, match="3 names"):
        from_array(PIXELS, names=["a", "b", "c"])
