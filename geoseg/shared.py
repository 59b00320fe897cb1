"""Arrays that several threads need: each is made once, by the first that asks, for as long as it is kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Entry:
    ready: threading.Event = field(default_factory=threading.Event)
    values: NDArray[Any] | None = None
    """None where making failed: whoever waits makes it himself."""


@dataclass(slots=True)
class SharedArrays(Generic[K]):
    """The arrays used last, by key. What is kept never decides a result, and nobody may write into it."""

    bytes_kept: int
    _entries: OrderedDict[K, _Entry] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, keys: Sequence[K], make: Callable[[Sequence[K]], Iterable[NDArray[Any]]]) -> list[NDArray[Any]]:
        """The arrays of `keys`, which differ from each other; `make` gives those of some of them, in order.

        Raises what `make` raises; then the keys that it did not come to are made by the next that asks.
        """
        mine: list[K] = []
        entries: dict[K, _Entry] = {}
        with self._lock:
            for key in keys:
                if key in self._entries:
                    self._entries.move_to_end(key)
                else:
                    self._entries[key] = _Entry()
                    mine.append(key)
                entries[key] = self._entries[key]
        try:
            # What is claimed is made before anything is waited for: two threads never wait for each other.
            for key, made in zip(mine, make(mine) if mine else (), strict=True):
                entries[key].values = made
                entries[key].ready.set()
        finally:
            with self._lock:
                for key in mine:
                    if entries[key].values is None and self._entries.get(key) is entries[key]:
                        del self._entries[key]
                self._shrink()
            for key in mine:
                entries[key].ready.set()
        for entry in entries.values():
            entry.ready.wait()
        found = {key: entry.values for key, entry in entries.items() if entry.values is not None}
        lost = [key for key in keys if key not in found]
        found |= dict(zip(lost, make(lost) if lost else (), strict=True))
        return [found[key] for key in keys]

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
