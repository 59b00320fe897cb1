"""The whole path: scene in, georeferenced mask and field polygons out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geoseg.delineation import check_fields, delineate
from geoseg.errors import InputError, RunError
from geoseg.memory import within_memory
from geoseg.outputs import Result, Stages, collection_name, finished_result, identify, make_outputs, write_rasters
from geoseg.plan import check_lonlat, prepare
from geoseg.prediction import link_into_store, mapped, predict_into_store
from geoseg.protocols import Model, Reader
from geoseg.recipes import RunOptions
from geoseg.results import BOUNDARY, PROBABILITY_MAX, Determination, Lines
from geoseg.runtime.events import Events
from geoseg.runtime.runners import runner_for
from geoseg.runtime.stop import Stop, signals_set
from geoseg.runtime.workspace import Identity, Workspace
from geoseg.scene import in_utc
from geoseg.stitch.journal import Journal
from geoseg.version import VERSION

log = logging.getLogger(__name__)

BLOCKS_BEYOND = 1024
"""Rows of pixels by which the blocks of most files reach beyond a window: one block of 512 above, one below."""

LARGEST_TILE = 16384
"""Side in pixels: a tile is held in memory several times over."""


def run(
    *scenes: str | Path | Reader,
    out: str | Path,
    options: RunOptions | None = None,
    overwrite: bool = False,
    restart: bool = False,
    events: Events | None = None,
    client: Any | None = None,
    model: Model | str | None = None,
    **changes: Any,
) -> Result:
    """Segments a scene and writes mask, fields and record into `out`; the same call again resumes.

    Args:
        scenes: one file, one file a band on one grid, or a Reader.
        out: directory of the results.
        options: all options as one value; `changes` are options by name on top of it.
        overwrite: replace another run in `out`.
        restart: begin anew, also where an earlier try of this run can be resumed.
        events: listeners for progress.
        client: a distributed.Client to run on instead of threads here.
        model: name, folder or checkpoint, or a Model object of your own.

    Raises:
        GeosegError: one clear sentence on what was found, expected, and what to do.
    """
    events = events or Events()
    values = (options or RunOptions()).model_dump(exclude_unset=True) | changes
    if isinstance(model, str):
        values["model"], model = model, None
    options = RunOptions.checked(**values)
    stop, stages = Stop(), Stages()
    clustered = client is not None or options.scheduler is not None
    begun = time.time()
    with signals_set(stop):
        with stages.timed("prepare"):
            plan = within_memory(prepare(scenes, options, model=model, check=stop.check), clustered=clustered)
            identity = identify(plan)
            lines = Lines.of(plan.model.spec.outputs)
            check_fields(options, lines, plan.grid, plan.reader.scene, pixel_size_m=plan.pixel_size_m, measured=True)
        events.note(plan.reason)
        workspace = Workspace(Path(out).absolute())
        if not (overwrite or restart) and (done := finished_result(workspace, identity, options)):
            workspace.tidy()
            events.note(f"{out} already holds this run; nothing to do (--restart does it anew)")
            return replace(done, out=Path(out))
        with (
            runner_for(workers=plan.workers, scheduler=client or options.scheduler, stop=stop) as runner,
            workspace.locked(),
        ):
            resumed = workspace.begin(identity, overwrite=overwrite, restart=restart)
            with stages.timed("predict"):
                store = predict_into_store(plan, workspace, identity, runner, events)
            with stages.timed("link"):
                store = link_into_store(plan, store, workspace, runner, events)
            with stages.timed("vectorize"):
                fields = delineate(
                    store, plan.reader, wanted=[plan.field_class], class_names=plan.model.spec.class_names,
                    pixel_size_m=plan.pixel_size_m, min_area_m2=plan.min_area_m2, options=options,
                    tiles=mapped(runner, events), folder=workspace.fields,
                    unread=Journal(workspace.journal).unread() or ([] if options.on_read_error == "mask" else None),
                )  # fmt: skip
            record = make_outputs(
                plan, store, fields, workspace, identity, stages, begun=begun, events=events, stop=stop
            )
    return Result(out=Path(out), record=record, resumed=resumed)


def segment_file(
    *scenes: str | Path,
    out: str | Path,
    options: RunOptions | None = None,
    overwrite: bool = False,
    restart: bool = False,
    events: Events | None = None,
    client: Any | None = None,
    confident: float | None = None,
) -> Path:
    """Segments a scene into one raster of class ids, or of probabilities where options.probabilities is set.

    With `confident` pixels whose best class is less probable are 255, unknown: pseudo-labels for `labels:` of `geoseg train`.
    An unfinished try is kept beside `out` in a directory `.NAME.partial`, from which the same call resumes.
    """
    events, options, stop, target = events or Events(), options or RunOptions(), Stop(), Path(out)
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise RunError(f"{target} is to be a GeoTIFF; give it a name that ends in .tif")
    _refuse_existing(target, overwrite=overwrite)
    clustered = client is not None or options.scheduler is not None
    limit = _confidence(confident, options)
    with signals_set(stop):
        plan = within_memory(prepare(scenes, options, check=stop.check), clustered=clustered)
        if limit and (plan.model.spec.hysteresis is not None or plan.model.spec.instances is not None):
            raise InputError(
                f"{plan.model.spec.name} settles pixels over the whole scene, not by probability: --confident does not apply; "
                f"choose another --model"
            )
        events.note(plan.reason)
        identity = identify(plan)
        if limit:
            identity = Identity(values={**identity.values, "confident": limit})
        workspace = Workspace.beside(target)
        with (
            runner_for(workers=plan.workers, scheduler=client or options.scheduler, stop=stop) as runner,
            workspace.locked(),
        ):
            workspace.begin(identity, overwrite=False, restart=restart)
            store = predict_into_store(plan, workspace, identity, runner, events, confident=limit)
            store = link_into_store(plan, store, workspace, runner, events)
            stop.check()
            made = write_rasters(plan, store, workspace.making, identity, probabilities=options.probabilities)
            wanted = "probabilities" if options.probabilities else "mask"
            for path in (path for path, kind in made.items() if kind == wanted):
                _move(path, target if path.suffix == ".tif" else target.with_suffix(path.suffix))
            workspace.clear()
    return target


def vectorize_file(
    source: str | Path,
    *,
    out: str | Path,
    options: RunOptions | None = None,
    classes: Sequence[str] | None = None,
    tile: int | None = None,
    overwrite: bool = False,
    events: Events | None = None,
    client: Any | None = None,
) -> tuple[int, list[Path]]:
    """Polygons of a class mask, or of a raster with one probability band a class; how many, and the files made.

    Args:
        source: any raster that rasterio opens.
        out: vector file, whose suffix says the format.
        options: field_class (default `field`, else class 1), instances, min_area_m2, simplify_m, smooth, crs,
            pixel_size_m, time, workers.
        classes: names by class id; None takes those in the file, if any.
        tile: side of a tile in pixels; never decides the result.
        overwrite: replace `out`.
        events: listeners for progress.
        client: a distributed.Client to run on instead of threads here.
    """
    from geoseg.export import exporter_for
    from geoseg.readers import class_names, made_by_geoseg, open_scene
    from geoseg.vectorize.source import WANTED, raster_classes

    events, options, stop, target = events or Events(), options or RunOptions(), Stop(), Path(out)
    exporter = exporter_for(target)
    _refuse_existing(target, overwrite=overwrite)
    reader = open_scene(
        [str(source)], crs=options.crs, pixel_size_m=options.pixel_size_m, nodata=options.nodata, palette=True,
        on_read_error=options.on_read_error,
    )  # fmt: skip
    if exporter.name == "geojson":
        check_lonlat(reader.scene)
    names = tuple(classes or class_names(str(source)))
    wanted = _class_id(options.field_class, names, count=len(reader.scene.bands))
    label = names[wanted] if wanted < len(names) else f"class_{wanted}"
    size = reader.scene.resolution_m()
    if size is None:
        log.warning("%s has no CRS: 1 m a pixel is assumed; say --pixel-size-m or --crs", reader.scene.name)
    if tile is not None and not 1 <= tile <= LARGEST_TILE:
        raise InputError(f"--tile {tile} is no side of a tile in pixels; give 1 to {LARGEST_TILE}")
    source_ = raster_classes(reader, wanted=wanted, names=names, tile=tile)
    check_fields(
        options,
        source_.lines,
        source_.grid,
        reader.scene,
        pixel_size_m=size or 1.0,
        measured=len(reader.scene.bands) > 1,
    )
    workspace = Workspace.beside(target)
    identity = Identity(
        values={
            "raster": reader.content_hash(),
            "geoseg": VERSION,
            "vectorize": {
                "class": wanted, "classes": list(names), "pixel_size_m": size, "tile": tile, **options.of_fields(),
            },
        }
    )  # fmt: skip
    with (
        signals_set(stop),
        runner_for(workers=options.workers, scheduler=client or options.scheduler, stop=stop) as runner,
        workspace.locked(),
    ):
        workspace.begin(identity, overwrite=True, restart=False)
        try:
            fields = delineate(
                source_, reader,
                wanted=[WANTED], class_names=("", label), pixel_size_m=size or 1.0, min_area_m2=options.min_area_m2 or 0.0,
                options=options, tiles=mapped(runner, events), folder=workspace.fields,
            )  # fmt: skip
        except InputError:  # the same again would not go on better
            workspace.clear()
            raise
        told = Determination(
            collection=collection_name(reader.scene, identity),
            method="auto-imagery" if made_by_geoseg(str(source)) else "unknown",
            time=options.time or in_utc(reader.scene.time),
        )
        files = exporter.write(replace(fields, determination=told), target)
        workspace.clear()
    return len(fields), files


def _move(made: Path, target: Path) -> None:
    try:
        made.replace(target)
    except OSError as error:
        raise RunError(
            f"{target} cannot be written ({error.strerror or error}); see to it and run the same command again to resume"
        ) from error


def _class_id(wanted: str | None, names: Sequence[str], *, count: int) -> int:
    """The id of the class that becomes polygons: as asked, else `field`, else 1."""
    if wanted is None and count > 1 and names and "field" not in names:
        candidates = [name for name in names if name not in ("background", BOUNDARY, "distance")]
        if len(candidates) != 1:
            raise InputError(f"which of {', '.join(names)} becomes polygons? Say it with --field-class")
        return names.index(candidates[0])
    if wanted is None:
        return names.index("field") if "field" in names else 1
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and (count == 1 or int(wanted) < count):
        return int(wanted)
    known = f"its classes are {', '.join(names)}" if names else "its classes have no names: give an id"
    raise InputError(f"no class {wanted!r} in this raster; {known}, or name them with --classes")


def _refuse_existing(target: Path, *, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise RunError(f"{target} exists; choose another -o, or --overwrite to replace it")


def _confidence(confident: float | None, options: RunOptions) -> int:
    """The limit as a stored probability; 0 for none."""
    if confident is None:
        return 0
    if not 0 < confident <= 1:
        raise InputError(f"--confident {confident:g} is no probability; give more than 0, and 1 at most, e.g. 0.9")
    if options.probabilities:
        raise InputError("--confident makes class ids, --probabilities something else; leave one out")
    return math.floor(confident * PROBABILITY_MAX + 0.5)
