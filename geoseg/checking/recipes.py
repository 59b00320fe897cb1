"""Which kind of recipe a file is, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from geoseg.checking.batches import check_batch
from geoseg.checking.problems import Document, Report
from geoseg.checking.runs import check_run
from geoseg.checking.trainings import check_training
from geoseg.errors import InputError
from geoseg.recipes import recipe_names

CHECKS: Mapping[str, Callable[[Document], None]] = {
    "run": check_run, "batch": check_batch, "train": check_training,
}  # fmt: skip
KINDS = tuple(CHECKS)

OF_TRAININGS = {"from", "network", "targets", "schedule", "split", "augment", "loss", "generated", "renderer", "name"}
OF_BATCHES = {"scenes", "options", "recipe", "assets"}


def check_recipe(name_or_path: str | Path, *, kind: str | None = None) -> Report:
    """All that is wrong with a recipe of `geoseg run`, `batch` or `train`; no pixel is read and nothing is written.

    Args:
        name_or_path: the YAML file, or the name of a recipe that ships with geoseg.
        kind: run, batch or train; None goes by the file's entries.

    Raises:
        InputError: where the file itself cannot be read.
    """
    path, shipped = Path(name_or_path), recipe_names()
    if not path.is_file() and str(name_or_path) in shipped:
        path = Path(str(shipped[str(name_or_path)])).resolve()
    if kind is not None and kind not in CHECKS:
        raise InputError(f"no kind of recipe {kind!r}; known: {', '.join(KINDS)}")
    document = Document.read(path)
    if not document.values:
        return Report(path=path, kind=kind or "", problems=tuple(document.problems))
    found = kind or kind_of(document.values)
    CHECKS[found](document)
    problems = sorted(document.problems, key=lambda one: (one.line is None, one.line or 0))
    return Report(path=path, kind=found, problems=tuple(problems), notes=tuple(document.notes))


def kind_of(values: Mapping[str, Any]) -> str:
    """train, batch or run, by the entries that only one of them has."""
    scenes = values.get("scenes")
    labelled = isinstance(scenes, list) and any(
        isinstance(one, dict) and {"image", "labels"} & one.keys() for one in scenes
    )
    if labelled or len(OF_TRAININGS & values.keys()) > len(OF_BATCHES & values.keys()):
        return "train"
    return "batch" if OF_BATCHES & values.keys() else "run"
