"""What a run takes of memory and disk, told before it starts; and settings that keep it below a limit.

The figures are upper estimates from sizes and counts, with constants measured on Linux (see tests/test_memory.py); they do not
know of other processes, nor of the memory of a GPU.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from geoseg.errors import InputError
from geoseg.grid import TileGrid
from geoseg.plan import Plan, streams_of
from geoseg.protocols import SceneModel
from geoseg.results import Lines

log = logging.getLogger(__name__)

MB = 10**6
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

BASE = 900 * MB
"""Python with rasterio, geopandas, torch and OpenVINO, and the blocks that GDAL keeps (measured: 830 before the first patch)."""

BASE_PLAIN = 450 * MB
"""The same for models that need neither torch nor OpenVINO."""

BLOCKS = 200 * MB
"""Blocks of the scene while it is read, or of the store while it is copied."""

EXPORT = 350 * MB
"""A part of the fields in several forms, a driver's buffers, the preview."""

OUTLINE_BYTES = 64
"""A pixel of a tile while its outlines are traced: labels, numbers, neighbours, chains."""

TILE_BYTES = 5000
"""What is kept in memory of each tile."""

RIM_PIXELS, RIM_BYTES = 25, 170
"""Pixels of a tile's rim for each component on it, and what is kept of one while they are united."""

SENT_PIXELS, NUMBER_BYTES, REGION_BYTES = 700, 8, 800
"""Pixels of a scene for each region that a watershed asks about, what is kept of each, and what is held of those in two rows of
tiles with their lines while they are divided (measured: 767 to 825)."""

FIELD_PIXELS, FIELD_BYTES = 600, 2000
"""Pixels of a scene for each field, where it is dense, and what is held of one in a row of tiles."""

SMOOTH_FIELD_BYTES = 2500
"""What smooth outlines add to that: a vertex for each pixel side, not for each corner."""

METHOD_VALUES, METHOD_BAND_VALUES = 14, 3
"""float64 values that a method without labels works with for each pixel of a patch, and for each band of it."""

OBJECTS, OBJECT_BYTES, HEADS = 100, 9, 300 * MB
"""Objects that a patch may have where the model does not say, what each takes a pixel of the patch before it is cut to its box,
and what a detector holds of the boxes that it looks at (measured: 1.96 GB in all where 2.2 are told)."""

VIEW_PIXELS, VIEW_BYTES = 1000, 300
"""Pixels of a dense scene for each object that a patch sees, and what is kept of one while it is compared with others."""

CORNER_BYTES = 4500
"""What is held of a field while its neighbours are simplified: the vertices of its outline, sorted."""

INDEX_BYTES = 75
"""A field in the index of a FlatGeobuf."""

STORED = 0.45
"""Bytes on disk a byte of stored predictions (measured .2 to .4 on real scenes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes."""

    predict: int
    vectorize: int
    export: int
    disk: int
    """In the output directory at the worst moment."""

    @property
    def memory(self) -> int:
        return max(self.predict, self.vectorize, self.export)


