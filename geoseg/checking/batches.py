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


def check_batch(document: Document) -> None:
    """A recipe of `geoseg batch`: every row of its table, and every scene as far as its header tells."""
    folder = document.path.absolute().parent
    options_given = document.values.get("options")
    if isinstance(options_given, dict):
        if valid := valid_options(document, placed(options_given, folder), ("options",)):
            check_names(document, valid, folder, ("options",))
    try:
        recipe = BatchRecipe.model_validate(document.values)
    except ValidationError as error:
        document.invalid(error, BatchRecipe)
        known = {name: value for name, value in document.values.items() if name in BatchRecipe.model_fields}
        wrong = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
        rest = {name: value for name, value in known.items() if name not in wrong}
        if "scenes" not in rest:
            return
        recipe = BatchRecipe.model_validate(rest)
    if recipe.out is None:
        document.notes.append("`out:` is not given: `geoseg batch` needs -o FOLDER")
    elif (folder / recipe.out).is_file():
        document.add(f"{folder / recipe.out} is a file; `out:` names a folder", "out")
    options = _shared(document, recipe, folder)
    try:
        batch, problems = scenes_of(recipe, document.path.absolute(), options or RunOptions())
    except InputError as error:
        document.add(one_line(error), "scenes")
        return
    for problem in problems:
        document.add(problem, "scenes")
    document.notes += batch.notes
    if options is not None:
        _check_scenes(document, batch)


def _shared(document: Document, recipe: BatchRecipe, folder: Path) -> RunOptions | None:
    """`recipe:` and `options:` together; None where they are no options, which is a problem already or one now."""
    if recipe.recipe is not None:
        try:
            shared_options(recipe.model_copy(update={"options": {}}), folder)
        except InputError as error:
            document.add(one_line(error), "recipe")
            return None
    try:
        options = shared_options(recipe, folder)
    except InputError:
        return None
    if recipe.recipe is not None:
        check_names(document, options, folder, ("recipe",))
    return options


def _check_scenes(document: Document, batch: Batch) -> None:
    models: dict[tuple[Any, ...], Model | None] = {}
    sound = 0
    for scene in batch.scenes:
        options = scene.options
        key = (options.model, options.weights, options.trust_checkpoint)
        try:
            if key not in models:
                models[key] = None
                models[key] = _model(options)
            if options.model is None or models[key] is not None:
                check_scene(scene, models[key])
                sound += 1
        except GeosegError as error:
            shared = options.model == batch.options.model and key in models and models[key] is None and options.model
            if not shared:  # a model that all scenes lack was told of before
                document.add(f"scene {scene.id} ({scene.place}): {one_line(error)}", "scenes")
    document.notes.append(f"{sound} of {len(batch.scenes)} scenes open and fit")


def _model(options: RunOptions) -> Model | None:
    from geoseg.models import load

    if options.model is None:
        return None
    return load(options.model, weights=options.weights, trust=options.trust_checkpoint)


def check_scene(scene: BatchScene, model: Model | None) -> None:
    """Raises GeosegError for a scene that cannot be opened, or that does not fit the model or the options; by its header alone."""
    from geoseg.grid import TileGrid
    from geoseg.models import check_fit, choose
    from geoseg.plan import check_lonlat
    from geoseg.readers import open_scene
    from geoseg.runtime.area import area_of_interest
    from geoseg.scene import check_place

    options = scene.options
    opened = open_scene(
        list(scene.files), bands=options.bands, crs=options.crs, pixel_size_m=options.pixel_size_m, scale=options.scale,
        offset=options.offset, nodata=options.nodata, on_read_error=options.on_read_error,
    ).scene  # fmt: skip
    check_place(opened)
    if "geojson" in options.format:
        check_lonlat(opened)
    if model is None:
        model, _ = choose(opened, allow_resample=options.resample)
    check_fit(opened, model.spec, allow_resample=options.resample)
    model.spec.class_id(options.field_class or model.spec.field_class)
    area = area_of_interest(options.aoi, opened) if options.aoi else None
    TileGrid.fit(
        opened, model.spec, patch=options.patch, overlap=options.overlap, k=options.tile or 1,
        region=None if area is None else area.region,
    )  # fmt: skip
