"""suggest(): squares of unlabelled scenes, ranked by uncertainty and diversity, as a GeoPackage to label in."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import InputError, Interrupted, RunError
from geoseg.grid import Window
from geoseg.kernels.choice import chosen, standardised
from geoseg.memory import within_memory
from geoseg.plan import Plan, prepare, settled_predictor
from geoseg.prediction import mapped
from geoseg.protocols import Model, Reader
from geoseg.recipes import RunOptions
from geoseg.runtime.area import area_of_interest
from geoseg.runtime.events import Events
from geoseg.runtime.heap import give_back
from geoseg.runtime.predict import release_memory
from geoseg.runtime.runners import Runner, runner_for
from geoseg.runtime.stop import Stop, signals_set
from geoseg.suggestion.survey import Lattice, Measure, Sums, Survey, SurveyTile, unit_of
from geoseg.training.labels import read_polygons

if TYPE_CHECKING:
    import geopandas as gpd

SIDES = (16, 4096)
"""Smallest and largest side of a square in pixels."""

OVERLAP = 0.05
"""Share of a square above which it counts as labelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for."""

    count: int = 20
    """Squares to label."""
    side: int = 256
    """Side of a square in pixels of the scene, of the work grid where it is resampled."""
    by: Measure = "margin"
    """`margin`: 1 - (p1 - p2) of the two most probable classes; `entropy` of all classes."""
    diversity: float = 0.5
    """0: the most uncertain squares; 1: those that differ most from each other; see geoseg.kernels.choice."""
    min_valid: float = 0.5
    """Squares with a smaller share of valid pixels are left out."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"--count {self.count} chooses nothing; give 1 or more")
        if not SIDES[0] <= self.side <= SIDES[1]:
            raise InputError(
                f"--side {self.side} is no side of a square to label; give {SIDES[0]} to {SIDES[1]} pixels"
            )
        if self.by not in ("margin", "entropy"):
            raise InputError(f"no measure of uncertainty {self.by!r}; known: margin, entropy")
        if not 0 <= self.diversity <= 1:
            raise InputError(
                f"--diversity {self.diversity:g} is not within 0 (uncertain squares) to 1 (squares that differ most)"
            )
        if not 0 < self.min_valid <= 1:
            raise InputError(f"--min-valid {self.min_valid:g} is no share; give more than 0, and 1 at most")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggested:
    tiles: gpd.GeoDataFrame
    """Best first: rank, scene, uncertainty (0 to 1), valid (share), row, col (first pixel), and a square each."""
    candidates: int
    """Squares that could be chosen."""
    labelled: int
    """Squares that count as labelled already."""
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    plan: Plan
    lattice: Lattice
    survey: Survey
    labelled: NDArray[np.bool_]
    """(row, col) squares that lie in what is labelled already."""


def suggest(
    *scenes: str | Path | Reader,
    out: str | Path,
    wanted: Wanted | None = None,
    options: RunOptions | None = None,
    model: Model | None = None,
    exclude: Sequence[str | Path] = (),
    overwrite: bool = False,
    events: Events | None = None,
    client: Any | None = None,
) -> Suggested:
    """Ranks squares of scenes and writes them as a GeoPackage to label in.

    Args:
        scenes: one raster file, or Reader, each; all in one CRS.
        out: the GeoPackage: layer `tiles` with the squares, and an empty layer `fields` to draw into.
        wanted: how many squares, of which size, chosen how.
        options: how to read and predict, as for a run; `aoi` keeps to an area.
        model: a Model object of your own, in place of the one that `options` name.
        exclude: vector files of what is labelled already (of several layers, `tiles`): squares there are not chosen, and what is
            chosen differs from them.
        overwrite: replace `out`, and all that was drawn into it.
        events: listeners for progress.
        client: a distributed.Client to run on instead of threads here.

    Raises:
        GeosegError: one clear sentence on what was found, expected, and what to do.
    """
    from geoseg.export.tiles import write_tiles

    events, stop, target = events or Events(), Stop(), Path(out)
    wanted, options = wanted or Wanted(), options or RunOptions()
    if target.suffix.lower() != ".gpkg":
        raise RunError(f"{target} is to be a GeoPackage to draw into; give it a name that ends in .gpkg")
    if target.exists() and not overwrite:
        raise RunError(
            f"{target} exists, perhaps with labels that were drawn; choose another -o, or --overwrite to replace it"
        )
    for path in exclude:
        if not Path(path).exists():
            raise InputError(f"--exclude {path}: no such file; give a vector file of what is labelled already")
    clustered = client is not None or options.scheduler is not None
    with signals_set(stop):
        plans = _plans(scenes, options, model, events, stop)
        plans = [within_memory(plan, clustered=clustered) for plan in plans]
        surveyed = []
        with runner_for(workers=plans[0].workers, scheduler=client or options.scheduler, stop=stop) as runner:
            for plan in plans:
                lattice = Lattice(shape=plan.reader.scene.shape, side=wanted.side)
                labelled = _labelled(plan, lattice, exclude)
                survey = _survey(plan, lattice, wanted, runner, events)
                surveyed.append(_Scene(plan=plan, lattice=lattice, survey=survey, labelled=labelled))
                stop.check()
        tiles, candidates, known = _choose(surveyed, wanted)
        if len(tiles) < wanted.count:
            events.note(f"{len(tiles)} squares in place of {wanted.count}: there are no more with enough valid pixels")
        files = write_tiles(tiles, target)
    return Suggested(tiles=tiles, candidates=candidates, labelled=known, files=tuple(files))


