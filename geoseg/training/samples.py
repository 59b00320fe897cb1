"""Training samples: what a source of patches hands to the training loop, and the scaling it emulates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CLIP = 4.0
"""Scaled values are limited to [-CLIP, CLIP], here and in the specs of the bundled models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    pixels: NDArray[np.float32]
    """(band, row, col), scaled as the runtime scales; zeros where a band is dropped."""
    target: NDArray[np.uint8]
    """(row, col): 0 background, 1 field, 2 boundary, 255 not counted."""


class Source(Protocol):
    def sample(self, rng: np.random.Generator) -> Sample:
        """One patch, decided by `rng` alone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneScale:
    """Scene scaling: per band x = clip((v - centre) / spread, -CLIP, CLIP)."""

    centre: NDArray[np.float32]
    """(band,): the median of the scene's valid pixels."""
    spread: NDArray[np.float32]
    """(band,): the 90th percentile less the 10th."""

    @classmethod
    def of(cls, pixels: NDArray[np.float32]) -> SceneScale:
        """The scale of a scene (band, row, col), from at most about 65,000 of its pixels."""
        flat = pixels.reshape(pixels.shape[0], -1)
        step = max(1, flat.shape[1] // 65_536)
        low, middle, high = np.percentile(flat[:, ::step], (10, 50, 90), axis=1)
        return cls(centre=middle.astype(np.float32), spread=np.maximum(high - low, 1e-6).astype(np.float32))

    def of_bands(self, bands: slice) -> SceneScale:
        """The scale of some of the bands."""
        return SceneScale(centre=self.centre[bands], spread=self.spread[bands])

    def jittered(self, rng: np.random.Generator, *, gain: float = 0.25, offset: float = 0.2) -> SceneScale:
        """The scale of a scene of another content: gain and offset vary, partly alike in all bands."""
        bands = len(self.centre)
        factor = np.exp(rng.uniform(-gain, gain) + rng.uniform(-gain, gain, bands) * 0.4)
        shift = rng.uniform(-offset, offset) + rng.uniform(-offset, offset, bands) * 0.5
        return SceneScale(
            centre=(self.centre + shift * self.spread).astype(np.float32),
            spread=(self.spread * factor).astype(np.float32),
        )

    def apply(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = (pixels - self.centre[:, None, None]) / self.spread[:, None, None]
        return np.asarray(np.clip(scaled, -CLIP, CLIP), dtype=np.float32)


def worn(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """What sky, sensor and storage add to a scaled patch (band, row, col), now and then each: haze, bands that lie beside
    each other, curves of each band's own, few and cut-off values, stripes."""
    bands, rows, cols = pixels.shape
    seen: NDArray[Any] = pixels
    if rng.random() < 0.25:
        row, col = np.ogrid[-1 : 1 : rows * 1j, -1 : 1 : cols * 1j]
        slope = rng.normal(0, 0.15, (2, 1, 1))
        veil = (slope[0] * row + slope[1] * col)[None] * rng.uniform(0.5, 1.2, (bands, 1, 1))
        seen = seen * np.float32(rng.uniform(0.7, 1.0)) + veil
    if rng.random() < 0.25:
        shifts = rng.normal(0, 0.3, (bands, 2)).clip(-0.7, 0.7)
        seen = np.stack(
            [ndimage.shift(band, by, order=1, mode="nearest") for band, by in zip(seen, shifts, strict=True)]
        )
    if rng.random() < 0.3:
        seen = seen + rng.uniform(-0.25, 0.25, (bands, 1, 1)) * (np.tanh(seen) ** 2 - 0.2)
    if rng.random() < 0.15:
        seen = np.clip(seen, -rng.uniform(0.8, 3.0), rng.uniform(0.8, 3.0))
    if rng.random() < 0.2:
        step = rng.uniform(0.01, 0.08)
        seen = np.round(seen / step) * step
    if rng.random() < 0.05:
        seen = seen + rng.uniform(0.01, 0.08) * rng.standard_normal((bands, 1, cols))
    return np.asarray(seen, dtype=np.float32)


def turned(
    pixels: NDArray[np.float32], target: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """One of the eight turns and flips of a square patch."""
    quarter, flip = int(rng.integers(4)), bool(rng.integers(2))
    pixels, target = np.rot90(pixels, quarter, axes=(1, 2)), np.rot90(target, quarter)
    if flip:
        pixels, target = pixels[:, :, ::-1], target[:, ::-1]
    return np.ascontiguousarray(pixels), np.ascontiguousarray(target)


def varied(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Other light, colour, sharpness and noise for a scaled patch (band, row, col); its first three bands are colours."""
    saturation, bend = rng.uniform(0.4, 1.5), rng.uniform(-0.25, 0.25)
    mixed = pixels.copy()
    grey = mixed[:3].mean(axis=0, keepdims=True)
    mixed[:3] = grey + (mixed[:3] - grey) * saturation
    mixed += bend * (np.tanh(mixed) ** 2 - 0.2)
    if rng.random() < 0.4:
        mixed = ndimage.gaussian_filter(mixed, (0, *[rng.uniform(0.3, 1.2)] * 2))
    elif rng.random() < 0.25:
        mixed += rng.uniform(0.3, 1.0) * (mixed - ndimage.gaussian_filter(mixed, (0, 1.0, 1.0)))
    if rng.random() < 0.5:
        mixed += rng.uniform(0.01, 0.10) * rng.standard_normal(mixed.shape, dtype=np.float32)
    return mixed.astype(np.float32)
