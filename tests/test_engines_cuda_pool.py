"""The pool: patches of all threads in full batches, whatever the threads do."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from geoseg.engines.cuda_pool import Handed, Pool
from geoseg.errors import EngineError
from geoseg.results import Batch


def in_threads(predict: Callable[[Batch], NDArray[np.uint8]], batches: Sequence[Batch]) -> list[NDArray[np.uint8]]:
    with ThreadPoolExecutor(len(batches)) as threads:
        return list(threads.map(predict, batches))


class Recorder:
    """Runs patches by taking their first band, and keeps how many came at a time."""

    def __init__(self, *, gate: threading.Event | None = None) -> None:
        self.sizes: list[int] = []
        self.shapes: list[set[tuple[int, ...]]] = []
        self.gate = gate

    def __call__(self, patches: Sequence[Handed]) -> NDArray[np.uint8]:
        self.sizes.append(len(patches))
        self.shapes.append({one.pixels.shape for one in patches})
        if self.gate is not None:
            assert self.gate.wait(20)
        if any((one.pixels == 213).all() for one in patches):
            raise EngineError("unlucky")
        return np.stack([one.pixels[:1].astype(np.uint8) for one in patches])


def plain_batch(values: Sequence[int], side: int = 4) -> Batch:
    pixels = np.array(values, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 1, side, side), np.uint8)
    return Batch(pixels=pixels, valid=np.ones((len(values), side, side), np.bool_))


ELSEWHERE = -1
"""A thread that a pool knows and that does not come: others are waited for."""


def test_patches_of_eight_threads_go_through_in_one_batch() -> None:
    run, start = Recorder(), threading.Barrier(8)
    pool = Pool(run, size=lambda: 8, patience_s=30)
    pool._known.add(ELSEWHERE)

    def predict(batch: Batch) -> NDArray[np.uint8]:
        start.wait(20)
        return pool.predict(batch)

    found = in_threads(predict, [plain_batch([i]) for i in range(8)])
    assert [values[0, 0, 0, 0] for values in found] == list(range(8))
    assert run.sizes == [8]


def test_an_idle_pool_runs_a_lone_patch_at_once_and_waits_for_threads_that_it_knows() -> None:
    run = Recorder()
    pool = Pool(run, size=lambda: 4, patience_s=30)
    begun = time.monotonic()
    for i in range(3):
        assert pool.predict(plain_batch([i]))[0, 0, 0, 0] == i
    assert time.monotonic() - begun < 20
    assert run.sizes == [1, 1, 1]
    with ThreadPoolExecutor(1) as other:
        first = other.submit(pool.predict, plain_batch([7, 8]))  # waits for this thread, which was there before
        time.sleep(0.1)
        assert not first.done()
        assert pool.predict(plain_batch([9, 10])).ravel()[0] == 9
        assert first.result(20)[1, 0, 0, 0] == 8
    assert run.sizes == [1, 1, 1, 4]


def test_patience_ends() -> None:
    run = Recorder()
    pool = Pool(run, size=lambda: 4, patience_s=0.05)
    pool.predict(plain_batch([1]))
    with ThreadPoolExecutor(1) as other:
        assert other.submit(pool.predict, plain_batch([2])).result(20)[0, 0, 0, 0] == 2


def test_a_batch_holds_patches_of_one_shape_and_dtype_only() -> None:
    run = Recorder()
    pool = Pool(run, size=lambda: 3, patience_s=0.002)
    batches = [plain_batch([i, i + 50], side=4 + i % 3) for i in range(30)]
    batches += [Batch(pixels=one.pixels.astype(np.uint16), valid=one.valid) for one in batches]
    for _ in range(3):
        for batch, found in zip(batches, in_threads(pool.predict, batches), strict=True):
            np.testing.assert_array_equal(found, batch.pixels)
    assert all(len(shapes) == 1 for shapes in run.shapes)
    assert max(run.sizes) == 3
    assert not pool._queue


def test_while_a_batch_runs_what_comes_gathers_to_full_ones() -> None:
    gate = threading.Event()
    run = Recorder(gate=gate)
    pool = Pool(run, size=lambda: 4, lanes=1, patience_s=0.001)
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(pool.predict, plain_batch([99]))
        while not run.sizes:
            time.sleep(0.001)
        others = [threads.submit(pool.predict, plain_batch([i])) for i in range(8)]
        while len(pool._queue) < 9:
            time.sleep(0.001)
        gate.set()
        assert first.result(20)[0, 0, 0, 0] == 99
        assert [other.result(20)[0, 0, 0, 0] for other in others] == list(range(8))
    assert run.sizes == [1, 4, 4]


def test_no_more_batches_run_than_there_are_lanes() -> None:
    most, now, lock = 0, 0, threading.Lock()

    def run(patches: Sequence[Handed]) -> NDArray[np.uint8]:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1
        return np.stack([one.pixels for one in patches])

    in_threads(Pool(run, size=lambda: 2, lanes=2).predict, [plain_batch([i] * 8) for i in range(12)])
    assert most == 2


def test_an_error_reaches_every_thread_of_its_batch_and_no_other() -> None:
    gate = threading.Event()
    run = Recorder(gate=gate)
    pool = Pool(run, size=lambda: 3, lanes=1, patience_s=0.001)

    def attempt(value: int) -> int | str:
        try:
            return int(pool.predict(plain_batch([value]))[0, 0, 0, 0])
        except EngineError as error:
            return str(error)

    with ThreadPoolExecutor(7) as threads:
        told = [threads.submit(attempt, 99)]
        while not run.sizes:
            time.sleep(0.001)
        for i, value in enumerate(
            (1, 213, 2, 3, 4, 5)
        ):  # one after the other, so that 213 shares its batch with 1 and 2
            told.append(threads.submit(attempt, value))
            while len(pool._queue) < i + 2:
                time.sleep(0.001)
        gate.set()
        assert [one.result(20) for one in told] == [99, "unlucky", "unlucky", "unlucky", 3, 4, 5]
    assert not pool._queue
    assert attempt(6) == 6


def test_an_interrupted_thread_leaves_the_patches_of_others_to_them() -> None:
    me = threading.get_ident()

    class Interrupting(Recorder):
        def __call__(self, patches: Sequence[Handed]) -> NDArray[np.uint8]:
            found = super().__call__(patches)
            if threading.get_ident() == me:
                raise KeyboardInterrupt
            return found

    run = Interrupting()
    pool = Pool(run, size=lambda: 4, patience_s=0.05)
    pool._known.add(ELSEWHERE)

    def share(threads: ThreadPoolExecutor) -> list[int]:
        """What the other thread gets that shares a batch with this one."""
        other = threads.submit(pool.predict, plain_batch([1, 2]))
        while not pool._queue:
            time.sleep(0.001)
        with contextlib.suppress(KeyboardInterrupt):  # where it is this thread that runs the batch
            pool.predict(plain_batch([3, 4]))
        return [int(value) for value in other.result(20)[:, 0, 0, 0]]

    with ThreadPoolExecutor(1) as threads:
        for _ in range(20):
            assert share(threads) == [1, 2]
            assert not pool._queue
    assert 2 in run.sizes, "this thread was never the one that ran the batch"
