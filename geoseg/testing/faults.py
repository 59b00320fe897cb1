"""Models that fail as machines do: slowly, or with their whole process."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.spec import ModelSpec
from geoseg.testing.models import IdentityModel


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyModel:
    """Another model, disturbed. It has that model's fingerprint: where it survives, it gives the same run."""

    model: IdentityModel = field(default_factory=IdentityModel)
    pause_s: float = 0.0
    """Of every prediction."""
    fatal: int | None = None
    """A stored value that kills the process that sees it, with SIGKILL."""
    once: Path | None = None
    """Made before the process is killed; where it exists nothing is fatal any more."""

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def runtime(self) -> str:
        return "numpy"

    def fingerprint(self) -> str:
        return self.model.fingerprint()

    def predict(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(patch, channel, row, col) to (patch, class, row, col)."""
        time.sleep(self.pause_s)
        if self.fatal is not None and (pixels[:, 0][valid] == self.fatal).any():
            self._die()
        return self.model.predict(pixels, valid)

    def _die(self) -> None:
        if self.once is not None:
            if self.once.exists():
                return
            self.once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
