"""Recipes of `geoseg train`: the network or model to begin with, and each scene and its labels by their headers.

What would be learnt from, pixel by pixel, `geoseg train RECIPE --check` tells; it takes longer.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from geoseg.checking.problems import Document, one_line
from geoseg.errors import GeosegError, InputError
from geoseg.training.recipe import SceneEntry, TrainRecipe


def check_training(document: Document) -> None:
    """A recipe of `geoseg train`. Files that it names are relative to its folder."""
    folder = document.path.absolute().parent
    recipe = None
    try:
        recipe = TrainRecipe.model_validate(document.values)
    except ValidationError as error:
        document.invalid(error, TrainRecipe)
    needed = None
    if recipe is None:
        _check_parent(document, folder)
    else:
        needed = _bands_needed(document, recipe, folder)
        _check_generated(document, recipe, folder)
    scenes = document.values.get("scenes")
    sound = 0
    for number, values in enumerate(scenes if isinstance(scenes, list) else []):
        try:
            entry = SceneEntry.model_validate(values)
        except ValidationError:
            continue  # told of above
        before = len(document.problems)
        _check_scene(document, entry, number, folder, needed)
        sound += len(document.problems) == before
    if isinstance(scenes, list):
        document.notes.append(f"{sound} of {len(scenes)} scenes and their labels open")


def _bands_needed(document: Document, recipe: TrainRecipe, folder: Path) -> tuple[str, ...] | None:
    """Bands that every scene must have; None where the start is a problem itself."""
    from geoseg.training.start import starting_point

    try:
        start = starting_point(recipe, folder=folder)
    except GeosegError as error:
        document.add(one_line(error), "network" if recipe.from_ is None else "from")
        return None
    document.notes.append(f"the network reads {', '.join(band.name for band in start.spec.bands)}")
    return start.spec.required_bands


def _check_parent(document: Document, folder: Path) -> None:
    """The model to go on from, of a recipe that is wrong in other places."""
    from geoseg.models import load
    from geoseg.training.start import parent_of

    name = document.values.get("from")
    if isinstance(name, str):
        try:
            load(parent_of(name, folder))
        except GeosegError as error:
            document.add(one_line(error), "from")


def _check_generated(document: Document, recipe: TrainRecipe, folder: Path) -> None:
    from geoseg.training.layouts import STYLES

    wanted = recipe.generated
    if wanted is None:
        return
    for style in wanted.styles or ():
        if style not in STYLES:
            document.add(f"no style {style!r}; known: {', '.join(STYLES)}", "generated", "styles")
    if wanted.gan is not None and not (folder / wanted.gan).is_dir():
        document.add(
            f"no folder {str(folder / wanted.gan)!r}; `geoseg train RECIPE --renderer` makes one", "generated", "gan"
        )


def _check_scene(
    document: Document, entry: SceneEntry, number: int, folder: Path, needed: tuple[str, ...] | None
) -> None:
    from geoseg.models.fit import band_index
    from geoseg.readers import open_scene

    at = ("scenes", number)
    try:
        scene = open_scene(
            [str(folder / name) for name in entry.images], bands=entry.bands, crs=entry.crs, pixel_size_m=entry.pixel_size_m,
            scale=entry.scale, offset=entry.offset, nodata=entry.nodata,
        ).scene  # fmt: skip
    except InputError as error:
        document.add(one_line(error), *at, "image")
    else:
        missing = [name for name in needed or () if name not in band_index(scene)]
        if missing:
            has = ", ".join(name or "one without a name" for name in scene.band_names)
            document.add(
                f"{scene.name} has the bands {has}, and {', '.join(missing)} is needed too; name them in file order with "
                f"`bands:`",
                *at, "image",
            )  # fmt: skip
    for name, layer in (("labels", "layer"), ("labelled_area", "labelled_layer")):
        told = getattr(entry, name)
        if told is not None:
            try:
                _open_labels(folder / told, getattr(entry, layer))
            except InputError as error:
                document.add(one_line(error), *at, name)


def _open_labels(path: Path, layer: str | None) -> None:
    """InputError for labels that are not there, or that neither opens as what their name says."""
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError

    from geoseg.readers import open_scene
    from geoseg.training.labels import PARQUET, RASTERS

    if not path.exists():
        raise InputError(f"no file {str(path)!r}; paths are relative to the recipe's folder")
    suffix = path.suffix.lower()
    if suffix in RASTERS:
        open_scene([str(path)], palette=True)
    elif suffix in PARQUET:
        import pyarrow
        import pyarrow.parquet

        try:
            pyarrow.parquet.read_schema(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise InputError(f"{path} is no GeoParquet file ({error})") from error
    else:
        try:
            layers = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
        except (DataSourceError, DataLayerError) as error:
            raise InputError(f"{path} cannot be opened ({error}); expected a vector file such as GeoPackage") from error
        if layer is not None and layer not in layers:
            raise InputError(f"{path} has no layer {layer!r}; it has {', '.join(layers)}")
