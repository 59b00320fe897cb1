"""COGs from the store: same pixels, complete labels, valid, nothing half written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from rio_cogeo import cog_validate
from test_export_vector import disk_full_after

from geoseg.errors import ExportError
from geoseg.export.cog import copy_cog, write_cog
from geoseg.grid import Window
from geoseg.scene import Band, Scene

UTM = CRS.from_epsg(32632)
NORTH_UP = Affine(10, 0, 400_000, 0, -10, 5_800_000)
CLASSES = ("background", "field", "boundary")
COLORS = {0: (0, 0, 0, 0), 1: (90, 170, 70, 255), 2: (255, 220, 90, 255)}


def make_scene(shape: tuple[int, int], transform: Affine = NORTH_UP, crs: CRS | None = UTM) -> Scene:
    return Scene(shape=shape, transform=transform, crs=crs, bands=(Band(name="red", dtype="uint16"),), name="scene")


def make_store(folder: Path, *, side: int, chunk: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A store of smooth classes and probabilities; its last chunk is missing."""
    row, col = np.mgrid[:side, :side]
    probabilities = np.stack([(row * k + col * (4 - k)) // 7 % 255 for k in (1, 2, 3)]).astype(np.uint8)
    mask = probabilities.argmax(0).astype(np.uint8)
    last = (side - 1) // chunk * chunk
    mask[last:, last:] = 255
    probabilities[:, last:, last:] = 255
    group = zarr.open_group(folder / "store.zarr", mode="w", zarr_format=2)
    for name, values in (("mask", mask), ("probabilities", probabilities)):
        chunks = (*values.shape[:-2], chunk, chunk)
        array = group.create_array(name, shape=values.shape, chunks=chunks, dtype="u1", fill_value=255)
        array[:] = values
    assert not (folder / "store.zarr" / "mask" / f"{last // chunk}.{last // chunk}").exists()
    return mask, probabilities


def write_mask(folder: Path, scene: Scene, window: Window, name: str = "mask.tif", threads: int = 2) -> Path:
    files = write_cog(
        folder / "store.zarr" / "mask", folder / name, window=window, scene=scene, names=["class"], classes=CLASSES,
        colors=COLORS, overview="mode", tags={"GEOSEG_MODEL": "fields <s2> & é"}, threads=threads,
    )  # fmt: skip
    assert files[0] == folder / name
    assert all(file.exists() for file in files)
    return files[0]


def write_probabilities(folder: Path, scene: Scene, window: Window) -> Path:
    return write_cog(
        folder / "store.zarr" / "probabilities", folder / "probabilities.tif", window=window, scene=scene,
        names=CLASSES, scale=1 / 254,
    )[0]  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "transform", "crs"),
    [
        ((1200, 700), NORTH_UP, UTM),
        ((1100, 1030), Affine.translation(4e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -10), UTM),
        ((5, 5), NORTH_UP, UTM),
        ((1, 700), Affine(1e-4, 0, 10, 0, -1e-4, 50), CRS.from_epsg(4326)),
        ((600, 5), Affine(1, 0, 0, 0, -1, 0), None),
    ],
)
def test_pixels_and_labels_arrive(shape: tuple[int, int], transform: Affine, crs: CRS | None, tmp_path: Path) -> None:
    mask, probabilities = make_store(tmp_path, side=1280, chunk=256)
    scene, window = make_scene(shape, transform, crs), Window(71, 13, *shape)
    for file, values in (
        (write_mask(tmp_path, scene, window), mask[None]),
        (write_probabilities(tmp_path, scene, window), probabilities),
    ):
        assert cog_validate(file, strict=True) == (True, [], [])
        with rasterio.open(file) as raster:
            assert np.array_equal(raster.read(), values[:, *window.slices])
            assert raster.transform.almost_equals(transform)
            assert (raster.crs is None) == (crs is None)
            assert crs is None or raster.crs.to_epsg() == crs.to_epsg()
            assert set(raster.nodatavals) == {255}
            assert raster.block_shapes[0] == (512, 512)
            assert len(raster.overviews(1)) == (max(shape) > 512) + (max(shape) > 1024)