def _plans(
    scenes: Sequence[str | Path | Reader], options: RunOptions, model: Model | None, events: Events, stop: Stop
) -> list[Plan]:
    """A plan for each scene, all with one model and in one CRS."""
    if not scenes:
        raise InputError("no scene is given; expected one raster file or more")
    if options.aoi is not None and len(scenes) > 1:
        scenes = _that_meet(scenes, options)
    plans: list[Plan] = []
    for scene in scenes:
        plan = prepare([scene], options, model=model, check=stop.check)
        if plan.model.spec.instances is not None:
            raise InputError(
                f"{plan.model.spec.name} finds objects one by one, and uncertainty is measured from probabilities of classes; "
                f"choose another --model"
            )
        if plans:
            first, here = plans[0].reader.scene, plan.reader.scene
            if here.crs != first.crs:
                names = [one.crs.name if one.crs is not None else "no CRS" for one in (first, here)]
                raise InputError(
                    f"{first.name} is in {names[0]}, {here.name} in {names[1]}, and a layer has one CRS; run the command once "
                    f"for the scenes of each CRS"
                )
            one, other = plans[0].model.spec, plan.model.spec
            if (one.name, one.class_names) != (other.name, other.class_names):
                raise InputError(
                    f"{first.name} would go through {one.name}, {here.name} through {other.name}: their uncertainties cannot be "
                    f"compared; choose one with --model"
                )
        else:
            events.note(plan.reason)
        plans.append(plan)
    return plans


def _that_meet(scenes: Sequence[str | Path | Reader], options: RunOptions) -> list[str | Path | Reader]:
    """The scenes that an area of interest meets; all of them where it meets none, for the error that says so."""
    from geoseg.readers import open_scene

    kept: list[str | Path | Reader] = []
    for scene in scenes:
        reader = scene if isinstance(scene, Reader) else open_scene(
            [str(scene)], bands=options.bands, crs=options.crs, pixel_size_m=options.pixel_size_m, nodata=options.nodata,
        )  # fmt: skip
        try:
            area_of_interest(options.aoi or "", reader.scene)
        except InputError as error:
            if "lies outside" not in str(error):
                raise
        else:
            kept.append(scene)
    return kept or list(scenes)


def _labelled(plan: Plan, lattice: Lattice, exclude: Sequence[str | Path]) -> NDArray[np.bool_]:
    """(row, col) squares of which more than OVERLAP lies in the polygons of a file."""
    found = np.zeros(lattice.count, np.bool_)
    for path in exclude:
        polygons, _ = read_polygons(Path(path), plan.reader.scene, layer=_layer(Path(path)))
        extent = lattice.extent
        frame = shapely.box(extent.col, extent.row, extent.col_stop, extent.row_stop)
        near = polygons[shapely.intersects(polygons, frame)]
        if not len(near):
            continue
        area = shapely.union_all(near)
        shapely.prepare(area)
        for polygon in shapely.get_parts(area):
            left, top, right, bottom = (math.floor(value) for value in shapely.bounds(polygon))
            rows, cols = lattice.touched(Window(top, left, bottom - top + 1, right - left + 1))
            for row in rows:
                for col in cols:
                    window = lattice.window(row, col)
                    box = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
                    if shapely.area(shapely.intersection(area, box)) > OVERLAP * window.size:
                        found[row, col] = True
    return found


