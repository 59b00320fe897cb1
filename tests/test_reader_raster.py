"""RasterReader: what it reads is what rasterio reads, as one scene, from any thread and process."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.protocols import Reader
from geoseg.readers import open_scene
from geoseg.readers.naming import described_name, file_band_name
from geoseg.readers.raster import RasterReader

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def write(path: Path, pixels: NDArray[Any], **profile: Any) -> str:
    count, height, width = pixels.shape
    options = {"driver": "GTiff", "transform": NORTH_UP, "crs": "EPSG:32633"} | profile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", count=count, height=height, width=width, dtype=pixels.dtype, **options) as file:
            file.write(pixels)
    return str(path)


def ramp(count: int = 3, height: int = 37, width: int = 53, dtype: str = "uint16") -> NDArray[Any]:
    return (np.arange(count * height * width) % 251 + 1).reshape(count, height, width).astype(dtype)


def whole(reader: Reader) -> Window:
    return Window(0, 0, *reader.scene.shape)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("raster") / "tiled scene ñ.tif"
    return write(path, ramp(4, 200, 170), tiled=True, blockxsize=32, blockysize=32, compress="deflate", nodata=7)


@settings(max_examples=60)
@given(data=st.data())
def test_any_window_and_bands_are_what_rasterio_reads(tiled: str, data: st.DataObject) -> None:
    row, col = data.draw(st.integers(0, 199)), data.draw(st.integers(0, 169))
    window = Window(row, col, data.draw(st.integers(1, 200 - row)), data.draw(st.integers(1, 170 - col)))
    bands = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=5))
    block = open_scene([tiled]).read(window, bands)
    with rasterio.open(tiled) as file:
        truth = file.read([i + 1 for i in bands], window=window.slices)
    assert np.array_equal(block.pixels, truth)
    assert np.array_equal(block.valid, (truth != 7).all(axis=0))


def test_scene_is_what_the_header_says(tiled: str) -> None:
    scene = open_scene([tiled]).scene
    assert scene.shape == (200, 170)
    assert scene.transform == NORTH_UP
    assert scene.crs is not None
    assert scene.crs.to_epsg() == 32633
    assert scene.dtype == np.uint16
    assert scene.name == "tiled scene ñ.tif"
    assert [band.nodata for band in scene.bands] == [7.0] * 4
    assert scene.resolution_m() == pytest.approx(10, rel=1e-3)


def test_windows_and_bands_beyond_the_scene_are_the_callers_error(tiled: str) -> None:
    reader = open_scene([tiled])
    for window in (Window(-1, 0, 5, 5), Window(190, 0, 11, 5), Window(0, 0, 0, 5)):
        with pytest.raises(ValueError, match="not inside the scene"):
            reader.read(window)
    with pytest.raises(ValueError, match="bands 0 to 3"):
        reader.read(Window(0, 0, 5, 5), [4])


def test_threads_reading_one_reader_get_what_one_thread_gets(tiled: str) -> None:
    reader = open_scene([tiled])
    windows = [Window(r, c, 60, 60) for r in range(0, 140, 20) for c in range(0, 110, 22)] * 3
    serial = [reader.read(window) for window in windows]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(reader.read, windows))
    for one, other in zip(serial, parallel, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert np.array_equal(one.valid, other.valid)


def test_a_pickled_reader_reads_the_same(tiled: str) -> None:
    reader = open_scene([tiled])
    first = reader.read(whole(reader))
    copy = pickle.loads(pickle.dumps(reader))
    assert copy == reader
    assert len(pickle.dumps(reader)) < 10_000
    assert np.array_equal(copy.read(whole(copy)).pixels, first.pixels)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_its_own_handles(tiled: str) -> None:
    reader = open_scene([tiled])
    truth = reader.read(whole(reader)).pixels.sum()
    result = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(
        target=lambda: result.put(reader.read(whole(reader)).pixels.sum())
    )
    child.start()
    assert result.get() == truth
    child.join()
    assert reader.read(whole(reader)).pixels.sum() == truth


def test_a_file_written_anew_is_not_read_through_an_old_handle(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp())
    reader = open_scene([path])
    reader.read(whole(reader))
    write(tmp_path / "a.tif", ramp() + 1)
    assert np.array_equal(reader.read(whole(reader)).pixels, ramp() + 1)
    write(tmp_path / "a.tif", ramp(height=20))
    with pytest.raises(InputError, match="has changed"):
        reader.read(Window(0, 0, 5, 5))


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("int16", -10000), ("uint8", 0), ("float32", math.nan), ("float32", -9999.9), ("float32", -3.4028234663852886e38)],
)
def test_nodata_values_are_invalid_and_so_is_what_is_not_finite(tmp_path: Path, dtype: str, nodata: float) -> None:
    pixels = ramp(2, dtype=dtype)
    pixels[0, 3, 4] = nodata
    pixels[1, 5, 6] = nodata
    truth = np.ones((37, 53), bool)
    truth[[3, 5], [4, 6]] = False
    if dtype == "float32":
        pixels[0, 7, 7], pixels[1, 8, 8] = np.inf, np.nan
        truth[[7, 8], [7, 8]] = False
    reader = open_scene([write(tmp_path / "a.tif", pixels, nodata=nodata)])
    assert np.array_equal(reader.read(whole(reader)).valid, truth)
    one = reader.read(whole(reader), [1]).valid
    assert one[3, 4]
    assert not one[5, 6]


def test_nodata_that_no_pixel_can_hold_is_ignored(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", ramp(1, dtype="uint8"))
    vrt = tmp_path / "a.vrt"
    vrt.write_text(
        """<VRTDataset rasterXSize="53" rasterYSize="37"><VRTRasterBand dataType="Int16" band="1">
        <NoDataValue>1e9</NoDataValue><SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename>
        <SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""
    )
    reader = open_scene([vrt])
    assert reader.scene.bands[0].nodata is None
    assert reader.read(whole(reader)).valid.all()


