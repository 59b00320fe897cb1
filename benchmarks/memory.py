"""Peak memory that does not follow the raster.

    python benchmarks/memory.py [--sizes 5000 10000 20000] [--json FILE] [-- OPTIONS]   dense scenes of growing size
    python benchmarks/memory.py --wide [--size 100000] [--json FILE] [-- OPTIONS]       a sparse scene that is very large

Runs are processes of their own; the peak is the operating system's (VmHWM). The wide scene holds squares of farmland in some
hundred places over its whole extent and one straight field that is longer than 20 tiles.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from end_to_end import ROOT, make_scene, processor, run_once
from numpy.typing import NDArray
from rasterio.windows import Window

PLACES = 400
"""Squares of farmland in the wide scene."""

TILE = 896
"""Side of a tile of the bundled models in pixels."""

STRIP = 120
"""Width of the long field in pixels."""


def make_wide(path: Path, size: int) -> None:
    """A sparse GeoTIFF of size x size x 4 uint16 whose empty blocks take no room."""
    with rasterio.open(ROOT / "sample_tiles" / "s2_farmland.tif") as sample:
        tile, profile, names = sample.read(), sample.profile, sample.descriptions
    side, rng = tile.shape[1], np.random.default_rng(11)
    profile |= {
        "width": size, "height": size, "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
        "sparse_ok": True, "bigtiff": "yes",
    }  # fmt: skip
    blocks = size // side
    places = rng.choice(blocks * blocks, min(PLACES, blocks * blocks // 3), replace=False)
    row = side * (blocks // 2)  # the row of blocks that the long field lies in
    with rasterio.open(path, "w", **profile) as scene:
        scene.descriptions = names
        for place in places:
            top, left = divmod(int(place), blocks)
            if top * side != row:
                scene.write(np.rot90(tile, place % 4, axes=(1, 2)), window=Window(left * side, top * side, side, side))
        strip = long_field(tile, min(21 * TILE + side, size - 2 * side))
        for col in range(0, strip.shape[2], side):
            part = strip[:, :, col : col + side]
            scene.write(part, window=Window(side + col, row, part.shape[2], part.shape[1]))


def long_field(tile: NDArray[np.uint16], length: int) -> NDArray[np.uint16]:
    """(band, row, col) a field of STRIP pixels, as long as that, between strips of another one, with dark lines between."""
    with rasterio.open(ROOT / "sample_tiles" / "s2_farmland.tif") as sample:
        truth = gpd.read_file(ROOT / "sample_tiles" / "s2_farmland_truth.gpkg").to_crs(sample.crs)
        largest = truth.geometry.iloc[truth.area.argsort()[-2:]]
        squares = []
        for shape in largest:
            row, col = sample.index(*shape.representative_point().coords[0])
            squares.append(tile[:, row - 10 : row + 10, col - 10 : col + 10])
    field, other = (
        np.pad(square, [(0, 0), (0, 3 * STRIP - 20), (0, length - 20)], mode="reflect") for square in squares
    )
    rows = np.arange(3 * STRIP)[None, :, None]
    inside = (rows >= STRIP) & (rows < 2 * STRIP)
    edge = (np.abs(rows - STRIP) < 2) | (np.abs(rows - 2 * STRIP) < 2)
    dark = np.minimum(field, other) // 2
    return np.where(edge, dark, np.where(inside, field, other)).astype(np.uint16)


def wide_facts(fields: gpd.GeoDataFrame, size: int) -> dict[str, Any]:
    """How far the fields are spread, and how long the longest is."""
    bounds = fields.geometry.bounds.to_numpy()
    with_fields = set(zip((bounds[:, 0] // (10 * TILE)).tolist(), (bounds[:, 3] // (10 * TILE)).tolist(), strict=True))
    tiles = -(-size // TILE)
    longest = max((bounds[:, 2] - bounds[:, 0]).max(), (bounds[:, 3] - bounds[:, 1]).max())
    return {
        "tiles_with_fields": round(len(with_fields) / tiles**2, 4),
        "longest_field_tiles": round(float(longest) / (10 * TILE), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 10000, 20000])
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--size", type=int, default=100_000, help="of the wide scene")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="Directory for scenes and results; default: a temporary one.")
    parser.add_argument("extra", nargs="*", help="Further options of geoseg run, after --.")
    arguments = parser.parse_args()
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for size in [arguments.size] if arguments.wide else arguments.sizes:
            scene = folder / f"{'wide' if arguments.wide else 'scene'}-{size}.tif"
            if not scene.exists():
                (make_wide if arguments.wide else make_scene)(scene, size)
            out = folder / f"out-{scene.stem}"
            runs[scene.stem] = run_once(scene, out, arguments.extra)
            if arguments.wide:
                runs[scene.stem] |= wide_facts(gpd.read_file(out / "fields.gpkg", layer="fields"), size)
            print(json.dumps({scene.stem: runs[scene.stem]}, indent=2), flush=True)
            if arguments.keep is None:
                shutil.rmtree(out)
                scene.unlink()
    peaks = [run["peak_mb"] for run in runs.values()]
    result = {
        "options": arguments.extra,
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "runs": runs,
        "largest_peak_over_smallest": round(max(peaks) / min(peaks), 3),
    }
    print(f"largest peak over smallest: {result['largest_peak_over_smallest']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
