"""From probabilities to field polygons on disk: time by stage, Mpx/s by kernel, peak memory, and the usual tools beside it.

    python benchmarks/instances.py [--size 10980] [--json FILE] [--keep DIR] [--no-peers]

The raster is made here: two bands of uint8 (field, boundary) on a jittered mosaic of parcels with faint and missing lines, land
that is no field, and texture. `geoseg vectorize` runs on one core in a process of its own. The peers label the same raster
whole, in memory: skimage.segmentation.watershed from markers where little speaks for a boundary, then rasterio.features.shapes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numba
import numpy as np
import rasterio
from affine import Affine
from end_to_end import peak_kb, processor
from numpy.typing import NDArray
from scipy import ndimage

SPACING = 44
"""Mean side of a parcel in pixels."""
STRIP = 2048


@numba.njit(cache=True)
def mosaic(
    row: int, rows: int, cols: int, seeds: NDArray[np.float32], strength: NDArray[np.uint8], out: NDArray[np.uint8]
) -> None:
    """Field and boundary probability (2, rows, cols) of a jittered mosaic, from scene row `row` on."""
    _height, width = seeds.shape[:2]
    for r in range(rows):
        y = row + r + 0.5
        i = int(y // SPACING) + 2
        for c in range(cols):
            x = c + 0.5
            j = int(x // SPACING) + 2
            near, second = np.float32(1e12), np.float32(1e12)
            mine, other = 0, 0
            for a in range(i - 2, i + 3):
                for b in range(j - 2, j + 3):
                    distance = (seeds[a, b, 0] - y) ** 2 + (seeds[a, b, 1] - x) ** 2
                    if distance < near:
                        near, second, mine, other = distance, near, a * width + b, mine
                    elif distance < second:
                        second, other = distance, a * width + b
            edge = (np.sqrt(second) - np.sqrt(near)) / 2
            kind = strength[mine // width, mine % width]
            beside = strength[other // width, other % width]
            line = np.float32((mine * 7919 ^ other * 7919) % 64) / 40
            if (kind > 0) != (beside > 0):
                line = np.float32(1)
            ridge = min(line, np.float32(1)) * np.exp(-((edge / 1.4) ** 2))
            if kind == 0 and beside == 0:
                ridge = 0.0
            out[1, r, c] = int(235 * ridge)
            out[0, r, c] = int(kind * (1 - ridge))


def make_probabilities(path: Path, size: int) -> None:
    rng = np.random.default_rng(11)
    cells = size // SPACING + 6
    seeds = (
        np.stack(np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij"), axis=2)
        - 2
        + rng.random((cells, cells, 2))
    )
    seeds = (seeds * SPACING).astype(np.float32)
    land = ndimage.gaussian_filter(rng.random((cells, cells)), 4)
    strength = np.where(land > np.quantile(land, 0.25), rng.integers(190, 245, (cells, cells)), 0).astype(np.uint8)
    texture = ndimage.gaussian_filter(rng.normal(0, 1, (2, STRIP, STRIP)).astype(np.float32), (0, 1.2, 1.2)) * 40
    profile = {
        "driver": "GTiff", "width": size, "height": size, "count": 2, "dtype": "uint8", "tiled": True, "blockxsize": 512,
        "blockysize": 512, "compress": "deflate", "zlevel": 1, "crs": "EPSG:32633",
        "transform": Affine(10, 0, 500000, 0, -10, 5500000),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.descriptions = ("field", "boundary")
        for row in range(0, size, STRIP):
            rows = min(STRIP, size - row)
            out = np.zeros((2, rows, size), np.uint8)
            mosaic(row, rows, size, seeds, strength, out)
            noise = np.concatenate([np.roll(texture, row + k, axis=1) for k in range(0, size, STRIP)], axis=2)
            out = np.clip(out + noise[:, :rows, :size] * (out > 0), 0, 254).astype(np.uint8)
            out[1] = np.minimum(out[1], 254 - out[0])
            target.write(out, window=rasterio.windows.Window(0, row, size, rows))


def geoseg(path: Path, out: Path) -> dict[str, Any]:
    """`geoseg vectorize` by stage, on one core."""
    from geoseg.pipeline import vectorize_file
    from geoseg.recipes import RunOptions
    from geoseg.runtime.events import Events

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    clock = Clock()
    count, _ = vectorize_file(
        path, out=out, options=RunOptions(workers=1, min_area_m2=4000), overwrite=True, events=Events((clock,))
    )
    stages = clock.stages()
    return {
        "seconds": round(sum(stages.values()), 1), "stages": stages, "polygons": count,
        "peak_mb": peak_kb(os.getpid()) // 1024,
    }  # fmt: skip


class Clock:
    """Listens to a run: seconds from the beginning of each stage to that of the next."""

    def __init__(self) -> None:
        self.begun = [("read and plan", time.perf_counter())]

    def stage_started(self, name: str, **_: int) -> None:
        self.begun.append((name, time.perf_counter()))

    def stage_advanced(self, name: str, **_: int) -> None: ...

    def stage_finished(self, name: str) -> None:
        if name == "outlines":
            self.begun.append(("polygons, measures, write", time.perf_counter()))

    def note(self, text: str) -> None: ...

    def stages(self) -> dict[str, float]:
        ends = [at for _, at in self.begun[1:]] + [time.perf_counter()]
        return {name: round(end - at, 1) for (name, at), end in zip(self.begun, ends, strict=True)}


def kernels(path: Path, size: int = 4096) -> dict[str, float]:
    """Mpx/s of each kernel on one core, best of three, on a corner of the raster."""
    from geoseg.kernels.flood import basins, borders, line_support, smoothed
    from geoseg.kernels.graph import gathered, join_shallow, join_weak
    from geoseg.kernels.grow import grow, label_measures, outline_measures
    from geoseg.kernels.label import label, roots
    from geoseg.kernels.outline import trace
    from geoseg.results import Lines
    from geoseg.vectorize.division import Limits

    with rasterio.open(path) as source:
        field, line = source.read(window=rasterio.windows.Window(0, 0, size, size))
    size = field.shape[0]
    inside = (field > line) & (field > 127)
    kinds = np.pad(inside.astype(np.uint8), 1)
    padded = np.pad(line, 3, constant_values=254)
    classes = np.pad(np.where(inside, 1, np.where(line > 127, 2, 0)).astype(np.uint8), 1, constant_values=255)
    wanted = np.arange(256) == 1
    speeds: dict[str, float] = {}
    limits = Limits.of(Lines(), fragment=35)

    def timed(name: str, work: Callable[[], Any]) -> Any:
        best = float("inf")
        for _ in range(3):
            begun = time.perf_counter()
            found = work()
            best = min(best, time.perf_counter() - begun)
        speeds[name] = round(size * size / 1e6 / best)
        return found

    timed("label", lambda: label(classes[1:-1, 1:-1].copy(), wanted))
    evidence = timed("flood: blur", lambda: smoothed(padded))
    labels, bottoms, _ = timed("flood: basins", lambda: basins(evidence, kinds))
    a, b, saddle, place = timed("graph: edges", lambda: borders(labels, evidence, kinds))
    row, col = bottoms // size, bottoms % size
    bottom = np.concatenate([[0], evidence[row + 1, col + 1].astype(np.int64) << 46 | row << 23 | col])

    def merged() -> NDArray[np.int64]:
        parent, opened = np.arange(len(bottom)), np.zeros(len(bottom), np.bool_)
        join_shallow(parent, a, b, saddle, bottom, opened, limits.depth)
        return np.unique(roots(parent), return_inverse=True)[1].astype(np.int64)

    node = timed("graph: shallow", merged)
    ones, support = np.ones(len(a), np.int64), line_support(line, place)
    x, y, _, length, total = timed("graph: lines", lambda: gathered(node, a, b, saddle.astype(np.int64), ones, support))
    area = np.maximum(np.bincount(node[labels.ravel()]), 1).astype(np.int64)
    inner = np.bincount(node[labels.ravel()], weights=line.ravel()).astype(np.int64)
    joined = timed(
        "graph: contrast", lambda: join_weak(x, y, length, total, area, inner, limits.contrast, limits.fragment)
    )
    objects = np.concatenate([[0], joined[node[1:]] + 1]).astype(np.int32)[labels]
    free = classes[1:-1, 1:-1] == 2
    timed("grow", lambda: grow(objects.copy(), free, 1.0))
    timed("measure", lambda: label_measures(objects, int(objects.max()), classes))
    framed = np.pad(objects, 1).astype(np.int64)
    timed("outline", lambda: trace(framed))
    timed(
        "outline measures",
        lambda: outline_measures(objects, int(objects.max()), framed, classes, padded[2:-2, 2:-2].copy()),
    )
    return speeds


def peers(path: Path) -> dict[str, Any]:
    """Whole raster in memory, on one core."""
    import geopandas as gpd
    import shapely
    from rasterio.features import shapes
    from skimage.segmentation import watershed

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - begun, 1)

    with timed("read"), rasterio.open(path) as source:
        (field, line), transform, crs = source.read(), source.transform, source.crs
    with timed("markers"):
        mask = (field > line) & (field > 127)
        calm = ndimage.uniform_filter(line, 5) < 25
        markers, _ = ndimage.label(mask & calm)
    with timed("skimage watershed"):
        labels = watershed(line, markers, mask=mask, connectivity=1).astype(np.int32)
    with timed("rasterio shapes"):
        found = list(shapes(labels, mask=labels > 0, transform=transform))
    with timed("shapely"):
        polygons = [shapely.geometry.shape(shape) for shape, _ in found]
    with tempfile.TemporaryDirectory() as folder, timed("write"):
        gpd.GeoDataFrame(geometry=polygons, crs=crs).to_file(Path(folder) / "fields.gpkg")
    return {
        "seconds": round(sum(seconds.values()), 1), "stages": seconds, "polygons": len(polygons),
        "peak_mb": peak_kb(os.getpid()) // 1024,
    }  # fmt: skip


def alone(work: Callable[..., Any], *given: Any) -> Any:
    """In a process of its own, so that its peak is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10980)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="Directory for raster and results; default: a temporary one.")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"probabilities-{arguments.size}.tif"
        if not path.exists():
            make_probabilities(path, arguments.size)
        small = folder / "probabilities-1500.tif"
        make_probabilities(small, 1500)
        alone(geoseg, small, folder / "warm.gpkg")  # what numba compiles once is kept on disk
        result: dict[str, Any] = {
            "raster": f"{arguments.size} x {arguments.size} x 2 uint8",
            "date": datetime.now(UTC).date().isoformat(),
            "processor": processor(),
            "cores used": 1,
            "geoseg vectorize": alone(geoseg, path, folder / "fields.gpkg"),
            "kernels, Mpx/s": alone(kernels, path),
        }
        if not arguments.no_peers:
            result["skimage and rasterio"] = alone(peers, path)
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