def test_the_alpha_band_is_validity_and_no_band(tmp_path: Path) -> None:
    pixels = ramp(4, dtype="uint8")
    pixels[3] = 255
    pixels[3, :9] = 0
    path = write(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES")
    reader = open_scene([path])
    assert reader.scene.band_names == ("red", "green", "blue")
    block = reader.read(whole(reader), [2, 0])
    assert np.array_equal(block.pixels, pixels[[2, 0]])
    assert np.array_equal(block.valid, pixels[3] != 0)
    assert open_scene([path], bands=["r", "g", "b", "alpha"]).scene == reader.scene


def test_names_claim_a_fourth_band_that_is_marked_as_alpha_by_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(4, dtype="uint8"), photometric="RGB", alpha="YES")
    reader = open_scene([path], bands=["red", "green", "blue", "nir"])
    assert reader.scene.band_names == ("red", "green", "blue", "nir")
    assert np.array_equal(reader.read(whole(reader)).pixels, ramp(4, dtype="uint8"))


@pytest.mark.parametrize("internal", ["YES", "NO"])
def test_masks_in_the_file_or_beside_it_are_validity(tmp_path: Path, internal: str) -> None:
    mask = np.ones((37, 53), bool)
    mask[10:20, 30:] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = write(tmp_path / "a.tif", ramp())
        with rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    reader = open_scene([path])
    assert np.array_equal(reader.read(whole(reader)).valid, mask)
    assert np.array_equal(reader.read(Window(5, 25, 20, 20), [1]).valid, mask[5:25, 25:45])


