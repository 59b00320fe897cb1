"""Products as they are delivered: SAFE, Landsat bundles, PlanetScope; reflectance, clouds, times and grids."""

from __future__ import annotations

import logging
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from geoseg import open_scene
from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.protocols import Reader
from geoseg.testing.products import SIDES_M, make_landsat, make_planet, make_safe

SIDE = 240
RNG = np.random.default_rng(7)


def surface(rows: int, *, low: float = -0.02, high: float = 0.6, seed: int = 0) -> NDArray[np.float64]:
    """Reflectance in steps of 1e-4, some of it below zero as atmospheric correction leaves it."""
    return np.round(np.random.default_rng(seed).uniform(low, high, (rows, rows)), 4)


BANDS = {name: surface(SIDE * 10 // SIDES_M[name], seed=i) for i, name in enumerate(SIDES_M) if name != "B10"}
CLASSES = np.random.default_rng(1).integers(1, 12, (SIDE // 2, SIDE // 2)).astype("uint8")


def physical(reader: Reader, name: str, window: Window | None = None) -> NDArray[np.float64]:
    i = reader.scene.band_names.index(name)
    band, rows, cols = reader.scene.bands[i], *reader.scene.shape
    return reader.read(window or Window(0, 0, rows, cols), [i]).pixels[0] * band.scale + band.offset


@pytest.fixture(scope="module")
def safes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("safe")
    return {
        "02.14": make_safe(folder, {k: np.abs(v) + 1e-4 for k, v in BANDS.items()}, baseline="02.14", classes=CLASSES),
        "05.09": make_safe(folder, {k: np.abs(v) + 1e-4 for k, v in BANDS.items()}, baseline="05.09", classes=CLASSES),
    }


def test_both_baselines_of_a_safe_read_the_same_reflectance(safes: dict[str, Path]) -> None:
    old, new = (open_scene([path]) for path in safes.values())
    assert old.scene.band_names == new.scene.band_names
    assert old.scene.shape == (SIDE, SIDE)
    for name in old.scene.band_names:
        # Interpolated bands are rounded to stored numbers, where a half may fall to either side.
        tolerance = 1e-12 if name in ("blue", "green", "red", "nir", "cloud") else 1.0001e-4
        assert np.abs(physical(old, str(name)) - physical(new, str(name))).max() <= tolerance, name
    assert np.allclose(physical(new, "red"), np.abs(BANDS["B04"]) + 1e-4)
    assert {band.offset for band in new.scene.bands[:-1]} == {-0.1}
    assert {band.offset for band in old.scene.bands[:-1]} == {0.0}
    assert new.scene.time == datetime(2023, 6, 10, 10, 26, 9, 24000, tzinfo=UTC)


def test_bands_of_20_and_60_m_lie_where_they_were(safes: dict[str, Path]) -> None:
    reader = open_scene([safes["05.09"]])
    for band, name, factor in (("B11", "swir16", 2), ("B01", "coastal", 6)):
        fine = physical(reader, name)
        coarse = np.abs(BANDS[band]) + 1e-4
        rows = (np.arange(SIDE) + 0.5) / factor - 0.5  # centres of the fine pixels, counted in coarse ones
        expected = map_coordinates(coarse, np.meshgrid(rows, rows, indexing="ij"), order=1, mode="nearest")
        assert np.abs(fine - expected).max() < 1e-4, name


def test_clouds_are_a_band_and_may_be_left_out(safes: dict[str, Path]) -> None:
    expected = np.isin(CLASSES, (3, 8, 9, 10)).repeat(2, axis=0).repeat(2, axis=1)
    kept, masked = (open_scene([safes["05.09"]], clouds=clouds) for clouds in ("keep", "mask"))
    whole = Window(0, 0, SIDE, SIDE)
    assert kept.scene.band_names[-1] == "cloud"
    assert np.array_equal(physical(kept, "cloud"), expected)
    assert kept.read(whole, [0]).valid.all()
    assert np.array_equal(masked.read(whole, [0]).valid, ~expected)
    assert kept.content_hash() != masked.content_hash()


def test_windows_zip_metadata_file_and_pickle_give_the_same_pixels(safes: dict[str, Path], tmp_path: Path) -> None:
    folder = open_scene([safes["05.09"]])
    zipped = open_scene(
        [make_safe(tmp_path, {k: np.abs(v) + 1e-4 for k, v in BANDS.items()}, classes=CLASSES, zipped=True)]
    )
    whole, window = folder.read(Window(0, 0, SIDE, SIDE)), Window(37, 61, 90, 44)
    for reader in (
        folder, zipped, open_scene([safes["05.09"] / "MTD_MSIL2A.xml"]), pickle.loads(pickle.dumps(zipped)),
        open_scene([Path(zipped.scene.name and safes["05.09"])]),
    ):  # fmt: skip
        assert np.array_equal(reader.read(window).pixels, whole.pixels[:, 37:127, 61:105])
        assert reader.scene.time == folder.scene.time
    assert zipped.content_hash() == open_scene([tmp_path / f"{Path(folder.scene.name).stem}.zip"]).content_hash()


def test_an_offset_that_was_applied_before_is_not_applied_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bands = {name: np.abs(BANDS[name]) * 0.1 + 1e-3 for name in ("B02", "B03", "B04", "B08")}
    with caplog.at_level(logging.WARNING, logger="geoseg"):
        harmonised = open_scene([make_safe(tmp_path, bands, offset_applied=True)])
    assert "has been applied before" in caplog.text
    assert np.allclose(physical(harmonised, "red"), np.round(bands["B04"], 4), atol=1e-12)
    caplog.clear()
    dark = {name: surface(SIDE, low=-0.01, high=0.02, seed=i) for i, name in enumerate(bands)}
    water = open_scene([make_safe(tmp_path / "water", dark)])
    assert not caplog.records
    assert physical(water, "red").min() < 0


def test_level_1c_with_masks_of_both_kinds(tmp_path: Path) -> None:
    bands = {name: np.abs(BANDS[name]) + 1e-4 for name in ("B02", "B03", "B04", "B08", "B8A", "B09")}
    root = make_safe(tmp_path, bands, level="L1C", baseline="02.09")
    plain = open_scene([root])
    assert plain.scene.band_names == ("blue", "green", "red", "nir", "nir08", "nir09")
    assert np.allclose(physical(plain, "red"), bands["B04"])
    quality = next(root.glob("GRANULE/*")) / "QI_DATA"
    quality.mkdir()
    west, north = 600_000, 5_800_020
    ring = f"{west} {north} {west + 500} {north} {west + 500} {north - 300} {west} {north - 300} {west} {north}"
    (quality / "MSK_CLOUDS_B00.gml").write_text(
        f'<eop:Mask xmlns:eop="urn:e" xmlns:gml="urn:g"><gml:Polygon><gml:exterior><gml:LinearRing>'
        f'<gml:posList srsDimension="2">{ring}</gml:posList></gml:LinearRing></gml:exterior></gml:Polygon></eop:Mask>'
    )
    drawn = physical(open_scene([root]), "cloud")
    assert drawn[:30, :50].all()
    assert drawn.sum() == 30 * 50
    assert np.array_equal(physical(open_scene([root]), "cloud", Window(20, 40, 30, 30)), drawn[20:50, 40:70])
    (quality / "MSK_CLOUDS_B00.gml").unlink()
    mask = np.zeros((3, SIDE // 6, SIDE // 6), "uint8")
    mask[0, :3], mask[1, :, :2], mask[2] = 1, 1, 1
    place = rasterio.Affine(60, 0, west, 0, -60, north)
    with rasterio.open(
        quality / "MSK_CLASSI_B00.jp2", "w", driver="JP2OpenJPEG", count=3, height=SIDE // 6, width=SIDE // 6, dtype="uint8",
        crs="EPSG:32632", transform=place, QUALITY="100", REVERSIBLE="YES",
    ) as file:  # fmt: skip
        file.write(mask)
    expected = (mask[0] | mask[1]).repeat(6, axis=0).repeat(6, axis=1)
    assert np.array_equal(physical(open_scene([root]), "cloud"), expected)


@pytest.mark.parametrize("metadata", ["json", "txt", "xml"])
@pytest.mark.parametrize("tarred", [False, True])
def test_landsat_is_reflectance_with_clouds_of_its_bits(tmp_path: Path, metadata: Any, tarred: bool) -> None:
    bands = {number: surface(90, seed=number) for number in range(1, 8)}
    bands[4][:5] = np.nan
    quality = np.full((90, 90), 21824, "uint16")  # clear, low confidence everywhere
    quality[:5], quality[10:20], quality[30:32, :40], quality[50, 50] = 1, 22280, 23888, 21824 | 0b100000
    reader = open_scene([make_landsat(tmp_path, bands, quality=quality, metadata=metadata, tarred=tarred)])
    assert reader.scene.band_names == ("coastal", "blue", "green", "red", "nir", "swir16", "swir22", "cloud")
    assert np.allclose(physical(reader, "red")[5:], bands[4][5:], atol=2e-5)
    assert np.allclose(physical(reader, "nir"), bands[5], atol=2e-5)
    assert reader.scene.time == datetime(2023, 6, 10, 10, 9, 58, 123456, tzinfo=UTC)
    cloud = physical(reader, "cloud")
    assert cloud[10:20].all()
    assert cloud[30:32, :40].all()
    assert cloud.sum() == 10 * 90 + 2 * 40
    assert not reader.read(Window(0, 0, 90, 90), [3]).valid[:5].any()
    assert open_scene([make_landsat(tmp_path / "5", bands, satellite="LT05")]).scene.band_names[:4] == (
        "blue", "green", "red", "nir",
    )  # fmt: skip


def test_landsat_of_level_1_and_two_products_in_a_folder_are_refused(tmp_path: Path) -> None:
    bands = {4: surface(30)}
    first = make_landsat(tmp_path, bands)
    second = make_landsat(tmp_path, bands, taken="20230626")
    for file in second.iterdir():
        file.rename(first / file.name)
    with pytest.raises(InputError, match=r"holds 2 Landsat products .*give the _MTL file"):
        open_scene([first])
    one = open_scene([next(first.glob("*20230626*_MTL.json"))])
    assert one.scene.time is not None
    assert one.scene.time.day == 26
    level1 = first.parent / "LC08_L1TP_193024_20230610_20230614_02_T1"
    level1.mkdir()
    (level1 / f"{level1.name}_MTL.json").write_text("{}")
    with pytest.raises(InputError, match="of Level 1"):
        open_scene([level1])


@pytest.mark.parametrize("count", [4, 8])
def test_planetscope_has_names_scale_and_its_usable_data_mask(tmp_path: Path, count: int) -> None:
    values = np.stack([surface(60, low=0.001, seed=i) for i in range(count)])
    values[:, :, 0] = np.nan
    mask = np.zeros((8, 60, 60), "uint8")
    mask[0] = 1
    mask[5, 10:12], mask[2, 20, 20], mask[3, 30] = 1, 1, 1  # cloud, shadow, light haze
    image = make_planet(tmp_path, values, mask=mask)
    for reader in (open_scene([image]), open_scene([tmp_path])):
        assert reader.scene.band_names[-2:] == ("nir", "cloud")
        assert np.allclose(physical(reader, "red")[:, 1:], values[{4: 2, 8: 5}[count], :, 1:])
        assert physical(reader, "cloud").sum() == 2 * 60 + 1
        assert not reader.read(Window(0, 0, 60, 60), [0]).valid[:, 0].any()
        assert reader.scene.time == datetime(2023, 6, 10, 10, 9, 58, tzinfo=UTC)


def test_what_is_wrong_with_a_product_is_told(safes: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--bands is for files that do not say it"):
        open_scene([safes["05.09"]], bands=["red"])
    broken = tmp_path / "S2B_MSIL2A_20230610T102609_N0509_R108_T32UPC_20230610T102609.zip"
    broken.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match="no whole archive"):
        open_scene([broken])
    with pytest.raises(InputError, match="no Sentinel-2 product"):
        open_scene([tmp_path / "absent.SAFE"])
    (tmp_path / "empty.SAFE").mkdir()
    with pytest.raises(InputError, match=r"has no MTD_MSIL1C.xml"):
        open_scene([tmp_path / "empty.SAFE"])
    cut = make_safe(tmp_path, {"B04": BANDS["B04"], "B03": BANDS["B03"][:100, :100]})
    with pytest.raises(InputError, match="not on the grid of"):
        open_scene([cut])
    (cut / "MTD_MSIL2A.xml").write_text("<a>")
    with pytest.raises(InputError, match="no well-formed XML"):
        open_scene([cut])


def test_a_real_band_of_sentinel_2_opens(shared: Path) -> None:
    reader = open_scene([shared / "reliability" / "B01.jp2"], bands=["coastal"])
    assert reader.scene.shape == (1830, 1830)
    assert reader.scene.crs is not None
    assert reader.scene.crs.to_epsg() == 32615
    with rasterio.open(shared / "reliability" / "B01.jp2") as file:
        assert np.array_equal(reader.read(Window(900, 900, 64, 64)).pixels[0], file.read(1)[900:964, 900:964])


def test_what_programs_and_processors_leave_in_a_safe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bands = {"B04": np.abs(BANDS["B04"]) + 0.2}
    root = make_safe(tmp_path, bands, baseline="03.01", classes=CLASSES)
    for image in list(root.rglob("*.jp2")):
        image.with_name(f"{image.name}.aux.xml").write_text("<PAMDataset/>")
    metadata = root / "MTD_MSIL2A.xml"
    metadata.write_text(metadata.read_text().replace("03.01", "99.99"))
    with caplog.at_level(logging.WARNING, logger="geoseg"):
        assert np.allclose(physical(open_scene([tmp_path]), "red"), bands["B04"], atol=1e-4)
    assert "states no offset" in caplog.text
    assert np.allclose(physical(open_scene([root], offset=-0.1), "red"), bands["B04"] - 0.1, atol=1e-4)


def test_where_the_cloud_mask_cannot_be_read_nothing_is_valid(tmp_path: Path) -> None:
    quality = np.full((512, 90), 22280, "uint16")
    root = make_landsat(tmp_path, {4: np.full((512, 90), 0.3)}, quality=quality)
    mask = next(root.glob("*QA_PIXEL.TIF"))
    mask.write_bytes(mask.read_bytes()[: mask.stat().st_size // 2])
    block = open_scene([root], clouds="mask", on_read_error="mask").read(Window(0, 0, 512, 90), [0])
    assert not block.valid.any()
    assert block.unread
    with pytest.raises(InputError, match="QA_PIXEL"):
        open_scene([root], clouds="mask").read(Window(0, 0, 512, 90), [0])
    assert open_scene([root], clouds="keep").read(Window(0, 0, 512, 90), [0]).valid.all()


def test_a_tar_of_everything_in_a_folder_and_dotted_names(tmp_path: Path, safes: dict[str, Path]) -> None:
    import shutil
    import tarfile

    root = make_landsat(tmp_path, {4: surface(30, low=0.0)})
    archive = tmp_path / f"{root.name}.tar"
    with tarfile.open(archive, "w") as file:
        for path in root.iterdir():
            file.add(path, f"./{path.name}")
    assert open_scene([archive]).read(Window(0, 0, 30, 30)).valid.all()
    area = tmp_path / "area.2023"
    shutil.copytree(safes["05.09"], area / safes["05.09"].name)
    assert open_scene([area]).scene == open_scene([safes["05.09"]]).scene


def test_planetscope_whose_bands_or_scale_the_user_gives(tmp_path: Path) -> None:
    values = np.stack([surface(30, low=0.001, seed=i) for i in range(4)])
    image = make_planet(tmp_path, values)
    assert open_scene([image], bands=["blue", "green", "red", "nir"]).scene.bands[0].scale == 1.0
    radiance = image.rename(tmp_path / image.name.replace("_SR", ""))
    with pytest.raises(InputError, match="reflectance coefficients"):
        open_scene([radiance])
    assert open_scene([radiance], scale=2e-5).scene.bands[0].scale == 2e-5
