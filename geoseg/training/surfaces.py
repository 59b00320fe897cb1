"""What farmland looks like: reflectances of soils, plants, woods, villages and water, painted on a fine grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geoseg.training.textures import fractal_noise, smooth_noise

Image = NDArray[np.float32]
"""(band, row, col): red, green, blue, nir reflectance."""

PLANTS: Mapping[str, tuple[float, float, float, float]] = {
    "cereal": (0.027, 0.052, 0.024, 0.42),
    "dense": (0.013, 0.029, 0.013, 0.46),
    "grass": (0.045, 0.080, 0.040, 0.38),
    "rape": (0.140, 0.160, 0.045, 0.42),
    "maize": (0.035, 0.062, 0.030, 0.45),
    "beet": (0.030, 0.075, 0.028, 0.53),
    "ripe": (0.190, 0.155, 0.090, 0.32),
    "stubble": (0.230, 0.185, 0.125, 0.32),
    "hay": (0.095, 0.110, 0.060, 0.31),
    "pea": (0.055, 0.095, 0.045, 0.46),
    "weedy": (0.070, 0.080, 0.050, 0.28),
}

SOILS: Mapping[str, tuple[float, float, float, float]] = {
    "dark": (0.075, 0.065, 0.048, 0.13),
    "loess": (0.150, 0.120, 0.085, 0.22),
    "bright": (0.250, 0.205, 0.155, 0.34),
    "red": (0.190, 0.115, 0.075, 0.28),
    "sand": (0.290, 0.250, 0.190, 0.38),
    "peat": (0.048, 0.044, 0.036, 0.10),
}

SEASONS: Mapping[str, Mapping[str, float]] = {
    "spring": {
        "bare": 6,
        "emerging": 3,
        "cereal": 5,
        "dense": 3,
        "rape": 1.5,
        "beet": 0.5,
        "weedy": 0.5,
        "stubble": 0.5,
    },
    "early": {"bare": 1.5, "emerging": 3, "cereal": 4, "dense": 5, "rape": 1.5, "maize": 2, "beet": 1.5, "pea": 1},
    "summer": {
        "ripe": 6,
        "stubble": 3,
        "maize": 4,
        "beet": 2,
        "dense": 2,
        "bare": 1,
        "pea": 1,
        "weedy": 1,
        "cereal": 2,
    },
    "autumn": {"stubble": 3, "bare": 5, "emerging": 3, "maize": 2, "beet": 1.5, "weedy": 2, "ripe": 1},
}
"""How often a crop stands on an arable parcel; `bare` and `emerging` are soil with little or some green."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """What grows on each parcel; all arrays have one entry a parcel."""

    plant: Image
    """(parcel, band) reflectance of a closed canopy."""
    soil: Image
    """(parcel, band) reflectance of the bare soil."""
    cover: NDArray[np.float32]
    """Share of the ground under plants, 0..1."""
    uneven: NDArray[np.float32]
    """Deviation of the cover within the parcel."""
    heading: NDArray[np.float32]
    """Direction of the rows in radians."""
    row_m: NDArray[np.float32]
    """Distance of the rows or tramlines."""
    row_strength: NDArray[np.float32]
    """How much brighter or greener every other row is."""
    headland_m: NDArray[np.float32]
    """Width of the differing strip along the edge; 0 for none."""
    blotches: NDArray[np.float32] | None = None
    """How much darker, greener or barer patches with clear outlines are; None draws none."""


def sow(
    rng: np.random.Generator, headings: NDArray[np.float32], *, grass: float, centres: NDArray[np.float64]
) -> Crops:
    """Crops for parcels with the given directions of work and centres (metres)."""
    count = len(headings)
    season = SEASONS[str(rng.choice(list(SEASONS)))]
    kinds = np.array(list(season), dtype=object)
    weights = np.array(list(season.values())) * rng.gamma(1.2, 1.0, len(season))
    drawn = rng.choice(kinds, count, p=weights / weights.sum())
    # A farm's parcels lie together: some take their neighbour's crop, which hides the edge between them.
    if count > 1:
        order = np.argsort(centres[:, 0] // 400 * 1e6 + centres[:, 1])
        same = rng.random(count) < rng.uniform(0.05, 0.25)
        for before, here in pairwise(order):
            if same[here]:
                drawn[here] = drawn[before]
    is_grass = rng.random(count) < grass
    drawn[is_grass] = rng.choice(
        np.array(["grass", "hay", "weedy"], dtype=object), int(is_grass.sum()), p=[0.75, 0.15, 0.10]
    )
    cover = np.clip(rng.normal(0.97, 0.07, count), 0.6, 1)
    cover = np.where(drawn == "bare", rng.uniform(0, 0.08, count), cover)
    cover = np.where(drawn == "emerging", rng.uniform(0.15, 0.6, count), cover)
    standing = np.where(np.isin(drawn.astype(str), ["bare", "emerging"]), "cereal", drawn)
    plant = np.array([PLANTS[str(kind)] for kind in standing]).reshape(count, 4)
    plant = plant * np.exp(rng.normal(0, 0.10, (count, 1)) + rng.normal(0, [0.12, 0.07, 0.09, 0.07], (count, 4)))
    first, second = rng.choice(list(SOILS), 2)
    share = rng.beta(0.8, 0.8, (count, 1)) if rng.random() < 0.5 else rng.uniform(0, 0.3, (count, 1))
    soil = np.array(SOILS[str(first)]) * (1 - share) + np.array(SOILS[str(second)]) * share
    soil = soil * np.exp(rng.normal(0, 0.12, (count, 1)) + rng.normal(0, 0.03, (count, 4)))
    calm = np.exp(rng.normal(np.log(0.05), 0.6, count))
    return Crops(
        plant=plant.astype(np.float32),
        soil=soil.astype(np.float32),
        cover=cover.astype(np.float32),
        uneven=(calm * np.where(is_grass, 1.6, 1.0)).astype(np.float32),
        heading=headings,
        row_m=np.exp(rng.uniform(np.log(9), np.log(40), count)).astype(np.float32),
        row_strength=(rng.exponential(0.05, count) * (rng.random(count) < 0.7) * ~is_grass).astype(np.float32),
        headland_m=(rng.uniform(8, 30, count) * (rng.random(count) < 0.4) * ~is_grass).astype(np.float32),
    )


def paint_parcels(rng: np.random.Generator, ids: NDArray[np.int32], crops: Crops, *, cell_m: float) -> Image:
    """Reflectances where `ids` (row, col) is 1 or more: the parcel of that number less 1."""
    shape = ids.shape
    parcel = np.maximum(ids - 1, 0)
    count = len(crops.cover)
    shift = rng.integers(0, 2 * min(shape), (2, count), dtype=np.int32)
    row, col = np.indices(shape, dtype=np.int32)
    there = (_mirrored(row + shift[0][parcel], shape[0]), _mirrored(col + shift[1][parcel], shape[1]))
    unevenness = fractal_noise(rng, shape, wavelength=rng.uniform(80, 300) / cell_m, octaves=4)[there]
    unevenness += 0.35 * smooth_noise(rng, shape, wavelength=max(1.0, rng.uniform(4, 15) / cell_m))
    cover = crops.cover[parcel] + crops.uneven[parcel] * unevenness
    wet = fractal_noise(rng, shape, wavelength=150 / cell_m, octaves=3)
    cover -= 0.35 * np.clip((wet - np.float32(rng.uniform(1.4, 3.0))) * np.float32(rng.uniform(0.5, 3)), 0, 1)
    edge = ndimage.distance_transform_edt(_inner(ids)) * cell_m
    headland = edge < crops.headland_m[parcel]
    cover += np.where(headland, rng.normal(0, 0.10, count).astype(np.float32)[parcel], 0)
    heading = crops.heading[parcel] + np.where(headland, np.float32(np.pi / 2), 0)
    along = (col * np.cos(heading) + row * np.sin(heading)) * np.float32(cell_m) / crops.row_m[parcel]
    rows = (
        np.where(np.cos(2 * np.pi * along) > crops.cover[parcel] - 0.3, 1.0, -0.4).astype(np.float32)
        * crops.row_strength[parcel]
    )
    if crops.blotches is not None:
        blotch = fractal_noise(rng, shape, wavelength=rng.uniform(60, 400) / cell_m, octaves=4)[there]
        cover += crops.blotches[parcel] * np.tanh(
            np.float32(rng.uniform(1, 5)) * (blotch - np.float32(rng.uniform(0, 1.5)))
        )
    cover = np.clip(cover - rows * 0.5, 0, 1)
    ground = 1 + 0.10 * fractal_noise(rng, shape, wavelength=rng.uniform(120, 500) / cell_m, octaves=4) + 0.6 * rows
    light = 1 + 0.02 * rng.standard_normal(shape, dtype=np.float32) + crops.uneven[parcel] * 0.5 * unevenness
    pixels = np.empty((4, *shape), dtype=np.float32)
    for band in range(4):
        soil = crops.soil[:, band][parcel] * ground
        pixels[band] = soil * (1 - cover) + crops.plant[:, band][parcel] * light * cover
    return pixels


def paint_rough(rng: np.random.Generator, shape: tuple[int, int], *, cell_m: float) -> Image:
    """Unfarmed grass, reeds and shrubs."""
    patchy = fractal_noise(rng, shape, wavelength=rng.uniform(60, 200) / cell_m, octaves=5)
    share = np.clip(0.5 + 0.35 * patchy, 0, 1)
    green, dry = np.array(PLANTS["grass"]) * rng.uniform(0.5, 1.1), np.array(PLANTS["weedy"]) * rng.uniform(0.5, 1.3)
    pixels = _blend(green, dry, share)
    shrubs = fractal_noise(rng, shape, wavelength=max(2.0, 14 / cell_m), octaves=2) > rng.uniform(0.8, 2.5)
    return _over(pixels, shrubs, np.array([0.025, 0.042, 0.022, 0.30]))


def paint_woods(rng: np.random.Generator, shape: tuple[int, int], *, cell_m: float) -> Image:
    """Mixed woods with crowns, stands and clearings."""
    stands = np.clip(
        0.5 + 0.8 * fractal_noise(rng, shape, wavelength=250 / cell_m, octaves=3) + rng.normal(0, 0.4), 0, 1
    )
    pixels = _blend(np.array([0.018, 0.028, 0.018, 0.20]), np.array([0.026, 0.046, 0.022, 0.37]), stands)
    crowns = smooth_noise(rng, shape, wavelength=max(1.0, rng.uniform(5, 11) / cell_m))
    gaps = smooth_noise(rng, shape, wavelength=max(1.0, 25 / cell_m))
    pixels *= np.exp(np.clip(rng.uniform(0.08, 0.24) * crowns + rng.uniform(0.03, 0.14) * gaps, -1, 1))
    clearings = fractal_noise(rng, shape, wavelength=220 / cell_m, octaves=2) > rng.uniform(1.8, 3.5)
    return _over(pixels, clearings, np.array(PLANTS["weedy"]) * rng.uniform(0.7, 1.2) * [1, 1, 1, 0.8])


def paint_village(rng: np.random.Generator, shape: tuple[int, int], *, cell_m: float) -> Image:
    """Houses, yards, gardens, streets and trees on a turned grid of plots."""
    heading, plot = rng.uniform(0, np.pi / 2), np.exp(rng.uniform(np.log(8), np.log(40)))
    row, col = np.indices(shape, dtype=np.float32) * np.float32(cell_m)
    bend = 25 * fractal_noise(rng, shape, wavelength=400 / cell_m, octaves=1)
    across = (col * np.cos(heading) + row * np.sin(heading) + bend) / plot
    along = (-col * np.sin(heading) + row * np.cos(heading) + bend) / plot
    built = rng.uniform(0.15, 0.6)
    shares = np.array([4, 3, 2.5, 2, 0, 0, 0, 0, 3, 0]) / 14.5 * (1 - built)
    shares += np.array([0, 0, 0, 0, 3, 1, 3, 2.5, 0, 0.7]) / 10.2 * built
    table = rng.choice(10, (256, 256), p=shares)
    use = table[np.floor(across).astype(int) % 256, np.floor(along).astype(int) % 256]
    colours = np.array(
        [
            [0.045, 0.080, 0.040, 0.36], [0.060, 0.080, 0.048, 0.30], [0.022, 0.040, 0.020, 0.32], [0.030, 0.050, 0.026, 0.34],
            [0.22, 0.14, 0.11, 0.24], [0.30, 0.28, 0.26, 0.32], [0.13, 0.13, 0.13, 0.17], [0.17, 0.12, 0.10, 0.21],
            [0.050, 0.085, 0.042, 0.38], [0.55, 0.54, 0.52, 0.55],
        ]
    )  # fmt: skip
    colours = colours * rng.uniform(0.75, 1.25, colours.shape)
    colours[9] *= rng.choice([0.4, 1.0])
    pixels = colours[use].transpose(2, 0, 1).astype(np.float32)
    street = (np.mod(across, rng.integers(4, 9)) < 0.4) | (np.mod(along, rng.integers(4, 9)) < 0.35)
    pixels = _over(pixels, street, np.array([0.13, 0.125, 0.12, 0.16]))
    trees = smooth_noise(rng, shape, wavelength=max(1.5, 9 / cell_m)) > 1.1
    pixels = _over(pixels, trees, np.array([0.022, 0.042, 0.020, 0.33]))
    return np.asarray(pixels * np.exp(0.12 * rng.standard_normal(shape, dtype=np.float32)), dtype=np.float32)


def paint_water(rng: np.random.Generator, shape: tuple[int, int], *, cell_m: float) -> Image:
    colour = np.array([0.022, 0.032, 0.030, 0.012]) * rng.uniform(0.6, 2.5) * [rng.uniform(0.5, 1.8), 1, 1, 1]
    ripples = 1 + 0.05 * fractal_noise(rng, shape, wavelength=300 / cell_m, octaves=3)
    return np.asarray(colour[:, None, None] * ripples, dtype=np.float32)


def shadow(tall: NDArray[np.bool_], rng: np.random.Generator, *, cell_m: float) -> NDArray[np.bool_]:
    """Where tall things (row, col) cast their shadow; the sun stands in the southern half."""
    azimuth, length = rng.uniform(-1.1, 1.1), rng.uniform(5, 22) / cell_m
    dark = np.zeros_like(tall)
    for share in np.linspace(0.25, 1, max(2, int(np.ceil(length)))):
        north, east = round(length * share * np.cos(azimuth)), round(length * share * np.sin(azimuth))
        moved = np.roll(tall, (-north, east), axis=(0, 1))
        moved[len(moved) - north :] = False
        moved[:, slice(0, east) if east >= 0 else slice(east, None)] = False
        dark |= moved
    return dark & ~tall


def _inner(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Cells whose right and lower neighbours belong to the same parcel."""
    inner = ids > 0
    inner[:, :-1] &= ids[:, :-1] == ids[:, 1:]
    inner[:-1] &= ids[:-1] == ids[1:]
    return inner


def _mirrored(index: NDArray[np.int32], size: int) -> NDArray[np.int32]:
    """Indices beyond an axis run back along it: a texture goes on without a seam."""
    folded = index % (2 * size)
    return np.minimum(folded, 2 * size - 1 - folded)


def _blend(first: NDArray[Any], second: NDArray[Any], share: NDArray[Any]) -> Image:
    return np.asarray(first[:, None, None] * (1 - share) + second[:, None, None] * share, dtype=np.float32)


def _over(pixels: Image, where: NDArray[np.bool_], colour: NDArray[Any]) -> Image:
    return np.where(where, colour.astype(np.float32)[:, None, None], pixels)
