"""ResampledReader: a pixel depends on its own footprint only, and is its area-weighted mean."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geoseg.errors import InputError
from geoseg.grid import Window, lattice_phase
from geoseg.protocols import Reader
from geoseg.readers import resample
from geoseg.readers.array import ArrayReader, from_array
from geoseg.readers.footprint import axis_taps
from geoseg.readers.resample import ResampledReader, pixel_sides_m


def scene(
    pixels: NDArray[Any], *, origin: tuple[float, float] = (500_000, 5_000_000), side: float = 10, **options: Any
) -> ArrayReader:
    transform = Affine(side, 0, origin[0], 0, -side, origin[1])
    return from_array(pixels, transform=transform, crs="EPSG:32633", **options)


def noise(count: int = 2, height: int = 60, width: int = 70, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(1, 60_000, (count, height, width), dtype=np.uint16)


def whole(reader: Reader) -> Window:
    return Window(0, 0, *reader.scene.shape)


def exact_mean(
    pixels: NDArray[Any], valid: NDArray[np.bool_], *, top: Fraction, left: Fraction, side: Fraction
) -> Fraction | None:
    """The area-weighted mean of a square in rational numbers: the definition, without floating point."""
    total, weight = Fraction(0), Fraction(0)
    for row in range(max(0, math.floor(top)), min(pixels.shape[0], math.ceil(top + side))):
        for col in range(max(0, math.floor(left)), min(pixels.shape[1], math.ceil(left + side))):
            if valid[row, col]:
                high = min(top + side, Fraction(row + 1)) - max(top, Fraction(row))
                wide = min(left + side, Fraction(col + 1)) - max(left, Fraction(col))
                total += high * wide * int(pixels[row, col])
                weight += high * wide
    return total / weight if weight * 2 >= side * side else None


@pytest.mark.parametrize("factor", [2, 3, 10])
def test_integer_factors_are_block_means(factor: int) -> None:
    pixels = noise()
    reader = ResampledReader(source=scene(pixels, origin=(600_000, 5_100_000)), pixel_size_m=10.0 * factor)
    rows, cols = pixels.shape[1] // factor, pixels.shape[2] // factor
    sums = pixels[:, : rows * factor, : cols * factor].astype(np.int64)
    sums = sums.reshape(2, rows, factor, cols, factor).sum(axis=(2, 4))
    block = reader.read(Window(0, 0, rows, cols))
    assert np.array_equal(block.pixels, (2 * sums + factor**2) // (2 * factor**2))
    assert block.valid.all()
    assert block.pixels.dtype == np.uint16


@settings(max_examples=25)
@given(
    seed=st.integers(0, 99), factor=st.sampled_from(["1", "1.5", "2.5", "3.2", "7"]),
    shift=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)  # fmt: skip
def test_any_factor_and_phase_is_the_exact_area_weighted_mean(seed: int, factor: str, shift: tuple[int, int]) -> None:
    pixels = noise(1, 13, 17, seed)
    valid = np.random.default_rng(seed).random((13, 17)) > 0.3
    origin = (500_000 + shift[0], 5_000_000 + shift[1])
    ratio = Fraction(factor)
    reader = ResampledReader(source=scene(pixels, origin=origin, valid=valid), pixel_size_m=10 * float(ratio))
    transform = reader.scene.transform
    left = (Fraction(transform.c) - origin[0]) / 10
    top = (origin[1] - Fraction(transform.f)) / 10
    block = reader.read(whole(reader))
    for (i, j), good in np.ndenumerate(block.valid):
        mean = exact_mean(pixels[0], valid, top=top + i * ratio, left=left + j * ratio, side=ratio)
        assert good == (mean is not None)
        value = int(block.pixels[0, i, j])
        # Rounded half up, and to either side where the mean is a half but for floating point.
        assert value == 0 if mean is None else abs(value - mean) <= Fraction(1, 2) + Fraction(1, 10**9)


@settings(max_examples=60)
@given(
    data=st.data(),
    size=st.sampled_from([4.0, 7.3, 10.0, 13.0, 25.0, 33.3, 170.0]),
    method=st.sampled_from(["average", "nearest"]),
    turned=st.booleans(),
)
def test_any_window_is_the_crop_of_the_whole_bit_for_bit(
    data: st.DataObject, size: float, method: Any, turned: bool
) -> None:
    pixels = noise(2, 41, 47).astype(np.float32) / np.float32(7)
    valid = np.random.default_rng(1).random((41, 47)) > 0.2
    transform = Affine.translation(500_003, 5_000_001) * Affine.rotation(20 if turned else 0) * Affine.scale(10, -10)
    source = from_array(pixels, transform=transform, crs="EPSG:32633", valid=valid)
    reader = ResampledReader(source=source, pixel_size_m=size, method=method)
    full = reader.read(whole(reader))
    rows, cols = reader.scene.shape
    row, col = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    window = Window(row, col, data.draw(st.integers(1, rows - row)), data.draw(st.integers(1, cols - col)))
    part = reader.read(window)
    assert part.pixels.tobytes() == full.pixels[:, *window.slices].tobytes()
    assert np.array_equal(part.valid, full.valid[window.slices])


@given(
    start=st.floats(-3, 0), factor=st.floats(0.05, 9), size=st.integers(1, 40), method=st.sampled_from(["average", "nearest"])
)  # fmt: skip
def test_taps_are_ordered_and_within_the_source(start: float, factor: float, size: int, method: Any) -> None:
    taps = axis_taps(start=start, factor=factor, first=0, count=int(size / factor) + 9, size=size, method=method)
    assert (np.diff(taps.lo) >= 0).all()
    assert (np.diff(taps.hi) >= 0).all()
    assert ((taps.lo >= 0) & (taps.lo <= taps.hi) & (taps.hi <= size)).all()
    assert (taps.first[taps.hi > taps.lo] > 0).all()


def test_strips_of_any_height_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ResampledReader(source=scene(noise().astype(np.float32) / np.float32(3)), pixel_size_m=137)
    full = reader.read(whole(reader))
    for size in (1, 1000, 5000):
        monkeypatch.setattr(resample, "STRIP_BYTES", size)
        assert reader.read(whole(reader)).pixels.tobytes() == full.pixels.tobytes()


def test_gdal_says_the_same_within_rounding() -> None:
    pixels = noise(1, 200, 220)
    source = scene(pixels, origin=(500_007, 5_000_004))
    reader = ResampledReader(source=source, pixel_size_m=37)
    block = reader.read(whole(reader))
    truth = np.zeros(reader.scene.shape, np.float64)
    reproject(
        pixels[0].astype(np.float64), truth, src_transform=source.scene.transform, dst_transform=reader.scene.transform,
        src_crs="EPSG:32633", dst_crs="EPSG:32633", resampling=Resampling.average,
    )  # fmt: skip
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(block.pixels[0][inner] - truth[inner]).max() <= 0.51


def test_the_grid_is_snapped_to_the_crs_and_covers_the_source() -> None:
    source = scene(noise(), origin=(500_007, 5_000_004))
    grid = ResampledReader(source=source, pixel_size_m=25).scene
    assert (grid.transform.a, grid.transform.e) == (25, -25)
    assert (grid.transform.c % 25, grid.transform.f % 25) == (0, 0)
    left, top = grid.transform * (0, 0)
    right, bottom = grid.transform * (grid.shape[1], grid.shape[0])
    assert left <= 500_007 < left + 25
    assert top - 25 < 5_000_004 <= top
    assert right >= 500_707 > right - 25
    assert bottom <= 4_999_404 < bottom + 25


def test_windows_of_one_satellite_grid_meet_on_one_work_grid() -> None:
    pixels = noise(1, 90, 90)
    all_of_it = ResampledReader(source=scene(pixels), pixel_size_m=33)
    part = ResampledReader(source=scene(pixels[:, 20:80, 30:85], origin=(500_300, 4_999_800)), pixel_size_m=33)
    row, col = (
        b - a
        for a, b in zip(lattice_phase(part.scene.transform), lattice_phase(all_of_it.scene.transform), strict=True)
    )
    inner = Window(3, 3, 10, 10)
    there = Window(inner.row + row, inner.col + col, 10, 10)
    assert np.array_equal(part.read(inner).pixels, all_of_it.read(there).pixels)


def test_a_grid_of_its_own_pixel_size_reproduces_the_source() -> None:
    source = scene(noise())
    reader = ResampledReader(source=source, pixel_size_m=10)
    assert reader.scene.transform == source.scene.transform
    assert reader.scene.shape == source.scene.shape
    assert np.array_equal(reader.read(whole(reader)).pixels, source.pixels)


def test_a_pixel_is_valid_if_half_of_its_footprint_is() -> None:
    pixels = np.full((1, 4, 8), 9, np.uint8)
    pixels[0, :, :2] = 0  # left half of the first pixel
    pixels[0, :3, 4:7] = 0  # nine sixteenths of the second
    reader = ResampledReader(source=scene(pixels, nodata=0), pixel_size_m=40)
    block = reader.read(Window(0, 0, 1, 2))
    assert block.valid.tolist() == [[True, False]]
    assert block.pixels.tolist() == [[[9, 0]]], "the mean of the valid ones, and 0 where there is none"
    assert reader.scene.bands[0].nodata is None


def test_enlarging_is_bilinear_and_exact_on_a_plane() -> None:
    rows, cols = np.mgrid[0:20, 0:30].astype(np.float64)
    source = scene((3 * rows + 5 * cols)[np.newaxis])
    reader = ResampledReader(source=source, pixel_size_m=2.5)
    assert reader.scene.shape == (80, 120)
    row, col = np.mgrid[0:80, 0:120] * 0.25 + 0.125 - 0.5
    inner = (slice(2, -2), slice(2, -2))
    assert np.allclose(reader.read(whole(reader)).pixels[0][inner], (3 * row + 5 * col)[inner])


@pytest.mark.parametrize("size", [2.5, 30.0])
def test_nearest_invents_no_value(size: float) -> None:
    pixels = np.random.default_rng(3).choice(np.array([1, 50, 200], np.uint8), (1, 30, 30))
    reader = ResampledReader(source=scene(pixels), pixel_size_m=size, method="nearest")
    block = reader.read(whole(reader))
    assert set(np.unique(block.pixels[0][block.valid])) <= {1, 50, 200}
    step = int(size / 10) or 1
    expected = np.repeat(np.repeat(pixels, 4, 1), 4, 2) if size < 10 else pixels[:, 1::step, 1::step]
    if size < 10:
        assert np.array_equal(block.pixels, expected)


def test_geographic_pixels_become_square_on_the_ground() -> None:
    source = from_array(noise(1, 300, 300), transform=Affine(1e-4, 0, 13, 0, -1e-4, 60), crs="EPSG:4326")
    reader = ResampledReader(source=source, pixel_size_m=20)
    width, height = pixel_sides_m(reader.scene)
    assert width == pytest.approx(20, rel=1e-3)
    assert height == pytest.approx(20, rel=1e-3)
    assert abs(reader.scene.transform.a) == pytest.approx(2 * abs(reader.scene.transform.e), rel=0.02)
    assert reader.scene.resolution_m() == pytest.approx(20, rel=1e-3)


def test_web_mercator_is_measured_on_the_ground_and_feet_are_feet() -> None:
    mercator = from_array(noise(1), transform=Affine(10, 0, 0, 0, -10, 8_399_738), crs="EPSG:3857")
    assert ResampledReader(source=mercator, pixel_size_m=10).scene.resolution_m() == pytest.approx(10, rel=1e-3)
    feet = from_array(noise(1), transform=Affine(3, 0, 3_000_000, 0, -3, 700_000), crs="EPSG:2227")
    grid = ResampledReader(source=feet, pixel_size_m=3).scene
    assert grid.transform.a == pytest.approx(3 / 0.3048006096)


def test_without_a_crs_the_users_pixel_size_counts_and_coordinates_stay() -> None:
    with pytest.raises(InputError, match="--pixel-size"):
        ResampledReader(source=from_array(noise()), pixel_size_m=2)
    reader = ResampledReader(source=from_array(noise(), pixel_size_m=0.5), pixel_size_m=2)
    assert reader.scene.transform == Affine(4, 0, 0, 0, -4, 0)
    assert reader.scene.shape == (15, 18)
    assert reader.scene.resolution_m() == 2


def test_rotated_grids_keep_their_direction() -> None:
    turned = Affine.translation(500_000, 5_000_000) * Affine.rotation(30) * Affine.scale(10, -10)
    reader = ResampledReader(source=from_array(noise(), transform=turned, crs="EPSG:32633"), pixel_size_m=20)
    transform = reader.scene.transform
    assert math.degrees(math.atan2(transform.d, transform.a)) == pytest.approx(30)
    assert math.hypot(transform.a, transform.d) == pytest.approx(20)
    col, row = ~transform * (0, 0)
    assert abs(col - round(col)) < 1e-6
    assert abs(row - round(row)) < 1e-6


@pytest.mark.parametrize(
    "options", [{"pixel_size_m": 0}, {"pixel_size_m": math.nan}, {"pixel_size_m": 5, "method": "cubic"}]
)
def test_impossible_requests_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ResampledReader(source=scene(noise()), **options)


def test_it_is_a_reader_that_pickles_and_hashes_by_content() -> None:
    reader = ResampledReader(source=scene(noise()), pixel_size_m=25)
    assert isinstance(reader, Reader)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.content_hash() == reader.content_hash()
    assert np.array_equal(copy.read(whole(copy)).pixels, reader.read(whole(reader)).pixels)
    assert ResampledReader(source=scene(noise()), pixel_size_m=26).content_hash() != reader.content_hash()
    assert ResampledReader(source=scene(noise(seed=1)), pixel_size_m=25).content_hash() != reader.content_hash()
