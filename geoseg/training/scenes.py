"""Scenes with labels: pixels as the model will see them and targets, read by cells that are kept while there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.models.fit import band_problem
from geoseg.models.scaling import input_scaling
from geoseg.protocols import Reader
from geoseg.readers import open_scene, resampled
from geoseg.results import InputScaling
from geoseg.scene import Scene, check_place
from geoseg.spec import ModelSpec
from geoseg.training.labels import Labels, open_labels
from geoseg.training.recipe import SceneEntry, TrainRecipe
from geoseg.training.targets import IGNORE

CELL = 512
"""Side in pixels of what is read and kept at a time."""

COARSE = 32
"""Side in pixels of the squares by which labels are counted."""

KEPT_BYTES = 512 * 2**20
"""Cells kept in memory."""

Role = Literal["training", "validation", "holdout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledScene:
    entry: SceneEntry
    reader: Reader
    labels: Labels
    scaling: InputScaling
    distance: bool = False
    """Whether the distance to fields' edges is a target, too."""

    @property
    def scene(self) -> Scene:
        return self.reader.scene

    @property
    def extent(self) -> Window:
        return Window(0, 0, *self.scene.shape)

    def fingerprint(self) -> dict[str, str]:
        """Hashes of the pixels and of the labels as they are used."""
        return {"image": self.reader.content_hash(), "labels": self.labels.fingerprint()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A window of a scene, scaled but not yet limited."""

    pixels: NDArray[np.float32]
    """(channel, row, col), zeros where there is no data and for missing bands."""
    mask: NDArray[np.uint8]
    """(row, col) class ids, 255 where nothing is known or there is no data."""
    distance: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """How many pixels of which class a scene's labels hold, and where."""

    classes: NDArray[np.int64]
    """(class,) pixels."""
    known: NDArray[np.int64]
    """(row, col) labelled pixels of each COARSE x COARSE square."""


def open_scenes(recipe: TrainRecipe, spec: ModelSpec, *, folder: Path) -> list[LabelledScene]:
    """All scenes of a recipe with their labels. Raises InputError or ModelError for the first that is wrong."""
    opened = [_open(entry, recipe, spec, folder=folder) for entry in recipe.scenes]
    seen: dict[str, SceneEntry] = {}
    for one in opened:
        for key in (one.reader.content_hash(), *(str((folder / name).resolve()) for name in one.entry.images)):
            other = seen.setdefault(key, one.entry)
            if other is not one.entry:
                raise InputError(
                    f"{one.scene.name} is given twice (as {other.images[0]} and {one.entry.images[0]}): the same pixels "
                    f"would be counted twice, or learnt from and scored; leave one out"
                )
    return opened


def _open(entry: SceneEntry, recipe: TrainRecipe, spec: ModelSpec, *, folder: Path) -> LabelledScene:
    reader: Reader = open_scene(
        [str(path) if (path := folder / name).exists() else name for name in entry.images], bands=entry.bands,
        crs=entry.crs, pixel_size_m=entry.pixel_size_m, scale=entry.scale, offset=entry.offset, nodata=entry.nodata,
        clouds="mask",
    )  # fmt: skip
    check_place(reader.scene)
    if problem := band_problem(reader.scene, spec):
        raise InputError(f"{problem.replace('--bands', '`bands:` of the scene in the recipe')}")
    size, wanted = reader.scene.resolution_m(), recipe.resolution_m
    if wanted is not None and size is not None and not 0.99 * wanted <= size <= 1.01 * wanted:
        reader = resampled(reader, wanted)
    else:
        wanted = None
    labels = open_labels(entry, reader.scene, recipe.targets, folder=folder, pixel_size_m=wanted)
    return LabelledScene(
        entry=entry, reader=reader, labels=labels, scaling=input_scaling(reader, spec), distance=recipe.targets.distance
    )


def census(one: LabelledScene, *, classes: int) -> Census:
    """Counts the labels of a scene, cell by cell."""
    rows, cols = one.scene.shape
    counts = np.zeros(classes, dtype=np.int64)
    known = np.zeros((-(-rows // COARSE), -(-cols // COARSE)), dtype=np.int64)
    for cell in cells(one.extent, one.extent):
        mask = one.labels.mask(cell)
        counts += np.bincount(mask.ravel(), minlength=256)[:classes]
        sums = np.add.reduceat(mask != IGNORE, np.arange(0, cell.height, COARSE), axis=0, dtype=np.int64)
        sums = np.add.reduceat(sums, np.arange(0, cell.width, COARSE), axis=1)
        row, col = cell.row // COARSE, cell.col // COARSE
        known[row : row + sums.shape[0], col : col + sums.shape[1]] = sums
    return Census(classes=counts, known=known)


def cells(window: Window, extent: Window) -> Iterator[Window]:
    """The cells of a scene that a window touches."""
    part = window & extent
    for row in range(part.row // CELL * CELL, part.row_stop, CELL):
        for col in range(part.col // CELL * CELL, part.col_stop, CELL):
            yield Window(row, col, CELL, CELL) & extent


@dataclass(slots=True)
class Scenes:
    """Reads windows of scenes; the cells used last stay in memory."""

    scenes: Sequence[LabelledScene]
    room: int = KEPT_BYTES
    _kept: OrderedDict[tuple[int, Window], tuple[Any, ...]] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def read(self, number: int, window: Window) -> Piece:
        """The window of scene `number`; what lies beyond the scene is unknown and zeros."""
        one = self.scenes[number]
        channels = len(one.scaling.bands)
        pixels = np.zeros((channels, *window.shape), dtype=np.float32)
        mask = np.full(window.shape, IGNORE, dtype=np.uint8)
        distance = np.zeros(window.shape, dtype=np.float32) if one.distance else None
        for cell in cells(window, one.extent):
            stored, valid, known, far = self._cell(number, cell)
            part = cell & window
            here, there = part.within(window).slices, part.within(cell).slices
            pixels[:, *here] = _scaled(stored[:, *there], valid[there], one.scaling)
            mask[here] = np.where(valid[there], known[there], IGNORE)
            if distance is not None:
                distance[here] = far[there]
        return Piece(pixels=pixels, mask=mask, distance=distance)

    def _cell(self, number: int, cell: Window) -> tuple[Any, ...]:
        if (found := self._kept.get((number, cell))) is not None:
            self._kept.move_to_end((number, cell))
            return found
        one = self.scenes[number]
        block = one.reader.read(cell, [band for band in one.scaling.bands if band is not None])
        far = one.labels.distance(cell) if one.distance else np.empty(0, np.float32)
        made = (block.pixels, block.valid, one.labels.mask(cell), far)
        self._kept[number, cell] = made
        self._bytes += sum(part.nbytes for part in made)
        while self._bytes > self.room and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._bytes -= sum(part.nbytes for part in old)
        return made


def _scaled(stored: NDArray[Any], valid: NDArray[np.bool_], scaling: InputScaling) -> NDArray[np.float32]:
    """As engines scale, but for the limit: x = stored * gain + bias, zeros without data."""
    scaled = np.zeros((len(scaling.bands), *valid.shape), dtype=np.float32)
    present = [channel for channel, band in enumerate(scaling.bands) if band is not None]
    for values, channel in zip(stored, present, strict=True):
        x = values.astype(np.float32) * np.float32(scaling.gain[channel]) + np.float32(scaling.bias[channel])
        scaled[channel] = np.where(valid, x, 0)
    return scaled


def optional_channels(spec: ModelSpec) -> tuple[int, ...]:
    """Input channels that may be missing."""
    return tuple(i for i, band in enumerate(spec.bands) if band.optional)
