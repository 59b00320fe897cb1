"""A small picture of a scene, read through the Reader protocol in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window

if TYPE_CHECKING:
    from geoseg.protocols import Reader
    from geoseg.scene import Scene

READ_PIXELS = 2_000_000
"""Pixels that are held at a time."""

TOTAL_PIXELS = 400_000_000
"""A scene with more is sampled: of each row of the picture only the first lines are read."""

PERCENTILES = (2.0, 98.0)
"""What becomes black and white."""

GAMMA = 0.85
"""Lifts dark fields a little."""

COLOR_BANDS = (("red", "green", "blue"), ("nir", "red", "green"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    pixels: NDArray[np.uint8]
    """(row, col, 3), stretched; arbitrary where not valid."""
    valid: NDArray[np.bool_]
    """(row, col)."""
    factor: int
    """Scene pixels along a side of each of its pixels."""


def thumbnail(reader: Reader, *, side: int, total_pixels: int = TOTAL_PIXELS) -> Thumbnail:
    """The scene in colour with at most `side` pixels along its longer side: means of valid pixels, stretched."""
    scene = reader.scene
    rows, cols = scene.shape
    factor = -(-max(rows, cols) // side)
    lines = max(1, factor * min(rows * cols, total_pixels) // (rows * cols))
    bands = color_bands(scene)
    shape = (-(-rows // factor), -(-cols // factor))
    means = np.zeros((len(bands), *shape), np.float32)
    counts = np.zeros(shape, np.int64)
    for target, window in _windows(scene.shape, factor=factor, lines=lines):
        block = reader.read(window, bands)
        total, count = _sums(block.pixels, block.valid, factor=factor, lines=lines)
        where = target.slices
        counts[where] = count
        means[:, *where] = total / np.maximum(count, 1)
    valid = counts > 0
    planes = [_stretch(plane, valid) for plane in means]
    return Thumbnail(pixels=np.stack(planes * (3 // len(planes)), axis=-1), valid=valid, factor=factor)


def color_bands(scene: Scene) -> tuple[int, ...]:
    """Indices of what is shown as red, green and blue: by name, else the first three, else one band in grey."""
    names = scene.band_names
    for wanted in COLOR_BANDS:
        if all(name in names for name in wanted):
            return tuple(names.index(name) for name in wanted)
    return (0, 1, 2) if len(names) >= 3 else (0,)


def _windows(shape: tuple[int, int], *, factor: int, lines: int) -> Iterator[tuple[Window, Window]]:
    """Windows of the picture and what is read of the scene for them."""
    rows, cols = shape
    across = max(1, min(-(-cols // factor), READ_PIXELS // (factor * lines)))
    down = 1 if lines < factor else max(1, READ_PIXELS // (factor * factor * across))
    for row in range(0, -(-rows // factor), down):
        for col in range(0, -(-cols // factor), across):
            top, left = row * factor, col * factor
            height = min(rows - top, lines if lines < factor else down * factor)
            width = min(cols - left, across * factor)
            yield (
                Window(row, col, -(-height // factor) if lines == factor else 1, -(-width // factor)),
                Window(top, left, height, width),
            )


def _sums(
    pixels: NDArray[Any], valid: NDArray[np.bool_], *, factor: int, lines: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums and counts of the valid pixels in each square of the picture."""
    height, width = valid.shape
    high = -(-height // lines) * lines
    wide = -(-width // factor) * factor
    padded = np.zeros((len(pixels), high, wide), np.float32)
    padded[:, :height, :width] = np.where(valid, pixels, 0)
    seen = np.zeros((high, wide), np.bool_)
    seen[:height, :width] = valid
    split = (high // lines, lines, wide // factor, factor)
    return padded.reshape(len(pixels), *split).sum(axis=(2, 4), dtype=np.float64), seen.reshape(split).sum(
        axis=(1, 3), dtype=np.int64
    )


def _stretch(plane: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Between the percentiles of the valid pixels to 0..255."""
    known = plane[valid]
    known = known[np.isfinite(known)]
    if not len(known):
        return np.zeros(plane.shape, np.uint8)
    low, high = np.percentile(known, PERCENTILES)
    if high <= low:
        return np.full(plane.shape, 128, np.uint8)
    scaled = np.clip((np.nan_to_num(plane) - low) / (high - low), 0, 1) ** GAMMA * 255
    result: NDArray[np.uint8] = (scaled + 0.5).astype(np.uint8)
    return result
