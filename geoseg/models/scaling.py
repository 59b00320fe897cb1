"""Input scaling: what a scene's stored values become before a network sees them, fixed once a run.

Scene statistics come from a sample on a regular grid over the whole scene, so that neither the area of interest nor
the tiling changes them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ModelError
from geoseg.grid import Window
from geoseg.models.fit import band_index, band_problem
from geoseg.models.fit import check_fit as check_fit
from geoseg.protocols import Reader
from geoseg.results import InputScaling
from geoseg.scene import Band, Scene
from geoseg.spec import BandSpec, ModelSpec

SAMPLE_SIDE = 128
"""Side in pixels of a sample window."""

SAMPLE_GRIDS = (8, 16, 32, 64)
"""Windows along each axis; the finer grids are for scenes that are nearly empty."""

SAMPLE_ENOUGH = 4096
"""Valid pixels below which the next finer grid is tried."""

WHOLE_SCENE = 1 << 20
"""Scenes of up to this many pixels are sampled entirely."""

TINY = 1e-6
"""Smallest spread of a band, as in training."""

REFLECTANCE_SCALE = 1e-4
"""Assumed for whole numbers without a stated scale: Sentinel-2, Landsat composites and their like."""

REFLECTANCE_RANGE = (0.005, 1.2)
"""Where the median of the brightest band of a land scene lies."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Affine:
    """x = stored * gain + bias."""

    gain: float
    bias: float


def input_scaling(reader: Reader, spec: ModelSpec) -> InputScaling:
    """The coefficients for this scene and model.

    Raises ModelError where a required band is missing, where a band shows nothing (constant), or where stored values
    contradict the units that the model was trained on.
    """
    scene = reader.scene
    if problem := band_problem(scene, spec):
        raise ModelError(f"model {spec.name!r} does not fit: {problem}")
    index = band_index(scene)
    positions = [index.get(band.name) for band in spec.bands]
    if spec.scaling == "fixed" and spec.units == "raw":
        return _coefficients(positions, [_raw(band) for band in spec.bands], spec)
    present = [position for position in positions if position is not None]
    sample = sample_scene(reader, present)
    if not sample.shape[1]:
        return _coefficients(positions, [_Affine(gain=1.0, bias=0.0)] * len(positions), spec)
    columns = dict(zip(present, sample, strict=True))
    if spec.scaling == "scene":
        return _scene_scaling(scene, spec, positions, columns)
    return _fixed_scaling(scene, spec, positions, columns)


def sample_scene(reader: Reader, bands: list[int]) -> NDArray[np.float64]:
    """(band, pixel): valid pixels on a regular grid over the scene, all of them in small scenes."""
    rows, cols = reader.scene.shape
    if rows * cols <= WHOLE_SCENE:
        return _valid_pixels(reader, [Window(0, 0, rows, cols)], bands)
    sample = np.empty((len(bands), 0))
    for count in SAMPLE_GRIDS:
        sample = _valid_pixels(reader, sample_windows((rows, cols), count), bands)
        if sample.shape[1] >= SAMPLE_ENOUGH:
            break
    return sample


def sample_windows(shape: tuple[int, int], count: int) -> Iterator[Window]:
    """Up to count x count windows, spread evenly; an axis that they would cover is cut into parts instead."""
    for row, height in _sample_spans(shape[0], count):
        for col, width in _sample_spans(shape[1], count):
            yield Window(row, col, height, width)