def test_mask_says_what_its_values_mean(tmp_path: Path) -> None:
    make_store(tmp_path, side=64, chunk=32)
    with rasterio.open(write_mask(tmp_path, make_scene((40, 40)), Window(0, 0, 40, 40))) as raster:
        assert raster.descriptions == ("class",)
        assert raster.colormap(1)[1] == COLORS[1]
        assert raster.colormap(1)[255] == (0, 0, 0, 0)
        tags = raster.tags()
    assert tags["GEOSEG_MODEL"] == "fields <s2> & é"
    assert [tags[f"CLASS_{value}"] for value in range(3)] == [*CLASSES]
    assert 'label="boundary"' in (tmp_path / "mask.qml").read_text()


def test_probabilities_state_names_and_scale(tmp_path: Path) -> None:
    make_store(tmp_path, side=64, chunk=32)
    with rasterio.open(write_probabilities(tmp_path, make_scene((40, 40)), Window(0, 0, 40, 40))) as raster:
        assert raster.descriptions == CLASSES
        assert raster.scales == (1 / 254,) * 3
        assert raster.offsets == (0.0,) * 3


def test_overviews_ignore_nodata(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "store.zarr", mode="w", zarr_format=2)
    for name, lead in (("mask", ()), ("probabilities", (3,))):
        array = group.create_array(
            name, shape=(*lead, 1024, 1024), chunks=(*lead, 256, 256), dtype="u1", fill_value=255
        )
        array[..., ::2, ::2] = 1
    scene, window = make_scene((1024, 1024)), Window(0, 0, 1024, 1024)
    for file in (write_mask(tmp_path, scene, window), write_probabilities(tmp_path, scene, window)):
        with rasterio.open(file, overview_level=0) as raster:
            assert (raster.read() == 1).all()


def test_threads_do_not_change_the_bytes(tmp_path: Path) -> None:
    make_store(tmp_path, side=1280, chunk=256)
    scene, window = make_scene((1200, 1200)), Window(0, 0, 1200, 1200)
    one = write_mask(tmp_path, scene, window, "one.tif", threads=1)
    two = write_mask(tmp_path, scene, window, "two.tif", threads=2)
    assert one.read_bytes() == two.read_bytes()


def test_full_disk_is_an_export_error_and_leaves_nothing(tmp_path: Path) -> None:
    make_store(tmp_path, side=1280, chunk=256)
    scene, window = make_scene((1200, 1200)), Window(0, 0, 1200, 1200)
    full = write_probabilities(tmp_path, scene, window).stat().st_size
    (tmp_path / "probabilities.tif").unlink()
    for size in (100, full // 2, full * 9 // 10, full - 1):
        with disk_full_after(size), pytest.raises(ExportError, match="cannot write"):
            write_probabilities(tmp_path, scene, window)
        assert [path.name for path in tmp_path.iterdir()] == ["store.zarr"]


def test_stale_statistics_are_removed(tmp_path: Path) -> None:
    make_store(tmp_path, side=64, chunk=32)
    (tmp_path / "mask.tif.aux.xml").write_text("<PAMDataset/>")
    write_mask(tmp_path, make_scene((40, 40)), Window(0, 0, 40, 40))
    assert not (tmp_path / "mask.tif.aux.xml").exists()


def test_requests_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    make_store(tmp_path, side=64, chunk=32)
    array, dst = tmp_path / "store.zarr" / "mask", tmp_path / "mask.tif"
    scene = make_scene((40, 40))
    with pytest.raises(ExportError, match="is not inside mask"):
        write_cog(array, dst, window=Window(30, 0, 40, 40), scene=scene, names=["class"])
    with pytest.raises(ExportError, match="1 bands, but 2 names"):
        write_cog(array, dst, window=Window(0, 0, 40, 40), scene=scene, names=["a", "b"])
    with pytest.raises(ExportError, match="but scene is"):
        write_cog(array, dst, window=Window(0, 0, 30, 40), scene=scene, names=["class"])
    with pytest.raises(ExportError, match="no Zarr array"):
        write_cog(tmp_path / "none", dst, window=Window(0, 0, 40, 40), scene=scene, names=["class"])


def test_any_raster_can_be_copied(tmp_path: Path) -> None:
    values = np.arange(700 * 600, dtype=np.float32).reshape(1, 700, 600)
    profile = {"driver": "GTiff", "width": 600, "height": 700, "count": 1, "dtype": "float32"}
    with rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:32632", transform=NORTH_UP, **profile) as raster:
        raster.write(values)
    (file,) = copy_cog(tmp_path / "a.tif", tmp_path / "b.tif")
    assert cog_validate(file, strict=True)[0]
    with rasterio.open(file) as raster:
        assert np.array_equal(raster.read(), values)
