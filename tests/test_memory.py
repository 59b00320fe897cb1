"""What a run takes is told beforehand, kept below a limit, and does not follow the raster."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from geoseg.errors import InputError
from geoseg.memory import estimate, parse_size, told, within_memory
from geoseg.plan import Plan, prepare
from geoseg.recipes import RunOptions

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory from /proc")


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4e9), ("2.5g", 2.5e9), ("1500 MB", 1.5e9), ("1GiB", 2**30), ("512 MiB", 2**29), ("2000000000", 2e9)],
)
def test_sizes_are_read(text: str, size: float) -> None:
    assert parse_size(text) == int(size)


@pytest.mark.parametrize("text", ["lots", "-4GB", "0", "4 apples", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--max-memory .* is no size; use e.g. 4GB"):
        parse_size(text)


def test_sizes_are_told() -> None:
    assert [told(850_000_000), told(2_408_000_000)] == ["850 MB", "2.41 GB"]


def planned(samples: Path, **options: Any) -> Plan:
    return prepare([samples / "s2_farmland.tif"], RunOptions.checked(**options))


def need(plan: Plan) -> int:
    return estimate(plan, grid=plan.grid, workers=plan.workers).memory


def test_a_limit_lowers_workers_then_tiles_then_aloud_the_patch(
    samples: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"workers": 4, "tile": 6, "engine": "openvino"}
    asked = planned(samples, **options)
    sizes = sorted({need(asked), 4_000_000_000, 2_500_000_000, 1_600_000_000}, reverse=True)
    found = []
    for size in sizes:
        with caplog.at_level(logging.WARNING):
            plan = within_memory(planned(samples, max_memory=str(size), **options))
        assert need(plan) <= size
        found.append((plan.workers, plan.grid.k, plan.grid.patch))
        assert (plan.grid.patch < asked.grid.patch) == ("the result is another one" in caplog.text)
    assert found[0] == (4, 6, 1024)
    assert found == sorted(found, reverse=True)
    assert all(k == 6 or workers == 1 for workers, k, _ in found)
    assert all(patch == 1024 or k == 1 for _, k, patch in found)
    assert found[-1][0] == 1


def test_a_limit_below_everything_says_what_is_needed(samples: Path) -> None:
    with pytest.raises(InputError, match=r"--max-memory 300 MB is too little: the least .* is 1\.\d+ GB"):
        within_memory(planned(samples, max_memory="300MB"))


def write_scene(path: Path, size: int) -> Path:
    """Blobs everywhere, in one uint8 band."""
    rng = np.random.default_rng(2)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=size, width=size, dtype="uint8", nodata=255, crs="EPSG:32633",
        transform=Affine(10, 0, 500_000, 0, -10, 5_000_000), tiled=True, compress="deflate", zlevel=1,
    ) as file:  # fmt: skip
        file.set_band_description(1, "red")
        for row in range(0, size, 512):
            height = min(512, size - row)
            coarse = rng.integers(0, 2, (-(-height // 16), -(-size // 16)), np.uint8) * 200
            file.write(
                np.kron(coarse, np.ones((16, 16), np.uint8))[:height, :size], 1, window=Window(0, row, size, height)
            )
    return path


CHILD = """
import json, sys
import geoseg
import geoseg.export.cog
import geoseg.readers.blocks
from geoseg.testing.models import ThresholdModel
from geoseg.runtime.events import Events

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

class Peaks(dict):
    def stage_started(self, name, *, total, done): ...
    def stage_advanced(self, name, *, units, pixels): ...
    def stage_finished(self, name): self[name] = peak()
    def note(self, text): ...

# With their full sizes a small scene would not fill them.
geoseg.export.cog.CACHE_BYTES = geoseg.readers.blocks._cells.bytes_kept = 2**22
peaks = Peaks()
result = geoseg.run(
    sys.argv[1], out=sys.argv[2], model=ThresholdModel(patch=512, halo=32), format="gpkg,shp,parquet,geojson", min_area_m2=0,
    workers=2, events=Events((peaks,)),
)
print(json.dumps(dict(peaks) | {"all": peak(), "fields": result.record["counts"]["fields"]}))
"""


def peaks(scene: Path, out: Path) -> dict[str, int]:
    """Peak memory in kB after each stage of a run in a process of its own."""
    environment = {**os.environ, "GDAL_CACHEMAX": "16"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, scene, out], capture_output=True, text=True, check=True, env=environment
    )
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


@linux
def test_memory_does_not_follow_the_raster(tmp_path: Path) -> None:
    """Seven times the pixels and the fields: at most a tenth more in any stage."""
    small, large = (peaks(write_scene(tmp_path / f"{n}.tif", n), tmp_path / f"out{n}") for n in (3000, 8000))
    assert large["fields"] > 6 * small["fields"] > 10_000
    for stage in small.keys() - {"fields"}:
        assert large[stage] < 1.1 * small[stage], (stage, small, large)


@linux
@pytest.mark.parametrize("overlap", [0, 128])
def test_a_run_stays_below_its_estimate_and_the_estimate_near_the_run(
    tmp_path: Path, samples: Path, overlap: int
) -> None:
    with rasterio.open(samples / "s2_farmland.tif") as sample:
        pixels, profile, names = sample.read(), sample.profile, sample.descriptions
    wide = np.tile(pixels, (1, 5, 5))
    scene = tmp_path / "scene.tif"
    with rasterio.open(scene, "w", **{**profile, "height": wide.shape[1], "width": wide.shape[2]}) as file:
        file.descriptions = names
        file.write(wide)
    options = ("--workers", "2", "--overlap", str(overlap), "--precision", "fp32")
    command = ["run", str(scene), "-o", str(tmp_path / "out"), "-q", *options]
    environment = {**os.environ, "GEOSEG_CACHE": "off"}  # what is kept saves memory, and estimates do not count on it
    process, peak = subprocess.Popen([sys.executable, "-m", "geoseg", *command], env=environment), 0
    while process.poll() is None:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.05)
    assert process.returncode == 0
    plan = prepare([scene], RunOptions.checked(workers=2, overlap=overlap, precision="fp32"))
    assert 0.6 * need(plan) < peak < need(plan)