def _sample_spans(length: int, count: int) -> list[tuple[int, int]]:
    if length <= count * SAMPLE_SIDE:
        return [(start, min(SAMPLE_SIDE, length - start)) for start in range(0, length, SAMPLE_SIDE)]
    return [((2 * i + 1) * length // (2 * count) - SAMPLE_SIDE // 2, SAMPLE_SIDE) for i in range(count)]


def _valid_pixels(reader: Reader, windows: Iterator[Window] | list[Window], bands: list[int]) -> NDArray[np.float64]:
    parts = []
    for window in windows:
        block = reader.read(window, bands)
        values = block.pixels[:, block.valid].astype(np.float64)
        parts.append(values[:, np.isfinite(values).all(axis=0)])
    return np.concatenate(parts, axis=1)


def _scene_scaling(
    scene: Scene, spec: ModelSpec, positions: list[int | None], sample: dict[int, NDArray[np.float64]]
) -> InputScaling:
    affines = []
    for n, (band, position) in enumerate(zip(spec.bands, positions, strict=True)):
        if position is None:
            affines.append(_Affine(gain=0.0, bias=0.0))
            continue
        values = sample[position]
        if values.min() == values.max():
            if not band.optional:
                raise ModelError(
                    f"band {band.name!r} of {scene.name} is {values[0]:g} wherever it is valid: there is nothing to see; "
                    f"expected an image; check the file, and the order of --bands"
                )
            positions = [*positions[:n], None, *positions[n + 1 :]]
            affines.append(_Affine(gain=0.0, bias=0.0))
            continue
        low, middle, high = np.percentile(values, (10, 50, 90))
        gain = 1.0 / max(float(high - low), TINY)
        affines.append(_Affine(gain=gain, bias=-float(middle) * gain))
    return _coefficients(positions, affines, spec)


def _fixed_scaling(
    scene: Scene, spec: ModelSpec, positions: list[int | None], sample: dict[int, NDArray[np.float64]]
) -> InputScaling:
    affines = []
    physical = {}
    for band, position in zip(spec.bands, positions, strict=True):
        if position is None:
            affines.append(_Affine(gain=0.0, bias=0.0))
            continue
        stored = scene.bands[position]
        scale, offset = _to_physical(stored, spec)
        physical[band.name] = sample[position] * scale + offset
        affines.append(_Affine(gain=scale / band.std, bias=(offset - band.mean) / band.std))
    if spec.units == "reflectance":
        _check_reflectance(scene, spec, physical)
    else:
        _check_byte(scene, spec, physical)
    return _coefficients(positions, affines, spec)


def _to_physical(band: Band, spec: ModelSpec) -> tuple[float, float]:
    """Scale and offset of a band, or what its dtype lets one assume."""
    if band.scaled:
        return band.scale, band.offset
    if spec.units == "reflectance" and np.dtype(band.dtype).kind in "iu":
        log.info("no scale stated: reflectance taken as stored value times %g", REFLECTANCE_SCALE)
        return REFLECTANCE_SCALE, 0.0
    return 1.0, 0.0


def _check_reflectance(scene: Scene, spec: ModelSpec, physical: dict[str, NDArray[np.float64]]) -> None:
    medians = {name: float(np.median(values)) for name, values in physical.items()}
    low, high = REFLECTANCE_RANGE
    if low <= max(medians.values()) <= high:
        return
    found = ", ".join(f"{name} {value:.4g}" for name, value in medians.items())
    raise ModelError(
        f"model {spec.name!r} expects reflectance (0 to 1), but the medians of {scene.name} are {found}, "
        f"expected {low:g} to {high:g}; state how stored values become reflectance with --scale and --offset, "
        f"for example --scale 0.0001 --offset 0"
    )


def _check_byte(scene: Scene, spec: ModelSpec, physical: dict[str, NDArray[np.float64]]) -> None:
    lowest = min(float(values.min()) for values in physical.values())
    highest = max(float(values.max()) for values in physical.values())
    if lowest >= 0.0 and 1.0 < highest <= 255.0:
        return
    if lowest == highest == 0.0 or (lowest >= 0.0 and highest == 1.0 and scene.dtype.kind in "iu"):
        return  # dark, but bytes
    scale = 255.0 / (highest if highest > 0 else 1.0)
    raise ModelError(
        f"model {spec.name!r} expects values of 0 to 255, but {scene.name} ({scene.dtype}) holds "
        f"{lowest:g} to {highest:g}; state how stored values become bytes, for example --scale {scale:.4g}"
    )


def _raw(band: BandSpec) -> _Affine:
    return _Affine(gain=1.0 / band.std, bias=-band.mean / band.std)


def _coefficients(positions: list[int | None], affines: list[_Affine], spec: ModelSpec) -> InputScaling:
    return InputScaling(
        bands=tuple(positions),
        gain=tuple(0.0 if p is None else a.gain for p, a in zip(positions, affines, strict=True)),
        bias=tuple(0.0 if p is None else a.bias for p, a in zip(positions, affines, strict=True)),
        limit=spec.clip,
    )
