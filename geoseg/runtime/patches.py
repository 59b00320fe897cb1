"""Predicted patches that several tiles need: where patches are blended, each is computed once as long as it is kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Patch, Window

KEPT_BYTES = 256 * 2**20
"""Predictions that a process keeps."""

Predict = Callable[[Sequence[Patch]], Sequence[NDArray[np.uint8]]]


@dataclass(slots=True)
class _Entry:
    ready: threading.Event = field(default_factory=threading.Event)
    values: NDArray[np.uint8] | None = None
    """None where predicting failed: whoever waits computes it himself."""


@dataclass(slots=True)
class PatchCache:
    """The predictions used last, by run and frame. What it holds never decides a result."""

    bytes_kept: int = KEPT_BYTES
    _entries: OrderedDict[tuple[str, Window], _Entry] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def predictions(self, run: str, patches: Sequence[Patch], predict: Predict) -> list[NDArray[np.uint8]]:
        """(channel, row, col) of each patch's frame. Every patch is computed by the first thread that asks for it."""
        mine, others = [], {}
        with self._lock:
            for patch in patches:
                key = (run, patch.frame)
                if key in self._entries:
                    others[patch.frame] = self._entries[key]
                    self._entries.move_to_end(key)
                else:
                    self._entries[key] = _Entry()
                    mine.append(patch)
            claimed = {patch.frame: self._entries[run, patch.frame] for patch in mine}
        try:
            # What is claimed is computed before anything is waited for: two threads never wait for each other.
            for patch, made in zip(mine, predict(mine) if mine else (), strict=True):
                claimed[patch.frame].values = made
        finally:
            with self._lock:
                for frame, entry in claimed.items():
                    if entry.values is None:
                        del self._entries[run, frame]
                self._shrink()
            for entry in claimed.values():
                entry.ready.set()
        for entry in others.values():
            entry.ready.wait()
        lost = [patch for patch in patches if patch.frame in others and others[patch.frame].values is None]
        found = {frame: entry.values for frame, entry in (claimed | others).items()}
        found |= dict(zip((patch.frame for patch in lost), predict(lost) if lost else (), strict=True))
        return [values for patch in patches if (values := found[patch.frame]) is not None]

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def _shrink(self) -> None:
        size = sum(entry.values.nbytes for entry in self._entries.values() if entry.values is not None)
        for key in list(self._entries):
            if size <= self.bytes_kept:
                break
            values = self._entries[key].values
            if values is not None:
                size -= values.nbytes
                del self._entries[key]