def test_bands_of_several_dtypes_meet_in_one_that_holds_them(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", ramp(1, dtype="uint8"), nodata=5)
    write(tmp_path / "b.tif", ramp(1, dtype="float32"), nodata=6)
    vrt = tmp_path / "both.vrt"
    band = """<VRTRasterBand dataType="{}" band="{}"><NoDataValue>{}</NoDataValue><SimpleSource>
        <SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"""
    bands = band.format("Byte", 1, 5, "a.tif") + band.format("Float32", 2, 6, "b.tif")
    vrt.write_text(f'<VRTDataset rasterXSize="53" rasterYSize="37">{bands}</VRTDataset>')
    reader = open_scene([vrt])
    block = reader.read(whole(reader), [1, 0])
    assert block.pixels.dtype == reader.scene.dtype == np.float32
    assert np.array_equal(block.pixels, ramp(1).repeat(2, axis=0).astype("float32"))
    assert np.array_equal(block.valid, ~np.isin(ramp(1)[0], (5, 6)))
    assert reader.read(whole(reader), [0]).pixels.dtype == np.uint8


def test_scale_and_offset_come_from_the_file_or_the_user(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(2))
    assert [band.scaled for band in open_scene([path]).scene.bands] == [False, False]
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.02, 1.0), (-4.2, 0.0)
    scene = open_scene([path]).scene
    assert [(b.scale, b.offset, b.scaled) for b in scene.bands] == [(0.02, -4.2, True), (1.0, 0.0, False)]
    scene = open_scene([path], scale=1e-4, offset=(-0.1, 0)).scene
    assert [(b.scale, b.offset, b.scaled) for b in scene.bands] == [(1e-4, -0.1, True), (1e-4, 0.0, True)]
    block = open_scene([path], scale=1e-4).read(Window(0, 0, 5, 5))
    assert np.array_equal(block.pixels, ramp(2)[:, :5, :5]), "stored values stay as they are"
    for options in ({"scale": (1, 2, 3)}, {"scale": 0}, {"offset": math.nan}):
        with pytest.raises(InputError, match="give"):
            open_scene([path], **options)


def test_crs_is_assigned_where_there_is_none_and_never_contradicted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(), crs=None)
    assert open_scene([path]).scene.crs is None
    assert open_scene([path]).scene.transform == NORTH_UP
    crs = open_scene([path], crs="EPSG:32633").scene.crs
    assert crs is not None
    assert crs.to_epsg() == 32633
    with pytest.raises(InputError, match=r"EPSG:99.*use e\.g\."):
        open_scene([path], crs="EPSG:99")
    placed = write(tmp_path / "b.tif", ramp())
    assert open_scene([placed], crs="epsg:32633").scene == open_scene([placed]).scene
    with pytest.raises(InputError, match="contradicts"):
        open_scene([placed], crs="EPSG:32632")


def test_a_file_without_georeference_has_pixel_coordinates_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.png", ramp(dtype="uint8"), driver="PNG", crs=None, transform=Affine.identity())
    with caplog.at_level(logging.WARNING, logger="geoseg"):
        reader = open_scene([path], pixel_size_m=0.5)
    assert [record.message for record in caplog.records if record.name.startswith("geoseg")] == [
        f"{path} has no georeference; coordinates will be pixels (column, -row)"
    ]
    assert reader.scene.transform == Affine(1, 0, 0, 0, -1, 0)
    assert reader.scene.resolution_m() == 0.5
    assert np.array_equal(reader.read(whole(reader)).pixels, ramp(dtype="uint8"))
    with pytest.raises(InputError, match="cannot place"):
        open_scene([path], crs="EPSG:32633")
    with pytest.raises(InputError, match="pixel size"):
        open_scene([path], pixel_size_m=-1)


def test_single_band_files_on_one_grid_are_one_scene(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"T32_{name}_10m.tif", ramp(4)[[i]]) for i, name in enumerate(("B02", "B03", "B04", "B08"))
    ]
    reader = open_scene(paths)
    assert reader.scene.band_names == ("blue", "green", "red", "nir")
    assert np.array_equal(reader.read(whole(reader)).pixels, ramp(4))
    assert np.array_equal(reader.read(Window(3, 4, 5, 6), [3, 0, 3]).pixels, ramp(4)[[3, 0, 3], 3:8, 4:10])
    assert open_scene(paths, bands=["x", "y", "-", "z"]).scene.band_names == ("x", "y", None, "z")


