"""SharedArrays: made once, whoever asks; what fails is made by the next."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from geoseg.shared import SharedArrays


def array_of(key: int) -> NDArray[np.uint8]:
    return np.full((10, 10), key, np.uint8)


def test_threads_make_each_array_once_and_see_the_same() -> None:
    arrays: SharedArrays[int] = SharedArrays(bytes_kept=10**6)
    made: list[int] = []

    def make(keys: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        for key in keys:
            made.append(key)
            yield array_of(key)

    def work(backwards: bool) -> None:
        for start in range(30):
            keys = list(range(start, start + 10))[:: -1 if backwards else 1]
            assert [int(values[0, 0]) for values in arrays.get(keys, make)] == keys
        done.append(backwards)

    done: list[bool] = []
    threads = [threading.Thread(target=work, args=(i % 2 == 1,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(done) == 8
    assert sorted(made) == list(range(39))


def test_what_fails_is_made_by_the_next_that_asks() -> None:
    arrays: SharedArrays[int] = SharedArrays(bytes_kept=10**6)

    def failing(keys: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        yield array_of(keys[0])
        raise ValueError("no")

    made: list[int] = []

    def make(keys: Sequence[int]) -> list[NDArray[np.uint8]]:
        made.extend(keys)
        return [array_of(key) for key in keys]

    with pytest.raises(ValueError, match="no"):
        arrays.get([0, 1, 2], failing)
    assert [int(values[0, 0]) for values in arrays.get([2, 1, 0], make)] == [2, 1, 0]
    assert made == [2, 1], "what was made before the failure is kept"


def test_a_thread_that_waited_in_vain_makes_it_itself() -> None:
    arrays: SharedArrays[int] = SharedArrays(bytes_kept=10**6)
    begun, go_on = threading.Event(), threading.Event()

    def failing(_: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        begun.set()
        assert go_on.wait(20)
        raise ValueError("no")
        yield

    def claim() -> None:
        with pytest.raises(ValueError, match="no"):
            arrays.get([5], failing)

    first = threading.Thread(target=claim)
    first.start()
    assert begun.wait(20)
    found: list[int] = []
    second = threading.Thread(
        target=lambda: found.append(int(arrays.get([5], lambda keys: [array_of(9) for _ in keys])[0][0, 0]))
    )
    second.start()
    go_on.set()
    for thread in (first, second):
        thread.join(20)
    assert found == [9]


def test_the_arrays_used_longest_ago_go() -> None:
    arrays: SharedArrays[int] = SharedArrays(bytes_kept=250)
    made: list[int] = []

    def make(keys: Sequence[int]) -> list[NDArray[np.uint8]]:
        made.extend(keys)
        return [array_of(key) for key in keys]

    arrays.get([0, 1, 2, 3], make)
    arrays.get([2, 3], make)
    arrays.get([0], make)
    arrays.get([3, 0, 2], make)
    assert made == [0, 1, 2, 3, 0, 2], "250 bytes hold two of them"
