"""kill -9 at any moment, the same command again: the same bytes, and no finished tile is done twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy import ndimage

from geoseg.runtime.workspace import Workspace
from geoseg.stitch.journal import Journal

SEED = 20261122
CHILD = Path(__file__).with_name("killed_run.py")
STAGES = ("begin", "predict", "regions", "fields", "outlines", "after outlines", "export", "after export")
"""`after outlines` joins and writes the polygons, `after export` moves the files to their places."""


@dataclass
class Log:
    """What a child told."""

    moments: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, float] = field(default_factory=dict)
    tiles: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, path: Path) -> Log:
        log = cls()
        for line in path.read_text().splitlines():
            told = json.loads(line)
            if "moment" in told:
                log.moments[told["stage"]].append(told["moment"])
            elif "tile" in told:
                log.tiles[told["kind"]].append(tuple(told["tile"]))
            else:
                log.seconds[told["ended"]] = told["seconds"]
        return log


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kill") / "scene.tif"
    smooth = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal((300, 340)), 6)
    pixels = np.clip(127 + 2500 * smooth, 1, 254).astype(np.uint8)
    pixels[:40, :50] = 0
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=300, width=340, dtype="uint8", nodata=0, crs="EPSG:32633",
        transform=Affine(10, 0, 500_040, 0, -10, 5_000_170),
    ) as file:  # fmt: skip
        file.write(pixels, 1)
        file.descriptions = ("red",)
    return path


def child(scene: Path, out: Path, log: Path, *until: Any) -> int:
    return subprocess.run(
        [sys.executable, str(CHILD), str(scene), str(out), str(log), *map(str, until)], timeout=120, check=False
    ).returncode


def outputs(out: Path) -> dict[str, str]:
    return {name: told["sha256"] for name, told in json.loads((out / "run.json").read_text())["outputs"].items()}


@pytest.fixture(scope="session")
def undisturbed(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Log]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert child(scene, folder / "out", folder / "log") == 0
    log = Log.of(folder / "log")
    assert set(STAGES) <= set(log.moments)
    assert len(log.tiles["predict"]) == len(set(log.tiles["predict"])) > 30
    return outputs(folder / "out"), log


def kept(out: Path) -> dict[str, set[tuple[int, int]]]:
    """The tiles that are finished on disk, by kind of work."""
    workspace = Workspace(out)
    names = {"regions": "regions", "fields": "shapes", "outlines": "parts"}
    found = {
        kind: {tuple(map(int, path.stem.split("."))) for path in workspace.fields.glob(f"watershed/{name}/*.piece")}
        for kind, name in names.items()
    }
    return {"predict": Journal(workspace.journal).finished(), **found}  # type: ignore[dict-item]


def disturbed(scene: Path, folder: Path, undisturbed: tuple[dict[str, str], Log], *kills: tuple[Any, ...]) -> None:
    """Runs that are killed one after the other, and one that is left alone."""
    out = folder / "out"
    folder.mkdir(exist_ok=True)
    for number, until in enumerate([*kills, ()]):
        before = kept(out)
        code = child(scene, out, folder / f"log{number}", *until)
        done = Log.of(folder / f"log{number}").tiles
        for kind, tiles in before.items():
            assert not tiles & set(done[kind]), f"{kind} was done again for finished tiles"
        if not until:
            assert code == 0
        elif until[0] == "call":
            assert code == -signal.SIGKILL, "the child was to die"
    assert outputs(out) == undisturbed[0]
    assert {path.name for path in out.iterdir()} == {*undisturbed[0], "run.json"}, "nothing is left behind"


def moments(log: Log, *, each: int) -> list[tuple[str, int]]:
    """So many moments of every stage: the first, the last, and seeded ones between."""
    chosen = []
    for stage in STAGES:
        known = log.moments[stage]
        middle = random.Random(f"{SEED} {stage}").sample(known[1:-1], max(0, min(each, len(known)) - 2))
        chosen += [(stage, moment) for moment in sorted({known[0], known[-1], *middle})]
    return chosen


def test_a_run_that_is_killed_in_each_stage_resumes(
    scene: Path, tmp_path: Path, undisturbed: tuple[dict[str, str], Log]
) -> None:
    """One run, killed once in every stage on its way."""
    log = undisturbed[1]
    kills = [("call", log.moments["predict"][len(log.moments["predict"]) // 3])]
    for stage in ("regions", "fields", "outlines", "export"):
        kills.append(("time", stage, log.seconds[stage] / 3))
    disturbed(scene, tmp_path, undisturbed, *kills)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_kill_matrix(scene: Path, tmp_path: Path, undisturbed: tuple[dict[str, str], Log]) -> None:
    """Kills at calls that change the disk and timed ones, in every stage, seeded."""
    log = undisturbed[1]
    at_calls = moments(log, each=6)
    for number, (_, moment) in enumerate(at_calls):
        disturbed(scene, tmp_path / f"call{number}", undisturbed, ("call", moment))
    rng = random.Random(SEED)
    timed = [(stage, rng.random()) for stage in STAGES for _ in range(3)]
    for number, (stage, part) in enumerate(timed):
        disturbed(scene, tmp_path / f"time{number}", undisturbed, ("time", stage, part * log.seconds[stage]))
    assert len(at_calls) + len(timed) >= 40


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_that_is_killed_again_and_again_comes_to_its_end(
    scene: Path, tmp_path: Path, undisturbed: tuple[dict[str, str], Log]
) -> None:
    rng = random.Random(SEED + 1)
    disturbed(scene, tmp_path, undisturbed, *(("call", rng.randint(20, 90)) for _ in range(12)))
