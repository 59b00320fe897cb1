"""Input scaling against NumPy, and the units that it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.errors import ModelError
from geoseg.grid import Window
from geoseg.models import check_fit, input_scaling
from geoseg.models.scaling import SAMPLE_ENOUGH, SAMPLE_GRIDS, SAMPLE_SIDE, sample_scene, sample_windows
from geoseg.results import Block
from geoseg.scene import Band, Scene
from geoseg.spec import BandSpec, ModelSpec, bands, classes

RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class ArrayReader:
    """A scene in memory."""

    pixels: NDArray[Any]
    scene: Scene
    valid: NDArray[np.bool_] | None = None

    def read(self, window: Window, bands: Sequence[int] | None = None) -> Block:
        chosen = self.pixels if bands is None else self.pixels[list(bands)]
        valid = np.ones(self.scene.shape, np.bool_) if self.valid is None else self.valid
        return Block(pixels=chosen[:, *window.slices], valid=valid[window.slices], window=window)

    def content_hash(self) -> str:
        return "0"


def scene_of(
    shape: tuple[int, int], names: Sequence[str | None] = RGB, *, dtype: str = "uint8", pixel: float = 1.0, **band: Any
) -> Scene:
    return Scene(
        shape=shape,
        transform=Affine(pixel, 0, 500000, 0, -pixel, 5000000),
        crs=CRS.from_epsg(32633),
        bands=tuple(Band(name=name, dtype=dtype, **band) for name in names),
        name="scene.tif",
    )


def reader_of(pixels: NDArray[Any], names: Sequence[str | None] = RGB, valid: Any = None, **band: Any) -> ArrayReader:
    scene = scene_of((pixels.shape[1], pixels.shape[2]), names, dtype=str(pixels.dtype), **band)
    return ArrayReader(pixels=pixels, scene=scene, valid=valid)


def model_spec(**values: Any) -> ModelSpec:
    defaults: dict[str, Any] = {"bands": bands(RGB), "outputs": classes("background", "field"), "scaling": "scene"}
    return ModelSpec(name="m", title="m", **{**defaults, **values})


def noise(shape: tuple[int, int, int], high: int = 255, dtype: str = "uint8", low: int = 0) -> NDArray[Any]:
    return np.random.default_rng(7).integers(low, high, shape).astype(dtype)


def test_scene_scaling_is_numpys_percentiles_of_valid_pixels() -> None:
    pixels = noise((3, 90, 70))
    valid = np.random.default_rng(1).random((90, 70)) > 0.3
    scaling = input_scaling(reader_of(pixels, valid=valid), model_spec(clip=4.0))
    for band in range(3):
        low, middle, high = np.percentile(pixels[band][valid], (10, 50, 90))
        x = pixels[band].astype(np.float64)
        np.testing.assert_allclose(x * scaling.gain[band] + scaling.bias[band], (x - middle) / (high - low))
    assert scaling.limit == 4.0
    assert scaling.bands == (0, 1, 2)


def test_bands_are_found_by_name_and_optional_ones_may_be_missing() -> None:
    spec = model_spec(bands=(*bands(RGB), BandSpec(name="nir", optional=True)))
    scaling = input_scaling(reader_of(noise((4, 40, 40)), ("blue", None, "red", "green")), spec)
    assert scaling.bands == (2, 3, 0, None)
    assert (scaling.gain[3], scaling.bias[3]) == (0.0, 0.0)


def test_second_date_is_found_by_repeated_names() -> None:
    spec = model_spec(bands=bands(("red", "nir", "red_2", "nir_2")))
    assert input_scaling(reader_of(noise((4, 40, 40)), ("nir", "red", "nir", "red")), spec).bands == (1, 0, 3, 2)


def test_constant_band_shows_nothing() -> None:
    pixels = noise((3, 40, 40))
    pixels[1] = 7
    with pytest.raises(
        ModelError, match=r"band 'green' of scene.tif is 7 wherever it is valid: there is nothing to see"
    ):
        input_scaling(reader_of(pixels), model_spec())
    optional = model_spec(bands=(*bands(("red", "blue")), BandSpec(name="green", optional=True)))
    assert input_scaling(reader_of(pixels), optional).bands == (0, 2, None)


def test_scene_without_data_gets_neutral_scaling() -> None:
    reader = reader_of(noise((3, 40, 40)), valid=np.zeros((40, 40), np.bool_))
    scaling = input_scaling(reader, model_spec())
    assert scaling.gain == (1.0, 1.0, 1.0)


def test_nan_does_not_reach_the_statistics() -> None:
    pixels = noise((3, 40, 40)).astype(np.float32)
    expected = input_scaling(reader_of(pixels[:, 1:]), model_spec())
    pixels[0, 0] = np.nan
    assert input_scaling(reader_of(pixels), model_spec()) == expected


def test_large_scene_is_sampled_on_a_grid() -> None:
    pixels = noise((1, 1500, 1400))
    sample = sample_scene(reader_of(pixels, ("red",)), [0])
    assert sample.shape == (1, 64 * SAMPLE_SIDE * SAMPLE_SIDE)
    scaling = input_scaling(reader_of(pixels, ("red",)), model_spec(bands=bands(("red",))))
    low, high = np.percentile(sample[0], (10, 90))
    assert scaling.gain[0] == pytest.approx(1 / (high - low))


def test_nearly_empty_scene_is_sampled_more_finely() -> None:
    valid = np.zeros((3000, 3000), np.bool_)
    valid[:100, :100] = True  # between the windows of the coarsest grid
    reader = reader_of(noise((1, 3000, 3000)), ("red",), valid=valid)
    assert SAMPLE_ENOUGH <= sample_scene(reader, [0]).shape[1] <= 100 * 100


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(SAMPLE_GRIDS))
def test_sample_windows_lie_inside_and_apart(rows: int, cols: int, count: int) -> None:
    windows = list(sample_windows((rows, cols), count))
    assert 0 < len(windows) <= count * count
    assert all(Window(0, 0, rows, cols).contains(window) and window for window in windows)
    assert len({(window.row, window.col) for window in windows}) == len(windows)


def test_raw_units_are_taken_as_stored() -> None:
    spec = model_spec(scaling="fixed", bands=bands(RGB, mean=100.0, std=50.0))
    scaling = input_scaling(reader_of(noise((3, 8, 8)), scale=0.1, offset=3.0, scaled=True), spec)
    assert (scaling.gain[0], scaling.bias[0]) == (0.02, -2.0)


def test_reflectance_uses_the_stated_scale_or_assumes_one() -> None:
    spec = model_spec(scaling="fixed", units="reflectance", bands=bands(RGB, mean=0.1, std=0.3))
    stored = noise((3, 40, 40), 5000, "uint16")
    assumed = input_scaling(reader_of(stored), spec)
    np.testing.assert_allclose((assumed.gain[0], assumed.bias[0]), (1e-4 / 0.3, -0.1 / 0.3))
    stated = input_scaling(reader_of(stored + 1000, scale=1e-4, offset=-0.1, scaled=True), spec)
    np.testing.assert_allclose((stated.gain[0], stated.bias[0]), (1e-4 / 0.3, -0.2 / 0.3))
    as_float = input_scaling(reader_of((stored * 1e-4).astype(np.float32)), spec)
    np.testing.assert_allclose(as_float.gain[0], 1 / 0.3)


def test_bytes_are_no_reflectance() -> None:
    spec = model_spec(scaling="fixed", units="reflectance")
    with pytest.raises(ModelError, match=r"medians of scene.tif are red 0\.00\d+, .*--scale and --offset"):
        input_scaling(reader_of(noise((3, 40, 40), 40)), spec)


def test_byte_units_refuse_what_is_beyond_255() -> None:
    spec = model_spec(scaling="fixed", units="byte")
    assert input_scaling(reader_of(noise((3, 40, 40))), spec).gain == (1.0, 1.0, 1.0)
    with pytest.raises(ModelError, match=r"expects values of 0 to 255, but scene.tif \(uint16\) holds .*--scale 0\.0"):
        input_scaling(reader_of(noise((3, 40, 40), 5000, "uint16")), spec)
    with pytest.raises(ModelError, match=r"--scale 25\d"):
        input_scaling(reader_of(np.random.default_rng(0).random((3, 40, 40))), spec)
    assert input_scaling(reader_of(noise((3, 40, 40), 5000, "uint16"), scale=0.05, scaled=True), spec).gain[0] == 0.05


def test_fit_names_missing_bands_and_the_remedy() -> None:
    spec = model_spec(resolution_m=(0.5, 2.0))
    check_fit(scene_of((9, 9)), spec)
    with pytest.raises(ModelError, match=r"has 3 bands without names.*--bands red,green,blue"):
        check_fit(scene_of((9, 9), (None, None, None)), spec)
    with pytest.raises(
        ModelError, match=r"has the bands red, pan and 1 without names, and the model needs green, blue"
    ):
        check_fit(scene_of((9, 9), ("red", "pan", None)), spec)
    with pytest.raises(ModelError, match=r"needs green, blue too"):
        input_scaling(reader_of(noise((1, 9, 9)), ("red",)), spec)


def test_fit_offers_to_resample() -> None:
    spec = model_spec(resolution_m=(0.5, 2.0))
    with pytest.raises(ModelError, match=r"pixels of 10 m, and the model is meant for 0\.5 to 2 m; pass --resample"):
        check_fit(scene_of((9, 9), pixel=10.0), spec)
    check_fit(scene_of((9, 9), pixel=10.0), spec, allow_resample=True)
    check_fit(replace(scene_of((9, 9)), crs=None), spec)
