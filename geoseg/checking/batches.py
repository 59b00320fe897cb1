"""Recipes of `geoseg batch`: the options, the table, and each scene by its header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from geoseg.batching.recipe import Batch, BatchRecipe, BatchScene, placed, scenes_of, shared_options
from geoseg.checking.problems import Document, one_line
from geoseg.checking.runs import check_names, valid_options
from geoseg.errors import GeosegError, InputError
from geoseg.protocols import Model
from geoseg.recipes import RunOptions
from geoseg.scene import Scene


def check_batch(document: Document) -> None:
    """A recipe of `geoseg batch`: every row of its table, and every scene as far as its header tells."""
    folder = document.path.absolute().parent
    recipe = _recipe(document)
    if recipe is None:
        return
    if recipe.out is None:
        document.notes.append("`out:` is not given: `geoseg batch` needs -o FOLDER")
    elif (folder / recipe.out).is_file():
        document.add(f"{folder / recipe.out} is a file; `out:` names a folder", "out")
    options = _shared(document, recipe, folder)
    batch, problems = scenes_of(recipe, document.path.absolute(), options)
    for problem, entry in problems:
        document.add(problem, *_at(entry))
    document.notes += batch.notes
    _check_scenes(document, batch)


def _recipe(document: Document) -> BatchRecipe | None:
    """What of the recipe is valid; None where that leaves nothing to look at. The rest are problems."""
    try:
        return BatchRecipe.model_validate(document.values)
    except ValidationError as error:
        document.invalid(error, BatchRecipe)
        wrong = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
    rest = {name: value for name, value in document.values.items() if name not in wrong}
    if "scenes" in rest:
        return BatchRecipe.model_validate(rest)
    if isinstance(options := rest.get("options"), dict):
        folder = document.path.absolute().parent
        check_names(document, valid_options(document, placed(options, folder), ("options",)), folder, ("options",))
    return None


def _shared(document: Document, recipe: BatchRecipe, folder: Path) -> RunOptions:
    """Those of `recipe:` and `options:` that are valid, after a look at what they name."""
    own = valid_options(document, placed(recipe.options, folder), ("options",))
    check_names(document, own, folder, ("options",))
    if any(one.entry == "options.crs" for one in document.problems):  # or every scene would fail by it
        own = RunOptions(**own.model_dump(exclude_unset=True, exclude={"crs"}))
    if recipe.recipe is None:
        return own
    try:
        base = shared_options(recipe.model_copy(update={"options": {}}), folder)
    except InputError as error:
        document.add(one_line(error), "recipe")
        return own
    both = RunOptions(**(base.model_dump(exclude_unset=True) | own.model_dump(exclude_unset=True)))
    check_names(document, both, folder, ("recipe",))
    return both


def _at(entry: int | None) -> tuple[str | int, ...]:
    return ("scenes",) if entry is None else ("scenes", entry)


def _check_scenes(document: Document, batch: Batch) -> None:
    models: dict[tuple[Any, ...], Model | GeosegError | None] = {}
    sound, told = 0, {one.message for one in document.problems}
    for scene in batch.scenes:
        options = scene.options
        key = (options.model, options.weights, options.trust_checkpoint)
        if key not in models:
            models[key] = _model(options)
        model = models[key]
        try:
            opened = opened_scene(scene)
            if not isinstance(model, GeosegError):
                check_fits(scene, opened, model)
                sound += 1
            elif options.model != batch.options.model:
                raise model
        except GeosegError as error:
            if (message := one_line(error)) not in told:  # what is wrong with all of them was told of before
                where = "" if scene.place.startswith("scenes") else f" ({scene.place})"
                document.add(f"scene {scene.id}{where}: {message}", *_at(scene.entry))
    document.notes.append(f"{sound} of {len(batch.scenes)} scenes open and fit")


def _model(options: RunOptions) -> Model | GeosegError | None:
    """None where the model is chosen for each scene."""
    from geoseg.models import load

    if options.model is None:
        return None
    try:
        return load(options.model, weights=options.weights, trust=options.trust_checkpoint)
    except GeosegError as error:
        return error


def opened_scene(scene: BatchScene) -> Scene:
    """The scene by its header. Raises InputError where it cannot be opened, or lies nowhere."""
    from geoseg.plan import check_lonlat
    from geoseg.readers import open_scene
    from geoseg.scene import check_place

    options = scene.options
    opened = open_scene(
        list(scene.files), bands=options.bands, crs=options.crs, pixel_size_m=options.pixel_size_m, scale=options.scale,
        offset=options.offset, nodata=options.nodata, on_read_error=options.on_read_error, clouds=options.clouds,
        prefer=options.prefer,
    ).scene  # fmt: skip
    check_place(opened)
    if "geojson" in options.format:
        check_lonlat(opened)
    return opened


def check_fits(scene: BatchScene, opened: Scene, model: Model | None) -> None:
    """Raises GeosegError where a scene fits neither model nor options; None chooses among the bundled models."""
    from geoseg.grid import TileGrid
    from geoseg.models import check_fit, choose
    from geoseg.runtime.area import area_of_interest

    options = scene.options
    if model is None:
        model, _ = choose(opened, allow_resample=options.resample)
    check_fit(opened, model.spec, allow_resample=options.resample)
    model.spec.class_id(options.field_class or model.spec.field_class)
    area = area_of_interest(options.aoi, opened) if options.aoi and Path(options.aoi).exists() else None
    TileGrid.fit(
        opened, model.spec, patch=options.patch, overlap=options.overlap, k=options.tile or 1,
        region=None if area is None else area.region,
    )  # fmt: skip
