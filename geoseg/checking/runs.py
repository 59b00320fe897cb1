"""Options of a run: their values, and whether what they name is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from geoseg.checking.problems import Document, Loc, one_line
from geoseg.errors import GeosegError
from geoseg.protocols import Model
from geoseg.recipes import RunOptions

PATCH_CELLS = 4
"""Patches along the side of a scene that a patch is tried on."""


def check_run(document: Document) -> None:
    """A recipe of `geoseg run`. Files that it names are relative to where the command is given."""
    values = {name: value for name, value in document.values.items() if name != "description"}
    model = check_names(document, valid_options(document, values, ()), Path())
    if model is not None:
        document.notes.append(f"model {model.spec.name} reads {', '.join(band.name for band in model.spec.bands)}")


def valid_options(document: Document, values: Mapping[str, Any], under: Loc) -> RunOptions:
    """Those of the options that are valid; each of the others is a problem."""
    given = {str(name): value for name, value in values.items()}
    try:
        return RunOptions(**given)
    except ValidationError as error:
        document.invalid(error, RunOptions, under=under)
        wrong = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
    return RunOptions(**{name: value for name, value in given.items() if name not in wrong})


def check_names(document: Document, options: RunOptions, folder: Path, under: Loc = ()) -> Model | None:
    """Model, engine, vectorizer, area, CRS and memory as options name them; the model where there is one to look at.

    Args:
        document: that problems are added to.
        options: whose files are relative to `folder`.
        folder: see `options`.
        under: where the options stand in the document.
    """
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    from geoseg.engines.registry import engines
    from geoseg.memory import parse_size
    from geoseg.plugins import load_plugin

    def tried(entry: str, check: Any) -> Any:
        try:
            return check()
        except GeosegError as error:
            document.add(one_line(error), *under, entry)
        return None

    if options.instances != "auto":
        tried("instances", lambda: load_plugin("vectorizers", options.instances))
    if options.max_memory is not None:
        tried("max_memory", lambda: parse_size(str(options.max_memory)))
    if options.engine not in ("auto", *engines()):
        document.add(f"no engine {options.engine!r}; known: auto, {', '.join(engines())}", *under, "engine")
    if options.crs is not None:
        try:
            CRS.from_user_input(options.crs)
        except CRSError:
            document.add(f"no CRS {options.crs!r}; expected one such as EPSG:32633", *under, "crs")
    if options.aoi is not None:
        tried("aoi", lambda: check_area(str(options.aoi), folder))
    if options.weights is not None and not (folder / options.weights).is_file():
        document.add(f"no file {str(folder / options.weights)!r}", *under, "weights")
        return None
    if options.model is None:
        return None
    model = tried("model", lambda: loaded(options, folder))
    if not isinstance(model, Model):
        return None
    if options.field_class is not None:
        tried("field_class", lambda: model.spec.class_id(str(options.field_class)))
    if options.patch is not None or options.overlap:
        tried("patch" if options.patch is not None else "overlap", lambda: _try_patch(options, model))
    if options.engine in ("auto", *engines()):
        from geoseg.engines import choose_engine

        tried("engine", lambda: choose_engine(model, name=options.engine, precision=options.precision))
    return model


def loaded(options: RunOptions, folder: Path) -> Model:
    """The model that options name; its files are relative to `folder`."""
    from geoseg.batching.recipe import placed
    from geoseg.models import load

    values = placed({"model": options.model, "weights": options.weights}, folder)
    return load(values["model"], weights=values["weights"], trust=options.trust_checkpoint)


def check_area(text: str, folder: Path) -> None:
    """InputError for an area of interest that is neither a box nor a file."""
    from geoseg.errors import InputError

    parts = text.split(",")
    if len(parts) == 4:
        try:
            west, south, east, north = map(float, parts)
        except ValueError:
            pass
        else:
            if west >= east or south >= north:
                raise InputError(f"the box {text} is empty; expected west,south,east,north in degrees")
            return
    if not (folder / text).exists():
        raise InputError(f"no file {str(folder / text)!r}; expected a vector file, or west,south,east,north in degrees")


def _try_patch(options: RunOptions, model: Model) -> None:
    from affine import Affine

    from geoseg.grid import TileGrid
    from geoseg.scene import Band, Scene

    side = PATCH_CELLS * (options.patch or model.spec.patch)
    scene = Scene(
        shape=(side, side), transform=Affine.identity(), crs=None, bands=(Band(name=None, dtype="uint8"),), name="-"
    )
    TileGrid.fit(scene, model.spec, patch=options.patch, overlap=options.overlap, k=1)
