"""Runners: the same function over the same items, on Dask's threads here or on any distributed cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
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

        def one(item: Any) -> None:
            if self.stop:
                return
            result = function(item)
            with lock:
                done(result)

        task = delayed(one, pure=False)
        compute([task(item) for item in items], scheduler="threads", num_workers=self.workers, optimize_graph=False)
        self.stop.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A distributed.Client; a bounded number of items is under way, so that memory and the scheduler stay flat."""

    client: Any
    stop: Stop = field(default_factory=Stop)
    ahead: int = 2
    """Items under way for each worker thread."""

    def map(self, function: Function, items: Sequence[Any], *, done: Done) -> None:
        from distributed import as_completed

        slots = max(1, self.ahead * sum(self.client.nthreads().values()))
        remote = self.client.scatter(function, broadcast=True, hash=False)
        queue = iter(items)

        def submit() -> Any | None:
            item = next(queue, None)
            return None if item is None else self.client.submit(_apply, remote, item, pure=False)

        running = as_completed([f for f in (submit() for _ in range(slots)) if f is not None])
        for future in running:
            done(future.result())
            future.release()
            if not self.stop and (following := submit()) is not None:
                running.add(following)
        self.stop.check()


def _apply(function: Function, item: Any) -> Any:
    return function(item)


Runner = Threads | Cluster


def connect(scheduler: str, *, stop: Stop) -> Cluster:
    """A runner on the Dask scheduler at an address such as tcp://host:8786."""
    try:
        from distributed import Client
    except ImportError as error:
        raise RunError(
            "--scheduler needs distributed, which is not installed; pip install 'geoseg[cluster]'"
        ) from error
    try:
        client = Client(scheduler, timeout=15)
    except (OSError, TimeoutError, ValueError) as error:
        raise RunError(
            f"no Dask scheduler answers at {scheduler} ({error}); start one or leave --scheduler out"
        ) from error
    if not client.nthreads():
        raise RunError(f"the scheduler at {scheduler} has no workers; start some with `dask worker {scheduler}`")
    return Cluster(client=client, stop=stop)


def runner_for(*, workers: int | None, scheduler: Any | None, stop: Stop) -> Runner:
    """Threads by default; a Dask address or a distributed.Client where one is given."""
    if scheduler is None:
        if workers is not None and workers < 1:
            raise InputError(f"--workers {workers} runs nothing; use 1 or more")
        return Threads(workers=workers or default_workers(), stop=stop)
    if isinstance(scheduler, str):
        return connect(scheduler, stop=stop)
    return Cluster(client=scheduler, stop=stop)


def default_workers() -> int:
    """As many as there are cores for this process, at least 2, so that reading and predicting overlap."""
    import os

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(cores, 8))
