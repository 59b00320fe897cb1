"""A run that kills itself: what test_kill.py starts, in processes of their own.

    python killed_run.py SCENE OUT LOG [call N | time STAGE SECONDS]

Moments are calls that change the disk, before and after each, numbered from 1. The log gets, as JSON lines: every moment's
stage, the seconds of each stage, and every tile that is worked on.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geoseg
from geoseg.runtime.events import Events
from geoseg.runtime.predict import PredictTile
from geoseg.testing.models import PatchMeanModel
from geoseg.vectorize.shapes import ShapeTile
from geoseg.vectorize.tracing import TraceTile
from geoseg.vectorize.watershed import FloodTile

FORMATS = ("gpkg", "shp", "parquet", "geojson")


class Watch:
    """Counts moments, writes the log, and ends the process where it is told to."""

    def __init__(self, log: Path, until: list[str]) -> None:
        self.log = log.open("a", buffering=1)
        self.stage, self.begun = "begin", time.perf_counter()
        self.moments = itertools.count(1)
        self.at = int(until[1]) if until[:1] == ["call"] else 0
        self.timed = (until[1], float(until[2])) if until[:1] == ["time"] else ("", 0.0)
        self.enter("begin")

    def write(self, **told: Any) -> None:
        self.log.write(json.dumps(told) + "\n")

    def enter(self, stage: str) -> None:
        now = time.perf_counter()
        self.write(ended=self.stage, seconds=now - self.begun)
        self.stage, self.begun = stage, now
        if stage == self.timed[0]:
            threading.Timer(self.timed[1], die).start()

    def moment(self) -> None:
        number = next(self.moments)
        self.write(moment=number, stage=self.stage)
        if number == self.at:
            die()

    # What a listener hears of a run.
    def stage_started(self, name: str, *, total: int, done: int) -> None:
        self.enter(name)

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None: ...

    def stage_finished(self, name: str) -> None:
        self.enter(f"after {name}")

    def note(self, text: str) -> None: ...


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, before: Callable[..., None], after: Callable[..., None]) -> None:
    """Calls `before` and `after` with each call of owner.name."""
    original = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        before(*args)
        try:
            return original(*args, **kwargs)
        finally:
            after(*args)

    setattr(owner, name, watched)


def main(scene: str, out: str, log: str, *until: str) -> None:
    watch = Watch(Path(log), list(until))

    def moment(*_: Any) -> None:
        watch.moment()

    def nothing(*_: Any) -> None: ...

    for owner, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (os, "mkdir"), (shutil, "rmtree")):
        around(owner, name, moment, moment)
    for task, kind in (
        (PredictTile, "predict"), (FloodTile, "regions"), (ShapeTile, "fields"), (TraceTile, "outlines")
    ):  # fmt: skip
        around(
            task, "__call__",
            lambda _, item, kind=kind: watch.write(tile=item if isinstance(item, tuple) else item.index, kind=kind), nothing,
        )  # fmt: skip
    model = PatchMeanModel(patch=64, halo=8)
    geoseg.run(
        scene, out=out, model=model, overlap=16, workers=2, min_area_m2=0, format=FORMATS, probabilities=True,
        instances="watershed", min_part_m2=2000, max_hole_m2=1500, simplify_m=12, events=Events((watch,)),
    )  # fmt: skip
    watch.enter("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
