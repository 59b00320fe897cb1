"""Events of a run. Progress bars, logs and memory meters subscribe; the run knows none of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol


class Listener(Protocol):
    def stage_started(self, name: str, *, total: int, done: int) -> None:
        """`total` units of work of which `done` were finished by an earlier try."""
        ...

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None: ...

    def stage_finished(self, name: str) -> None: ...

    def note(self, text: str) -> None:
        """A sentence that the user should see."""
        ...


@dataclass(frozen=True, slots=True)
class Events:
    """Passes events on to every listener, one at a time."""

    listeners: tuple[Listener, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def stage_started(self, name: str, *, total: int, done: int = 0) -> None:
        with self._lock:
            for listener in self.listeners:
                listener.stage_started(name, total=total, done=done)

    def stage_advanced(self, name: str, *, units: int = 1, pixels: int = 0) -> None:
        with self._lock:
            for listener in self.listeners:
                listener.stage_advanced(name, units=units, pixels=pixels)

    def stage_finished(self, name: str) -> None:
        with self._lock:
            for listener in self.listeners:
                listener.stage_finished(name)

    def note(self, text: str) -> None:
        with self._lock:
            for listener in self.listeners:
                listener.note(text)
