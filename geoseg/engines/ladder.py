"""What an engine does when memory runs out: smaller batches, then another device, then a clear error."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.engines.batches import fixed_batches
from geoseg.errors import EngineMemoryError
from geoseg.results import Batch

Forward = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.uint8]]
"""Pixels (B, channel, row, col) and validity (B, 1, row, col) to (B, output, row, col); MemoryError where memory is short."""

SHORT = re.compile(
    r"out of memory|not enough memory|(can't|cannot|could not|failed to|unable to) allocate|bad[_ ]alloc|alloc_failed"
    r"|resource temporarily unavailable",  # of a thread's stack
    re.IGNORECASE,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    device: str
    batch: int
    """Patches a forward pass."""

    def __str__(self) -> str:
        return f"{self.batch} patch{'es' if self.batch > 1 else ''} at a time on {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Footing:
    """A model that stands on a rung."""

    forward: Forward
    fingerprint: str


def rungs(batch: int, device: str) -> list[Rung]:
    """The batch halved down to 1, and beneath an accelerator one patch at a time on the CPU."""
    found = [Rung(device=device, batch=batch)]
    while found[-1].batch > 1:
        found.append(Rung(device=device, batch=found[-1].batch // 2))
    return found if device == "cpu" else [*found, Rung(device="cpu", batch=1)]


class LadderSegmenter:
    """A model on the highest of its rungs that memory allows.

    During a run, a batch for which memory is short is predicted again, whole, from the next rung down, and so is all that
    follows. `degraded` then is True and `fingerprint` says where the model stands now. Both are read after a prediction:
    whoever still sees the old fingerprint got the old bytes.
    """

    def __init__(
        self, steps: Sequence[Rung], stand: Callable[[Rung], Footing], *, engine: str, lock: AbstractContextManager[Any]
    ) -> None:
        """`stand` brings the model onto a rung; `lock` lets one prediction at a time through, or several on a ladder of one
        rung.
        """
        self.engine = engine
        self.degraded = False
        self._stand = stand
        self._lock = lock
        self._step_onto(steps)

    def predict(self, batch: Batch) -> NDArray[np.uint8]:
        """(patch, output, row, col) probabilities as floor(254 p + .5). Safe to call from several threads.

        Raises EngineMemoryError where memory is too short for what the lowest rung takes.
        """
        with self._lock:
            while (found := self._attempt(batch)) is None:
                self.degraded = True  # first: whoever sees the new fingerprint sees this as well
                self._step_onto(self._below)
                log.warning("%s runs out of memory; going on with %s", self.engine, self.rung)
        return found

    def settle(self, batch: Batch) -> None:
        """Steps down, before a run, to the first rung that `batch` fits.

        A smaller batch is how the run is made; a model that has to leave its device for it is degraded.
        """
        device = self.rung.device
        while self._attempt(batch) is None:
            self._step_onto(self._below)
            log.info("%s has memory for %s at most", self.engine, self.rung)
        if self.rung.device != device:
            self.degraded = True
            log.warning(
                "%s has no memory on %s for even one patch of %d x %d pixels; going on with %s, which is slower: end what "
                "else uses %s, or use a smaller --patch",
                self.engine, device, batch.pixels.shape[3], batch.pixels.shape[2], self.rung, device,
            )  # fmt: skip

    def _attempt(self, batch: Batch) -> NDArray[np.uint8] | None:
        """The prediction from this rung; None, with the memory free again, where it is too short and a rung is left."""
        try:
            return self._predict(batch)
        except MemoryError as error:
            if not self._below:
                raise exhausted(self.engine, self.rung, batch.pixels.shape[1:], reason_of(error)) from error
        return None

    def _predict(self, batch: Batch) -> NDArray[np.uint8]:
        parts = [
            self._footing.forward(pixels, valid)[:count]
            for pixels, valid, count in fixed_batches(batch, self.rung.batch)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _step_onto(self, steps: Sequence[Rung]) -> None:
        self.rung, *self._below = steps
        self._footing = self._stand(self.rung)
        self.fingerprint = self._footing.fingerprint


def exhausted(engine: str, rung: Rung, shape: tuple[int, ...], reason: str) -> EngineMemoryError:
    """The error where the lowest rung is too high for patches (channel, row, col) of this shape."""
    channels, rows, cols = shape
    return EngineMemoryError(
        f"{engine} has too little memory for {rung}, of {cols} x {rows} pixels and {channels} bands "
        f"({reason}); use a smaller --patch, fewer --workers or a larger --max-memory"
    )


def short_of_memory(error: Exception) -> bool:
    """Whether an engine's error says that memory ran out: engines raise it as a RuntimeError with a text of their own."""
    return isinstance(error, MemoryError) or bool(SHORT.search(str(error)))


def reason_of(error: Exception) -> str:
    """The line of an engine's error that names the cause: one about memory, else the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next(filter(SHORT.search, lines), lines[-1])[:200]
