"""Blocks of a file are decoded once for all threads, and only as long as the file is what it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.readers import blocks
from geoseg.readers.raster import RasterReader
from geoseg.runtime.runners import Threads
from geoseg.shared import SharedArrays

SIDE = 700


class Counting(SharedArrays[tuple[Any, ...]]):
    """Counts what is made."""

    def get(
        self, keys: Sequence[tuple[Any, ...]], make: Callable[[Sequence[tuple[Any, ...]]], Any]
    ) -> list[NDArray[Any]]:
        def counted(some: Sequence[tuple[Any, ...]]) -> Iterator[NDArray[Any]]:
            made.extend(some)
            yield from make(some)

        return super().get(keys, counted)


made: list[tuple[Any, ...]] = []


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()
    monkeypatch.setattr(blocks, "_cells", Counting(bytes_kept=blocks.KEPT_BYTES))


def write(path: Path, seed: int, **layout: Any) -> NDArray[np.uint16]:
    pixels = np.random.default_rng(seed).integers(1, 9999, (3, SIDE, SIDE)).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=SIDE, width=SIDE, dtype="uint16", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000), compress="deflate", **layout,
    ) as file:  # fmt: skip
        file.write(pixels)
    return pixels


LAYOUTS = {
    "tiles": {"tiled": True, "blockxsize": 128, "blockysize": 64},
    "band by band": {"tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": "band"},
    "strips": {"blockysize": 7},
}


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_of_many_threads_decode_each_block_once(tmp_path: Path, layout: str) -> None:
    pixels = write(tmp_path / "a.tif", 1, **LAYOUTS[layout])
    reader = RasterReader(paths=(str(tmp_path / "a.tif"),))
    windows = [Window(row, col, 200, 200) for row in range(0, 501, 100) for col in range(0, 501, 100)]

    def check(window: Window) -> None:
        assert np.array_equal(reader.read(window).pixels, pixels[(slice(None), *window.slices)])

    Threads(workers=4).map(check, windows, done=lambda _: None)
    assert len(made) == len(set(made)) > 0


def test_items_are_taken_in_order() -> None:
    seen: list[int] = []
    Threads(workers=1).map(seen.append, range(4500), done=lambda _: None)
    assert seen == list(range(4500))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), layout=st.sampled_from(sorted(LAYOUTS)))
def test_any_window_and_bands_are_those_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, layout: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"{layout}.tif"
    pixels = write(path, 2, **LAYOUTS[layout]) if not path.exists() else rasterio.open(path).read()
    row, col = data.draw(st.integers(0, SIDE - 1)), data.draw(st.integers(0, SIDE - 1))
    window = Window(row, col, data.draw(st.integers(1, SIDE - row)), data.draw(st.integers(1, SIDE - col)))
    bands = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
    found = RasterReader(paths=(str(path),)).read(window, bands).pixels
    assert np.array_equal(found, pixels[(bands, *window.slices)])


@pytest.mark.usefixtures("kept")
def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path, window = tmp_path / "a.tif", Window(0, 0, 300, 300)
    for seed in (1, 2):
        pixels = write(path, seed, tiled=True)
        os.utime(path, ns=(seed, seed))
        assert np.array_equal(RasterReader(paths=(str(path),)).read(window).pixels, pixels[:, :300, :300])
    before = len(made)
    RasterReader(paths=(str(path),)).read(window)
    assert len(made) == before


@pytest.mark.usefixtures("kept")
def test_very_large_blocks_are_read_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_CELL_BYTES", 1000)
    pixels = write(tmp_path / "a.tif", 3, tiled=True)
    found = RasterReader(paths=(str(tmp_path / "a.tif"),)).read(Window(10, 20, 90, 80)).pixels
    assert np.array_equal(found, pixels[:, 10:100, 20:100])
    assert not made
