"""Crops over the year: what stands on the same parcels at several dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.training.surfaces import PLANTS, SEASONS, SOILS, Crops, sow

STAGES: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "winter cereal": {
        "spring": {"cereal": 5, "dense": 4, "emerging": 1}, "early": {"dense": 5, "cereal": 4},
        "summer": {"ripe": 6, "stubble": 3, "cereal": 1}, "autumn": {"stubble": 4, "bare": 4, "emerging": 2},
    },
    "spring cereal": {
        "spring": {"bare": 5, "emerging": 4}, "early": {"emerging": 3, "cereal": 5, "pea": 1},
        "summer": {"cereal": 2, "ripe": 6, "stubble": 1}, "autumn": {"stubble": 5, "bare": 3, "weedy": 1},
    },
    "rape": {
        "spring": {"dense": 4, "rape": 4}, "early": {"rape": 6, "dense": 3}, "summer": {"ripe": 4, "stubble": 4, "hay": 1},
        "autumn": {"emerging": 4, "bare": 3, "weedy": 2},
    },
    "maize": {
        "spring": {"bare": 6, "weedy": 1, "stubble": 1}, "early": {"bare": 3, "emerging": 5, "maize": 1},
        "summer": {"maize": 8}, "autumn": {"maize": 3, "ripe": 3, "stubble": 4},
    },
    "beet": {
        "spring": {"bare": 7, "emerging": 1}, "early": {"emerging": 5, "beet": 2}, "summer": {"beet": 8},
        "autumn": {"beet": 5, "bare": 3},
    },
    "pea": {
        "spring": {"bare": 3, "emerging": 5}, "early": {"pea": 7}, "summer": {"pea": 2, "ripe": 4, "bare": 2},
        "autumn": {"bare": 4, "emerging": 3, "weedy": 2},
    },
    "grass": {
        "spring": {"grass": 8, "weedy": 1}, "early": {"grass": 6, "hay": 3}, "summer": {"grass": 5, "hay": 4, "weedy": 2},
        "autumn": {"grass": 7, "weedy": 2},
    },
    "ley": {
        "spring": {"dense": 3, "grass": 4}, "early": {"dense": 5, "hay": 2, "grass": 2},
        "summer": {"dense": 3, "hay": 4, "grass": 3}, "autumn": {"grass": 4, "dense": 3, "bare": 1},
    },
    "set aside": {
        "spring": {"weedy": 4, "stubble": 3, "bare": 3}, "early": {"weedy": 5, "bare": 2, "grass": 1},
        "summer": {"weedy": 5, "hay": 2, "stubble": 1}, "autumn": {"weedy": 4, "stubble": 2},
    },
}  # fmt: skip
"""How often a crop looks like what at a time of the year; `bare` and `emerging` are soil with little or some green."""

ARABLE = ("winter cereal", "spring cereal", "rape", "maize", "beet", "pea", "set aside")


def rotate(
    place: np.random.Generator,
    dates: Sequence[np.random.Generator],
    headings: NDArray[np.float32],
    *,
    grass: float,
    centres: NDArray[np.float64],
) -> list[Crops]:
    """Crops for the same parcels at each date: one crop and one soil a parcel, whose looks change with the season.

    In a fifth of the scenes nothing links the dates: two years, or a sensor long after the other.
    """
    if place.random() < 0.2:
        return [sow(rng, headings, grass=grass, centres=centres) for rng in dates]
    count = len(headings)
    grown = _grown(place, count, grass=grass, centres=centres)
    soil, rows = _soil(place, count), _rows(place, headings, np.isin(grown, ["grass", "ley"]))
    names = list(SEASONS)
    seasons = [str(name) for name in place.permutation(names)[: len(dates)]]
    if place.random() < 0.25:
        seasons = [seasons[0]] * len(dates)
    return [_at(rng, grown, season, soil, rows) for rng, season in zip(dates, seasons, strict=True)]


def _grown(rng: np.random.Generator, count: int, *, grass: float, centres: NDArray[np.float64]) -> NDArray[np.str_]:
    """The crop of each parcel; some take their neighbour's, as a farm's parcels lie together."""
    weights = np.array([4.0, 2.5, 1.2, 2.0, 0.8, 0.8, 0.7]) * rng.gamma(1.0, 1.0, len(ARABLE)) + 1e-3
    drawn = rng.choice(np.array(ARABLE), count, p=weights / weights.sum())
    order = np.argsort(centres[:, 0] // 400 * 1e6 + centres[:, 1])
    same = rng.random(count) < rng.uniform(0.05, 0.25)
    for before, here in pairwise(order):
        if same[here]:
            drawn[here] = drawn[before]
    green = rng.random(count) < grass
    drawn[green] = rng.choice(np.array(["grass", "ley"]), int(green.sum()), p=[0.75, 0.25])
    return np.asarray(drawn, dtype=np.str_)


def _soil(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    first, second = rng.choice(list(SOILS), 2)
    share = rng.beta(0.8, 0.8, (count, 1)) if rng.random() < 0.5 else rng.uniform(0, 0.3, (count, 1))
    soil = np.array(SOILS[str(first)]) * (1 - share) + np.array(SOILS[str(second)]) * share
    return np.asarray(soil * np.exp(rng.normal(0, 0.10, (count, 1)) + rng.normal(0, 0.03, (count, 4))))


def _rows(rng: np.random.Generator, headings: NDArray[np.float32], green: NDArray[np.bool_]) -> dict[str, Any]:
    """What stays through the year: directions, widths of rows and headlands."""
    count = len(headings)
    return {
        "heading": headings,
        "row_m": np.exp(rng.uniform(np.log(9), np.log(40), count)).astype(np.float32),
        "row_strength": (rng.exponential(0.05, count) * (rng.random(count) < 0.7) * ~green).astype(np.float32),
        "headland_m": (rng.uniform(8, 30, count) * (rng.random(count) < 0.4) * ~green).astype(np.float32),
    }


def _at(
    rng: np.random.Generator, grown: NDArray[np.str_], season: str, soil: NDArray[np.float64], rows: Mapping[str, Any]
) -> Crops:
    count, together = len(grown), rng.uniform(0.5, 0.95)
    looks = np.full(count, "bare", dtype="<U10")
    shade = np.ones((count, 4))
    for crop in STAGES:
        here = np.flatnonzero(grown == crop)
        kinds, odds = np.array(list(STAGES[crop][season])), np.array(list(STAGES[crop][season].values()))
        usual = rng.choice(kinds, p=odds / odds.sum())
        own = rng.choice(kinds, len(here), p=odds / odds.sum())
        looks[here] = np.where(rng.random(len(here)) < together, usual, own)
        shade[here] = np.exp(rng.normal(0, 0.10) + rng.normal(0, [0.12, 0.07, 0.09, 0.07]))
    cover = np.clip(rng.normal(0.97, 0.07, count), 0.6, 1)
    cover = np.where(looks == "bare", rng.uniform(0, 0.08, count), cover)
    cover = np.where(looks == "emerging", rng.uniform(0.15, 0.6, count), cover)
    standing = np.where(np.isin(looks, ["bare", "emerging"]), "cereal", looks)
    plant = np.array([PLANTS[str(kind)] for kind in standing]).reshape(count, 4) * shade
    apart = rng.uniform(0.4, 1.0)
    plant = plant * np.exp(
        rng.normal(0, 0.10 * apart, (count, 1)) + rng.normal(0, [0.12, 0.07, 0.09, 0.07], (count, 4)) * apart
    )
    tilled = np.exp(rng.normal(0, rng.uniform(0.02, 0.15), (count, 1))) * rng.uniform(0.75, 1.1)
    calm = np.exp(rng.normal(np.log(rng.uniform(0.03, 0.10)), 0.6, count)) * rng.choice([-1, 1], count)
    patchy = rng.random(count) < rng.uniform(0, 0.5)
    return Crops(
        plant=plant.astype(np.float32),
        soil=(soil * tilled).astype(np.float32),
        cover=cover.astype(np.float32),
        uneven=(calm * np.where(np.isin(grown, ["grass", "ley", "set aside"]), 1.6, 1.0)).astype(np.float32),
        blotches=(rng.exponential(0.12, count) * rng.choice([-1, 1], count) * patchy).astype(np.float32),
        **rows,
    )
