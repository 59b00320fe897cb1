"""Runs on a bad day: unreadable blocks, full disks, engines short of memory."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from scipy import ndimage

import geoseg
from geoseg.errors import ExportError, GeosegError, InputError, RunError
from geoseg.pipeline import vectorize_file
from geoseg.spec import ModelSpec, bands, classes
from geoseg.testing.models import IdentityModel

MODEL = IdentityModel(classes=("background", "field", "boundary"), patch=64, halo=8)
BLOCK = 32
FORMATS = ("gpkg", "shp", "parquet", "fgb", "geojson")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 x 340 blobs of three classes, in blocks of 32 pixels."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((300, 340)), 5)
    path = tmp_path_factory.mktemp("faults") / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=300, width=340, dtype="uint8", nodata=255, crs="EPSG:32633",
        transform=Affine(10, 0, 500_040, 0, -10, 5_000_170), tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress="deflate",
    ) as file:  # fmt: skip
        file.write(np.digitize(smooth, [-0.01, 0.03]).astype(np.uint8), 1)
        file.set_band_description(1, "red")
    return path


def run(scene: Path, out: Path, **changes: Any) -> geoseg.Result:
    return geoseg.run(
        scene, out=out, model=MODEL, **({"min_area_m2": 0, "workers": 2, "probabilities": True} | changes)
    )


@pytest.fixture(scope="module")
def whole(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> geoseg.Result:
    """An undisturbed run."""
    return run(scene, tmp_path_factory.mktemp("whole") / "out", format=FORMATS)


def hashes(out: Path) -> dict[str, str]:
    return {name: told["sha256"] for name, told in json.loads((out / "run.json").read_text())["outputs"].items()}


def damage(scene: Path, row: int, col: int) -> None:
    """Overwrites one block of the file."""
    with rasterio.open(scene) as raster:
        offset, size = (
            int(raster.get_tag_item(f"BLOCK_{item}_{col}_{row}", "TIFF", bidx=1)) for item in ("OFFSET", "SIZE")
        )
    with scene.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * size)


def test_unreadable_blocks_end_the_run_or_become_nodata(scene: Path, tmp_path: Path, whole: geoseg.Result) -> None:
    assert "unread" not in whole.fields.columns
    scene = Path(shutil.copy(scene, tmp_path))
    damage(scene, 4, 5)
    with pytest.raises(InputError, match=r"scene\.tif.*tile"):
        run(scene, tmp_path / "stopped")
    results = [run(scene, tmp_path / f"masked{k}", on_read_error="mask", tile=k, workers=k) for k in (1, 4)]
    assert hashes(results[0].out) == hashes(results[1].out)
    assert results[0].record["counts"]["unread_pixels"] == BLOCK * BLOCK
    with rasterio.open(whole.out / "mask.tif") as a, rasterio.open(results[0].out / "mask.tif") as b:
        expected, found, transform = a.read(1), b.read(1), b.transform
    expected[4 * BLOCK : 5 * BLOCK, 5 * BLOCK : 6 * BLOCK] = 255
    np.testing.assert_array_equal(found, expected)
    hole = shapely.box(*transform @ (5 * BLOCK, 5 * BLOCK), *transform @ (6 * BLOCK, 4 * BLOCK))
    fields = results[0].fields
    np.testing.assert_array_equal(fields["unread"], fields.geometry.intersects(hole))
    assert 0 < fields["unread"].sum() < 10


@contextmanager
def files_limited(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: what a full disk or a quota does, at a chosen byte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def finals(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()} - {".partial", ".geoseg.lock"} if out.exists() else set()


@pytest.mark.parametrize("size", [0, 200, 1000, 2000, 4000, 6000, 9000, 14_000, 20_000, 40_000, 70_000, 120_000])
def test_a_disk_that_fills_leaves_no_final_file_and_the_run_resumes(
    scene: Path, tmp_path: Path, whole: geoseg.Result, size: int
) -> None:
    out = tmp_path / "out"
    largest = max(told["bytes"] for told in whole.record["outputs"].values())
    if size < largest:
        with files_limited(size), pytest.raises((RunError, ExportError)) as caught:
            run(scene, out, format=FORMATS)
        assert len(str(caught.value).splitlines()) == 1
        assert finals(out) == set()
    assert run(scene, out, format=FORMATS).resumed == (size >= 2000)
    assert hashes(out) == hashes(whole.out)
    assert finals(out) == {*hashes(out), "run.json"}


def test_vectorizing_a_raster_onto_a_full_disk_leaves_nothing_but_what_resumes(
    tmp_path: Path, whole: geoseg.Result
) -> None:
    mask, undisturbed, target = whole.out / "mask.tif", tmp_path / "whole.gpkg", tmp_path / "fields.gpkg"
    vectorize_file(mask, out=undisturbed)
    for size in (100, 1000, 10_000, 60_000):
        with files_limited(size), pytest.raises(GeosegError):
            vectorize_file(mask, out=target)
        assert not target.exists()
    vectorize_file(mask, out=target)
    assert target.read_bytes() == undisturbed.read_bytes()
    assert not list(tmp_path.glob(".*"))


CHILD = """
import sys
import geoseg
from geoseg.testing.models import IdentityModel
from geoseg.errors import GeosegError
model = IdentityModel(classes=("background", "field", "boundary"), patch=64, halo=8)
try:
    geoseg.run(sys.argv[1], out=sys.argv[2], model=model, min_area_m2=0, workers=2, probabilities=True)
