"""What decides a scene's results, as values that are kept and compared; and what would make every scene fail."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoseg.batching.recipe import BatchScene
from geoseg.errors import EngineError, GeosegError
from geoseg.plugins import load_plugin
from geoseg.recipes import RunOptions
from geoseg.runtime.workspace import Identity
from geoseg.version import VERSION

HOW = {"weights", "trust_checkpoint", "tile", "workers", "max_memory", "scheduler", "allow_mixed_engines"}
"""Options that say how to run: results are the same whatever they are (weights count by the model's fingerprint)."""

Models = dict[tuple[str, str | None], dict[str, str]]
"""Name and fingerprint of each model that was looked at."""


def settings_of(scene: BatchScene, models: Models) -> dict[str, Any]:
    """What decides the results of a scene but for its pixels, as JSON values; models and areas count by content."""
    options = scene.options
    values = options.model_dump(mode="json", exclude_unset=True, exclude_defaults=True, exclude=HOW)
    if options.model is not None:
        values["model"] = _model(options, models)
    if options.aoi is not None and (path := Path(options.aoi)).is_file():
        values["aoi"] = f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    return {**values, "geoseg": VERSION}


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The entries that differ, each as `name: theirs there, ours now`."""
    return Identity(values=now).differences(there)


def stamps_of(scene: BatchScene) -> list[list[Any]]:
    """Name, size and time of change of each file that is here; names alone of others."""
    found: list[list[Any]] = []
    for name in scene.files:
        try:
            state = Path(name).stat()
            found.append([Path(name).name, state.st_size, state.st_mtime_ns])
        except (OSError, ValueError):
            found.append([name])
    return found


def check_shared(options: RunOptions) -> None:
    """Raises GeosegError for what would make every scene fail: an unknown or broken model, engine or vectorizer."""
    from geoseg.engines import choose_engine
    from geoseg.engines.registry import engines
    from geoseg.models import load

    if options.instances != "auto":
        load_plugin("vectorizers", options.instances)
    if options.model is None:
        if options.engine not in ("auto", *engines()):
            raise EngineError(f"no engine {options.engine!r}; known: auto, {', '.join(engines())}")
        return
    model = load(options.model, weights=options.weights, trust=options.trust_checkpoint)
    choose_engine(model, name=options.engine, precision=options.precision)
    if options.field_class is not None:
        model.spec.class_id(options.field_class)


def _model(options: RunOptions, models: Models) -> dict[str, str]:
    from geoseg.models import load

    key = (str(options.model), options.weights)
    if key not in models:
        try:
            model = load(str(options.model), weights=options.weights, trust=options.trust_checkpoint)
            models[key] = {"name": model.spec.name, "fingerprint": model.fingerprint()}
        except GeosegError:  # the run will say why
            return {"name": str(options.model)}
    return models[key]
