"""A pool of generated scenes on disk, and patches from it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.training.generate import GeneratedScene, generate_scene
from geoseg.training.library import mosaic
from geoseg.training.samples import Sample, SceneScale, turned, varied

logger = logging.getLogger(__name__)

BOUNDARY_PX = 1.5
SIZE = 384
GSD_M = (7.0, 14.0)
SHARES = {"boreal": 5, "loess": 4, "pasture": 4, "smallholder": 2, "midwest": 3, "mixed": 5, "library": 5}
"""How often a style is drawn; `library` takes real parcel shapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolScene:
    pixels: NDArray[np.uint16]
    """(red green blue nir, row, col)."""
    target: NDArray[np.uint8]
    """(row, col) class mask."""
    scale: SceneScale


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSource:
    """Random patches of a pool's scenes, with varied light and colour, some of them without near infrared."""

    scenes: Sequence[PoolScene]
    patch: int = 256
    without_nir: float = 0.3
    """Share of patches whose last band is zeros."""

    def sample(self, rng: np.random.Generator) -> Sample:
        scene = self.scenes[int(rng.integers(len(self.scenes)))]
        row, col = (int(rng.integers(0, scene.target.shape[k] - self.patch + 1)) for k in (0, 1))
        window = (slice(row, row + self.patch), slice(col, col + self.patch))
        scaled = scene.scale.jittered(rng).apply(scene.pixels[:, *window].astype(np.float32))
        pixels, target = turned(varied(scaled, rng), scene.target[window], rng)
        if rng.random() < self.without_nir:
            pixels[3] = 0
        return Sample(pixels=pixels, target=target)


def draw_scene(seed: int, *, cells: Sequence[NDArray[Any]]) -> GeneratedScene:
    """The pool's scene of that seed; `cells` are the real parcel shapes of `library.read_cells`."""
    rng = np.random.default_rng((seed, 7))
    shares = np.array(list(SHARES.values())) / sum(SHARES.values())
    style = str(rng.choice(list(SHARES), p=shares))
    gsd_m = 10.0 if rng.random() < 0.5 else float(np.exp(rng.uniform(*np.log(GSD_M))))
    parcels = mosaic(rng, cells, side_m=SIZE * gsd_m) if style == "library" else None
    return generate_scene(
        seed, size=SIZE, gsd_m=gsd_m, style="mixed" if parcels is not None else style, parcels=parcels
    )


def fill(folder: Path, *, count: int, seed: int, cells: Sequence[NDArray[Any]], workers: int = 1) -> list[Path]:
    """Make the scenes that `folder` lacks, of seeds from `seed` on; returns the files of all."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {number: folder / f"scene_{number:06d}.npz" for number in range(seed, seed + count)}
    missing = [(number, path) for number, path in paths.items() if not path.exists()]
    with ProcessPoolExecutor(max_workers=workers) as makers:
        for done, path in enumerate(makers.map(partial(_make, cells=cells), missing), start=1):
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


def _make(job: tuple[int, Path], *, cells: Sequence[NDArray[Any]]) -> Path:
    number, path = job
    scene = draw_scene(number, cells=cells)
    part = path.with_suffix(".part.npz")
    np.savez(part, pixels=scene.pixels, target=scene.mask(boundary_px=BOUNDARY_PX))
    os.replace(part, path)
    return path