def test_several_files_that_are_no_scene_are_refused_by_name(tmp_path: Path) -> None:
    red = write(tmp_path / "red.tif", ramp(1))
    with pytest.raises(InputError, match=r"rgb\.tif does not say what all of its bands are"):
        open_scene([red, write(tmp_path / "rgb.tif", ramp(3))])
    for name, pixels, profile, said in (
        ("g1.tif", ramp(1, height=36), {}, "53 x 36 pixels, not 53 x 37"),
        ("g2.tif", ramp(1), {"crs": "EPSG:32632"}, "EPSG:32632, not EPSG:32633"),
        ("g3.tif", ramp(1), {"transform": NORTH_UP * Affine.translation(0.5, 0)}, "its transform is"),
    ):
        with pytest.raises(InputError, match=rf"{name}.*not on the grid of.*red\.tif.*{said}"):
            open_scene([red, write(tmp_path / name, pixels, **profile)])
    again = write(tmp_path / "later_red.tif", ramp(1))
    with pytest.raises(InputError, match="hold the band red"):
        open_scene([red, again])
    assert open_scene([red, again], bands=["red", "red_2"]).scene.band_names == ("red", "red_2")


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("s2_l3a_20210715_nir.tif", "nir"),
        ("T32UNE_20210715T103031_B04_10m.jp2", "red"),
        ("LC08_L2SP_195024_20210715_SR_B5.TIF", "nir"),
        ("T32UNE_20210715T103031_B8A_20m.jp2", "nir08"),
        ("red.tif", "red"),
        ("scene_g.tif", "green"),
        ("B11.tif", "b11"),
        ("orthophoto_2021.tif", None),
    ],
)
def test_band_names_are_found_in_file_names(name: str, band: str | None) -> None:
    assert file_band_name(f"folder/{name}") == band


def test_descriptions_that_say_nothing_are_no_names() -> None:
    assert [described_name(text, "undefined") for text in ("Band 1", "layer_2", "3", "", None)] == [None] * 5
    assert [described_name(text, "red") for text in ("B08", "Band 1", None)] == ["nir", "red", "red"]


def test_content_hash_knows_content_and_options_but_neither_path_nor_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp())
    first = open_scene([path]).content_hash()
    (tmp_path / "other").mkdir()
    moved = shutil.copyfile(path, tmp_path / "other" / "b.tif")
    os.utime(moved, (1, 1))
    Path(f"{moved}.aux.xml").write_text("<PAMDataset></PAMDataset>")
    assert open_scene([moved]).content_hash() == first
    assert open_scene([path], scale=2).content_hash() != first
    assert open_scene([path], bands=["red", "-", "-"]).content_hash() != first
    write(tmp_path / "a.tif", ramp()[:, ::-1])
    assert open_scene([path]).content_hash() != first


def test_content_hash_of_a_vrt_follows_its_sources(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", ramp(1))
    vrt = tmp_path / "a.vrt"
    vrt.write_text(
        """<VRTDataset rasterXSize="53" rasterYSize="37"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>
        <SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
        </VRTRasterBand></VRTDataset>"""
    )
    first = open_scene([vrt]).content_hash()
    write(tmp_path / "a.tif", ramp(1)[:, ::-1])
    assert open_scene([vrt]).content_hash() != first


def test_names_that_only_gdal_knows_are_read_and_hashed_by_their_pixels(tmp_path: Path, tiled: str) -> None:
    shutil.make_archive(str(tmp_path / "scene"), "zip", Path(tiled).parent, Path(tiled).name)
    reader = open_scene([f"/vsizip/{tmp_path}/scene.zip/{Path(tiled).name}"])
    assert np.array_equal(reader.read(whole(reader)).pixels, ramp(4, 200, 170))
    assert reader.content_hash() == reader.content_hash()


def test_importing_readers_loads_neither_rasterio_nor_numba() -> None:
    code = "import sys, geoseg.readers; print(sorted({'rasterio', 'numba', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_is_a_reader(tiled: str) -> None:
    assert isinstance(RasterReader(paths=(tiled,)), Reader)


def test_band_files_of_a_real_scene(shared: Path) -> None:
    folder = shared / "s2-coast-jade"
    paths = [folder / f"s2_l3a_20210715_{name}.tif" for name in ("red", "green", "blue", "nir")]
    reader = open_scene(paths)
    assert reader.scene.band_names == ("red", "green", "blue", "nir")
    assert reader.scene.shape == (523, 585)
    block = reader.read(Window(100, 200, 64, 80))
    for path, band in zip(paths, block.pixels, strict=True):
        with rasterio.open(path) as file:
            assert np.array_equal(band, file.read(1)[100:164, 200:280])


def test_a_png_with_a_world_file_is_placed_by_the_crs_given(shared: Path) -> None:
    path = sorted((shared / "naip-us-fields").glob("*.png"))[0]
    assert open_scene([path]).scene.crs is None
    reader = open_scene([path], crs="EPSG:4326")
    assert reader.scene.resolution_m() == pytest.approx(1.0, abs=0.05)
    assert reader.scene.band_names == ("red", "green", "blue")
