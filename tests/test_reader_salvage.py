"""`on_read_error="mask"`: damaged blocks become not valid, the same ones in every window, and all else is read."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from test_reader_orientation import EIGHT, stored
from test_reader_raster import NORTH_UP, write

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.protocols import Reader
from geoseg.readers import handles, open_scene, resampled, salvage
from geoseg.readers.mosaic import DEEPEST
from geoseg.readers.orientation import Orientation
from geoseg.readers.validity import rectangles
from geoseg.results import Block

SIDE = 150
PIXELS = np.random.default_rng(0).integers(1, 200, (3, SIDE, SIDE)).astype("uint8")
TILED = {"tiled": True, "blockxsize": 32, "blockysize": 32}
MOSAIC = """<VRTDataset rasterXSize="150" rasterYSize="150"><GeoTransform>5e5, 10, 0, 5e6, 0, -10</GeoTransform>
    <VRTRasterBand dataType="Byte" band="1" blockXSize="48" blockYSize="40">{}{}</VRTRasterBand></VRTDataset>"""
PART = """<SimpleSource><SourceFilename relativeToVRT="1">{}.tif</SourceFilename><SourceBand>1</SourceBand>
    <SrcRect xOff="0" yOff="0" xSize="75" ySize="150"/><DstRect xOff="{}" yOff="0" xSize="75" ySize="150"/></SimpleSource>"""


def spoil(path: Path, at: float) -> None:
    """Overwrites the beginning of a block, or of what lies there in other formats than TIFF."""
    content = bytearray(path.read_bytes())
    place = int(at * len(content))
    if path.suffix in (".tif", ".msk"):
        place = max(start for start in block_starts(path) if start <= place)
    content[place : place + 24] = bytes(255 - byte for byte in content[place : place + 24])
    path.write_bytes(content)


def block_starts(path: Path) -> list[int]:
    with warnings.catch_warnings(action="ignore"), rasterio.open(path) as file:
        starts = [
            file.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band)
            for band in file.indexes
            for (row, col), _ in file.block_windows(band)
        ]
    return [int(start) for start in starts if start]


def cut(path: Path, at: float) -> None:
    path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size)])


def image(damage: Callable[[Path, float], None], at: float, name: str, **profile: Any) -> Callable[[Path], list[Path]]:
    def made(folder: Path) -> list[Path]:
        path = folder / name
        write(path, PIXELS, **profile)
        damage(path, at)
        return [path]

    return made


def with_mask(damage: Callable[[Path, float], None], at: float, **env: Any) -> Callable[[Path], list[Path]]:
    """The image is whole, its mask is not."""

    def made(folder: Path) -> list[Path]:
        path = folder / "a.tif"
        with rasterio.Env(**env):
            write(path, PIXELS, **TILED)
            with rasterio.open(path, "r+") as file:
                file.write_mask(np.random.default_rng(1).random((SIDE, SIDE)) > 0.4)
        damage(path if env["GDAL_TIFF_INTERNAL_MASK"] == "YES" else Path(f"{path}.msk"), at)
        return [path]

    return made


def mosaic(second: Callable[[Path, float], None] | None) -> Callable[[Path], list[Path]]:
    def made(folder: Path) -> list[Path]:
        for name in "ab":
            write(folder / f"{name}.tif", PIXELS[:1], compress="deflate", **TILED)
        (folder / "b.tif").unlink() if second is None else second(folder / "b.tif", 0.5)
        (folder / "a.vrt").write_text(MOSAIC.format(PART.format("a", 0), PART.format("b", 75)))
        return [folder / "a.vrt"]

    return made


def band_files(folder: Path) -> list[Path]:
    for name, band in zip(("red", "nir"), PIXELS, strict=False):
        write(folder / f"{name}.tif", band[None], compress="deflate", **TILED)
    spoil(folder / "red.tif", 0.3)
    cut(folder / "nir.tif", 0.8)
    return [folder / "red.tif", folder / "nir.tif"]


DAMAGED = {
    "tile of interleaved bands": image(spoil, 0.5, "a.tif", compress="deflate", interleave="pixel", **TILED),
    "tile of separate bands": image(spoil, 0.5, "a.tif", compress="deflate", interleave="band", **TILED),
    "tile of two dtypes": mosaic(spoil),
    "strips cut off": image(cut, 0.6, "a.tif", compress="lzw"),
    "uncompressed cut off": image(cut, 0.61, "a.tif"),
    "jpeg in tiff": image(cut, 0.7, "a.tif", compress="jpeg", photometric="ycbcr", interleave="pixel", **TILED),
    "zstd": image(spoil, 0.4, "a.tif", compress="zstd", interleave="pixel", **TILED),
    "one strip": image(cut, 0.7, "a.tif", compress="deflate", blockysize=SIDE, interleave="pixel"),
    "png cut off": image(cut, 0.5, "a.png", driver="PNG"),
    "png spoiled": image(spoil, 0.5, "a.png", driver="PNG"),
    "jpeg cut off": image(cut, 0.5, "a.jpg", driver="JPEG"),
    "jp2 cut off": image(cut, 0.5, "a.jp2", driver="JP2OpenJPEG", blockxsize=32, blockysize=32, QUALITY=100, REVERSIBLE="YES"),
    "internal mask": with_mask(cut, 0.985, GDAL_TIFF_INTERNAL_MASK="YES", GDAL_TIFF_DEFLATE_SUBCODEC="ZLIB"),
    "mask beside": with_mask(spoil, 0.6, GDAL_TIFF_INTERNAL_MASK="NO"),
    "mosaic without a file": mosaic(None),
    "band files": band_files,
}  # fmt: skip


def masked(paths: list[Path]) -> Reader:
    return open_scene(paths, on_read_error="mask")


def flags(block: Block) -> NDArray[np.bool_]:
    """The unread parts as pixels; they must not overlap."""
    count = np.zeros(block.window.shape, int)
    for part in block.unread:
        assert block.window.contains(part)
        count[part.within(block.window).slices] += 1
    assert count.max() <= 1
    assert list(block.unread) == sorted(block.unread)
    return count > 0


def assert_parts_are_the_whole(reader: Reader, windows: list[Window]) -> None:
    whole = reader.read(Window(0, 0, *reader.scene.shape))
    for window in windows:
        part = reader.read(window)
        assert np.array_equal(part.valid, whole.valid[window.slices])
        assert np.array_equal(flags(part), flags(whole)[window.slices])
        assert np.array_equal(part.pixels[:, part.valid], whole.pixels[:, *window.slices][:, part.valid])
        assert part.unread == rectangles(flags(whole)[window.slices], window)


@pytest.mark.parametrize("case", DAMAGED)
def test_the_same_blocks_are_masked_in_any_window_and_all_else_is_true(tmp_path: Path, case: str) -> None:
    paths = DAMAGED[case](tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        open_scene(paths).read(Window(0, 0, SIDE, SIDE))
    reader = masked(paths)
    block = reader.read(Window(0, 0, SIDE, SIDE))
    lost = flags(block)
    assert not block.valid[lost].any()
    assert lost.any()
    if case != "one strip":
        assert not lost.all()
    if "mask" not in case:
        assert block.valid[~lost].all()
    if not case.startswith(("jpeg", "png spoiled")):  # lossy, or undecided up to the next checksum
        truth = PIXELS[:1] if "mosaic" in case or "dtypes" in case else PIXELS[: len(block.pixels)]
        if len(paths) == 1 and len(truth) == 1:
            truth = np.concatenate([truth[..., :75], truth[..., :75]], axis=2)
        assert np.array_equal(block.pixels[:, ~lost], truth[:, ~lost])
    tiles = [Window(r, c, min(41, SIDE - r), min(37, SIDE - c)) for r in range(0, SIDE, 41) for c in range(0, SIDE, 37)]
    assert_parts_are_the_whole(reader, tiles)
    assert_parts_are_the_whole(masked(paths), tiles[::-1])
    assert reader.content_hash() == masked(paths).content_hash()


@pytest.mark.parametrize("turn", EIGHT, ids=str)
def test_blocks_are_turned_with_the_image(tmp_path: Path, turn: Orientation) -> None:
    native, affine = stored(PIXELS[:, :100, :130], NORTH_UP, turn)
    path = tmp_path / "a.tif"
    write(path, native, transform=affine, compress="deflate", interleave="pixel", **TILED)
    spoil(path, 0.3)
    spoil(path, 0.8)
    reader = masked([path])
    block = reader.read(Window(0, 0, 100, 130))
    lost = flags(block)
    assert 0 < lost.sum() <= 3 * 32 * 32
    assert np.array_equal(block.valid, ~lost)
    assert np.array_equal(block.pixels[:, ~lost], PIXELS[:, :100, :130][:, ~lost])
    with rasterio.open(path) as file:
        bad = np.zeros(native.shape[1:], bool)
        for _, window in file.block_windows(1):
            try:
                file.read(window=window)
            except RasterioIOError:
                bad[window.toslices()] = True
    assert np.array_equal(turn.canonical(bad), lost)

    @settings(max_examples=15)
    @given(st.tuples(st.integers(0, 99), st.integers(0, 129)), st.tuples(st.integers(1, 100), st.integers(1, 130)))
    def any_window(first: tuple[int, int], size: tuple[int, int]) -> None:
        window = Window(*first, *size) & Window(0, 0, 100, 130)
        assert_parts_are_the_whole(reader, [window])

    any_window()


@given(st.integers(0, 9), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_rectangles_hold_the_flags_and_nothing_else(seed: int, shape: tuple[int, int]) -> None:
    given_flags = np.random.default_rng(seed).random(shape) > 0.5
    window = Window(5, 7, *shape)
    again = np.zeros(shape, int)
    for part in rectangles(given_flags, window):
        again[part.within(window).slices] += 1
    assert np.array_equal(again, given_flags)


def test_whole_files_are_read_as_ever(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", PIXELS, nodata=7, **TILED)
    block = masked([Path(path)]).read(Window(10, 20, 90, 100))
    assert block.unread == ()
    plain = open_scene([path]).read(Window(10, 20, 90, 100))
    assert np.array_equal(block.pixels, plain.pixels)
    assert np.array_equal(block.valid, plain.valid)


def test_empty_blocks_are_no_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, np.zeros((1, 200, 200), "uint8"), SPARSE_OK=True, **TILED)
    block = masked([path]).read(Window(0, 0, 200, 200))
    assert block.valid.all()
    assert not block.unread


def test_a_block_that_fails_in_one_wanted_band_is_masked_for_all_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, PIXELS, compress="deflate", interleave="band", **TILED)
    spoil(path, 0.5)  # in the second of three bands
    window = Window(0, 0, SIDE, SIDE)
    reader = masked([path])
    assert reader.read(window, [0, 2]).unread == ()
    assert reader.read(window, [1]).unread == reader.read(window, [0, 1, 2]).unread != ()


def test_one_bad_block_costs_few_openings_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(1, 200, (1, 1024, 1024)).astype("uint8")
    write(path, pixels, compress="deflate", **TILED)
    spoil(path, 0.63)
    opened: list[str] = []
    really = rasterio.open
    monkeypatch.setattr(handles.rasterio, "open", lambda name, **given: opened.append(name) or really(name, **given))
    reader = masked([path])
    opened.clear()
    with caplog.at_level(logging.WARNING, logger="geoseg"):
        block = reader.read(Window(0, 0, 1024, 1024))
        reader.read(Window(0, 0, 1024, 1024))
    assert flags(block).sum() == 32 * 32
    assert len(opened) <= 12, "ten halvings of 1024 blocks, once"
    part = block.unread[0]
    [told] = [record.getMessage() for record in caplog.records]
    assert str(path) in told
    assert f"32 x 32 pixels at row {part.row}, column {part.col}" in told
    path.write_bytes(path.read_bytes() + b"anew")
    reader.read(block.window)
    assert len(caplog.records) == 2


def test_what_lies_below_the_end_of_a_png_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    write(path, np.random.default_rng(0).integers(0, 255, (3, 700, 600)).astype("uint8"), driver="PNG")
    cut(path, 0.4)
    reader = masked([path])
    lost = flags(reader.read(Window(0, 0, 700, 600)))
    tried: list[Window] = []
    really = salvage.decode
    monkeypatch.setattr(salvage, "decode", lambda *given, **how: tried.append(given[3]) or really(*given, **how))
    again = reader.read(Window(0, 100, 700, 200))
    assert np.array_equal(flags(again), lost[:, 100:300])
    assert len(tried) == 1, "what is above it, at once"


def test_blocks_that_reach_far_beyond_the_window_are_read_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = DAMAGED["mosaic without a file"](tmp_path)
    truth = masked(paths).read(Window(3, 30, 120, 60))
    monkeypatch.setattr(salvage, "RUN_BYTES", 48 * 40 * 2)
    block = masked(paths).read(Window(3, 30, 120, 60))
    assert block.unread == truth.unread != ()
    assert np.array_equal(block.pixels, truth.pixels)


def test_what_cannot_be_opened_or_is_no_fault_of_the_file_stays_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="'stop' or 'mask'"):
        open_scene([tmp_path / "a.tif"], on_read_error="skip")  # type: ignore[arg-type]
    path = tmp_path / "a.tif"
    write(path, PIXELS, compress="deflate", **TILED)
    reader = masked([path])
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    with pytest.raises(InputError, match=r"a\.tif"):
        masked([path])
    with pytest.raises(InputError, match=r"a\.tif"):
        reader.read(Window(0, 0, SIDE, SIDE))
    path.unlink()
    write(path, PIXELS[:, :90])
    with pytest.raises(InputError, match="has changed"):
        reader.read(Window(0, 0, 10, 10))
    path.write_bytes(whole)

    def short_of_memory(*given: Any, **how: Any) -> None:
        with handles.reading(str(path)):
            raise RasterioIOError("Read failed") from handles.CPLE_OutOfMemoryError(3, 2, "cannot allocate")

    monkeypatch.setattr(salvage, "decode", short_of_memory)
    with pytest.raises(InputError, match="cannot allocate"):
        reader.read(Window(0, 0, 10, 10))


@pytest.mark.parametrize("size_m", [4.0, 10.0, 37.0])
def test_resampled_pixels_that_touch_the_unread_are_unread(tmp_path: Path, size_m: float) -> None:
    path = tmp_path / "a.tif"
    write(
        path, PIXELS, compress="deflate", interleave="pixel", transform=NORTH_UP @ Affine.translation(0.3, 0.4), **TILED
    )
    spoil(path, 0.5)
    source = masked([path])
    lost = flags(source.read(Window(0, 0, SIDE, SIDE)))
    reader = resampled(source, size_m)
    rows, cols = reader.scene.shape
    block = reader.read(Window(0, 0, rows, cols))
    assert not block.valid[flags(block)].any()
    share = resampled(open_without(path, lost), size_m).read(block.window).pixels[0]
    if size_m > 10:
        assert np.array_equal(flags(block)[block.valid | flags(block)], (share > 0)[block.valid | flags(block)])
    tiles = [Window(r, c, min(17, rows - r), min(29, cols - c)) for r in range(0, rows, 17) for c in range(0, cols, 29)]
    assert_parts_are_the_whole(reader, tiles)


def open_without(path: Path, lost: NDArray[np.bool_]) -> Reader:
    """The scene with 1e6 in place of what is lost and 0 elsewhere: means above 0 touch it."""
    other = path.with_name("lost.tif")
    with rasterio.open(path) as file:
        write(other, np.where(lost, 1e6, 0)[None], transform=file.transform)
    return open_scene([other])


@pytest.mark.parametrize("on_read_error", ["stop", "mask"])
@pytest.mark.parametrize("what", ["gone", "no raster", "gone from an inner mosaic"])
def test_a_file_missing_from_a_mosaic_is_missed_each_time(tmp_path: Path, on_read_error: Any, what: str) -> None:
    whole = masked(mosaic(lambda path, at: None)(tmp_path))
    assert whole.read(Window(0, 0, SIDE, SIDE)).unread == ()  # its handle stays open, and with it what GDAL remembers
    (tmp_path / "b.tif").unlink()
    if what == "no raster":
        (tmp_path / "b.tif").write_text("no raster")
    path = tmp_path / "again.vrt"
    path.write_text((tmp_path / "a.vrt").read_text())
    if what == "gone from an inner mosaic":
        outer = MOSAIC.format(PART.format("a", 0), PART.format("b", 75).replace("b.tif", "again.vrt"))
        path = tmp_path / "outer.vrt"
        path.write_text(outer)
    reader = open_scene([path], on_read_error=on_read_error)
    for _ in range(3):
        assert reader.read(Window(0, 0, SIDE, 75)).valid.all() or on_read_error == "mask"
        if on_read_error == "stop":
            with pytest.raises(InputError, match=r"b\.tif"):
                reader.read(Window(0, 70, SIDE, 20))
        else:
            assert reader.read(Window(0, 0, SIDE, SIDE)).unread == (Window(0, 48, SIDE, SIDE - 48),)


def test_a_mosaic_whose_files_cannot_be_known_is_refused(tmp_path: Path) -> None:
    (path,) = mosaic(lambda path, at: None)(tmp_path)
    path.write_text(path.read_text().replace("relativeToVRT", "2"))  # GDAL takes it
    with pytest.raises(InputError, match="no well-formed XML"):
        open_scene([path])


def test_a_band_may_be_made_of_another_whatever_the_mosaic_calls_itself(tmp_path: Path) -> None:
    (path,) = mosaic(lambda path, at: None)(tmp_path)
    other = '<VRTRasterBand dataType="Byte" band="2">' + PART.replace("{}.tif", f"../{tmp_path.name}/a.vrt").format(0)
    path.write_text(path.read_text().replace("</VRTDataset>", f"{other}</VRTRasterBand></VRTDataset>"))
    assert np.array_equal(open_scene([path]).read(Window(0, 0, SIDE, 75)).pixels, PIXELS[[0, 0], :, :75])


def test_mosaics_within_mosaics_are_read_as_deep_as_gdal_does(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", PIXELS[:1])
    for depth, inner in enumerate(["a.tif", *(f"{n}.vrt" for n in range(1, 300))], start=1):
        (tmp_path / f"{depth}.vrt").write_text(MOSAIC.format(PART.format("a", 0).replace("a.tif", inner), ""))
    assert masked([tmp_path / f"{DEEPEST}.vrt"]).read(Window(0, 0, 9, 9)).valid.all()
    with pytest.raises(InputError, match=f"VRT within {DEEPEST} others.*gdalbuildvrt"):
        open_scene([tmp_path / "300.vrt"]).read(Window(0, 0, 9, 9))
    assert not masked([tmp_path / f"{DEEPEST + 1}.vrt"]).read(Window(0, 0, 9, 9)).valid.any()
