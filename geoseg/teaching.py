"""geoseg train: a recipe in, a packaged model out, scored on what was held out through the whole of a run."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely

from geoseg.disk import room_for
from geoseg.errors import RunError
from geoseg.metrics import evaluate
from geoseg.models.bundle import SPEC, WEIGHTS
from geoseg.models.pruned import RECORD as PRUNING
from geoseg.pipeline import run
from geoseg.runtime.events import Events
from geoseg.runtime.stop import Stop, signals_set
from geoseg.runtime.workspace import Workspace, write_json
from geoseg.training.bundle import write_bundle
from geoseg.training.card import card, final_spec, training_record
from geoseg.training.curves import draw_curves
from geoseg.training.folder import begin
from geoseg.training.labels import PolygonLabels
from geoseg.training.preparation import prepare_training
from geoseg.training.recipe import TrainRecipe
from geoseg.training.scenes import LabelledScene
from geoseg.training.session import fit
from geoseg.training.start import parent_of

RECORD, CARD = "training.json", "card.md"
PACKAGE = (WEIGHTS, CARD, "curves.png", RECORD, PRUNING, SPEC)
"""In the order of their move into OUT: a folder with a spec.json holds a whole model. Only pruned ones have a pruning.json."""

WRITTEN = (*PACKAGE, "metrics.csv", "tensorboard")
"""All that a training leaves in OUT."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A packaged model: `geoseg run --model OUT` takes it."""

    out: Path
    record: Mapping[str, Any]
    """What training.json holds."""


def train(
    recipe: TrainRecipe,
    *,
    out: str | Path,
    folder: str | Path = ".",
    restart: bool = False,
    events: Events | None = None,
) -> Taught:
    """Trains a model and packages it in `out`; the same call again resumes.

    Args:
        recipe: what to train, on what.
        out: folder of the packaged model.
        folder: what the recipe's paths are relative to.
        restart: begin anew, and replace what is in `out` of another training.
        events: listeners for progress.

    Raises:
        GeosegError: one clear sentence on what was found, expected, and what to do. Interrupted after Ctrl-C.
    """
    events, stop, begun = events or Events(), Stop(), time.time()
    workspace = Workspace(Path(out).absolute())
    if recipe.from_ and Path(parent_of(recipe.from_, Path(folder))).resolve() == workspace.out.resolve():
        raise RunError(f"{out} is the model to go on from, which would be replaced; choose another -o")
    with signals_set(stop):
        made = prepare_training(recipe, folder=Path(folder))
        for note in made.notes:
            events.note(note)
        with workspace.locked():
            done = begin(
                workspace, made.identity(), record=RECORD, whole=(SPEC, WEIGHTS), written=WRITTEN, restart=restart
            )
            if done is not None:
                events.note(f"{out} already holds this model; nothing to do (--restart trains it anew)")
                return Taught(out=Path(out), record=done)
            task, data = made.task(), made.data(events=events, stop=stop)
            trained = fit(task, data, recipe, folder=workspace.partial, public=workspace.out, events=events, stop=stop)
            stop.check()
            package = workspace.making
            spec = final_spec(made)
            with room_for(package):
                write_bundle(trained.state, spec, package)
                draw_curves(trained.history, package / "curves.png", title=recipe.name, kept=trained.epoch)
                seconds = time.time() - begun
                scores = [
                    score_holdout(
                        one,
                        package,
                        folder=Path(folder),
                        field_class=spec.field_class,
                        work=workspace.partial,
                        events=events,
                    )
                    for one in made.scenes
                    if one.entry.holdout
                ]
                record = training_record(made, trained, scores, data.generated, seconds=seconds)
                write_json(package / RECORD, record)
                (package / CARD).write_text(card(spec, record), encoding="utf-8")
                if made.start.pruning is not None:
                    write_json(package / PRUNING, dict(made.start.pruning))
                for name in PACKAGE:
                    if name != PRUNING or made.start.pruning is not None:
                        os.replace(package / name, workspace.out / name)
            workspace.clear()
    return Taught(out=Path(out), record=record)


def score_holdout(
    one: LabelledScene, package: Path, *, folder: Path, field_class: str, work: Path, events: Events
) -> dict[str, Any]:
    """A held out scene through the whole of a run with the packaged model, and its scores.

    `folder` is what the scene's paths are relative to, `work` holds the run while it is under way.
    """
    entry, out = one.entry, work / "holdout"
    shutil.rmtree(out, ignore_errors=True)
    events.note(f"scoring {one.scene.name}, which was held out")
    run(one.reader, out=out, model=str(package), resample=True)
    partial = entry.partial or entry.labelled_area is not None
    options: dict[str, Any] = {"partial": partial, "bootstrap": 0}
    truth: Any = folder / entry.labels
    if isinstance(one.labels, PolygonLabels):
        truth = _in_place(one, one.labels)
    elif entry.instances:
        options["truth_instances"] = True
    else:
        options["truth_class"] = (entry.values or {}).get(field_class, 1)
    scores, mask = (evaluate(out / name, truth, **options) for name in ("fields.gpkg", "mask.tif"))
    shutil.rmtree(out, ignore_errors=True)
    return {
        "scene": one.scene.name,
        "partial": partial,
        "true": scores.objects.true,
        "found": scores.objects.predicted,
        "matched": scores.objects.matched[0],
        "f1": scores.objects.f1,
        "mean_f1": scores.objects.mean_f1,
        "pq": scores.objects.pq,
        "pixel_iou": mask.pixels.field_scores.iou,
        "pixel_recall": mask.pixels.field_scores.recall,
    }


def _in_place(one: LabelledScene, labels: PolygonLabels) -> gpd.GeoDataFrame:
    """The polygons in the scene's own coordinates."""
    a, b, c, d, e, f = tuple(one.scene.transform)[:6]

    def placed(pixels: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        col, row = pixels[:, 0], pixels[:, 1]
        return np.stack([a * col + b * row + c, d * col + e * row + f], axis=1)

    return gpd.GeoDataFrame(geometry=shapely.transform(labels.parcels, placed), crs=one.scene.crs)
