"""A Sentinel-2 sized scene from file to polygons on disk: time, Mpx/s, peak memory, stages.

    python benchmarks/end_to_end.py [--size 10980] [--json FILE] [--keep DIR]

The scene is made of the sample tile, mirrored and dimmed anew in every square, so that it holds fields everywhere and compresses
about as real imagery does. Runs are processes of their own: the peak is the operating system's count for the whole of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

ROOT = Path(__file__).parent.parent


def make_scene(path: Path, size: int) -> None:
    """A tiled, deflated GeoTIFF of size x size x 4 uint16 from sample_tiles/s2_farmland.tif."""
    with rasterio.open(ROOT / "sample_tiles" / "s2_farmland.tif") as sample:
        tile, profile, names = sample.read(), sample.profile, sample.descriptions
    rng = np.random.default_rng(5)
    side = tile.shape[1]
    profile |= {
        "width": size,
        "height": size,
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
    }
    profile |= {"zlevel": 1, "num_threads": "all_cpus", "bigtiff": "if_safer"}
    with rasterio.open(path, "w", **profile) as scene:
        scene.descriptions = names
        for row in range(0, size, side):
            for col in range(0, size, side):
                height, width = min(side, size - row), min(side, size - col)
                flip = tile[:, :: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
                turned = np.rot90(flip, rng.integers(4), axes=(1, 2))
                dimmed = turned * rng.uniform(0.85, 1.15) + rng.normal(0, 12, turned.shape)
                part = np.where(turned == 0, 0, np.clip(dimmed, 1, 20000)).astype(np.uint16)
                scene.write(part[:, :height, :width], window=Window(col, row, width, height))


def run_once(scene: Path, out: Path, extra: list[str]) -> dict[str, float | dict[str, float]]:
    """One run in a process of its own: seconds, peak resident memory in MB, and what run.json says."""
    begun, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, "-m", "geoseg", "run", str(scene), "-o", str(out), "-q", "--restart", *extra]
    )
    while process.poll() is None:
        peak = max(peak, peak_kb(process.pid))
        time.sleep(0.2)
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"geoseg run failed with status {process.returncode}")
    record = json.loads((out / "run.json").read_text())
    rows, cols = record["scene"]["shape"]
    return {
        "seconds": round(seconds, 1),
        "peak_mb": round(peak / 1024, 0),
        "mpx_per_s": round(rows * cols / 1e6 / seconds, 2),
        "fields": record["counts"]["fields"],
        "model_pixels_per_pixel": record["counts"]["model_pixels_per_pixel"],
        "stages": record["seconds"],
    }


def peak_kb(pid: int) -> int:
    """Highest resident memory of a process so far; 0 where it has gone. (wait4 would count what it was forked from.)"""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def processor() -> str:
    """What the processor is called."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10980)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="Directory for scene and results; default: a temporary one.")
    parser.add_argument("extra", nargs="*", help="Further options of geoseg run, after --.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scene = folder / f"scene-{arguments.size}.tif"
        if not scene.exists():
            make_scene(scene, arguments.size)
        runs = [run_once(scene, folder / "out", arguments.extra) for _ in range(arguments.repeat)]
    result = {
        "scene": f"{arguments.size} x {arguments.size} x 4 uint16",
        "options": arguments.extra,
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "runs": runs,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