def _layer(path: Path) -> str | None:
    """`tiles` of a file that geoseg suggest wrote, else the file's own first layer."""
    import pyogrio
    from pyogrio.errors import DataSourceError

    if path.suffix == ".parquet":
        return None
    try:
        names = [str(name) for name, _ in pyogrio.list_layers(path)]
    except DataSourceError:
        return None
    return "tiles" if "tiles" in names else (names[0] if names else None)


def _survey(plan: Plan, lattice: Lattice, wanted: Wanted, runner: Runner, events: Events) -> Survey:
    """Predicts every tile that meets a square; in memory are the tiles under way, and some numbers a square."""
    task = SurveyTile(
        reader=plan.reader, predictor=replace(settled_predictor(plan), streams=plan.streams_on(runner)), grid=plan.grid,
        lattice=lattice, by=wanted.by, area=plan.area, run=uuid.uuid4().hex,
    )  # fmt: skip
    values = np.zeros((task.layout.size, *lattice.count), np.int64)

    def add(sums: Sums) -> None:
        rows, cols = sums.rows, sums.cols
        values[:, rows.start : rows.stop, cols.start : cols.stop] += sums.values

    wide = [tile.index for tile in plan.grid if tile.core & lattice.extent]
    try:
        mapped(runner, events)(task, wide, done=add, stage="survey", total=len(wide))
    except Interrupted as error:  # unlike a run this keeps nothing on the way
        raise Interrupted(
            "stopped; nothing was written, and the same command begins anew", exit_code=error.exit_code
        ) from error
    finally:
        runner.everywhere(release_memory)
        give_back()
    return Survey.of(values, task.layout, side=wanted.side, by=wanted.by, unit=unit_of(plan.predictor.scaling))


def _choose(scenes: Sequence[_Scene], wanted: Wanted) -> tuple[gpd.GeoDataFrame, int, int]:
    """The squares to label, how many there were to choose from, and how many count as labelled."""
    import geopandas as gpd

    places: list[tuple[int, int, int]] = []
    for number, one in enumerate(scenes):
        enough = np.argwhere((one.survey.valid >= wanted.min_valid) | (one.labelled & (one.survey.valid > 0)))
        places.extend((number, int(row), int(col)) for row, col in enough)
    labelled = np.array([scenes[n].labelled[row, col] for n, row, col in places], np.bool_)
    if not len(places) or labelled.all():
        why = "all squares are labelled already" if labelled.any() else (
            f"no square of {wanted.side} pixels has {wanted.min_valid:.0%} valid pixels"
        )  # fmt: skip
        raise InputError(
            f"nothing is left to suggest: {why}; give other scenes, a smaller --side or a lower --min-valid"
        )
    uncertainty = np.array([scenes[n].survey.uncertainty[row, col] for n, row, col in places])
    shares, bands = (
        np.array([getattr(scenes[n].survey, name)[row, col] for n, row, col in places]) for name in ("shares", "bands")
    )
    picked = chosen(
        uncertainty, standardised([shares, bands]), count=wanted.count, diversity=wanted.diversity, labelled=labelled
    )
    rows: list[dict[str, Any]] = []
    for rank, at in enumerate(picked.tolist(), start=1):
        number, row, col = places[at]
        scene, window = scenes[number].plan.reader.scene, scenes[number].lattice.window(row, col)
        a, b, c, d, e, f = tuple(scene.transform)[:6]
        corners = [
            (a * x + b * y + c, d * x + e * y + f)
            for x, y in (
                (window.col, window.row), (window.col, window.row_stop), (window.col_stop, window.row_stop),
                (window.col_stop, window.row),
            )
        ]  # fmt: skip
        rows.append(
            {
                "rank": rank,
                "scene": scene.name,
                "uncertainty": round(float(uncertainty[at]), 6),
                "valid": round(float(scenes[number].survey.valid[row, col]), 6),
                "row": window.row,
                "col": window.col,
                "geometry": shapely.Polygon(corners),
            }
        )
    frame = gpd.GeoDataFrame(rows, crs=scenes[0].plan.reader.scene.crs)
    return frame, int((~labelled).sum()), int(labelled.sum())
