"""Clusters whose workers, scheduler or software fail: the run heals or ends in one clear error, and nothing is lost."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
from affine import Affine
from distributed import Client, LocalCluster
from numpy.typing import NDArray
from scipy import ndimage

import geoseg
from geoseg.errors import Interrupted, RunError
from geoseg.grid import lattice_phase
from geoseg.runtime.events import Events
from geoseg.runtime.predict import release_memory
from geoseg.runtime.runners import AT_ONCE, Cluster, Threads
from geoseg.runtime.workspace import Workspace
from geoseg.testing.faults import FaultyModel
from geoseg.testing.models import IdentityModel

MODEL = IdentityModel(classes=("background", "field", "boundary"), patch=64, halo=8)
PLACE = Affine(10, 0, 500_040, 0, -10, 5_000_170)
DEADLY, DEADLY_AT = 7, (120, 130)
SLOW = FaultyModel(model=MODEL, pause_s=0.2)
PATIENCE_S = 3.0
MUCH_LONGER_S = 45.0
"""What is called a hang here: worlds above any patience, and below the time limit of a test."""

SETTINGS = {"distributed.scheduler.allowed-failures": 1, "distributed.deploy.lost-worker-timeout": "300 s"}
"""A tile may kill one worker; a local cluster waits for workers that take their time to come back."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes with SIGKILL")


