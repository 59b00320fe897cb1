"""Bad files end in an InputError that names them, and in nothing else: no crash, no other error, no invented pixels."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.readers import inspection, open_scene

RELIABILITY = Path(__file__).parent.parent.parent / "shared" / "data" / "reliability"
BROKEN = {
    "bigtiff_header_extract.tif", "byte_truncated.tif", "byte_zstd_corrupted.tif", "corrupted_gtiff_tags.tif",
    "huge4GB.tif", "hugeblocksize.tif", "lzw_corrupted.tif", "packbits-not-enough-data.tif", "unknown_compression.tif",
}  # fmt: skip


def read_corners(path: Path, side: int = 512) -> list[Any]:
    """First and last pixels of every band."""
    reader = open_scene([path])
    rows, cols = reader.scene.shape
    height, width = min(side, rows), min(side, cols)
    return [reader.read(Window(row, col, height, width)) for row, col in ((0, 0), (rows - height, cols - width))]


def write(
    path: Path, *, driver: str = "GTiff", dtype: str = "uint8", count: int = 3, side: int = 200, **profile: Any
) -> Path:
    pixels = np.random.default_rng(0).integers(1, 200, (count, side, side)).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver=driver, count=count, height=side, width=side, dtype=dtype,
            crs="EPSG:32633", transform=Affine(10, 0, 500_000, 0, -10, 5_000_000), **profile,
        ) as file:  # fmt: skip
            file.write(pixels)
    return path


def memory_mb(entry: str) -> float:
    """VmRSS (now) or VmHWM (highest so far) of this process, from Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry + ":")) / 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory from /proc")
@pytest.mark.skipif(not RELIABILITY.is_dir(), reason="needs ../shared/data, which is not part of the project")
@pytest.mark.parametrize("name", sorted(path.name for path in RELIABILITY.glob("*.*")))
def test_every_odd_file_is_read_or_refused(name: str) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = memory_mb("VmRSS")
    if name in BROKEN or not name.endswith((".tif", ".jp2")):
        with pytest.raises(InputError, match=name):
            read_corners(RELIABILITY / name)
    else:
        for block in read_corners(RELIABILITY / name):
            assert block.pixels.shape[1:] == block.valid.shape
    assert memory_mb("VmHWM") - before < 400, "memory follows the window"


@pytest.mark.skipif(not RELIABILITY.is_dir(), reason="needs ../shared/data, which is not part of the project")
def test_odd_files_mean_what_they_say() -> None:
    assert not any(block.valid.any() for block in read_corners(RELIABILITY / "all-nodata.tif"))
    for block in read_corners(RELIABILITY / "cog_nodata_nan.tif"):
        assert np.array_equal(block.valid, np.isfinite(block.pixels[0]) & (block.pixels[0] != 0))
    rotated = open_scene([RELIABILITY / "geomatrix.tif"]).scene.transform
    assert rotated == Affine(5.0, 1.5, 1840901.75, 1.5, -5.0, 1143973.25)
    scaled = open_scene([RELIABILITY / "cog_scale.tif"]).scene.bands
    assert [(band.scale, band.offset) for band in scaled] == [(1e-4, 1000.0), (1e-3, 2000.0)]
    assert open_scene([RELIABILITY / "B01.jp2"]).scene.band_names == ("b01",)


def test_what_is_no_raster_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file '.*gone\.tif'"):
        open_scene([tmp_path / "gone.tif"])
    with pytest.raises(InputError, match="is a directory"):
        open_scene([tmp_path])
    (tmp_path / "a.txt").write_text("no raster")
    with pytest.raises(InputError, match="is no raster"):
        open_scene([tmp_path / "a.txt"])
    (tmp_path / "empty.tif").touch()
    with pytest.raises(InputError, match=r"empty\.tif"):
        open_scene([tmp_path / "empty.tif"])
    for name in ("", "a\0b", "x" * 5000, "NOFORMAT:a.tif:b"):
        with pytest.raises(InputError):
            open_scene([name])
    with pytest.raises(InputError, match="no raster was given"):
        open_scene([])


