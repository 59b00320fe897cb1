"""What is settled before the first tile: scene, model, engine, grid, area."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from geoseg.errors import InputError
from geoseg.grid import TileGrid
from geoseg.plugins import load_plugin
from geoseg.protocols import Model, Reader, RecordedModel, SceneModel
from geoseg.recipes import RunOptions
from geoseg.results import Lines
from geoseg.runtime.area import Area, area_of_interest
from geoseg.runtime.predict import Predictor
from geoseg.runtime.runners import Runner, Threads, default_workers
from geoseg.scene import Scene, check_place

MOST_STREAMS = 4
"""Patches that a CPU predicts at a time: each has activations of its own."""

GPU_WORKERS = 16
"""Tiles under way where a GPU predicts: two batches of 8."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is settled before the first tile: the run, as a value."""

    reader: Reader
    model: Model
    predictor: Predictor
    grid: TileGrid
    options: RunOptions
    area: Area | None
    reason: str
    """Why this model."""
    engine: str
    """The engine that is chosen on this machine."""
    workers: int
    """Tiles under way at a time on this machine."""
    pixel_size_m: float
    pixel_size_assumed: bool
    """True where neither the scene nor the user says the pixel size and the model's nominal one stands in."""

    @property
    def streams(self) -> int:
        """Patches that are predicted at a time on this machine's CPU."""
        return streams_of(self.grid, self.workers)

    def streams_on(self, runner: Runner) -> int:
        """Patches that are predicted at a time in a process of this runner: workers of a cluster predict in one stream."""
        return self.streams if isinstance(runner, Threads) else 1

    @property
    def bf16(self) -> bool:
        """Whether the network is to compute with 16 bits."""
        return self.predictor.precision != "fp32"

    @property
    def field_class(self) -> int:
        """Id of the class that becomes polygons: as asked, or the model's own."""
        return self.model.spec.class_id(self.options.field_class or self.model.spec.field_class)

    @property
    def min_area_m2(self) -> float:
        """As asked, or the model's own limit."""
        asked = self.options.min_area_m2
        return self.model.spec.min_area_m2 if asked is None else asked


def check_lonlat(scene: Scene) -> None:
    """InputError for a scene whose fields cannot be written as GeoJSON."""
    if scene.crs is None:
        raise InputError(
            f"GeoJSON holds longitude and latitude, and {scene.name} has no CRS; say it with --crs, or choose another format"
        )


