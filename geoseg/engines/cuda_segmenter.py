"""A model on a GPU: patches of all threads in full batches, as large as memory allows."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.engines.cuda_pool import PATIENCE_S, Handed, Pool
from geoseg.engines.ladder import Rung, exhausted, reason_of
from geoseg.results import Batch

log = logging.getLogger(__name__)


class Network(Protocol):
    """What runs batches, see cuda_streams.StreamedNetwork."""

    @property
    def batch(self) -> int: ...

    def run(self, patches: Sequence[Handed]) -> NDArray[np.uint8]:
        """(patch, output, row, col) of patches of one shape and dtype, however many. Raises MemoryError."""
        ...

    def close(self) -> None:
        """Waits for what is on its way and frees memory; runs end in a MemoryError from then on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledFooting:
    """A model that stands on a rung."""

    network: Network
    fingerprint: str


class PooledSegmenter:
    """A model that threads share: what they hand in goes through it in full batches, on the highest rung that memory allows.

    Where memory is short for a batch, its patches are predicted again from the next rung down, and so is all that follows.
    `degraded` then is True and `fingerprint` says where the model stands now; both are read after a prediction.
    """

    def __init__(
        self, steps: Sequence[Rung], stand: Callable[[Rung], PooledFooting], *, engine: str, lock: Lock, lanes: int,
        patience_s: float = PATIENCE_S,
    ) -> None:  # fmt: skip
        """`stand` brings the model onto a rung, `lock` is held meanwhile; `lanes` batches are on their way at a time."""
        self.engine = engine
        self.degraded = False
        self._stand = stand
        self._lock = lock
        self._step_onto(steps)
        itself = weakref.proxy(self)  # a cycle would keep the GPU's memory until the garbage collector comes by
        self._pool = Pool(
            lambda patches: itself._run(patches),
            size=lambda: itself._footing.network.batch, lanes=lanes, patience_s=patience_s,
        )  # fmt: skip

    def predict(self, batch: Batch) -> NDArray[np.uint8]:
        """(patch, output, row, col) probabilities as floor(254 p + .5). Made to be called from several threads.

        Raises EngineMemoryError where memory is too short for what the lowest rung takes, EngineError for all else.
        """
        return self._pool.predict(batch)

    def _run(self, patches: Sequence[Handed]) -> NDArray[np.uint8]:
        while True:
            footing = self._footing
            try:
                return footing.network.run(patches)
            except MemoryError as error:
                reason = reason_of(error)
            self._leave(footing, patches, reason)

    def _leave(self, footing: PooledFooting, patches: Sequence[Handed], reason: str) -> None:
        """Steps down from `footing`, unless another thread has done so already."""
        with self._lock:
            if self._footing is not footing:
                return
            if not self._below:
                raise exhausted(self.engine, self.rung, patches[0].pixels.shape, reason)
            self.degraded = True  # first: whoever sees the new fingerprint sees this as well
            footing.network.close()
            self._step_onto(self._below)
        log.warning("%s runs out of memory; going on with %s", self.engine, self.rung)

    def _step_onto(self, steps: Sequence[Rung]) -> None:
        self.rung, *self._below = steps
        self._footing = self._stand(self.rung)
        self.fingerprint = self._footing.fingerprint
