"""A batch that kills itself: what test_batch.py starts, in a process of its own.

    python killed_batch.py PIPELINE LOG [call N]

It dies at the N-th call that changes the disk, see killed_run.py. The log gets, as JSON lines, every tile that is predicted and
every scene whose results are moved to their place.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from killed_run import Watch, around

import geoseg.export.preview
from geoseg.batching import load_batch, run_batch
from geoseg.runtime.predict import PredictTile
from geoseg.runtime.workspace import Workspace


def scene_of(path: Path) -> str:
    """The scene in whose folder a path lies."""
    return path.parts[path.parts.index("scenes") + 1]


def main(pipeline: str, log: str, *until: str) -> int:
    watch = Watch(Path(log), list(until))

    def moment(*_: Any) -> None:
        watch.moment()

    def nothing(*_: Any) -> None: ...

    geoseg.export.preview.write_preview = partial(geoseg.export.preview.write_preview, size=300)  # most of a small run
    for owner, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (os, "mkdir")):
        around(owner, name, moment, moment)
    around(
        PredictTile, "__call__",
        lambda task, index: watch.write(scene=scene_of(task.store.path), tile=index), nothing,
    )  # fmt: skip
    around(Workspace, "publish", nothing, lambda workspace, *_: watch.write(published=workspace.out.name))
    return run_batch(load_batch(pipeline)).exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
