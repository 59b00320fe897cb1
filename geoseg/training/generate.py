"""Generated scenes of farmland with exact truth: a layout is painted on a fine grid and seen through a sensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine
from scipy import ndimage

from geoseg.training import surfaces
from geoseg.training.layouts import Layout, Line, Style, bending, islands, lay_out, without, woodland
from geoseg.training.seasons import rotate
from geoseg.training.targets import class_mask
from geoseg.training.textures import fractal_noise
from geoseg.training.wilds import WILD_PAINTERS, with_wilds

LINE_COLOURS = {
    "road": (0.14, 0.135, 0.125, 0.17),
    "track": (0.21, 0.18, 0.14, 0.27),
    "hedge": (0.024, 0.042, 0.021, 0.33),
    "ditch": (0.035, 0.050, 0.032, 0.17),
    "margin": (0.060, 0.085, 0.045, 0.33),
    "verge": (0.060, 0.085, 0.048, 0.32),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedScene:
    pixels: NDArray[np.uint16]
    """(red green blue nir, row, col): surface reflectance times 10000."""
    parcels: NDArray[Any]
    """Exact polygons in pixel coordinates, x right and y down; some reach beyond the scene."""
    gsd_m: float

    def mask(self, *, boundary_px: float) -> NDArray[np.uint8]:
        """0 background, 1 field, 2 boundary; see `class_mask`."""
        return class_mask(self.parcels, (self.pixels.shape[1], self.pixels.shape[2]), boundary_px=boundary_px)


def generate_scene(
    seed: int,
    *,
    size: int,
    gsd_m: float,
    style: str = "mixed",
    parcels: NDArray[Any] | None = None,
    fineness: int | None = None,
) -> GeneratedScene:
    """A square scene of `size` pixels of `gsd_m` metres: the same for the same arguments.

    `style` is one of `layouts.STYLES`. `parcels` (polygons in metres, x right and y down from the scene's corner)
    take the place of procedural ones. `fineness` is the number of painted cells along a pixel; 3 for pixels of
    4 m and more, else 1.
    """
    rng = np.random.default_rng(seed)
    side_m = size * gsd_m
    layout = lay_out(rng, side_m=side_m, style=style) if parcels is None else _around(rng, parcels, side_m=side_m)
    fine = fineness or (3 if gsd_m >= 4 else 1)
    fine_pixels = paint(rng, layout, cells=size * fine, cell_m=gsd_m / fine)
    seen = observe(rng, fine_pixels, fine=fine, gsd_m=gsd_m)
    scaled = shapely.transform(layout.parcels, lambda points: points / gsd_m)
    return GeneratedScene(pixels=np.clip(seen * 10_000 + 0.5, 1, 65_535).astype(np.uint16), parcels=scaled, gsd_m=gsd_m)


def generate_dates(
    seed: int,
    *,
    size: int,
    gsd_m: float,
    style: str = "mixed",
    parcels: NDArray[Any] | None = None,
    fineness: int | None = None,
    dates: int = 2,
) -> tuple[GeneratedScene, ...]:
    """The same land at several dates: the same for the same arguments, with the same parcels in each.

    Arguments are those of `generate_scene`, whose scenes of the same seed are others: here crops follow a rotation, wild
    land that looks like fields lies in between, woods turn with the season, and there is more weather. Dates after
    the first lie up to a pixel beside it.
    """
    place = np.random.default_rng((seed, 11))
    side_m = size * gsd_m
    layout = lay_out(place, side_m=side_m, style=style) if parcels is None else _around(place, parcels, side_m=side_m)
    layout = with_wilds(place, layout, side_m=side_m)
    streams = [np.random.default_rng((seed, 12, date)) for date in range(dates)]
    shape = (_headings(layout.parcels), _centres(layout.parcels)) if len(layout.parcels) else None
    crops = rotate(place, streams, shape[0], grass=layout.grass, centres=shape[1]) if shape else [None] * dates
    fine = fineness or (3 if gsd_m >= 4 else 1)
    scaled = shapely.transform(layout.parcels, lambda points: points / gsd_m)
    scenes = []
    for date, (rng, grown) in enumerate(zip(streams, crops, strict=True)):
        same = np.random.default_rng((seed, 13))
        pixels = paint(same, layout, cells=size * fine, cell_m=gsd_m / fine, crops=grown, tints=_tints(rng))
        if date and rng.random() < 0.8:
            pixels = _moved(pixels, rng.integers(-fine, fine + 1, 2))
        seen = weather(rng, observe(rng, pixels, fine=fine, gsd_m=gsd_m), gsd_m=gsd_m)
        stored = np.clip(seen * 10_000 + 0.5, 1, 65_535).astype(np.uint16)
        scenes.append(GeneratedScene(pixels=stored, parcels=scaled, gsd_m=gsd_m))
    return tuple(scenes)


def paint(
    rng: np.random.Generator,
    layout: Layout,
    *,
    cells: int,
    cell_m: float,
    crops: surfaces.Crops | None = None,
    tints: Mapping[str, NDArray[Any]] | None = None,
) -> surfaces.Image:
    """Reflectances (band, row, col) of a layout on a grid of `cells` x `cells`.

    `crops` are drawn where they are not given. `tints` are factors (band,) for a kind of land other than parcels.
    """
    shape = (cells, cells)
    tints = tints or {}
    pixels = _tinted(surfaces.paint_rough(rng, shape, cell_m=cell_m), tints.get("rough"))
    kinds = {kind for kind, _ in layout.areas}
    masks = {kind: _raster([area for k, area in layout.areas if k == kind], shape, cell_m) for kind in kinds}
    woods = masks.get("woods", np.zeros(shape, dtype=bool))
    painters = {"village": surfaces.paint_village, "yard": surfaces.paint_village, "woods": surfaces.paint_woods,
                "water": surfaces.paint_water, "pond": surfaces.paint_water, **WILD_PAINTERS}  # fmt: skip
    ids = _raster_ids(layout.parcels, shape, cell_m)
    if ids.any():
        if crops is None:
            crops = surfaces.sow(rng, _headings(layout.parcels), grass=layout.grass, centres=_centres(layout.parcels))
        pixels = np.where(ids > 0, surfaces.paint_parcels(rng, ids, crops, cell_m=cell_m), pixels)
    for kind, painter in painters.items():
        if kind in masks and masks[kind].any():
            mask = masks[kind] & (ids == 0)
            pixels = np.where(mask, _tinted(painter(rng, shape, cell_m=cell_m), tints.get(kind)), pixels)
    tall = woods & (ids == 0)
    if "felled" in masks:
        tall &= ~masks["felled"]
    for line in [*_margins(rng, layout.parcels), *layout.lines]:
        tall |= _draw(pixels, line, rng, cell_m=cell_m)
    wet = masks.get("water", np.zeros(shape, dtype=bool)) | masks.get("pond", np.zeros(shape, dtype=bool))
    tall |= _trees(pixels, rng, tall | (wet & (ids == 0)), ids, cell_m=cell_m)
    return pixels * np.where(surfaces.shadow(tall, rng, cell_m=cell_m), rng.uniform(0.35, 0.75), 1).astype(np.float32)


def observe(rng: np.random.Generator, fine_pixels: surfaces.Image, *, fine: int, gsd_m: float) -> surfaces.Image:
    """A fine image as a sensor sees it: averaged, blurred, through haze, with noise and slightly shifted bands."""
    bands, rows, cols = fine_pixels.shape
    pixels = fine_pixels.reshape(bands, rows // fine, fine, cols // fine, fine).mean(axis=(2, 4))
    blur = rng.uniform(0.2, 0.85)
    shifts = rng.normal(0, 0.12, (bands, 2)) if gsd_m >= 4 else np.zeros((bands, 2))
    for band in range(bands):
        moved = ndimage.shift(pixels[band], shifts[band], order=1, mode="nearest")
        pixels[band] = ndimage.gaussian_filter(moved, blur * rng.uniform(0.9, 1.1))
    shape = (rows // fine, cols // fine)
    light = 1 + rng.uniform(0, 0.05) * fractal_noise(rng, shape, wavelength=max(8.0, 1200 / gsd_m), octaves=2)
    if rng.random() < 0.08:
        cloud = fractal_noise(rng, shape, wavelength=max(8.0, 900 / gsd_m), octaves=3)
        light *= 1 - rng.uniform(0.1, 0.45) * np.clip((cloud - 1.2) * 3, 0, 1)
    haze = rng.uniform(0, 0.02) * np.array([0.6, 0.8, 1.2, 0.2])[:, None, None]
    noise = rng.uniform(0.0005, 0.003) * rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.asarray(pixels * light * rng.uniform(0.85, 1.1) + haze + noise, dtype=np.float32)


def weather(rng: np.random.Generator, pixels: surfaces.Image, *, gsd_m: float) -> surfaces.Image:
    """Haze that thickens across the scene, shadows of clouds and thin clouds, in some scenes each."""
    shape = (pixels.shape[1], pixels.shape[2])
    if rng.random() < 0.3:
        veil = np.clip(1 + 0.6 * fractal_noise(rng, shape, wavelength=max(8.0, 3000 / gsd_m), octaves=2), 0, None)
        veil = veil * np.float32(rng.uniform(0.01, 0.06))
        tone = np.array([0.7, 0.8, 1.0, 0.45], dtype=np.float32) * rng.uniform(0.9, 1.1, 4).astype(np.float32)
        pixels = pixels * (1 - 1.5 * veil) + veil * tone[:, None, None]
    if rng.random() < 0.15:
        cloud = fractal_noise(rng, shape, wavelength=max(8.0, rng.uniform(300, 1500) / gsd_m), octaves=4)
        thick = np.clip((cloud - rng.uniform(1.2, 2.2)) * rng.uniform(0.5, 3), 0, 1) * rng.uniform(0.2, 0.9)
        away = tuple(int(v) for v in rng.uniform(-60, 60, 2))
        pixels = pixels * (1 - 0.6 * np.roll(thick, away, axis=(0, 1)))
        pixels = pixels * (1 - thick) + thick * rng.uniform(0.3, 0.6)
    return np.asarray(pixels, dtype=np.float32)


def _tints(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Factors (band,) by which wild land of each kind is brighter or greener at a date than at another."""
    green = rng.normal(0, 1)
    season = {"woods": 1.0, "rough": 1.3, "scrub": 1.1, "meadow": 1.3, "mire": 0.6, "heath": 0.7, "felled": 0.9,
              "park": 0.6, "village": 0.4, "garden": 0.6, "barren": 0.5}  # fmt: skip
    slope = np.array([-0.22, -0.06, -0.16, 0.16])
    return {
        kind: np.exp(share * green * slope + rng.normal(0, 0.06) + rng.normal(0, [0.10, 0.06, 0.09, 0.07]))
        for kind, share in season.items()
    }


def _tinted(pixels: surfaces.Image, tint: NDArray[Any] | None) -> surfaces.Image:
    return pixels if tint is None else np.asarray(pixels * tint[:, None, None], dtype=np.float32)


def _moved(pixels: surfaces.Image, by: NDArray[np.integer[Any]]) -> surfaces.Image:
    """Shifted by whole cells down and right; the frame's cells are repeated."""
    rows, cols = (np.clip(np.arange(pixels.shape[k + 1]) - int(by[k]), 0, pixels.shape[k + 1] - 1) for k in (0, 1))
    return pixels[:, rows[:, None], cols[None, :]]


def _around(rng: np.random.Generator, parcels: NDArray[Any], *, side_m: float) -> Layout:
    """Given parcels, with woods, copses, villages and rough land around and in between."""
    style = Style(block_ha=(20, 90), parcel_ha=(2, 9))
    bend = bending(rng, rng.uniform(0, 15))
    woods = woodland(rng, side_m=side_m, share=rng.uniform(0.05, 0.3))
    dots = islands(rng, side_m=side_m, density=rng.uniform(*style.islands))
    kept = without([bend(p) for p in parcels], [polygon for _, polygon in dots])
    villages = [("village", p) for p in woodland(rng, side_m=side_m, share=rng.uniform(0, 0.12))]
    areas = [*villages, *(("woods", p) for p in woods), *dots]
    return Layout(parcels=kept, areas=areas, grass=rng.uniform(*style.grass))


def _margins(rng: np.random.Generator, parcels: NDArray[Any]) -> list[Line]:
    """Grass strips, furrows and tracks along some parcels' edges."""
    share, width = rng.uniform(0, 0.5), rng.uniform(0.8, 4.0)
    chosen = [parcel for parcel in parcels if rng.random() < share]
    kinds = rng.choice(["margin", "margin", "track", "ditch"], len(chosen))
    return [Line(kind=str(k), path=shapely.boundary(p), width_m=width) for k, p in zip(kinds, chosen, strict=True)]


def _draw(pixels: surfaces.Image, line: Line, rng: np.random.Generator, *, cell_m: float) -> NDArray[np.bool_]:
    """Paint one line into `pixels`; True where it is tall."""
    shape = pixels.shape[1:]
    tall = np.zeros(shape, dtype=bool)
    if line.kind == "road":
        _stroke(pixels, line, LINE_COLOURS["verge"], rng, width_m=line.width_m + 6, cell_m=cell_m)
    colour = np.array(LINE_COLOURS[line.kind]) * rng.uniform(0.75, 1.25)
    where = _stroke(pixels, line, colour, rng, width_m=line.width_m, cell_m=cell_m)
    if line.kind == "hedge":
        tall[where] = True
    return tall


def _stroke(
    pixels: surfaces.Image,
    line: Line,
    colour: Sequence[float] | NDArray[Any],
    rng: np.random.Generator,
    *,
    width_m: float,
    cell_m: float,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Paint a line of even width, as opaque as it fills its cells; returns the cells."""
    shape = pixels.shape[1:]
    band = shapely.buffer(line.path, max(width_m, cell_m) / 2, quad_segs=2, cap_style="flat")
    left, top, right, bottom = (int(np.floor(v / cell_m)) for v in shapely.bounds(band))
    left, top, right, bottom = max(left - 1, 0), max(top - 1, 0), min(right + 2, shape[1]), min(bottom + 2, shape[0])
    if left >= right or top >= bottom:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    place = Affine(cell_m, 0, left * cell_m, 0, cell_m, top * cell_m)
    filled = rasterize([(band, 1)], out_shape=(bottom - top, right - left), transform=place, dtype="uint8")
    rows, cols = np.nonzero(filled)
    rows, cols = rows + top, cols + left
    opaque = min(1.0, width_m / cell_m) * np.exp(0.1 * rng.standard_normal(len(rows)))
    pixels[:, rows, cols] += (np.asarray(colour)[:, None] - pixels[:, rows, cols]) * np.minimum(opaque, 1)
    return rows, cols


def _trees(
    pixels: surfaces.Image, rng: np.random.Generator, taken: NDArray[np.bool_], ids: NDArray[np.int32], *, cell_m: float
) -> NDArray[np.bool_]:
    """Single trees, thick outside the parcels and rare within."""
    cells = taken.shape[0]
    area_km2 = (cells * cell_m / 1000) ** 2
    crowns = np.zeros(taken.shape, dtype=bool)
    centres = rng.uniform(0, cells, (int(rng.uniform(0, 400) * area_km2) + 1, 2))
    inside = ids[centres[:, 0].astype(int), centres[:, 1].astype(int)] > 0
    for row, col in centres[~inside | (rng.random(len(centres)) < 0.05)]:
        radius = rng.uniform(2, 6) / cell_m
        top, left = int(max(row - radius - 1, 0)), int(max(col - radius - 1, 0))
        r, c = np.ogrid[top : min(int(row + radius) + 2, cells), left : min(int(col + radius) + 2, cells)]
        crowns[top : top + r.shape[0], left : left + c.shape[1]] |= (r + 0.5 - row) ** 2 + (
            c + 0.5 - col
        ) ** 2 <= radius**2
    crowns &= ~taken
    rows, cols = np.nonzero(crowns)
    bright = np.exp(0.25 * rng.standard_normal(len(rows)))
    pixels[:, rows, cols] = np.array(LINE_COLOURS["hedge"])[:, None] * bright
    return crowns


def _raster(polygons: Sequence[Any], shape: tuple[int, int], cell_m: float) -> NDArray[np.bool_]:
    place = Affine.scale(cell_m)
    filled: NDArray[np.uint8] = rasterize(
        [(p, 1) for p in polygons if not p.is_empty], out_shape=shape, transform=place, dtype="uint8"
    )
    return filled > 0


def _raster_ids(parcels: NDArray[Any], shape: tuple[int, int], cell_m: float) -> NDArray[np.int32]:
    if not len(parcels):
        return np.zeros(shape, dtype=np.int32)
    numbered = ((p, k + 1) for k, p in enumerate(parcels))
    ids: NDArray[np.int32] = rasterize(numbered, out_shape=shape, transform=Affine.scale(cell_m), dtype="int32")
    return ids


def _headings(parcels: NDArray[Any]) -> NDArray[np.float32]:
    """Direction across the longest side of each parcel: rows run along it."""
    frames = shapely.get_coordinates(shapely.oriented_envelope(parcels)).reshape(-1, 5, 2)
    sides = np.diff(frames, axis=1)[:, :2]
    longest = sides[np.arange(len(sides)), np.argmax((sides**2).sum(axis=2), axis=1)]
    return np.asarray(np.arctan2(longest[:, 1], longest[:, 0]) + np.pi / 2, dtype=np.float32)


def _centres(parcels: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(shapely.get_coordinates(shapely.centroid(parcels)))