def parse_size(text: str) -> int:
    """Bytes of `4GB`, `500 MB`, `2.5g`; InputError where it is no size."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if not found or float(found[1]) <= 0:
        raise InputError(f"--max-memory {text!r} is no size; use e.g. 4GB or 1500MB")
    unit = UNITS[found[2]] if not found[3] else 1024 ** "kmgt".index(found[2] or "k") * 1024
    return int(float(found[1]) * unit)


def told(size: int) -> str:
    """A size for people: 850 MB, 2.41 GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def estimate(plan: Plan, *, grid: TileGrid, workers: int, values: float | None = None) -> Need:
    """What a plan takes with this grid and so many workers; `values` as engines.footprint.values_a_pixel() gives it."""
    from geoseg.engines.batches import MOST
    from geoseg.engines.footprint import values_a_pixel, working_bytes
    from geoseg.runtime.predict import KEPT_BYTES
    from geoseg.vectorize.simplify import KEPT as TILES_SIMPLIFIED

    spec, scene = plan.model.spec, plan.reader.scene
    channels, bands = len(spec.outputs), len(plan.predictor.scaling.bands)
    base = BASE_PLAIN if plan.model.runtime == "numpy" else BASE
    engine = working_bytes(
        plan.model, grid.frame_shapes, engine=plan.engine, bf16=plan.bf16,
        values=values_a_pixel(plan.model) if values is None else values, streams=streams_of(grid, workers),
    )  # fmt: skip
    if spec.instances is not None:
        engine += int(spec.architecture.get("detections", OBJECTS)) * OBJECT_BYTES * grid.patch**2
        engine += HEADS if plan.model.runtime == "torch" else 0
    reach = grid.halo * (3 if grid.blend else 1)
    read = (grid.tile_size + 2 * reach) ** 2
    batch = min(MOST, (grid.k + 2 * grid.blend) ** 2) * grid.patch**2
    sums = 4 * (channels + 1) if grid.blend else 0
    tile = read * (2 * bands * scene.dtype.itemsize + 2) + batch * (
        bands * (scene.dtype.itemsize + 4) + 2 * channels + 2
    )
    tile += grid.tile_size**2 * (3 * channels + 4 + sums)
    if isinstance(plan.model, SceneModel):
        tile += 8 * (METHOD_VALUES + METHOD_BAND_VALUES * bands) * grid.patch**2
    pixels = grid.extent.size
    rims = len(grid) * (TILE_BYTES + 4 * grid.tile_size // RIM_PIXELS * RIM_BYTES)
    if plan.options.method(Lines.of(plan.model.spec.outputs)) == "watershed":
        rims += pixels // SENT_PIXELS * NUMBER_BYTES
        rims += 2 * grid.tile_size * grid.extent.width // SENT_PIXELS * REGION_BYTES
    if spec.instances is not None:
        rims += pixels // VIEW_PIXELS * VIEW_BYTES
    smooth, thin = plan.options.smooth, plan.options.simplify_m > 0
    row = grid.tile_size * grid.extent.width // FIELD_PIXELS * (FIELD_BYTES + smooth * SMOOTH_FIELD_BYTES)
    row += thin * min(len(grid), TILES_SIMPLIFIED) * grid.tile_size**2 // FIELD_PIXELS * CORNER_BYTES
    stores = 1 + (spec.hysteresis is not None or spec.instances is not None)
    index = pixels // FIELD_PIXELS * INDEX_BYTES * ("fgb" in plan.options.format)
    return Need(
        predict=base + BLOCKS + engine + workers * tile + grid.blend * KEPT_BYTES,
        vectorize=base + BLOCKS + workers * (grid.tile_size + 2) ** 2 * (OUTLINE_BYTES + 2 * channels) + rims + row,
        export=base + BLOCKS + EXPORT + index,
        disk=int(stores * pixels * (channels + 1) * STORED)
        + int(pixels * (channels * plan.options.probabilities + 0.6)),
    )


def within_memory(plan: Plan, *, clustered: bool = False) -> Plan:
    """The plan, made smaller to stay below its --max-memory: fewer workers, then smaller tiles, then, aloud, smaller patches.

    Raises InputError where nothing does.
    """
    from geoseg.engines.footprint import values_a_pixel

    if plan.options.max_memory is None:
        return plan
    if clustered:
        raise InputError(
            "--max-memory is kept on this machine only; on a cluster give its workers a limit, and choose --tile and --patch"
        )
    limit, values = parse_size(plan.options.max_memory), values_a_pixel(plan.model)
    for grid, workers in _smaller(plan.grid, plan.workers):
        need = estimate(plan, grid=grid, workers=workers, values=values)
        if need.memory <= limit:
            if grid.patch != plan.grid.patch:
                log.warning(
                    "patches of %d pixels in place of %d, to stay below %s of memory: the result is another one than with "
                    "--patch %d", grid.patch, plan.grid.patch, told(limit), plan.grid.patch,
                )  # fmt: skip
            return replace(plan, grid=grid, workers=workers)
    raise InputError(
        f"--max-memory {told(limit)} is too little: the least that this run gets by with is {told(need.memory)}"
    )


def _smaller(grid: TileGrid, workers: int) -> Iterator[tuple[TileGrid, int]]:
    """Settings that take less and less, the first ones with equal results."""
    for count in range(workers, 0, -1):
        yield grid, count
    for k in range(grid.k - 1, 0, -1):
        yield replace(grid, k=k), 1
    step = grid.stride
    for patch in range(grid.patch - step, max(2 * grid.halo, 4 * grid.halo * grid.blend - 1), -step):
        yield replace(grid, k=1, patch=patch), 1
