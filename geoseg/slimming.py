"""`geoseg models prune --recipe`: a model pruned, trained again as a recipe says, and scored before, between and after."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import ModelError
from geoseg.models.bundle import BundleModel
from geoseg.models.pruned import PruneOptions, read_pruning
from geoseg.pruning import packaged, prune_model, write_record
from geoseg.runtime.events import Events
from geoseg.teaching import score_holdout, train
from geoseg.training.preparation import prepare_training
from geoseg.training.scenes import LabelledScene
from geoseg.version import VERSION

if TYPE_CHECKING:
    from geoseg.training.recipe import TrainRecipe

BETWEEN = ".pruned"
"""Folder in OUT of the pruned model until it is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slimmed:
    out: Path
    pruning: Mapping[str, Any]
    """What pruning.json holds."""
    training: Mapping[str, Any]
    """What training.json holds."""


def prune_and_train(
    name: str | Path,
    *,
    out: Path,
    options: PruneOptions,
    recipe: Callable[[Path], TrainRecipe],
    folder: Path,
    restart: bool = False,
    events: Events | None = None,
    **settings: Any,
) -> Slimmed:
    """Prunes a packaged model and trains what is left; the same call again resumes.

    Scenes of the recipe that are held out are run through with the model before it was pruned, and after.

    Args:
        name: of a bundled model, or a folder with a spec.json.
        out: folder of the pruned and trained package.
        options: what is taken away.
        recipe: the recipe that goes on `from` a folder.
        folder: what the recipe's paths are relative to.
        restart: begin anew, and replace what is in `out` of another training.
        events: listeners for progress.
        settings: of geoseg.pruning.prune_model.

    Raises GeosegError.
    """
    events, between = events or Events(), (out / BETWEEN).absolute()
    whole = packaged(name)
    if out.resolve() == whole.folder.resolve():
        raise ModelError(f"{out} is the model to prune, which would be replaced; choose another folder with -o")
    wanted = recipe(between)
    earlier = [read_pruning(each) for each in (between, out)]  # of an attempt that was stopped, or that was finished
    made = prune_model(
        whole.folder, out=between, options=options, title=f"{whole.spec.name}-pruned", overwrite=True, **settings
    )
    scenes = prepare_training(wanted, folder=folder).scenes
    key = {
        "of": whole.fingerprint(), "to": made.model.fingerprint(), "recipe": wanted.decisive() | {"from": None},
        "data": [[one.scene.name, one.entry.holdout, one.fingerprint()] for one in scenes], "geoseg": VERSION,
    }  # fmt: skip
    record = {**made.record, "scored": hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()}
    known = next((one for one in earlier if one and one.get("scored") == record["scored"]), None)
    record["scores"] = (
        known["scores"] if known else _scores(whole, made.model, scenes, folder=folder, work=between, events=events)
    )
    write_record(made.model, record)
    taught = train(wanted, out=out, folder=folder, restart=restart, events=events)
    shutil.rmtree(between, ignore_errors=True)
    return Slimmed(out=out, pruning=record, training=taught.record)


def _scores(
    whole: BundleModel, slim: BundleModel, scenes: Sequence[LabelledScene], *, folder: Path, work: Path, events: Events
) -> dict[str, list[dict[str, Any]]]:
    """Of the held out scenes, before and after pruning."""
    return {
        when: [
            score_holdout(
                one, model.folder, folder=folder, field_class=model.spec.field_class, work=work, events=events
            )
            for one in scenes
            if one.entry.holdout
        ]
        for when, model in (("before", whole), ("after", slim))
    }
