"""The files of a finished run: mask and probabilities, polygons, picture, record."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.disk import replacing, room_for
from geoseg.errors import ModelError
from geoseg.plan import Plan
from geoseg.protocols import RecordedModel, int8_network
from geoseg.recipes import RunOptions
from geoseg.results import PROBABILITY_MAX, Determination, Lines
from geoseg.runtime.events import Events
from geoseg.runtime.heap import give_back
from geoseg.runtime.stop import Stop
from geoseg.runtime.workspace import Identity, Workspace, write_json
from geoseg.scene import Scene, time_text
from geoseg.stac import item_name, run_item
from geoseg.stitch.journal import Journal
from geoseg.stitch.store import MaskStore
from geoseg.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import geopandas as gpd

    from geoseg.vectorize.fieldfile import FieldFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run."""

    out: Path
    record: Mapping[str, Any]
    """What run.json holds."""
    resumed: bool = False
    """True if an earlier try had finished some or all of it."""

    @property
    def fields(self) -> gpd.GeoDataFrame:
        """The field polygons, read from the first vector format that was written."""
        import geopandas as gpd

        path = self.out / f"fields.{self.record['options']['format'][0]}"
        if path.suffix == ".parquet":
            return gpd.read_parquet(path)
        return gpd.read_file(path, layer="fields")


@dataclass(slots=True)
class Stages:
    """Seconds by stage, for run.json."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - begun, 3)


def identify(plan: Plan) -> Identity:
    """What the run computes: content of scene, model and area, the options that decide, and geoseg's version."""
    grid, scaling, options = plan.grid, plan.predictor.scaling, plan.options
    return Identity(
        values={
            "scene": plan.reader.content_hash(),
            "model": {"name": plan.model.spec.name, "fingerprint": plan.model.fingerprint()},
            "engine": {"name": plan.engine, "precision": plan.predictor.precision, **_asked(plan)},
            "grid": {
                "patch": grid.patch,
                "halo": grid.halo,
                "stride": grid.stride,
                "phase": list(grid.phase),
                "blend": grid.blend,
            },
            "tile": grid.tile_size,
            "scaling": {"gain": list(scaling.gain), "bias": list(scaling.bias), "bands": list(scaling.bands)},
            "options": options.decisive(),
            "area": None if plan.area is None else plan.area.fingerprint(),
            "geoseg": VERSION,
            "vectorize": {
                "field_class": plan.field_class,
                **options.of_fields(),
                "min_area_m2": plan.min_area_m2,
                **(
                    {} if plan.time is None else {"time": time_text(plan.time)}
                ),  # told of fields, with the rest of them
            },
        }
    )


def _asked(plan: Plan) -> dict[str, str]:
    """Of runs that ask for it: which network in 8 bits, and test-time augmentation."""
    found = int8_network(plan.model) if plan.predictor.precision == "int8" else None
    asked = {} if found is None else {"int8": found.sha256}
    return asked if plan.options.tta == "none" else asked | {"tta": plan.options.tta}


def finished_result(workspace: Workspace, identity: Identity, options: RunOptions) -> Result | None:
    """The finished run in the workspace if it is this one, with every output that is asked for."""
    record = workspace.finished()
    if record is None or Identity(values=record.get("identity", {})).digest != identity.digest:
        return None
    outputs = record.get("outputs", {})
    wanted = {"mask.tif", "preview.png", *(f"fields.{suffix}" for suffix in options.format)}
    if options.probabilities:
        wanted.add("probabilities.tif")
    if not wanted <= outputs.keys() or not all((workspace.out / name).exists() for name in outputs):
        return None
    return Result(out=workspace.out, record=record, resumed=True)


def make_outputs(
    plan: Plan,
    store: MaskStore,
    fields: FieldFile,
    workspace: Workspace,
    identity: Identity,
    stages: Stages,
    *,
    begun: float,
    events: Events,
    stop: Stop,
) -> dict[str, Any]:
    """Writes every file beside its place, then renames them all, run.json last; returns what run.json holds."""
    from geoseg.export import exporter_for
    from geoseg.export.preview import write_preview
    from geoseg.readers import forgiving

    made: dict[Path, str] = {}
    called = collection_name(plan.reader.scene, identity)
    told = Determination(collection=called, method="auto-imagery", time=plan.time)
    fields = replace(fields, determination=told)

    def rasters() -> dict[Path, str]:
        found = write_rasters(plan, store, workspace.making, identity, probabilities=plan.options.probabilities)
        events.stage_advanced("export", units=1 + plan.options.probabilities)
        return found

    steps = 2 + plan.options.probabilities + len(plan.options.format)
    events.stage_started("export", total=steps)
    with stages.timed("export"), ThreadPoolExecutor(1, thread_name_prefix="rasters") as beside:
        copying = beside.submit(rasters)  # a library's work and the disk's, while polygons are Python's
        for name in plan.options.format:
            give_back()
            stop.check()
            exporter = exporter_for(name)
            for path in exporter.write(fields, workspace.making / f"fields{exporter.suffix}"):
                made[path] = "fields"
            events.stage_advanced("export")
        preview = workspace.making / "preview.png"
        give_back()
        stop.check()
        for path in write_preview(forgiving(plan.reader), fields, preview, model=plan.model.spec.name):
            made[path] = "preview"
        events.stage_advanced("export")
        made = copying.result() | made
        outputs = _described(made)
        outputs |= _write_item(plan, workspace.making, called, outputs)
    events.stage_finished("export")
    record = _record(plan, fields, workspace, identity, stages, outputs, begun=begun)
    workspace.publish([workspace.making / file for file in outputs], record)
    return record


def collection_name(scene: Scene, identity: Identity) -> str:
    """Of all that a run finds: the id of its STAC item, and the collection of its fields."""
    return item_name(scene.name, identity.digest)


