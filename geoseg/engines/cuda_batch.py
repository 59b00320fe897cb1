"""How many patches a GPU takes at a time: measured before a run, then fixed and part of the fingerprint."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from threading import Lock

GAIN = 0.05
"""A batch twice as large must be that much faster a patch to be worth its memory, and its waiting until it is full."""

_found: dict[Hashable, int] = {}
_lock = Lock()


def best_batch(seconds: Callable[[int], float], most: int) -> int:
    """The power of two, `most` at most, up to which each doubling brings more patches a second; 0 where even 1 is too many.

    Args:
        seconds: what a batch of that size takes; MemoryError where there is no memory for it.
        most: the largest to try.
    """
    best, rate, size = 0, 0.0, 1
    while size <= most:
        try:
            found = size / seconds(size)
        except MemoryError:
            break
        if found <= rate * (1 + GAIN):
            break
        best, rate, size = size, found, 2 * size
    return best


def known_batch(key: Hashable, find: Callable[[], int]) -> int:
    """What `find` gave the first time in this process: a model that is built again gets the same batch."""
    with _lock:
        if key not in _found:
            _found[key] = find()
        return _found[key]


def batch_in(fingerprint: str) -> int | None:
    """The batch that a segmenter's fingerprint names."""
    found = re.search(r"/batch(\d+)(?:/|$)", fingerprint)
    return int(found[1]) if found else None
