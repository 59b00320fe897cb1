"""Runners: the same function over the same items, on Dask's threads here or on any distributed cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

import geoseg.version
from geoseg.errors import InputError, RunError
from geoseg.runtime.stop import Stop

Function = Callable[[Any], Any]
Done = Callable[[Any], None]

AT_ONCE = 2000
"""Items of one Dask graph: what Dask needs for a graph grows faster than the graph."""

BEAT_S = 1.0
"""How often a cluster is looked at for workers that came or went."""


def default_patience_s() -> float:
    """Dask's setting `geoseg.patience-s`, which DASK_GEOSEG__PATIENCE_S sets from outside; 60 by default."""
    import dask.config

    return float(dask.config.get("geoseg.patience-s", 60.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Threads:
    """Dask's threaded scheduler: at most `workers` items at a time, results handed over as they come."""

    workers: int
    stop: Stop = field(default_factory=Stop)

    def map(self, function: Function, items: Iterable[Any], *, done: Done) -> None:
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

        # Dask takes independent tasks by their names, the last one first; neighbours in time share what was read.
        task, queue = delayed(one, pure=False), iter(items)
        while part := [
            task(item, dask_key_name=f"item-{AT_ONCE - at:06d}") for at, item in enumerate(islice(queue, AT_ONCE))
        ]:
            compute(part, scheduler="threads", num_workers=self.workers, optimize_graph=False)
            if errors or self.stop:
                break
        if errors:
            raise errors[0]
        self.stop.check()

    def everywhere(self, function: Callable[[], None]) -> None:
        """Calls a function in this process."""
        function()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A distributed.Client; a bounded number of items is under way, so that memory and the scheduler stay flat.

    Workers may die and come: the scheduler gives their items to others. Items are done twice then, so they must be
    idempotent.
    """

    client: Any
    stop: Stop = field(default_factory=Stop)
    ahead: int = 2
    """Items under way for each worker thread."""
    patience_s: float = field(default_factory=default_patience_s)
    """How long to wait for a worker where there is none, and for running items to end after a stop or an error."""
    tries: int = 3
    """How often an item is sent that scheduler or connection lose."""

    def map(self, function: Function, items: Iterable[Any], *, done: Done) -> None:
        flights, queue, errors = _Flights(self, function), iter(items), list[Exception]()
        try:
            while flights.go_on(None if self.stop or errors else queue):
                try:
                    flights.land(done)
                except Exception as error:
                    errors.append(error)
        finally:
            flights.cancel()
        if errors:
            flights.fail(errors[0])
        self.stop.check()

    def everywhere(self, function: Callable[[], None]) -> None:
        """Calls a function in every worker's process, without waiting for it: workers may be gone."""
        if self.client.status == "running":
            with suppress(OSError):
                self.client.run(_called, function, wait=False, on_error="ignore")


class _Flights:
    """Items on their way to the workers and back."""

    def __init__(self, cluster: Cluster, function: Function) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self.function = function
        self.remote: Any = None
        self.under_way: dict[Any, tuple[Any, int]] = {}
        """The item of each future, and which try it is."""
        self.ended: SimpleQueue[Any] = SimpleQueue()
        self.accused: list[Any] = []
        """Items that their workers died of, and those that had the bad luck to be there."""
        self.slots = 1
        self.looked = float("-inf")
        self.manned = time.monotonic()
        """When there was a worker last."""
        self.closing: float | None = None
        """Until when the last ones may take to come home."""

    def go_on(self, queue: Iterator[Any] | None) -> bool:
        """Sends off as many items as the workers should have, none where `queue` is None; False when all is over.

        Raises RunError where the cluster has had no worker for too long, or no scheduler any more.
        """
        if queue is None:
            self.closing = self.closing or time.monotonic() + self.cluster.patience_s
            return bool(self.under_way) and time.monotonic() < self.closing
        self._look()
        for item in islice(queue, max(0, self.slots - len(self.under_way))):
            self._send(item, 1)
        return bool(self.under_way)

    def land(self, done: Done) -> None:
        """Waits a moment for an item to end and hands its result over; raises what its function raised."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        try:
            future = self.ended.get(timeout=BEAT_S)
        except Empty:
            return
        item, tried = self.under_way.pop(future)
        try:
            result = future.result(timeout=self.cluster.patience_s)
        except KilledWorker:
            self.accused.append(item)
            raise
        except (CancelledError, OSError) as error:
            if future.status == "error":  # the function's own
                raise
            if self.closing is not None or self.client.status == "closed":
                return
            if isinstance(error, TimeoutError):  # the result went with its worker, and is computed again
                self._await(future, item, tried)
            elif tried < self.cluster.tries:
                self._send(item, tried + 1)
            else:
                raise RunError(
                    f"the Dask cluster lost {_name(item)} {tried} times ({error or type(error).__name__}); finished tiles are "
                    f"kept: see that scheduler and workers live, and run the same command again to resume"
                ) from error
        else:
            done(result)

    def fail(self, error: Exception) -> NoReturn:
        """Raises the error that ended it all, in words of ours where it is Dask's."""
        from distributed import KilledWorker

        if not isinstance(error, KilledWorker):
            raise error
        raise RunError(
            f"{error.allowed_failures + 1} Dask workers died one after the other while they had "
            f"{' or '.join(map(_name, self.accused))}, the last was {error.last_worker.address}; finished tiles are kept: see "
            f"the worker's log, give workers more memory or use a smaller --patch, and run the same command again to resume"
        ) from error

    def cancel(self) -> None:
        """Gives up what is still under way."""
        if self.under_way and self.client.status == "running":
            with suppress(OSError):
                self.client.cancel(list(self.under_way))

    def _send(self, item: Any, tried: int) -> None:
        # The function goes as the result of a task: where its holders die, the scheduler makes it again.
        if self.remote is None or self.remote.cancelled():
            self.remote = self.client.submit(_same, self.function, pure=False)
        self._await(self.client.submit(_apply, self.remote, item, pure=False), item, tried)

    def _await(self, future: Any, item: Any, tried: int) -> None:
        self.under_way[future] = (item, tried)
        future.add_done_callback(self.ended.put)

    def _look(self) -> None:
        now, patience = time.monotonic(), self.cluster.patience_s
        if now - self.looked < BEAT_S and self.client.status == "running":
            return
        self.looked = now
        if threads := self._threads():
            self.slots, self.manned = self.cluster.ahead * threads, now
        overdue, status = now - self.manned > patience, self.client.status
        if status == "closed" or (overdue and status != "running"):
            raise RunError(
                "the Dask scheduler is gone; finished tiles are kept: start it again, or leave --scheduler out, and run the "
                "same command again to resume"
            )
        if overdue:
            raise RunError(
                f"the Dask cluster has had no worker for {patience:g} s; finished tiles are kept: start workers, or leave "
                f"--scheduler out, and run the same command again to resume (DASK_GEOSEG__PATIENCE_S waits longer)"
            )

    def _threads(self) -> int:
        if self.client.status != "running":
            return 0
        with suppress(OSError):
            return sum(self.client.nthreads().values())
        return 0


def _same(function: Function) -> Function:
    return function


async def _called(function: Callable[[], None]) -> None:
    """What a worker does without being waited for must be a coroutine."""
    function()


def _apply(function: Function, item: Any) -> Any:
    return function(item)


def _name(item: Any) -> str:
    """What an item is called in an error; tiles go by their index."""
    index = item if isinstance(item, tuple) else getattr(item, "index", None)
    return f"tile {index[0]},{index[1]}" if isinstance(index, tuple) and len(index) == 2 else f"{item!r:.60}"


def _version() -> str:
    return geoseg.version.VERSION


def _refuse_strangers(client: Any) -> None:
    """Raises RunError where a worker has another geoseg, whose results may differ, or none."""
    here = _version()
    for worker, there in client.run(_version, on_error="return").items():
        if there != here and not isinstance(there, OSError):  # a worker that goes just now is no stranger
            found = f"has geoseg {there}" if isinstance(there, str) else f"cannot import geoseg ({there})"
            raise RunError(f"the worker {worker} {found}, here is {here}; install geoseg {here} there as well")


Runner = Threads | Cluster


def connect(scheduler: str) -> Any:
    """A distributed.Client of the Dask scheduler at an address such as tcp://host:8786."""
    try:
        from distributed import Client
    except ImportError as error:
        raise RunError(
            "--scheduler needs distributed, which is not installed; pip install 'geoseg[cluster]'"
        ) from error
    try:
        return Client(scheduler, timeout=15, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise RunError(
            f"no Dask scheduler answers at {scheduler} ({error}); start one or leave --scheduler out"
        ) from error


@contextmanager
def runner_for(*, workers: int | None, scheduler: Any | None, stop: Stop) -> Iterator[Runner]:
    """Threads by default; a Dask address or a distributed.Client where one is given. What is opened here is closed here."""
    if scheduler is None:
        if workers is not None and workers < 1:
            raise InputError(f"--workers {workers} runs nothing; use 1 or more")
        yield Threads(workers=workers or default_workers(), stop=stop)
        return
    client = connect(scheduler) if isinstance(scheduler, str) else scheduler
    try:
        if client is not scheduler and not client.nthreads():
            raise RunError(f"the scheduler at {scheduler} has no workers; start some with `dask worker {scheduler}`")
        _refuse_strangers(client)
        yield Cluster(client=client, stop=stop)
    finally:
        if client is not scheduler:
            client.close()


def default_workers() -> int:
    """As many as there are cores for this process, at least 2, so that reading and predicting overlap."""
    from geoseg.engines.hardware import core_count

    return max(2, min(core_count(), 8))
