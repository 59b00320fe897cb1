"""Chips: what a training step sees. Chip k of step n is decided by (seed, n, k) alone, whatever was drawn before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from geoseg.grid import Window
from geoseg.training.recipe import Augment, Schedule
from geoseg.training.samples import varied, worn
from geoseg.training.scenes import COARSE, LabelledScene, Piece, Scenes
from geoseg.training.split import Division, chip_window
from geoseg.training.targets import IGNORE

Item = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class GeneratedChips:
    """Chips of generated scenes. Which of a training's chips they are is fixed: the others do not notice."""

    scenes: Scenes
    share: float
    batch: int
    patch: int
    colours: bool | None = None
    """Whether the first three channels are red, green and blue; None for scenes that have a real sensor's look already."""

    def takes(self, step: int, number: int) -> bool:
        """Whether that chip is a generated one: evenly over the training, `share` of all."""
        before = step * self.batch + number
        return math.floor((before + 1) * self.share) > math.floor(before * self.share)

    def read(self, rng: np.random.Generator) -> Piece:
        """Any chip of any scene; one that is painted by rules goes through the sensors that the bundled models learnt from."""
        number = int(rng.integers(len(self.scenes.scenes)))
        rows, cols = self.scenes.scenes[number].scene.shape
        row, col = (int(rng.integers(length - self.patch + 1)) for length in (rows, cols))
        piece = self.scenes.read(number, Window(row, col, self.patch, self.patch))
        if self.colours is None:
            return piece
        seen = worn(varied(piece.pixels, rng) if self.colours else piece.pixels, rng)
        return replace(piece, pixels=np.where(piece.pixels == 0, piece.pixels, seen))  # what is missing stays so


@dataclass(frozen=True, slots=True)
class TrainingChips(Dataset[Item]):
    """Chips to learn from, by (step, number within the batch)."""

    scenes: Scenes
    division: Division
    augment: Augment
    optional: tuple[int, ...]
    """Input channels that are dropped at times."""
    seed: int
    generated: GeneratedChips | None = None

    def window(self, rng: np.random.Generator) -> tuple[int, Window]:
        """A scene, drawn by how many chips it has, and a chip of it."""
        plots, patch = self.division.plots, self.division.patch
        ends = np.cumsum([len(plot.corners) for plot in plots])
        drawn = int(rng.integers(ends[-1]))
        number = int(np.searchsorted(ends, drawn, side="right"))
        row, col = plots[number].corners[drawn - ends[number]]
        rows, cols = self.scenes.scenes[number].scene.shape
        shift = rng.integers(-COARSE // 2, COARSE // 2, 2)
        moved = Window(
            min(max(0, int(row + shift[0])), max(0, rows - patch)),
            min(max(0, int(col + shift[1])), max(0, cols - patch)),
            patch,
            patch,
        )
        return number, moved if self.division.allowed(number, moved) else Window(int(row), int(col), patch, patch)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        rng = np.random.default_rng((self.seed, *key))
        if self.generated is not None and self.generated.takes(*key):
            piece = self.generated.read(rng)
        else:
            piece = self.scenes.read(*self.window(rng))
        pixels = recoloured(piece.pixels, rng, strength=self.augment.colour)
        if self.optional and rng.random() < self.augment.drop_optional:
            pixels[list(self.optional)] = 0
        return {**_tensors(piece, pixels), "step": torch.tensor(key[0])}


@dataclass(frozen=True, slots=True)
class ValidationChips(Dataset[Item]):
    """Chips to validate on; what is not to be scored is unknown in them."""

    scenes: Scenes
    division: Division

    @property
    def places(self) -> list[tuple[int, Window]]:
        return [(i, part) for i, plot in enumerate(self.division.plots) for part in plot.validation]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Item:
        number, part = self.places[index]
        window = chip_window(part, self.scenes.scenes[number].extent, self.division.patch)
        piece = self.scenes.read(number, window)
        mask = np.full_like(piece.mask, IGNORE)
        scored = part.within(window).slices
        mask[scored] = piece.mask[scored]
        return _tensors(Piece(pixels=piece.pixels, mask=mask, distance=piece.distance), piece.pixels)


def recoloured(pixels: NDArray[np.float32], rng: np.random.Generator, *, strength: float) -> NDArray[np.float32]:
    """A gain and an offset for each band by itself: what other light, soils and seasons do to a scene's percentiles."""
    bands = len(pixels)
    gain = np.exp(rng.uniform(-strength, strength, bands)).astype(np.float32)
    offset = rng.uniform(-strength, strength, bands).astype(np.float32)
    seen: NDArray[np.bool_] = np.any(pixels, axis=0, keepdims=True)  # no data stays zeros
    present: NDArray[np.bool_] = np.any(pixels, axis=(1, 2), keepdims=True)
    changed = pixels * gain[:, None, None] + offset[:, None, None]
    return np.where(seen & present, changed, pixels).astype(np.float32)


def _tensors(piece: Piece, pixels: NDArray[np.float32]) -> Item:
    item = {"image": torch.from_numpy(pixels), "mask": torch.from_numpy(piece.mask.astype(np.int64))}
    if piece.distance is not None:
        item["distance"] = torch.from_numpy(piece.distance)
    return item


class Steps(Sampler[list[tuple[int, int]]]):
    """The batches of the epoch that begins, as (step, number) keys."""

    def __init__(self, schedule: Schedule, epoch: Callable[[], int]) -> None:
        self.schedule, self.epoch = schedule, epoch

    def __len__(self) -> int:
        return self.schedule.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.epoch() * self.schedule.steps
        for step in range(first, first + self.schedule.steps):
            yield [(step, k) for k in range(self.schedule.batch)]


class ChipData(L.LightningDataModule):
    """The chips as Lightning takes them."""

    def __init__(self, training: TrainingChips, validation: ValidationChips, schedule: Schedule) -> None:
        super().__init__()
        self.training, self.validation, self.schedule = training, validation, schedule

    @property
    def generated(self) -> Sequence[LabelledScene]:
        """The generated scenes among those that are learnt from."""
        return () if self.training.generated is None else self.training.generated.scenes.scenes

    def train_dataloader(self) -> DataLoader[Item]:
        steps: Any = Steps(self.schedule, self._epoch)
        return DataLoader(self.training, batch_sampler=steps, num_workers=self.schedule.workers)

    def val_dataloader(self) -> DataLoader[Item]:
        # The scenes' cells live in this process: validation needs no others.
        return DataLoader(self.validation, batch_size=self.schedule.batch)

    def _epoch(self) -> int:
        return 0 if self.trainer is None else int(self.trainer.current_epoch)
