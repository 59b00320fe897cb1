"""Stopping in good order: Ctrl-C and SIGTERM let running tiles finish and keep new ones from starting."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from geoseg.errors import Interrupted


class Stop:
    """Set once, seen by every thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signal_number = signal.SIGINT

    def set(self, number: int = signal.SIGINT) -> None:
        self.signal_number = signal.Signals(number)
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Interrupted if the run was asked to stop."""
        if self:
            name = self.signal_number.name
            raise Interrupted(
                f"stopped by {name}; finished tiles are kept: run the same command again to resume",
                exit_code=128 + self.signal_number,
            )


_inside: list[Stop] = []
"""Those that signals set now, the outermost first; of the main thread alone."""


@contextmanager
def signals_set(stop: Stop) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM set `stop` and those around it; a second one falls back to what was before.

    Those around it must be told: where this one is not looked at any more, the signal would be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _frame: FrameType | None) -> None:
        for each_stop in _inside:
            each_stop.set(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, handle)
    _inside.append(stop)
    try:
        yield
    finally:
        _inside.pop()
        for number, handler in before.items():
            signal.signal(number, handler)
