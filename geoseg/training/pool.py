"""A pool of generated scenes on disk, and patches from it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from geoseg.training.generate import GeneratedScene, generate_dates
from geoseg.training.library import mosaic
from geoseg.training.samples import CLIP, Sample, SceneScale, turned, varied, worn

Cells: TypeAlias = Mapping[str, Sequence[NDArray[Any]]]
"""Real parcel shapes of `geoseg.training.library`, by the style of SHARES that takes them."""

logger = logging.getLogger(__name__)

SHARES = {"boreal": 5, "loess": 4, "pasture": 4, "smallholder": 2, "midwest": 3, "mixed": 5, "dense": 5, "sparse": 2}
"""How often a style is drawn; `dense` and `sparse` take real parcel shapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the scenes of a pool have in common."""

    size: int
    """Side in pixels."""
    usual_m: float
    """Pixel size of half of the scenes."""
    gsd_m: tuple[float, float]
    """Smallest and largest pixel of the others, even on a logarithmic scale."""
    dates: int
    boundary_px: float
    """Width of the target's boundary."""


SATELLITE = Look(size=384, usual_m=10.0, gsd_m=(5.0, 20.0), dates=2, boundary_px=1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolScene:
    pixels: NDArray[np.uint16]
    """(red green blue nir of a date after the other, row, col)."""
    target: NDArray[np.uint8]
    """(row, col) class mask."""
    scale: SceneScale


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSource:
    """Random patches of a pool's scenes, with varied light, colour and weather at each date.

    Bands that a patch does not get are zeros: near infrared, and later dates.
    """

    scenes: Sequence[PoolScene]
    patch: int = 256
    without_nir: float = 0.3
    """Share of patches without near infrared at all dates."""
    one_date: float = 0.5
    """Share of patches with the first date only."""

    def sample(self, rng: np.random.Generator) -> Sample:
        scene = self.scenes[int(rng.integers(len(self.scenes)))]
        row, col = (int(rng.integers(0, scene.target.shape[k] - self.patch + 1)) for k in (0, 1))
        window = (slice(row, row + self.patch), slice(col, col + self.patch))
        dates = 1 if rng.random() < self.one_date else len(scene.pixels) // 4
        without_nir = rng.random() < self.without_nir
        pixels = np.zeros((len(scene.pixels), self.patch, self.patch), dtype=np.float32)
        for date in range(dates):
            bands = slice(4 * date, 4 * date + 4)
            scale = scene.scale.of_bands(bands).jittered(rng)
            scaled = scale.apply(scene.pixels[bands, *window].astype(np.float32))
            pixels[bands] = worn(varied(scaled, rng), rng)
            if without_nir:
                pixels[4 * date + 3] = 0
        pixels, target = turned(pixels, scene.target[window], rng)
        return Sample(pixels=np.clip(pixels, -CLIP, CLIP), target=target)


def draw_dates(seed: int, *, look: Look, cells: Cells) -> tuple[GeneratedScene, ...]:
    """The pool's scene of that seed at each date."""
    rng = np.random.default_rng((seed, 7))
    shares = np.array(list(SHARES.values())) / sum(SHARES.values())
    style = str(rng.choice(list(SHARES), p=shares))
    gsd_m = look.usual_m if rng.random() < 0.5 else float(np.exp(rng.uniform(*np.log(look.gsd_m))))
    fineness = 3 if gsd_m > 14 or rng.random() < 0.3 else 2
    real = cells.get(style)
    return generate_dates(
        seed,
        size=look.size,
        gsd_m=gsd_m,
        style="mixed" if real is not None else style,
        parcels=None if real is None else mosaic(rng, real, side_m=look.size * gsd_m),
        fineness=fineness,
        dates=look.dates,
    )


def fill(folder: Path, *, look: Look, count: int, seed: int, cells: Cells, workers: int = 1) -> list[Path]:
    """Make the scenes that `folder` lacks, of seeds from `seed` on; returns the files of all."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {number: folder / f"scene_{number:06d}.npz" for number in range(seed, seed + count)}
    missing = [(number, path) for number, path in paths.items() if not path.exists()]
    with ProcessPoolExecutor(max_workers=workers) as makers:
        for done, path in enumerate(makers.map(partial(_make, look=look, cells=cells), missing), start=1):
            if done % 20 == 0:
                logger.info("%d of %d scenes made, last %s", done, len(missing), path.name)
    return list(paths.values())


def read(paths: Sequence[Path]) -> list[PoolScene]:
    scenes = []
    for path in paths:
        with np.load(path) as saved:
            pixels, target = saved["pixels"], saved["target"]
        scenes.append(PoolScene(pixels=pixels, target=target, scale=SceneScale.of(pixels.astype(np.float32))))
    return scenes


def _make(job: tuple[int, Path], *, look: Look, cells: Cells) -> Path:
    number, path = job
    scenes = draw_dates(number, look=look, cells=cells)
    part = path.with_suffix(".part.npz")
    np.savez(
        part,
        pixels=np.concatenate([scene.pixels for scene in scenes]),
        target=scenes[0].mask(boundary_px=look.boundary_px),
    )
    os.replace(part, path)
    return path
