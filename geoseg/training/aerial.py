"""Patches from aerial images with hand-drawn fields (NAIP, US Midwest, about 1 m)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.training.samples import Sample, SceneScale, turned, varied
from geoseg.training.targets import class_mask

KEPT_OUT = (
    "38.7482309848128--89.6548676255029.png",
    "40.2255287534228--88.8321466181766.png",
    "43.044133--90.364267.png",
    "43.2768273988623--85.8880524000559.png",
)
"""Images that no bundled model is trained on: chosen by place alone, each far from all the others."""

LABELS = "fields_pixel_coords.geojson"
BOUNDARY_PX = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AerialScene:
    pixels: NDArray[np.float32]
    """(red green blue, row, col), 0..1."""
    parcels: NDArray[Any]
    """Polygons in pixel coordinates."""
    scale: SceneScale


@dataclass(frozen=True, slots=True, kw_only=True)
class AerialSource:
    """Random patches of aerial scenes at random ground resolutions, with varied light and colour."""

    scenes: Sequence[AerialScene]
    patch: int
    zoom: tuple[float, float] = (0.6, 2.2)
    """Smallest and largest pixel of a patch, in pixels of the scene."""

    def sample(self, rng: np.random.Generator) -> Sample:
        scene = self.scenes[int(rng.integers(len(self.scenes)))]
        side = scene.pixels.shape[1]
        zoom = min(float(np.exp(rng.uniform(*np.log(self.zoom)))), side / self.patch)
        reach = self.patch * zoom
        row, col = (int(v) for v in rng.uniform(0, side - reach, 2))
        crop = scene.pixels[:, row : row + int(reach), col : col + int(reach)]
        zoom = crop.shape[1] / self.patch
        pixels = _resized(crop, self.patch)
        moved = shapely.transform(scene.parcels, lambda points: (points - (col, row)) / zoom)
        target = class_mask(moved, (self.patch, self.patch), boundary_px=BOUNDARY_PX)
        scaled = varied(scene.scale.jittered(rng).apply(pixels), rng)
        scaled, target = turned(scaled, target, rng)
        return Sample(pixels=scaled, target=target)


def read_scenes(folder: Path, *, kept_out: Sequence[str] = KEPT_OUT) -> list[AerialScene]:
    """The images of `folder` with their fields, but for those kept out."""
    if not (folder / LABELS).exists():
        raise InputError(f"{folder} has no {LABELS}; give the folder with the NAIP images and their field polygons")
    drawn: dict[str, list[Any]] = {}
    for feature in json.loads((folder / LABELS).read_text())["features"]:
        polygon = _valid(shapely.geometry.shape(feature["geometry"]))
        drawn.setdefault(feature["properties"]["image"], []).append(polygon)
    return [read_scene(folder / name, drawn[name]) for name in sorted(drawn) if name not in kept_out]


def read_scene(path: Path, polygons: Sequence[Any]) -> AerialScene:
    with rasterio.open(path) as image:
        pixels = image.read((1, 2, 3)).astype(np.float32) / 255
    parcels = np.array([_beyond_frame(p, pixels.shape[2], pixels.shape[1]) for p in polygons], dtype=object)
    return AerialScene(pixels=pixels, parcels=parcels, scale=SceneScale.of(pixels))


def _resized(pixels: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    tensor = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    resized = F.interpolate(tensor, size=(side, side), mode="bilinear", antialias=True)[0]
    return np.asarray(resized.numpy())


def _beyond_frame(polygon: Any, width: int, height: int) -> Any:
    """A polygon drawn up to the image's frame goes on outside: move its frame vertices out, so that the frame is no edge."""

    def outwards(points: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = points.copy()
        for axis, size in ((0, width), (1, height)):
            moved[:, axis][points[:, axis] <= 3] = -16
            moved[:, axis][points[:, axis] >= size - 3] = size + 16
        return moved

    return _valid(shapely.transform(polygon, outwards))


def _valid(polygon: Any) -> Any:
    return shapely.make_valid(polygon, method="structure", keep_collapsed=False)