def class_scene() -> NDArray[np.uint8]:
    smooth = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((200, 260)), 5)
    scene = np.digitize(smooth, [-0.01, 0.03]).astype(np.uint8)
    scene[DEADLY_AT] = DEADLY  # no class of the model, which says background
    return scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, pixels = tmp_path_factory.mktemp("scene") / "scene.tif", class_scene()
    profile = {"driver": "GTiff", "count": 1, "height": len(pixels), "width": pixels.shape[1], "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs="EPSG:32633", transform=PLACE, nodata=255) as file:
        file.write(pixels, 1)
        file.descriptions = ("red",)
    return path


class Seen:
    """Listens: how many tiles an earlier try had finished, and how many were finished now. May do something at the first."""

    def __init__(self, first: Any = None) -> None:
        self.first, self.before, self.total, self.advanced = first, 0, 0, 0

    def stage_started(self, name: str, *, total: int, done: int) -> None:
        if name == "predict":
            self.total, self.before = total, done

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None:
        if name == "predict":
            self.advanced += 1
            if self.advanced == 1 and self.first is not None:
                self.first()

    def stage_finished(self, name: str) -> None: ...
    def note(self, text: str) -> None: ...


def rerun(scene: Path, out: Path, *, seen: Seen | None = None, **changes: Any) -> dict[str, str]:
    """Hashes of a run's results by name."""
    defaults: dict[str, Any] = {"model": MODEL, "min_area_m2": 0, "workers": 2, "tile": 1, "format": ("geojson",)}
    result = geoseg.run(scene, out=out, events=Events((seen,) if seen else ()), **(defaults | changes))
    return {name: output["sha256"] for name, output in result.record["outputs"].items()}


@pytest.fixture(scope="module")
def undisturbed(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return rerun(scene, tmp_path_factory.mktemp("here") / "out")


def journaled(out: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in Workspace(out).journal.glob("*.jsonl"))


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    with dask.config.set({"geoseg.patience-s": PATIENCE_S}):
        yield


@contextmanager
def cluster_of(workers: int) -> Iterator[tuple[LocalCluster, Client]]:
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield cluster, client


def ready(client: Client, workers: int) -> Client:
    """The client once all its workers live, none of which has built a model yet."""
    client.wait_for_workers(workers, timeout=60)
    client.run(release_memory)
    return client


@pytest.fixture(scope="module")
def pair() -> Iterator[Client]:
    """Two workers with nannies, which start them again where they die."""
    with cluster_of(2) as (_, client):
        yield client


@pytest.fixture
def two_workers(pair: Client) -> Client:
    return ready(pair, 2)


@pytest.fixture(scope="module")
def single() -> Iterator[tuple[LocalCluster, Client]]:
    """One worker with a nanny."""
    with cluster_of(1) as both:
        yield both


@pytest.fixture
def one_worker(single: tuple[LocalCluster, Client]) -> Client:
    single[0].scale(1)
    return ready(single[1], 1)


@pytest.mark.parametrize("workers", ["two_workers", "one_worker"])
def test_a_run_outlives_a_killed_worker(
    workers: str, scene: Path, tmp_path: Path, undisturbed: dict[str, str], request: pytest.FixtureRequest
) -> None:
    client, mark = request.getfixturevalue(workers), tmp_path / "killed"
    with dask.config.set({"geoseg.patience-s": MUCH_LONGER_S}):
        found = rerun(scene, tmp_path / "out", model=FaultyModel(model=MODEL, fatal=DEADLY, once=mark), client=client)
    assert mark.exists()
    assert found == undisturbed


def test_a_tile_that_kills_every_worker_is_named(scene: Path, tmp_path: Path, two_workers: Client) -> None:
    begun, side = time.monotonic(), MODEL.patch - 2 * MODEL.halo
    row, col = ((at - phase) // side for at, phase in zip(DEADLY_AT, lattice_phase(PLACE), strict=True))
    told = (
        rf"2 Dask workers died one after the other while they had (tile -?\d+,-?\d+ or )*tile {row},{col}[ ,].*resume"
    )
    with dask.config.set({"geoseg.patience-s": MUCH_LONGER_S}), pytest.raises(RunError, match=told):
        rerun(scene, tmp_path / "out", model=FaultyModel(model=MODEL, fatal=DEADLY), client=two_workers)
    assert time.monotonic() - begun < MUCH_LONGER_S


def test_workers_with_another_geoseg_are_refused(scene: Path, tmp_path: Path, two_workers: Client) -> None:
    def pretend(version: str) -> None:
        import geoseg.version

        geoseg.version.VERSION = version

    other = next(iter(two_workers.nthreads()))
    two_workers.run(pretend, "0.0.1", workers=[other])
    try:
        with pytest.raises(RunError, match=rf"the worker {other} has geoseg 0.0.1, here is .*; install geoseg"):
            rerun(scene, tmp_path / "out", client=two_workers)
    finally:
        two_workers.run(pretend, geoseg.version.VERSION, workers=[other])
    assert not (tmp_path / "out").exists()


def test_ctrl_c_starts_no_new_tiles(
    scene: Path, tmp_path: Path, undisturbed: dict[str, str], two_workers: Client
) -> None:
    seen, out = Seen(first=lambda: signal.raise_signal(signal.SIGINT)), tmp_path / "out"
    with pytest.raises(Interrupted, match=r"stopped by SIGINT; finished tiles are kept"):
        rerun(scene, out, model=SLOW, client=two_workers, seen=seen)
    under_way = 2 * Cluster.__dataclass_fields__["ahead"].default
    assert 1 <= journaled(out) <= under_way < seen.total
    assert resumed_on_threads(scene, out) == undisturbed


def test_an_address_is_as_good_as_a_client(
    scene: Path, tmp_path: Path, undisturbed: dict[str, str], two_workers: Client
) -> None:
    assert rerun(scene, tmp_path / "out", scheduler=two_workers.scheduler.address) == undisturbed


@pytest.mark.parametrize("kind", ["threads", "cluster"])
def test_items_are_taken_as_they_are_needed_and_results_let_go(kind: str, request: pytest.FixtureRequest) -> None:
    runner: Threads | Cluster = Threads(workers=2)
    items, most, taken = 2 * AT_ONCE, AT_ONCE, 0
    if kind == "cluster":
        runner = Cluster(client=request.getfixturevalue("two_workers"))
        items, most = 40, 2 * runner.ahead
    results: list[weakref.ref[Single]] = []

    def drawn() -> Iterator[int]:
        nonlocal taken
        while taken < items:
            taken += 1
            yield taken

    def done(result: Single) -> None:
        results.append(weakref.ref(result))
        assert taken - len(results) <= most
        assert sum(kept() is not None for kept in results[-100:]) <= 2

    runner.map(Single, drawn(), done=done)
    assert taken == len(results) == items


class Single(set[int]):
    """A set of one: unlike a number, one can watch it go."""

    def __init__(self, item: int) -> None:
        super().__init__({item})

    def __reduce__(self) -> tuple[type[Single], tuple[int]]:
        return Single, (next(iter(self)),)


def resumed_on_threads(scene: Path, out: Path) -> dict[str, str]:
    """The rest of a run, where tiles in the journal are not predicted once more."""
    finished, seen = journaled(out), Seen()
    assert finished > 0
    found = rerun(scene, out, seen=seen)
    assert seen.before == finished
    assert seen.advanced == seen.total - finished > 0
    return found


def test_without_workers_a_run_ends_and_resumes_on_threads(
    scene: Path, tmp_path: Path, undisturbed: dict[str, str], one_worker: Client
) -> None:
    out, begun = tmp_path / "out", time.monotonic()
    seen = Seen(first=lambda: one_worker.cluster.scale(0))
    with pytest.raises(RunError, match=r"has had no worker for 3 s; finished tiles are kept: start workers"):
        rerun(scene, out, model=SLOW, client=one_worker, seen=seen)
    assert time.monotonic() - begun < MUCH_LONGER_S
    assert resumed_on_threads(scene, out) == undisturbed


@contextmanager
def processes() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.wait()


def test_without_a_scheduler_a_run_ends_and_resumes_on_threads(
    scene: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    out, address = tmp_path / "out", tmp_path / "scheduler.json"
    dask_cli = [sys.executable, "-m", "dask"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with processes() as started:
        started["scheduler"] = subprocess.Popen(
            [
                *dask_cli,
                "scheduler",
                "--port",
                "0",
                "--no-dashboard",
                "--dashboard-address",
                ":0",
                "--scheduler-file",
                str(address),
            ],
            **quiet,
        )
        started["worker"] = subprocess.Popen(
            [*dask_cli, "worker", "--scheduler-file", str(address), "--nthreads", "1", "--no-nanny", "--no-dashboard"],
            **quiet,
        )
        with Client(scheduler_file=str(address), timeout=30, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            begun, seen = time.monotonic(), Seen(first=started["scheduler"].kill)
            with pytest.raises(RunError, match=r"the Dask scheduler is gone; finished tiles are kept: start it again"):
                rerun(scene, out, model=SLOW, client=client, seen=seen)
            assert time.monotonic() - begun < MUCH_LONGER_S
    assert resumed_on_threads(scene, out) == undisturbed
