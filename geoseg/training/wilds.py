"""Land that is no field but may look like one: mires, heath, felled woods, parks, rivers, bare ground."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.training.layouts import Layout, without, woodland
from geoseg.training.surfaces import PLANTS, SOILS, Image, paint_village, paint_water
from geoseg.training.textures import fractal_noise, smooth_noise

NATURAL: Mapping[str, tuple[float, float]] = {
    "mire": (0.16, 0.25), "heath": (0.12, 0.2), "scrub": (0.25, 0.2), "barren": (0.10, 0.25), "meadow": (0.15, 0.12),
}  # fmt: skip
"""Kind: share of the scenes that have it, and the largest share of the land that it takes."""


def with_wilds(rng: np.random.Generator, layout: Layout, *, side_m: float) -> Layout:
    """The layout with wild land cut out of its parcels, and with felled areas in its woods."""
    areas: list[tuple[str, Any]] = []
    for kind, (often, most) in NATURAL.items():
        if rng.random() < often:
            areas += [(kind, polygon) for polygon in woodland(rng, side_m=side_m, share=rng.uniform(0.02, most))]
    areas += [("park", polygon) for polygon in _parks(rng, layout, side_m=side_m)]
    if rng.random() < 0.2:
        areas += _river(rng, side_m=side_m)
    if rng.random() < 0.35:
        areas += [("garden", polygon) for polygon in _gardens(rng, side_m=side_m)]
    kept = without(list(layout.parcels), [polygon for _, polygon in areas]) if areas else layout.parcels
    felled = [("felled", polygon) for polygon in _felled(rng, layout)]
    return replace(layout, parcels=kept, areas=[*layout.areas, *areas, *felled])


def _felled(rng: np.random.Generator, layout: Layout) -> list[Any]:
    """Straight-sided patches cut out of the woods."""
    woods = np.array([polygon for kind, polygon in layout.areas if kind == "woods"], dtype=object)
    if not len(woods) or rng.random() < 0.4:
        return []
    density = rng.uniform(0.5, 5)
    heading, found = rng.uniform(0, np.pi), []
    for wood in woods[shapely.area(woods) > 30_000]:
        left, top, right, bottom = wood.bounds
        for _ in range(rng.poisson(density * wood.area / 1e6)):
            centre = (rng.uniform(left, right), rng.uniform(top, bottom))
            size = np.exp(rng.uniform(np.log([60, 60]), np.log([250, 400])))
            found.append(shapely.intersection(_rectangle(centre, size, heading + rng.normal(0, 0.2)), wood))
    return [polygon for polygon in found if polygon.area > 1500]


def _parks(rng: np.random.Generator, layout: Layout, *, side_m: float) -> list[Any]:
    """Mown grass in and around villages: parks, sports grounds, large lawns."""
    found = []
    for polygon in (polygon for kind, polygon in layout.areas if kind == "village" and polygon.area > 20_000):
        edge = polygon.boundary
        for _ in range(rng.poisson(1.5)):
            point = edge.interpolate(rng.uniform(0, edge.length))
            size = np.exp(rng.uniform(np.log([40, 40]), np.log([120, 180])))
            found.append(_rectangle((point.x, point.y), size, rng.uniform(0, np.pi)))
    return [polygon for polygon in found if 0 < polygon.centroid.x < side_m and 0 < polygon.centroid.y < side_m]


def _gardens(rng: np.random.Generator, *, side_m: float) -> list[Any]:
    """Homesteads with trees and gardens, scattered over the land."""
    count = rng.poisson(rng.uniform(1, 8) * (side_m / 1000) ** 2)
    centres = rng.uniform(0, side_m, (count, 2))
    sizes = np.exp(rng.uniform(np.log(30), np.log(110), (count, 2)))
    return [_rectangle(c, s, rng.uniform(0, np.pi)) for c, s in zip(centres, sizes, strict=True)]


def _river(rng: np.random.Generator, *, side_m: float) -> list[tuple[str, Any]]:
    """A winding river across the scene, with trees along it at times."""
    along = np.linspace(-0.1 * side_m, 1.1 * side_m, 200)
    across = rng.uniform(0, side_m) + rng.normal(0, 0.3) * (along - side_m / 2)
    for length in side_m / np.array([1.0, 2.5, 6.0]):
        size = 0.12 * length * rng.uniform(0.2, 1)
        across = across + size * np.sin(2 * np.pi * along / length + rng.uniform(0, 2 * np.pi))
    points = np.stack([along, across], axis=1)
    path = shapely.linestrings(points if rng.random() < 0.5 else points[:, ::-1])
    width = float(np.exp(rng.uniform(np.log(6), np.log(90))))
    water = shapely.buffer(path, width / 2)
    bank = shapely.difference(shapely.buffer(path, width / 2 + rng.uniform(5, 60)), water)
    return [(str(rng.choice(["woods", "scrub", "meadow"])), bank), ("water", water)]


def _rectangle(centre: Any, size: Any, heading: float) -> Any:
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * size
    turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
    return shapely.polygons(corners @ turn + np.asarray(centre))


def paint_mire(rng: np.random.Generator, shape: tuple[int, int], *, cell_m: float) -> Image:
    """Open bog: brown moss, pools and stunted pines, in long patterns."""
    moss, wet = np.array([0.070, 0.072, 0.042, 0.23]) * rng.uniform(0.7, 1.3), np.array([0.040, 0.045, 0.030, 0.13])
    share = np.clip(0.3 + 0.35 * fractal_noise(rng, shape, wavelength=rng.uniform(40, 200) / cell_m, octaves=4), 0, 1)
    pixels = _mixed(moss, wet, share)
    pines = fractal_noise(rng, shape, wavelength=max(2.0, 120 / cell_m), octaves=5)
    return _mixed_over(pixels, np.array([0.025, 0.038, 0.022, 0.20]), np.clip((pines - rng.uniform(0, 1.5)), 0, 1))


def paint_heath(rng: np.random.Generator, shape: tuple[int, int], *, cell_m: float) -> Image:
    """Heather and grass with sandy spots."""
    heather = np.array([0.050, 0.046, 0.036, 0.17]) * rng.uniform(0.8, 1.5)
    grass = np.array(PLANTS["weedy"]) * rng.uniform(0.6, 1.1)
    share = np.clip(0.4 + 0.4 * fractal_noise(rng, shape, wavelength=rng.uniform(40, 150) / cell_m, octaves=5), 0, 1)
    pixels = _mixed(heather, grass, share)
    sand = fractal_noise(rng, shape, wavelength=max(2.0, 60 / cell_m), octaves=3) - rng.uniform(1.5, 3)
    return _mixed_over(pixels, np.array(SOILS["sand"]), np.clip(sand, 0, 1))


def paint_scrub(rng: np.random.Generator, shape: tuple[int, int], *, cell_m: float) -> Image:
    """Land left to itself: grass under bushes and young trees of uneven density."""
    grass = np.array(PLANTS[str(rng.choice(["grass", "weedy"]))]) * rng.uniform(0.5, 1.1)
    pixels = np.broadcast_to(grass[:, None, None], (4, *shape)).astype(np.float32)
    bushes = fractal_noise(rng, shape, wavelength=max(2.0, rng.uniform(8, 40) / cell_m), octaves=3)
    bushes += 0.8 * fractal_noise(rng, shape, wavelength=200 / cell_m, octaves=2)
    pixels = _mixed_over(pixels, np.array([0.026, 0.046, 0.023, 0.31]), np.clip(bushes - rng.uniform(-0.8, 0.8), 0, 1))
    return np.asarray(pixels * np.exp(0.06 * rng.standard_normal(shape, dtype=np.float32)), dtype=np.float32)


def paint_barren(rng: np.random.Generator, shape: tuple[int, int], *, cell_m: float) -> Image:
    """Bare ground that nobody tills: sand, gravel, dry or salty flats with thin plants."""
    ground = np.array(SOILS[str(rng.choice(list(SOILS)))]) * rng.uniform(0.7, 1.4)
    thin = np.array(PLANTS["weedy"]) * rng.uniform(0.7, 1.3)
    share = np.clip(0.3 + 0.35 * fractal_noise(rng, shape, wavelength=rng.uniform(60, 500) / cell_m, octaves=5), 0, 1)
    pixels = _mixed(ground, thin, share)
    return np.asarray(pixels * np.exp(0.05 * rng.standard_normal(shape, dtype=np.float32)), dtype=np.float32)


def paint_meadow(rng: np.random.Generator, shape: tuple[int, int], *, cell_m: float) -> Image:
    """Wet or natural grassland: smoother than scrub, mottled where a field is even."""
    wet, dry = np.array(PLANTS["grass"]) * rng.uniform(0.5, 1.0), np.array(PLANTS["weedy"]) * rng.uniform(0.6, 1.1)
    share = np.clip(0.5 + 0.5 * fractal_noise(rng, shape, wavelength=rng.uniform(50, 250) / cell_m, octaves=5), 0, 1)
    pixels = _mixed(wet, dry, share)
    trees = smooth_noise(rng, shape, wavelength=max(1.5, 10 / cell_m)) - rng.uniform(1.6, 2.8)
    return _mixed_over(pixels, np.array([0.024, 0.042, 0.022, 0.30]), np.clip(2 * trees, 0, 1))


def paint_felled(rng: np.random.Generator, shape: tuple[int, int], *, cell_m: float) -> Image:
    """Clearings of several ages: slash, grass, young trees, a few left standing."""
    fresh = np.array([0.085, 0.075, 0.055, 0.20]) * rng.uniform(0.8, 1.4)
    young = np.array([0.042, 0.062, 0.034, 0.31]) * rng.uniform(0.7, 1.2)
    age = np.clip(0.5 + 1.2 * fractal_noise(rng, shape, wavelength=700 / cell_m, octaves=1), 0, 1)
    pixels = _mixed(fresh, young, age)
    rough = fractal_noise(rng, shape, wavelength=max(2.0, 25 / cell_m), octaves=3)
    pixels = pixels * np.exp(rng.uniform(0.06, 0.2) * rough)
    left = smooth_noise(rng, shape, wavelength=max(1.0, 8 / cell_m)) - rng.uniform(1.2, 2.6)
    return _mixed_over(pixels, np.array([0.022, 0.034, 0.020, 0.26]), np.clip(2 * left, 0, 1))


def paint_park(rng: np.random.Generator, shape: tuple[int, int], *, cell_m: float) -> Image:
    """Mown grass, some trees, now and then a bare pitch."""
    grass = np.array(PLANTS["grass"]) * rng.uniform(0.8, 1.2)
    pixels = np.broadcast_to(grass[:, None, None], (4, *shape)).astype(np.float32)
    trees = fractal_noise(rng, shape, wavelength=max(1.5, 15 / cell_m), octaves=2) - rng.uniform(0.6, 2.2)
    pixels = _mixed_over(pixels, np.array([0.022, 0.042, 0.020, 0.33]), np.clip(2 * trees, 0, 1))
    return np.asarray(pixels * np.exp(0.03 * rng.standard_normal(shape, dtype=np.float32)), dtype=np.float32)


WILD_PAINTERS = {
    "mire": paint_mire, "heath": paint_heath, "scrub": paint_scrub, "barren": paint_barren, "meadow": paint_meadow,
    "felled": paint_felled, "park": paint_park, "garden": paint_village, "water": paint_water,
}  # fmt: skip
"""Painted after woods and villages, in this order, but for water, which keeps its place before ponds."""


def _mixed(first: NDArray[Any], second: NDArray[Any], share: NDArray[Any]) -> Image:
    return np.asarray(first[:, None, None] * (1 - share) + second[:, None, None] * share, dtype=np.float32)


def _mixed_over(pixels: Image, colour: NDArray[Any], share: NDArray[Any]) -> Image:
    return np.asarray(pixels + (colour[:, None, None] - pixels) * share, dtype=np.float32)
