"""A training that is killed: `python killed_training.py RECIPE OUT MOMENT [STEP]`, run by test_train.py.

MOMENT is `step` (SIGKILL after training step STEP) or `keep` (while the state of an epoch that ends at step STEP takes the
place of the one before).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from geoseg.runtime.events import Events
from geoseg.teaching import train
from geoseg.training import session
from geoseg.training.recipe import load_train_recipe


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    def __init__(self, step: int) -> None:
        self.left = step

    def stage_started(self, name: str, *, total: int, done: int) -> None: ...

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None:
        self.left -= units
        if self.left == 0:
            die()

    def stage_finished(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...


def main() -> None:
    recipe, out, moment, step = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    if moment == "keep":
        whole = session.flush

        def flush(path: Path) -> None:
            whole(path)
            if path.name.endswith(".part") and told(path) == step:
                die()

        session.flush = flush

        def told(path: Path) -> int:
            import torch

            state: dict[str, Any] = torch.load(path, weights_only=True)
            return int(state["global_step"])

    events = Events((Killer(step if moment == "step" else -1),))
    train(load_train_recipe(recipe), out=out, folder=Path(recipe).parent, events=events)


if __name__ == "__main__":
    main()
