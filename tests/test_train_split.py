"""No pixel that a training has seen is scored: split, guard band, overlapping scenes, augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.readers.array import ArrayReader
from geoseg.results import InputScaling
from geoseg.scene import Band, Scene
from geoseg.training.augmentation import Augmentation
from geoseg.training.chips import TrainingChips, ValidationChips
from geoseg.training.recipe import Augment, SceneEntry, Split
from geoseg.training.scenes import LabelledScene, Scenes, census
from geoseg.training.split import Division, divide

PATCH = 32
UTM = CRS.from_epsg(32633)


@dataclass(frozen=True)
class Everywhere:
    """All pixels are labelled, as class 1."""

    shape: tuple[int, int]
    fields: int = 1

    def mask(self, window: Window) -> NDArray[np.uint8]:
        return np.ones(window.shape, np.uint8)

    def distance(self, window: Window) -> NDArray[np.float32]:
        return np.zeros(window.shape, np.float32)

    def fingerprint(self) -> str:
        return "all"


def scene(
    pixels: NDArray[Any], *, corner: tuple[float, float] = (500_000, 5_000_000), size: float = 10, **entry: Any
) -> LabelledScene:
    """A scene of one band whose values reach the network unchanged."""
    transform = Affine(size, 0, corner[0], 0, -size, corner[1])
    seen = Scene(shape=pixels.shape, transform=transform, crs=UTM, bands=(Band(name="red", dtype="float32"),), name="s")  # type: ignore[arg-type]
    return LabelledScene(
        entry=SceneEntry(image="x", labels="y", **entry),
        reader=ArrayReader(pixels=pixels[None].astype(np.float32), scene=seen),
        labels=Everywhere(shape=pixels.shape),  # type: ignore[arg-type]
        scaling=InputScaling(bands=(0,), gain=(1.0,), bias=(0.0,), limit=None),
    )


def divided(scenes: list[LabelledScene], **split: Any) -> Division:
    return divide(scenes, [census(one, classes=3) for one in scenes], Split(**split), patch=PATCH)


def scored(division: Division, number: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """What is validated on, pixel by pixel: all of the parts, and each only once."""
    count = np.zeros(shape, int)
    for part in division.plots[number].validation:
        count[part.slices] += 1
    assert count.max(initial=0) <= 1
    return count > 0


@settings(max_examples=12)
@given(
    rows=st.integers(2 * PATCH, 14 * PATCH), cols=st.integers(3 * PATCH, 14 * PATCH), share=st.floats(0.05, 0.5),
    seed=st.integers(0, 50), guard=st.integers(PATCH, 2 * PATCH), strong=st.booleans(),
)  # fmt: skip
def test_no_pixel_that_is_learnt_from_lies_in_the_guard_band(
    rows: int, cols: int, share: float, seed: int, guard: int, strong: bool
) -> None:
    """The scene is 1 in all that is scored and within the guard band around it, else 0: augmented chips must be 0."""
    empty = scene(np.zeros((rows, cols)))
    try:
        division = divided([empty], validation=share, seed=seed, guard_px=guard, by="blocks")
    except InputError:
        assume(False)
    near = np.zeros((rows, cols))
    for part in division.plots[0].validation:
        near[(part.grown(guard) & empty.extent).slices] = 1
    assert scored(division, 0, (rows, cols)).any()
    marked = scene(near)
    augment = Augment(brightness=0, contrast=0, colour=0, noise=0, zoom=4 if strong else 1.25, translate=0.5)
    chips = TrainingChips(Scenes([marked]), division, augment, (), seed)
    augmentation = Augmentation(augment, seed=seed)
    for step in range(6):
        drawn = [chips[step, k] for k in range(4)]
        batch = augmentation({name: torch.stack([one[name] for one in drawn]) for name in drawn[0]})
        assert not batch["image"].any()
    # All places, and all shifts of them that are allowed, keep the distance.
    for row, col in division.plots[0].corners:
        assert not near[row : row + PATCH, col : col + PATCH].any()


@settings(max_examples=10)
@given(
    shift=st.tuples(st.integers(-300, 300), st.integers(-300, 300)),
    seed=st.integers(0, 20),
    size=st.sampled_from([10, 5, 20]),
)
def test_overlapping_scenes_do_not_leak(shift: tuple[int, int], seed: int, size: float) -> None:
    """Another image of a part of the place, on another grid: no chip of one shows what is scored on the other."""
    scenes = [
        scene(np.zeros((12 * PATCH, 13 * PATCH))),
        scene(
            np.zeros((12 * PATCH, 12 * PATCH)),
            corner=(500_000 + 10.0 * shift[0], 5_000_000 + 10.0 * shift[1]),
            size=size,
        ),
    ]
    try:
        division = divided(scenes, seed=seed, by="blocks")
    except InputError:
        assume(False)
    places = [
        [_on_ground(one, part) for part in plot.validation] for one, plot in zip(scenes, division.plots, strict=True)
    ]
    every = shapely.union_all([box for boxes in places for box in boxes])
    for one, plot in zip(scenes, division.plots, strict=True):
        chips = [_on_ground(one, Window(int(row), int(col), PATCH, PATCH)) for row, col in plot.corners]
        if chips:
            assert shapely.distance(np.array(chips, object), every).min() >= PATCH * one.scene.transform.a - 1e-3


def _on_ground(one: LabelledScene, window: Window) -> Any:
    left, top = one.scene.transform @ (window.col, window.row)
    right, bottom = one.scene.transform @ (window.col_stop, window.row_stop)
    return shapely.box(left, bottom, right, top)


def test_two_dates_of_one_place_are_split_alike() -> None:
    shape = (12 * PATCH, 12 * PATCH)
    scenes = [scene(np.zeros(shape)), scene(np.ones(shape))]
    division = divided(scenes, by="blocks", validation=0.15)
    first, second = (scored(division, i, shape) for i in (0, 1))
    assert first.any()
    both = [set(map(tuple, plot.corners.tolist())) for plot in division.plots]
    assert both[0] == both[1]
    assert (first & second).sum() >= 0.5 * max(first.sum(), second.sum())


def test_a_holdout_is_kept_from_training_and_validation_where_it_overlaps_them() -> None:
    scenes = [
        scene(np.zeros((8 * PATCH, 20 * PATCH)), validation=True),
        scene(np.ones((8 * PATCH, 20 * PATCH)), corner=(500_000, 5_000_000 - 80.0 * PATCH)),
        scene(np.full((4 * PATCH, 4 * PATCH), 2.0), corner=(500_000, 5_000_000 - 60.0 * PATCH), holdout=True),
    ]
    division = divided(scenes)
    held = _on_ground(scenes[2], scenes[2].extent)
    assert not division.plots[2].validation
    assert not len(division.plots[2].corners)
    for part in division.plots[0].validation:
        assert _on_ground(scenes[0], part).intersection(held).area == 0
    assert len(division.plots[0].validation) > 100
    for row, col in division.plots[1].corners:
        box = _on_ground(scenes[1], Window(int(row), int(col), PATCH, PATCH))
        assert box.distance(held) >= 10 * PATCH - 1e-3


@pytest.mark.parametrize("shape", [(9 * PATCH + 5, 7 * PATCH + 11), (PATCH - 3, 12 * PATCH)])
def test_validation_chips_score_each_pixel_once(shape: tuple[int, int]) -> None:
    values = np.arange(shape[0] * shape[1], dtype=float).reshape(shape) + 1
    scenes = [scene(values, validation=True), scene(np.zeros((100, 100)), corner=(600_000, 5_000_000))]
    chips = ValidationChips(Scenes(scenes), divided(scenes))
    seen = [chips[i] for i in range(len(chips))]
    counted = torch.cat([one["image"][0][one["mask"] != 255] for one in seen])
    assert sorted(counted.tolist()) == values.astype(np.float32).ravel().tolist()


def test_scenes_are_drawn_by_content_not_by_order() -> None:
    scenes = [scene(np.full((100, 100), float(i)), corner=(500_000 + 1e5 * i, 5_000_000)) for i in range(5)]

    def validated(order: list[int]) -> set[int]:
        division = divided([scenes[i] for i in order])
        return {i for i, plot in zip(order, division.plots, strict=True) if plot.validation}

    assert len(validated([0, 1, 2, 3, 4])) == 1
    assert validated([0, 1, 2, 3, 4]) == validated([3, 1, 4, 0, 2])
