"""What decides a scene's results, as values that are kept and compared; and what would make every scene fail."""

from __future__ import annotations

import hashlib
import json
import re
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


PRODUCT_METADATA = re.compile(r"^MTD_MSIL|_MTL\.(json|txt|xml)$")
"""Files that stand for the folder they lie in."""


def stamps_of(scene: BatchScene) -> list[list[Any]]:
    """Name, size and time of change of each file that is here; names alone of others."""
    found: list[list[Any]] = []
    for name in scene.files:
        try:
            found += [_stamp(path) for path in _behind(name)]
        except (OSError, ValueError):
            found.append([name])
    return found


def _stamp(path: Path) -> list[Any]:
    state = path.stat()
    return [path.name, state.st_size, state.st_mtime_ns]


def _behind(name: str) -> list[Path]:
    """The local files of a scene: itself, all of a product's folder, and the assets of a STAC item."""
    file = name.rpartition("#")[0] if "#" in name and not Path(name).exists() else name
    path = Path(file)
    if path.is_dir() or PRODUCT_METADATA.search(path.name):
        folder = path if path.is_dir() else path.parent
        return sorted(one for one in folder.rglob("*") if one.is_file())
    if path.suffix.lower() not in (".json", ".geojson"):
        return [path]
    values = json.loads(path.read_bytes())
    items = values.get("features", [values])
    links = [str(asset.get("href", "")) for item in items for asset in item.get("assets", {}).values()]
    return [path, *(one for link in links if "://" not in link and (one := path.parent / link).is_file())]


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