def prepare(
    scenes: Sequence[Any], options: RunOptions, *, model: Model | None = None, check: Callable[[], None] = lambda: None
) -> Plan:
    """Opens the scene, finds model and engine, checks that they fit, and lays the grid.

    A Reader in place of file names is taken as it is, and so is a Model object. A method that must see the whole scene first does
    so here; `check` is called meanwhile and raises where the run is to end.
    """
    from geoseg.engines import choose_engine
    from geoseg.models import check_fit, choose, input_scaling, load, resolution_problem
    from geoseg.readers import forgiving, open_scene, resampled

    scenes = [scene if isinstance(scene, Reader) else str(scene) for scene in scenes]
    if len(scenes) > 1 and any(isinstance(scene, Reader) for scene in scenes):
        raise InputError("a Reader is a scene by itself; give one, or one or more files")
    if not scenes:
        raise InputError("no scene is given; expected one raster file, or one file a band")
    reader = scenes[0] if isinstance(scenes[0], Reader) else open_scene(
        scenes, bands=options.bands, crs=options.crs, pixel_size_m=options.pixel_size_m,
        scale=options.scale, offset=options.offset, nodata=options.nodata, on_read_error=options.on_read_error,
        clouds=options.clouds, prefer=options.prefer,
    )  # fmt: skip
    if options.on_read_error == "mask":
        reader = forgiving(reader)
    if "geojson" in options.format:
        check_lonlat(reader.scene)
    if model is not None:
        reason = f"model {model.spec.name}, as given"
    elif options.model is None:
        model, reason = choose(reader.scene, allow_resample=options.resample)
    else:
        model = load(options.model, weights=options.weights, trust=options.trust_checkpoint)
        reason = f"model {model.spec.name}, as asked"
    if isinstance(model, SceneModel):
        model = model.settled(reader, check)
        reason += _told(model)
        if options.overlap and model.spec.reach == "local":
            raise InputError(f"{model.spec.name} is exact at the seams of patches as it is; leave --overlap out")
    spec = model.spec
    if spec.instances is not None:
        _check_objects(spec.name, options)
    check_fit(reader.scene, spec, allow_resample=options.resample)
    spec.class_id(options.field_class or spec.field_class)
    load_plugin("vectorizers", options.method(Lines.of(spec.outputs)))
    check_place(reader.scene)
    size = reader.scene.resolution_m()
    if options.resample and resolution_problem(reader.scene, spec):
        reader = resampled(reader, spec.nominal_m)
        size = spec.nominal_m
    if size is None:
        log.warning(
            "%s has no CRS and no pixel size: %g m a pixel is assumed, the resolution of %s; say --pixel-size-m or --crs",
            reader.scene.name, spec.nominal_m, spec.name,
        )  # fmt: skip
    area = area_of_interest(options.aoi, reader.scene) if options.aoi else None
    engine = choose_engine(model, name=options.engine, precision=options.precision)
    predictor = Predictor(
        model=model,
        scaling=input_scaling(reader, spec),
        engine=options.engine,
        precision=options.precision,
        turned=options.tta == "d4",
    )
    grid = TileGrid.fit(
        reader.scene, spec, patch=options.patch, overlap=options.overlap, k=options.tile or 1,
        region=None if area is None else area.region,
    )  # fmt: skip
    return Plan(
        reader=reader, model=model, predictor=predictor, grid=grid, options=options, area=area, reason=reason, engine=engine.name,
        workers=options.workers or _workers(engine.name), pixel_size_m=size if size is not None else spec.nominal_m,
        pixel_size_assumed=size is None,
    )  # fmt: skip


def _check_objects(name: str, options: RunOptions) -> None:
    """InputError for options that only models of classes have; before anything is written."""
    asked = {
        "--overlap": options.overlap > 0, "--tta": options.tta != "none", "--smooth": options.smooth,
        "--instances watershed": options.instances == "watershed",
        f"--precision {options.precision}": options.precision not in ("auto", "fp32"),
    }  # fmt: skip
    if wrong := [option for option, given in asked.items() if given]:
        raise InputError(
            f"{name} finds objects one by one, in float32, and has no probabilities to blend, divide or smooth by; leave "
            f"{wrong[0]} out"
        )


def streams_of(grid: TileGrid, workers: int) -> int:
    """Patches that so many workers predict at a time."""
    return max(1, min(workers, MOST_STREAMS, len(grid)))


def _told(model: Model) -> str:
    """What a model settled, in a few words."""
    if not isinstance(model, RecordedModel):
        return ""
    told = [
        f"{name} {value if isinstance(value, str) else format(value, '.4g')}"
        for name, value in model.record().items()
        if isinstance(value, str | int | float)
    ]
    return f": {', '.join(told)}" if told else ""


def _workers(engine: str) -> int:
    """On a GPU so many that a batch is full while the next one is read: threads wait most of the time."""
    from geoseg.engines.registry import has_cuda

    return GPU_WORKERS if engine == "torch" and has_cuda() else default_workers()


def settled_predictor(plan: Plan, *, before: str | None = None) -> Predictor:
    """The predictor of a plan, with 8 bits where `--precision auto` comes to that (see geoseg.engines.int8).

    Args:
        plan: of the run.
        before: fingerprint of the engine of an earlier try, whose precision is kept.
    """
    from geoseg.engines.registry import PREFERRED

    predictor = replace(plan.predictor, like=before)
    if predictor.precision != "auto" or plan.engine != "openvino":
        return predictor
    if before is not None:
        return replace(predictor, precision=PREFERRED) if "/int8-" in before else predictor
    from geoseg.engines.int8 import settled

    choice = settled(plan.model, patch=plan.grid.patch)
    log.info("precision %s: %s", choice.precision, choice.reason)
    return replace(predictor, precision=PREFERRED if choice.precision == "int8" else choice.precision)