def _write_item(plan: Plan, folder: Path, name: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """item.json and, for it, model.json; what run.json says of them."""
    with room_for(folder / "model.json"), replacing(folder / "model.json") as file:
        file.write(plan.model.spec.to_json().encode())
    model = _described({folder / "model.json": "model"})
    item = run_item(
        name=name,
        scene=_covered(plan),
        time=plan.time,
        pixel_size_m=None if plan.pixel_size_assumed else plan.pixel_size_m,
        model=plan.model,
        method=plan.options.method(Lines.of(plan.model.spec.outputs)),
        outputs={**outputs, **model},
    )
    with room_for(folder / "item.json"):
        write_json(folder / "item.json", item)
    return model | _described({folder / "item.json": "item"})


def _covered(plan: Plan) -> Scene:
    """The part of the scene that the outputs are of."""
    extent = plan.grid.extent
    return plan.reader.scene.cropped(extent.row, extent.col, *extent.shape)


def _described(made: Mapping[Path, str]) -> dict[str, Any]:
    return {
        path.name: {"kind": kind, "bytes": path.stat().st_size, "sha256": _sha256(path)} for path, kind in made.items()
    }


def write_rasters(
    plan: Plan, store: MaskStore, folder: Path, identity: Identity, *, probabilities: bool
) -> dict[Path, str]:
    """mask.tif and, where asked for, probabilities.tif, as COGs copied from the store; the files made and their kinds."""
    from geoseg.export.cog import write_cog
    from geoseg.export.style import class_colors

    spec, grid, made = plan.model.spec, plan.grid, dict[Path, str]()
    tags = {
        "GEOSEG_VERSION": VERSION,
        "GEOSEG_MODEL": spec.name,
        "GEOSEG_RUN": identity.digest,
        "GEOSEG_CLASSES": ",".join(spec.class_names),
    }
    extent = grid.extent
    common: dict[str, Any] = {
        "window": extent.within(grid.hull),
        "scene": _covered(plan),
        "tags": tags,
    }
    colors = class_colors(spec.class_names, field_class=spec.field_class)
    for path in write_cog(
        store.path / "mask", folder / "mask.tif", names=["class"], classes=spec.class_names, colors=colors,
        overview="mode", **common,
    ):  # fmt: skip
        made[path] = "mask"
    if probabilities:
        names = [channel.name for channel in spec.outputs]
        for path in write_cog(
            store.path / "probabilities", folder / "probabilities.tif", names=names, scale=1 / PROBABILITY_MAX, **common
        ):
            made[path] = "probabilities"
    return made


def _record(
    plan: Plan,
    fields: FieldFile,
    workspace: Workspace,
    identity: Identity,
    stages: Stages,
    outputs: Mapping[str, Any],
    *,
    begun: float,
) -> dict[str, Any]:
    scene, spec, grid = plan.reader.scene, plan.model.spec, plan.grid
    tiles = list(Journal(workspace.journal).records())
    valid = sum(tile.valid for tile in tiles)
    engines = sorted({tile.engine for tile in tiles} - {""})
    return {
        "geoseg": VERSION,
        "run": identity.digest,
        "identity": dict(identity.values),
        "scene": {
            "name": scene.name,
            "shape": list(scene.shape),
            "bands": list(scene.band_names),
            "time": None if plan.time is None else time_text(plan.time),
            "crs": scene.crs.to_string() if scene.crs is not None else None,
            "transform": list(scene.transform)[:6],
            "pixel_size_m": round(plan.pixel_size_m, 6),
            "pixel_size_assumed": plan.pixel_size_assumed,
        },
        "engines": engines,
        **_eight_bits(plan, engines),
        "reproducible": len(engines) <= 1 and not any(tile.degraded for tile in tiles),
        "model": {"name": spec.name, "reason": plan.reason, "classes": list(spec.class_names), "licence": spec.licence},
        **({"method": plan.model.record()} if isinstance(plan.model, RecordedModel) else {}),
        "options": plan.options.model_dump(mode="json"),
        "counts": {
            "fields": len(fields),
            "area_m2": round(fields.area_m2, 2),
            "tiles": len(tiles),
            "valid_pixels": valid,
            "unread_pixels": sum(height * width for tile in tiles for _, _, height, width in tile.unread),
            "model_pixels_per_pixel": round(sum(tile.model_pixels for tile in tiles) / max(1, grid.extent.size), 4),
        },
        "outputs": dict(outputs),
        "seconds": {
            **stages.seconds,
            "tiles_read": round(sum(tile.read_s for tile in tiles), 3),
            "tiles_predict": round(sum(tile.predict_s for tile in tiles), 3),
            "tiles_write": round(sum(tile.write_s for tile in tiles), 3),
            "all": round(time.time() - begun, 3),
        },
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.system(), "processor": platform.machine(), "python": platform.python_version()},
        "versions": _versions(),
    }


def _eight_bits(plan: Plan, engines: Sequence[str]) -> dict[str, Any]:
    """What a network in 8 bits costs, where one was used."""
    if not any("/int8-" in engine for engine in engines):
        return {}
    try:
        found = int8_network(plan.model)
    except ModelError:
        found = None
    if found is None:  # taken away meanwhile; `engines` still names it
        return {}
    from geoseg.engines.int8 import LARGEST_DISAGREEMENT

    return {
        "int8": {
            "sha256": found.sha256,
            "disagreement": found.disagreement,
            "limit_of_auto": LARGEST_DISAGREEMENT,
        }
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    names = ("numpy", "rasterio", "shapely", "geopandas", "torch", "torchgeo", "openvino", "dask", "zarr", "scipy")
    out = {}
    for name in names:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out
