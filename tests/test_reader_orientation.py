"""However an image is stored, the scene is the same: north up, east right."""

from __future__ import annotations

import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.readers import open_scene
from geoseg.readers.orientation import Orientation, nearest_orientation, usable

EIGHT = [Orientation(transposed=t, flip_rows=r, flip_cols=c) for t, r, c in product((False, True), repeat=3)]


def stored(pixels: NDArray[Any], transform: Affine, turn: Orientation) -> tuple[NDArray[Any], Affine]:
    """The native form that `turn` makes canonical: flips first, then transposition, pixel by pixel."""
    count, rows, cols = pixels.shape
    native = np.empty((count, cols, rows) if turn.transposed else (count, rows, cols), pixels.dtype)
    for row, col in product(range(rows), range(cols)):
        r = rows - 1 - row if turn.flip_rows else row
        c = cols - 1 - col if turn.flip_cols else col
        if turn.transposed:
            r, c = c, r
        native[:, r, c] = pixels[:, row, col]
    flip = Affine(-1, 0, cols, 0, 1, 0) if turn.flip_cols else Affine.identity()
    flip = flip * Affine(1, 0, 0, 0, -1, rows) if turn.flip_rows else flip
    swap = Affine(0, 1, 0, 1, 0, 0) if turn.transposed else Affine.identity()
    return native, transform * flip * swap


@pytest.mark.parametrize("turn", EIGHT, ids=str)
@pytest.mark.parametrize(
    "transform",
    [Affine(10, 0, 500_000, 0, -10, 5_000_000), Affine(4, 1, 500_000, 1, -4, 5_000_000), Affine(2, 1, 8, 0, -8, 64)],
    ids=["north-up", "rotated", "skewed"],
)
def test_all_eight_stored_forms_are_one_scene(tmp_path: Path, turn: Orientation, transform: Affine) -> None:
    pixels = np.arange(1, 2 * 23 * 37 + 1, dtype="uint16").reshape(2, 23, 37)
    pixels[0, 4:7, 9] = 0
    native, affine = stored(pixels, transform, turn)
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=2, height=native.shape[1], width=native.shape[2], dtype="uint16",
        crs="EPSG:32633", transform=affine, nodata=0, tiled=True, blockxsize=16, blockysize=16,
    ) as file:  # fmt: skip
        file.write(native)
    reader = open_scene([path])
    assert reader.scene.shape == (23, 37)
    assert reader.scene.transform == transform
    block = reader.read(Window(0, 0, 23, 37))
    assert np.array_equal(block.pixels, pixels)
    assert np.array_equal(block.valid, pixels[0] != 0)
    assert block.pixels.flags.c_contiguous
    assert block.valid.flags.c_contiguous
    part = reader.read(Window(3, 5, 11, 20), [1])
    assert np.array_equal(part.pixels, pixels[1:, 3:14, 5:25])


@given(
    turn=st.sampled_from(EIGHT),
    degrees=st.floats(-44, 44),
    shear=st.floats(-0.3, 0.3),
    size=st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)),
)
def test_the_nearest_orientation_undoes_any_other(
    turn: Orientation, degrees: float, shear: float, size: tuple[float, float]
) -> None:
    canonical = Affine.rotation(degrees) * Affine(size[0], 0, 0, 0, -size[1], 0)
    native = stored(np.zeros((1, 5, 7)), canonical, turn)[1]
    assert nearest_orientation(native) == turn


@pytest.mark.parametrize("turn", EIGHT, ids=str)
def test_grids_turned_by_exactly_45_degrees_meet_in_one_form(turn: Orientation) -> None:
    shape = (5, 5)
    native = stored(np.zeros((1, *shape)), Affine(2, 2, 64, 2, -2, 64), turn)[1]
    assert nearest_orientation(native).transform(native, shape) == Affine(2, 2, 64, 2, -2, 64)


@given(turn=st.sampled_from(EIGHT), data=st.data())
def test_a_window_is_the_same_pixels_in_both_orientations(turn: Orientation, data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    native = np.arange(shape[0] * shape[1]).reshape(shape)
    canonical = turn.canonical(native)
    assert canonical.shape == turn.shape(shape)
    rows, cols = canonical.shape
    row, col = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    window = Window(row, col, data.draw(st.integers(1, rows - row)), data.draw(st.integers(1, cols - col)))
    there = turn.native_window(window, shape)
    assert np.array_equal(turn.canonical(native[there.slices]), canonical[window.slices])


def test_affines_that_place_nothing_are_known() -> None:
    assert usable(Affine(1, 0, 0, 0, -1, 0))
    assert not usable(Affine(0, 0, 5, 0, -1, 0))
    assert not usable(Affine(float("nan"), 0, 0, 0, -1, 0))
    assert not usable(Affine(1, 1, 0, 1, 1, 0))


def test_a_world_file_without_crs_is_turned_too(tmp_path: Path) -> None:
    pixels = np.arange(1, 13, dtype="uint8").reshape(1, 3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "a.png", "w", driver="PNG", count=1, height=3, width=4, dtype="uint8") as file:
            file.write(pixels)
    # South-up: the first row is the southernmost; a world file gives the centre of the first pixel.
    (tmp_path / "a.pgw").write_text("2\n0\n0\n2\n101\n201\n")
    reader = open_scene([tmp_path / "a.png"])
    assert reader.scene.crs is None
    assert reader.scene.transform == Affine(2, 0, 100, 0, -2, 206)
    assert np.array_equal(reader.read(Window(0, 0, 3, 4)).pixels, pixels[:, ::-1])
