"""Patches of all threads in full batches: who calls hands in patches and waits, and one of those who wait runs them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.results import Batch

PATIENCE_S = 0.005
"""How long an idle device waits for threads that may be on their way, before it runs less than a full batch."""


@dataclass(slots=True, eq=False, kw_only=True)
class Handed:
    """A patch that a thread has handed in."""

    pixels: NDArray[Any]
    """(channel, row, col) as stored."""
    valid: NDArray[np.bool_]
    """(row, col)."""
    owner: int
    """The thread that waits for it."""
    runner: int | None = None
    """The thread that runs it; None while it waits."""
    made: NDArray[np.uint8] | None = None
    """(output, row, col), once it is there."""
    error: Exception | None = None
    """What its batch ended in, where that failed."""

    @property
    def done(self) -> bool:
        return self.made is not None or self.error is not None

    @property
    def kind(self) -> tuple[tuple[int, ...], str]:
        """What patches of one batch have in common."""
        return self.pixels.shape, self.pixels.dtype.str


Run = Callable[[Sequence[Handed]], NDArray[np.uint8]]
"""Patches of one shape and dtype, at most a batch, to (patch, output, row, col)."""


class Pool:
    """Runs a full batch as soon as enough patches of one shape wait, and what there is when nothing else goes on.

    Less than a full batch runs only while the device is idle, and at once where every thread that ever came waits;
    otherwise after PATIENCE_S in which nobody came. Which patches share a batch is chance: `run` must not let it show.

    There is no thread of its own, and all state is in the patches: a thread that is interrupted leaves those of others
    to the others.
    """

    def __init__(self, run: Run, *, size: Callable[[], int], lanes: int = 2, patience_s: float = PATIENCE_S) -> None:
        """`size` tells the patches of a full batch, which may change; `lanes` batches run at a time, a thread each."""
        self._run = run
        self._size = size
        self._lanes = lanes
        self._patience_s = patience_s
        self._queue: list[Handed] = []
        """All that are not done, in the order they came."""
        self._known: set[int] = set()
        """Threads that came so far."""
        self._latest = 0.0
        """When somebody came last."""
        self._changed = threading.Condition()

    def predict(self, batch: Batch) -> NDArray[np.uint8]:
        """(patch, output, row, col) probabilities as floor(254 p + .5). Raises what the batch of a patch ended in."""
        me = threading.get_ident()
        mine = [
            Handed(pixels=pixels, valid=valid, owner=me)
            for pixels, valid in zip(batch.pixels, batch.valid, strict=True)
        ]
        try:
            with self._changed:
                self._queue += mine
                self._known.add(me)
                self._latest = time.monotonic()
                self._changed.notify_all()
            while patches := self._next(mine):
                self._serve(patches)
        finally:
            self._leave(mine)
        for one in mine:
            if one.error is not None:
                raise one.error
        return np.stack([one.made for one in mine if one.made is not None])

    def _next(self, mine: Sequence[Handed]) -> Sequence[Handed]:
        """Patches for this thread to run, of whomever; none once all of its own are done. Waits until either is so."""
        with self._changed:
            while not all(one.done for one in mine):
                if patches := self._due():
                    for one in patches:
                        one.runner = threading.get_ident()
                    return patches
                self._changed.wait(self._pause())
        return ()

    def _serve(self, patches: Sequence[Handed]) -> None:
        try:
            for one, made in zip(patches, self._run(patches), strict=True):
                one.made = made
        except Exception as error:
            for one in patches:
                one.made, one.error = None, error
        with self._changed:
            self._queue = [one for one in self._queue if not one.done]
            self._changed.notify_all()

    def _leave(self, mine: Sequence[Handed]) -> None:
        """Takes back what is not done, and lets go of what others wait for: both are there after an interrupt only."""
        me, gone = threading.get_ident(), {id(one) for one in mine}
        with self._changed:
            self._queue = [one for one in self._queue if id(one) not in gone and not one.done]
            for one in self._queue:
                if one.runner == me:
                    one.runner = None
            self._changed.notify_all()

    def _due(self) -> list[Handed]:
        """What is to run now: the oldest full batch, or all of the oldest patch's kind where it is not worth waiting."""
        if len(self._running) >= self._lanes:
            return []
        kinds: dict[object, list[Handed]] = {}
        for one in self._queue:
            if one.runner is None:
                kinds.setdefault(one.kind, []).append(one)
        size = self._size()
        full = next((patches[:size] for patches in kinds.values() if len(patches) >= size), [])
        if full or not kinds or self._pause() != 0:
            return full
        return next(iter(kinds.values()))

    @property
    def _running(self) -> set[int]:
        """Threads that run a batch."""
        return {one.runner for one in self._queue if one.runner is not None}

    def _pause(self) -> float | None:
        """Seconds until an idle device runs what there is; None where a notice comes first, 0 where it is due."""
        if self._running:
            return None
        if self._known <= {one.owner for one in self._queue}:
            return 0.0
        return max(0.0, self._latest + self._patience_s - time.monotonic())
