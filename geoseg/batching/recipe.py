"""Recipes of `geoseg batch`: which scenes, with what options, where to. Paths are relative to the file that names them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geoseg.batching.rows import Row, TableProblem, read_rows, scene_id
from geoseg.errors import GeosegError, InputError
from geoseg.readers.places import local_path, may_be_remote
from geoseg.recipes import RunOptions, load_recipe, recipe_names

USUAL_BANDS = ("red", "green", "blue", "nir")
"""What is read of a STAC item where no model is asked for."""


ORDINARY = {"cloud"}
"""Columns that tables of scenes often have and that look like options without being meant so."""


class BatchRecipe(BaseModel):
    """What a batch's YAML file may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    scenes: str | tuple[str | dict[str, Any], ...]
    """A table (CSV, GeoParquet, STAC), a pattern, or a list of files, patterns and rows."""
    recipe: str | None = None
    """Options of a run, by file or by the name of a shipped recipe."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of a run; they win over `recipe`, and a scene's own win over them."""
    assets: tuple[str, ...] | None = None
    """Of STAC items: the keys of the assets to read, one file a band; None takes those that hold the model's bands."""
    out: str | None = None
    """Folder for the results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchScene:
    id: str
    """Name of its folder among the results; no other scene's, in upper or lower case."""
    files: tuple[str, ...]
    """One file with all bands, or one a band; absolute."""
    options: RunOptions
    """All of them: the batch's and its own."""
    place: str
    """Where it is told of, for messages."""
    entry: int | None = None
    """See Row.entry."""
    time: str | None = None
    """When the image was taken, as ISO 8601, where the table knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    source: Path
    """The YAML file."""
    scenes: tuple[BatchScene, ...]
    options: RunOptions
    """Those of all scenes that have none of their own."""
    out: Path | None
    notes: tuple[str, ...] = ()
    """What the user should know of the table."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a batch's file. Raises InputError."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"batch {path} cannot be read ({reason}); expected a YAML file, see docs/batch.md") from error
    except yaml.YAMLError as error:
        raise InputError(f"batch {path} is not YAML ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(values, dict):
        raise InputError(f"batch {path} holds no entries; expected `scenes:`, `options:` and `out:`, see docs/batch.md")
    return values


def load_batch(path: str | Path) -> Batch:
    """The batch in a YAML file, with its scenes' options checked; no scene is opened. Raises InputError."""
    source = Path(path).absolute()
    try:
        recipe = BatchRecipe.model_validate(read_yaml(source))
    except ValidationError as error:
        raise InputError(f"batch {path}: {_told(error)}") from error
    options = shared_options(recipe, source.parent)
    batch, problems = scenes_of(recipe, source, options)
    if problems:
        more = f" (and {len(problems) - 1} more: see `geoseg recipe check {path}`)" if len(problems) > 1 else ""
        raise InputError(f"batch {path}: {problems[0][0]}{more}")
    return batch


def shared_options(recipe: BatchRecipe, folder: Path) -> RunOptions:
    """`recipe:` with `options:` on top."""
    values: dict[str, Any] = {}
    if recipe.recipe is not None:
        file = folder / recipe.recipe
        if file.is_file() or recipe.recipe not in recipe_names():
            values = placed(load_recipe(str(file)), file.parent)
        else:
            values = load_recipe(recipe.recipe)
    return RunOptions.checked(**(values | placed(recipe.options, folder)))


def scenes_of(recipe: BatchRecipe, source: Path, options: RunOptions) -> tuple[Batch, list[TableProblem]]:
    """The batch, and all that is wrong with its table."""
    folder, scenes = source.parent, list[BatchScene]()
    rows, problems = read_rows(recipe.scenes, folder, wanted=bands_wanted(options), assets=recipe.assets)
    strange: dict[str, None] = {}
    seen: dict[str, str] = {}
    for row in rows:
        try:
            scene = _scene(row, options)
        except InputError as error:
            problems.append((str(error), row.entry))
        else:
            scenes.append(scene)
            if (name := scene.id.casefold()) in seen:
                told = f"{row.place}: its results would go into {scene.id!r}, as those of {seen[name]}"
                problems.append((f"{told}; give each an `id` of its own", row.entry))
            seen[name] = row.place
        strange |= dict.fromkeys(name for name in row.values if name not in RunOptions.model_fields and not _near(name))
    notes = []
    if strange:
        names, verb = ", ".join(strange), "is no option" if len(strange) == 1 else "are no options"
        notes.append(f"{names} of the table {verb} of a run and left aside")
    out = None if recipe.out is None else folder / recipe.out
    return Batch(source=source, scenes=tuple(scenes), options=options, out=out, notes=tuple(notes)), problems


def bands_wanted(options: RunOptions) -> Sequence[str]:
    """Names of the bands that the model reads; of STAC items the files that hold them are taken."""
    if options.model is None:
        return USUAL_BANDS
    from geoseg.models import load

    try:
        model = load(options.model, weights=options.weights, trust=options.trust_checkpoint)
    except GeosegError:  # told where the model itself is looked at
        return USUAL_BANDS
    return [band.name for band in model.spec.bands]


def _scene(row: Row, options: RunOptions) -> BatchScene:
    own = {name: value for name, value in row.values.items() if name in RunOptions.model_fields}
    for name in row.values.keys() - own.keys():
        if near := _near(name):
            raise InputError(f"{row.place}: {name!r} is no option of a run; did you mean {near[0]!r}?")
    given = options.model_dump(exclude_unset=True)
    if row.time is not None and "time" not in own:
        own["time"] = row.time
    try:
        mine = RunOptions.checked(**(given | placed(own, row.folder)))
    except InputError as error:
        raise InputError(f"{row.place}: {error}") from error
    files = tuple(_file(name, row.folder) for name in row.files)
    return BatchScene(id=scene_id(row), files=files, options=mine, place=row.place, entry=row.entry, time=row.time)


def _near(name: str) -> list[str]:
    """The option that was likely meant."""
    return [] if name in ORDINARY else difflib.get_close_matches(name, RunOptions.model_fields, n=1, cutoff=0.8)


def _file(name: str, folder: Path) -> str:
    path = local_path(str(folder / name))
    return name if path is None and may_be_remote(name) else str(folder / name)


def placed(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options of a run, with the files that they name relative to `folder`."""
    out = dict(values)
    if isinstance(weights := out.get("weights"), str):
        out["weights"] = str(folder / weights)
    if isinstance(aoi := out.get("aoi"), str) and aoi.count(",") != 3:
        out["aoi"] = str(folder / aoi)
    if isinstance(model := out.get("model"), str) and not _has_name(model):
        found = local_path(str(folder / model))
        out["model"] = model if found is None else str(found)
    return out


def _has_name(model: str) -> bool:
    """Whether a model goes by a name rather than a path."""
    from geoseg.models.methods import is_method
    from geoseg.models.registry import NAMED_PREFIX, bundled_names
    from geoseg.plugins import plugins

    return model in bundled_names() or is_method(model) or model in plugins("models") or model.startswith(NAMED_PREFIX)


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    known = ", ".join(BatchRecipe.model_fields)
    if first["type"] == "extra_forbidden":
        return f"entry {name!r} is not known; known: {known} (options of a run stand under `options:`)"
    if first["type"] == "missing":
        return f"entry {name!r} is missing; known: {known}"
    return f"entry {name!r}: {first['msg']} (found {first['input']!r})"