def test_palettes_and_complex_numbers_are_refused_with_a_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "palette.tif", count=1)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (255, 0, 0, 255)})
    with pytest.raises(InputError, match="gdal_translate -expand rgb"):
        open_scene([path])
    with pytest.raises(InputError, match="complex64"):
        open_scene([write(tmp_path / "complex.tif", dtype="complex64")])


def test_too_large_blocks_are_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.tif", interleave="pixel", tiled=True, blockxsize=160, blockysize=160)
    monkeypatch.setattr(inspection, "MAX_BLOCK_BYTES", 3 * 160 * 160)
    open_scene([path])
    monkeypatch.setattr(inspection, "MAX_BLOCK_BYTES", 3 * 160 * 160 - 1)
    with pytest.raises(InputError, match="gdal_translate -of COG"):
        open_scene([path])


def test_scales_and_transforms_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    with rasterio.open(path, "r+") as file:
        file.scales = (0.0, 1.0, 1.0)
    with pytest.raises(InputError, match="--scale"):
        open_scene([path])
    flat = tmp_path / "flat.vrt"
    flat.write_text(
        """<VRTDataset rasterXSize="9" rasterYSize="9"><GeoTransform>5, 0, 0, 5, 0, 0</GeoTransform>
        <VRTRasterBand dataType="Byte" band="1"/></VRTDataset>"""
    )
    with pytest.raises(InputError, match="geotransform"):
        open_scene([flat])


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("a.jp2", {"driver": "JP2OpenJPEG", "blockxsize": 64, "blockysize": 64}),
        ("a.jpg", {"driver": "JPEG"}),
        ("a.png", {"driver": "PNG"}),
        ("a.tif", {"compress": "jpeg", "tiled": True, "blockxsize": 64, "blockysize": 64}),
        ("b.tif", {"compress": "deflate"}),
    ],
)
def test_truncated_files_give_true_pixels_or_an_error_however_often_they_are_read(
    tmp_path: Path, name: str, profile: dict[str, Any]
) -> None:
    path = write(tmp_path / name, **profile)
    windows = [Window(row, 0, 40, 200) for row in range(0, 200, 40)]
    reader = open_scene([path])
    truth = [reader.read(window).pixels for window in windows]
    content = path.read_bytes()
    failures = 0
    for part in (0.5, 0.9):
        path.write_bytes(content[: int(len(content) * part)])
        for window, expected in [*zip(windows, truth, strict=True)] * 2:
            try:
                # Opened once, or anew: after an error GDAL goes on with grey or zeros on the same handle.
                assert np.array_equal(reader.read(window).pixels, expected)
                assert np.array_equal(open_scene([path]).read(window).pixels, expected)
            except InputError:
                failures += 1
    assert failures


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    dice = random.Random(4)
    seeds = [
        write(tmp_path / f"{i}.bin", side=40, **profile).read_bytes()
        for i, profile in enumerate(
            (
                {"compress": "lzw"},
                {"compress": "deflate", "BIGTIFF": "YES"},
                {"driver": "PNG"},
                {"driver": "JP2OpenJPEG"},
            )
        )
    ]
    path = tmp_path / "damaged.bin"
    outcomes = {True: 0, False: 0}
    for _ in range(300):
        content = bytearray(dice.choice(seeds))
        for _ in range(dice.randrange(1, 6)):
            content[dice.randrange(min(len(content), dice.choice([400, 100_000])))] = dice.choice([0, 1, 127, 255])
        path.write_bytes(content[: dice.randrange(len(content))] if dice.random() < 0.3 else content)
        try:
            read_corners(path, side=64)
            outcomes[True] += 1
        except InputError:
            outcomes[False] += 1
    assert min(outcomes.values()) > 10


def test_a_huge_claimed_size_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=2_000_000, width=2_000_000, dtype="uint16", tiled=True, compress="deflate",
        SPARSE_OK="TRUE", BIGTIFF="YES", crs="EPSG:32633", transform=Affine(10, 0, 500_000, 0, -10, 5_000_000),
        blockxsize=4096, blockysize=4096,
    ):  # fmt: skip
        pass
    code = (
        "import sys; from geoseg.readers import open_scene; from geoseg.grid import Window;"
        "r = open_scene([sys.argv[1]]); r.read(Window(1_999_000, 1_999_000, 64, 64)); r.content_hash();"
        "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 600 * 1024
