"""Blending: what overlapping patches say, weighted; equal whatever the tiles, their order, the threads and the area."""

from __future__ import annotations

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import TileGrid, Window
from geoseg.kernels.blend import hann_weights
from geoseg.models import input_scaling
from geoseg.protocols import Model
from geoseg.readers.array import ArrayReader, from_array
from geoseg.runtime.predict import Predictor, classes_of, predict_core
from geoseg.testing.models import IdentityModel, PatchMeanModel

sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


def reader_of(shape: tuple[int, int], *, seed: int, east: int = 0) -> ArrayReader:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, shape, np.uint8)
    pixels[rng.random(shape) < 0.05] = 255
    pixels[: shape[0] // 2, shape[1] // 3 :] = 255  # whole patches hold no data
    return from_array(
        pixels, transform=Affine(10, 0, 10 * east, 0, -10, 70), crs="EPSG:32633", names=["red"], nodata=255
    )


def predicted(model: Model, reader: ArrayReader, grid: TileGrid, *, run: str | None = None) -> NDArray[np.uint8]:
    predictor = Predictor(model=model, scaling=input_scaling(reader, model.spec), engine="numpy", precision="auto")
    out = np.zeros((len(model.spec.outputs), *reader.scene.shape), np.uint8)
    for tile in reversed(list(grid)):
        made = predict_core(reader, predictor, grid, tile, run=run)
        out[(slice(None), *tile.core.slices)] = made.probabilities
    return out


def blended_by_hand(model: PatchMeanModel, pixels: NDArray[np.uint8], grid: TileGrid) -> NDArray[np.uint8]:
    """Every patch of the scene, one by one, added up in plain NumPy."""
    rows, cols = pixels.shape
    top = np.zeros((2, rows, cols), np.int64)
    bottom = np.zeros((rows, cols), np.int64)
    for patch in {patch.cell: patch for tile in grid for patch in grid.patches(tile)}.values():
        inside = patch.frame & grid.scene
        if (pixels[inside.slices] == 255).all():
            continue
        grow = [
            (inside.row - patch.frame.row, patch.frame.row_stop - inside.row_stop),
            (inside.col - patch.frame.col, patch.frame.col_stop - inside.col_stop),
        ]
        seen = np.pad(pixels[inside.slices], grow, mode="reflect")
        values = model.predict(seen[None, None], (seen != 255)[None])[0]
        weights = []
        for start, count, cell, size in (
            (inside.row, inside.height, patch.cell.row, rows), (inside.col, inside.width, patch.cell.col, cols)
        ):  # fmt: skip
            side = []
            for place in range(start, start + count):
                parts = [1.0]
                if cell > 0:
                    parts.append((place + 0.5 - cell + grid.halo) / (2 * grid.halo))
                if cell + grid.core < size:
                    parts.append((cell + grid.core + grid.halo - place - 0.5) / (2 * grid.halo))
                ramp = min(math.sin(math.pi / 2 * min(max(part, 0), 1)) ** 2 for part in parts)
                side.append(max(1, math.floor(255 * ramp + 0.5)))
            weights.append(np.array(side))
        weight = weights[0][:, None] * weights[1][None, :]
        top[(slice(None), *inside.slices)] += weight * values[(slice(None), *inside.within(patch.frame).slices)]
        bottom[inside.slices] += weight
    out = np.full((2, rows, cols), 255, np.uint8)
    valid = pixels != 255
    out[:, valid] = ((2 * top + bottom) // np.maximum(1, 2 * bottom))[:, valid]
    return out


@given(sizes, st.integers(0, 2**31), st.integers(-300, 300), st.sampled_from([(32, 16), (24, 4), (48, 20)]))
@settings(max_examples=40)
def test_blending_is_the_weighted_mean_of_all_patches(
    shape: tuple[int, int], seed: int, east: int, geometry: tuple[int, int]
) -> None:
    patch, overlap = geometry
    reader, model = reader_of(shape, seed=seed, east=east), PatchMeanModel(patch=patch, halo=4, stride=2)
    grid = TileGrid.fit(reader.scene, model.spec, overlap=overlap)
    whole = reader.read(grid.scene).pixels[0]
    np.testing.assert_array_equal(predicted(model, reader, grid), blended_by_hand(model, whole, grid))


@given(sizes, st.integers(0, 2**31), st.integers(-300, 300), st.integers(1, 4), st.data())
@settings(max_examples=40)
def test_tiles_and_areas_have_the_pixels_of_the_whole(
    shape: tuple[int, int], seed: int, east: int, k: int, data: st.DataObject
) -> None:
    reader, model = reader_of(shape, seed=seed, east=east), PatchMeanModel(patch=24, halo=4, stride=2)
    whole = predicted(model, reader, TileGrid.fit(reader.scene, model.spec, overlap=12, k=50))
    tiled = predicted(
        model, reader, TileGrid.fit(reader.scene, model.spec, overlap=12, k=k), run=f"{shape}{seed}{east}"
    )
    np.testing.assert_array_equal(tiled, whole)
    row, col = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    region = Window(row, col, data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))) & Window(0, 0, *shape)
    part = predicted(model, reader, TileGrid.fit(reader.scene, model.spec, overlap=12, k=k, region=region))
    np.testing.assert_array_equal(part[(slice(None), *region.slices)], whole[(slice(None), *region.slices)])


def test_blending_one_answer_gives_that_answer() -> None:
    reader, model = reader_of((150, 170), seed=1), IdentityModel(patch=48, halo=8)
    crop = predicted(model, reader, TileGrid.fit(reader.scene, model.spec))
    np.testing.assert_array_equal(predicted(model, reader, TileGrid.fit(reader.scene, model.spec, overlap=16)), crop)


def test_neighbours_weights_add_up_to_one() -> None:
    left = hann_weights(0, 64, before=False, after=True, cell=(0, 48), halo=16)
    right = hann_weights(32, 64, before=True, after=False, cell=(48, 96), halo=16)
    assert set(left[:32]) == {255}
    assert np.abs(left[32:64].astype(int) + right[:32] - 255).max() <= 1


@pytest.mark.parametrize(("overlap", "told"), [(6, "no multiple of 8"), (40, "--overlap 8 to 32, in steps of 8")])
def test_overlaps_that_fit_no_lattice_are_refused(overlap: int, told: str) -> None:
    reader, model = reader_of((50, 50), seed=0), PatchMeanModel(patch=64, halo=8, stride=4)
    with pytest.raises(InputError, match=told):
        TileGrid.fit(reader.scene, model.spec, overlap=overlap)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_classes_are_the_argmax_with_ties_to_the_lowest(count: int) -> None:
    rng = np.random.default_rng(count)
    probabilities, valid = rng.integers(0, 4, (count + 1, 60, 70)).astype(np.uint8), rng.random((60, 70)) > 0.2
    expected = np.where(valid, np.argmax(probabilities[:count], axis=0), 255)
    assert np.array_equal(classes_of(probabilities, valid, count), expected)