except GeosegError as error:
    print(type(error).__name__, error)
    sys.exit(3)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs user namespaces to mount a small file system")
@pytest.mark.parametrize("kilobytes", [60, 150, 300, 500, 800, 1200, 9000])
def test_a_small_file_system_fills(scene: Path, tmp_path: Path, whole: geoseg.Result, kilobytes: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size={kilobytes}k tmpfs {disk} || exit 77\n"
        f"{sys.executable} -c \"$CHILD\" {scene} {disk}/out; first=$?\n"
        f"[ $first = 3 ] && ls {disk}/out/*.tif {disk}/out/*.gpkg 2>/dev/null && exit 4\n"
        f"mount -o remount,size=100m {disk}\n"
        f"{sys.executable} -c \"$CHILD\" {scene} {disk}/out && cp {disk}/out/run.json {tmp_path} && exit $first\n"
    )  # fmt: skip
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        env={**os.environ, "CHILD": CHILD},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("no file system can be mounted here")
    assert done.returncode == (3 if kilobytes < 1500 else 0), done.stdout + done.stderr
    outputs = json.loads((tmp_path / "run.json").read_text())["outputs"]
    del outputs["item.json"]  # it lists the files, and `whole` has more of them
    assert outputs.items() <= whole.record["outputs"].items()


def test_a_run_whose_engine_stepped_down_says_so(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geoseg.engines import registry
    from geoseg.engines.torch_engine import TorchEngine
    from geoseg.testing.networks import CrampedNetwork

    class Cramped:
        spec = ModelSpec(
            name="cramped", title="", bands=bands(("red",)), outputs=classes("background", "field"), patch=64, halo=0
        )
        runtime = "torch"

        def __init__(self, most: int) -> None:
            self.most = most

        def fingerprint(self) -> str:
            return "cramped"

        def network(self) -> Any:
            return CrampedNetwork(self.most)

    monkeypatch.setattr(registry, "_builtin", lambda: (TorchEngine(device="cpu", batch=4),))
    options: dict[str, Any] = {"tile": 2, "min_area_m2": 0, "workers": 1, "engine": "torch", "precision": "fp32"}
    roomy = geoseg.run(scene, out=tmp_path / "roomy", model=Cramped(4), **options)
    tight = geoseg.run(scene, out=tmp_path / "tight", model=Cramped(2), **options)
    assert roomy.record["reproducible"] is True
    assert tight.record["reproducible"] is False
    assert any("batch2" in engine for engine in tight.record["engines"])
    with pytest.raises(GeosegError, match=r"memory.*--patch"):
        geoseg.run(scene, out=tmp_path / "none", model=Cramped(0), **options)


def test_tiles_of_two_engines_are_mixed_only_where_that_is_allowed(
    scene: Path, tmp_path: Path, whole: geoseg.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoseg.engines.numpy_engine import NumpySegmenter

    with files_limited(4000), pytest.raises(GeosegError):
        run(scene, tmp_path / "out")
    made = NumpySegmenter.__init__

    def other(self: NumpySegmenter, model: Any) -> None:
        made(self, model)
        self.fingerprint = "numpy-of-tomorrow"

    monkeypatch.setattr(NumpySegmenter, "__init__", other)
    with pytest.raises(RunError, match=r"numpy-of-tomorrow.*--allow-mixed-engines"):
        run(scene, tmp_path / "out")
    mixed = run(scene, tmp_path / "out", allow_mixed_engines=True)
    assert mixed.resumed
    assert len(mixed.record["engines"]) == 2
    assert not mixed.record["reproducible"]
    assert hashes(mixed.out)["mask.tif"] == hashes(whole.out)["mask.tif"], "NumPy itself has not changed"


def test_abandoned_stages_are_cleared_and_those_in_use_are_not(tmp_path: Path) -> None:
    from geoseg.export.staging import staged

    old = tmp_path / ".geoseg-abc.partial"
    old.mkdir()
    os.utime(old, (time.time() - 3600,) * 2)
    with staged(tmp_path / "a.txt") as first:
        os.utime(first.folder, (time.time() - 3600,) * 2)
        with staged(tmp_path / "b.txt") as second:
            assert not old.exists()
            first.path.write_text("a")
            second.path.write_text("b")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "b.txt"}
