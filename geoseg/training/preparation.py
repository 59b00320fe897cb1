"""What is settled before the first step: scenes, split, first weights; and what `geoseg train --check` tells."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geoseg.errors import InputError
from geoseg.runtime.events import Events
from geoseg.runtime.stop import Stop
from geoseg.training.chips import ChipData, GeneratedChips, TrainingChips, ValidationChips
from geoseg.training.generated import GeneratedPlan, plan_generated
from geoseg.training.instance_task import InstanceTask
from geoseg.training.labels import PolygonLabels
from geoseg.training.losses import class_weights
from geoseg.training.recipe import TrainRecipe
from geoseg.training.scenes import Census, LabelledScene, Scenes, census, open_scenes, optional_channels
from geoseg.training.split import Division, divide, role_of
from geoseg.training.start import Start, starting_point
from geoseg.training.task import TrainingTask
from geoseg.version import VERSION

FEW_CHIPS = 8
"""Places for chips below which a training is warned of."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    recipe: TrainRecipe
    start: Start
    scenes: tuple[LabelledScene, ...]
    counts: tuple[Census, ...]
    division: Division
    generated: GeneratedPlan | None = None

    @property
    def learnt(self) -> tuple[int, ...]:
        """Numbers of the scenes that are learnt from."""
        return tuple(i for i, plot in enumerate(self.division.plots) if len(plot.corners))

    @property
    def class_pixels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(class,) labelled pixels of the scenes that are learnt from."""
        return np.asarray(np.sum([self.counts[i].classes for i in self.learnt], axis=0))

    def identity(self) -> Mapping[str, Any]:
        """What decides the weights: recipe, content of all files, first weights, version."""
        values = {
            "recipe": self.recipe.decisive(),
            "data": [one.fingerprint() for one in self.scenes],
            "from": self.start.fingerprint,
            "geoseg": VERSION,
        }
        return values if self.generated is None else {**values, "generated": self.generated.identity()}

    def task(self) -> TrainingTask:
        network, fresh = self.start.network(seed=self.recipe.seed)
        if fresh:
            log.info("new weights: %s", ", ".join(fresh))
        weights = class_weights(self.recipe.loss, torch.from_numpy(self.class_pixels))
        kind = TrainingTask if self.start.spec.instances is None else InstanceTask
        return kind(network, self.recipe, self.start.spec, weights)

    def data(self, *, events: Events | None = None, stop: Stop | None = None) -> ChipData:
        """All chips; generated scenes are made now."""
        scenes, plan, batch = Scenes(self.scenes), self.generated, self.recipe.schedule.batch
        generated = None
        if plan is not None:
            made = Scenes(plan.make(events=events, stop=stop))
            names = tuple(band.name for band in self.start.spec.bands[:3])
            colours = names == ("red", "green", "blue") if plan.wanted.kind == "procedural" else None
            generated = GeneratedChips(made, plan.wanted.share, batch, self.division.patch, colours)
        training = TrainingChips(
            scenes, self.division, self.recipe.augment, optional_channels(self.start.spec), self.recipe.seed, generated
        )
        return ChipData(training, ValidationChips(scenes, self.division), self.recipe.schedule)

    @property
    def notes(self) -> list[str]:
        """What a user should know before the first step."""
        notes = [note for one in self.scenes if isinstance(one.labels, PolygonLabels) for note in one.labels.notes]
        sizes = [size for one in self.scenes if (size := one.scene.resolution_m()) is not None]
        if sizes and max(sizes) > 2 * min(sizes):
            notes.append(
                f"pixels are {min(sizes):.3g} to {max(sizes):.3g} m: fields look different at such sizes; "
                f"`resolution_m:` brings the scenes to one"
            )
        places = sum(len(plot.corners) for plot in self.division.plots)
        if places < FEW_CHIPS:
            notes.append(f"only {places} places for chips to learn from: expect a model that knows these by heart")
        scored = sum(len(plot.validation) for plot in self.division.plots)
        notes.append(
            f"{places} places for chips of {self.division.patch} px to learn from, {scored} to validate on, "
            f"split by {self.division.by}, {self.division.guard} px apart"
        )
        if self.generated is not None:
            notes.append(self.generated.told())
        return notes

    def table(self) -> list[dict[str, Any]]:
        """One entry a scene: what it is used for, and what its labels hold."""
        return [
            {
                "scene": one.scene.name,
                "role": role_of(plot, one),
                "size": list(one.scene.shape),
                "resolution_m": None if (size := one.scene.resolution_m()) is None else round(size, 3),
                "fields": one.labels.fields,
                "labelled": round(float(count.classes.sum()) / one.extent.size, 4),
                "chip_places": len(plot.corners),
                "validation_chips": len(plot.validation),
            }
            for one, plot, count in zip(self.scenes, self.division.plots, self.counts, strict=True)
        ]


def prepare_training(recipe: TrainRecipe, *, folder: Path) -> Preparation:
    """Opens all that a recipe names and checks that it fits together. Raises GeosegError for what does not."""
    start = starting_point(recipe, folder=folder)
    spec, names = start.spec, recipe.targets.names
    scenes = tuple(open_scenes(recipe, spec, folder=folder))
    counts = tuple(census(one, classes=len(names)) for one in scenes)
    for one, count in zip(scenes, counts, strict=True):
        if not count.classes.sum():
            raise InputError(f"no pixel of {one.scene.name} is labelled; check its labels, labelled_area and values")
    division = divide(scenes, counts, recipe.split, patch=recipe.patch)
    generated = plan_generated(recipe, spec, scenes, division, folder=folder)
    made = Preparation(recipe=recipe, start=start, scenes=scenes, counts=counts, division=division, generated=generated)
    pixels = made.class_pixels
    absent = [name for name, count in zip(names, pixels, strict=True) if not count]
    if absent:
        raise InputError(
            f"the class {', '.join(absent)} occurs nowhere in what is learnt from (found "
            f"{', '.join(f'{name} {share:.1%}' for name, share in zip(names, pixels / pixels.sum(), strict=True))}); "
            f"{_remedy(absent, recipe)}"
        )
    return made


def _remedy(absent: list[str], recipe: TrainRecipe) -> str:
    if "background" in absent and any(scene.partial for scene in recipe.scenes):
        return "with partial labels raise buffer_px, or give labelled_area"
    if "boundary" in absent:
        return "add `instances: true` for a raster of field numbers, or set targets.boundary_px to 0"
    return "check the labels, or take it out of targets.classes"
