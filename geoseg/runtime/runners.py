"""Runners: the same function over the same items, on Dask's threads here or on any distributed cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from geoseg.errors import InputError, RunError
from geoseg.runtime.stop import Stop

Function = Callable[[Any], Any]
Done = Callable[[Any], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threads:
    """Dask's threaded scheduler: at most `workers` items at a time, results handed over as they come."""

    workers: int
    stop: Stop = field(default_factory=Stop)

    def map(self, function: Function, items: Sequence[Any], *, done: Done) -> None:
        from dask.base import compute
        from dask.delayed import delayed

        lock = threading.Lock()
        errors: list[Exception] = []

        def one(item: Any) -> None:
            # An error is kept until all that runs has ended: nobody writes any more when it is raised.
            if self.stop or errors:
                return
            try:
                result = function(item)
                with lock:
                    done(result)
            except Exception as error:
                errors.append(error)

        task = delayed(one, pure=False)
        for start in range(0, len(items), AT_ONCE):  # what Dask needs for a graph grows faster than the graph
            part = [task(item) for item in items[start : start + AT_ONCE]]
            compute(part, scheduler="threads", num_workers=self.workers, optimize_graph=False)
            if errors:
                raise errors[0]
        self.stop.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A distributed.Client; a bounded number of items is under way, so that memory and the scheduler stay flat."""

    client: Any
    stop: Stop = field(default_factory=Stop)
    ahead: int = 2
    """Items under way for each worker thread."""

    def map(self, function: Function, items: Sequence[Any], *, done: Done) -> None:
        from concurrent.futures import CancelledError

        from distributed import KilledWorker, as_completed

        slots = max(1, self.ahead * sum(self.client.nthreads().values()))
        remote = self.client.scatter(function, broadcast=True, hash=False)
        queue = iter(items)

        def submit() -> Any | None:
            item = next(queue, None)
            return None if item is None else self.client.submit(_apply, remote, item, pure=False)

        running = as_completed([f for f in (submit() for _ in range(slots)) if f is not None])
        try:
            for future in running:
                done(future.result())
                future.release()
                if not self.stop and (following := submit()) is not None:
                    running.add(following)
        except (KilledWorker, CancelledError, OSError) as error:
            raise RunError(
                f"the Dask cluster lost a task ({error or type(error).__name__}); finished tiles are kept: see that its workers "
                f"live and have memory, and run the same command again to resume"
            ) from error
        finally:
            self.client.cancel([future for future in running.futures if not future.done()])
        self.stop.check()


def _apply(function: Function, item: Any) -> Any:
    return function(item)


Runner = Threads | Cluster

AT_ONCE = 2000
"""Items of one Dask graph."""


def connect(scheduler: str, *, stop: Stop) -> Cluster:
    """A runner on the Dask scheduler at an address such as tcp://host:8786."""
    try:
        from distributed import Client
    except ImportError as error:
        raise RunError(
            "--scheduler needs distributed, which is not installed; pip install 'geoseg[cluster]'"
        ) from error
    try:
        client = Client(scheduler, timeout=15, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise RunError(
            f"no Dask scheduler answers at {scheduler} ({error}); start one or leave --scheduler out"
        ) from error
    if not client.nthreads():
        client.close()
        raise RunError(f"the scheduler at {scheduler} has no workers; start some with `dask worker {scheduler}`")
    return Cluster(client=client, stop=stop)


@contextmanager
def runner_for(*, workers: int | None, scheduler: Any | None, stop: Stop) -> Iterator[Runner]:
    """Threads by default; a Dask address or a distributed.Client where one is given. What is opened here is closed here."""
    if scheduler is None:
        if workers is not None and workers < 1:
            raise InputError(f"--workers {workers} runs nothing; use 1 or more")
        yield Threads(workers=workers or default_workers(), stop=stop)
    elif isinstance(scheduler, str):
        runner = connect(scheduler, stop=stop)
        try:
            yield runner
        finally:
            runner.client.close()
    else:
        yield Cluster(client=scheduler, stop=stop)


def default_workers() -> int:
    """As many as there are cores for this process, at least 2, so that reading and predicting overlap."""
    import os

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(cores, 8))
