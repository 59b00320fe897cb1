"""A fused network on a device, fed from several threads: upload, computing and download go on side by side.

On CUDA every batch goes through a lane: pinned memory here, memory there, and events. With two lanes the next batch is
gathered and uploaded while the GPU computes. On the CPU the same class computes where the pixels are, one batch at a time.

This module imports torch; import it only where a segmenter is built.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.engines.cuda_pool import Handed
from geoseg.engines.fused import FusedNetwork
from geoseg.engines.ladder import reason_of
from geoseg.engines.torch_engine import failure

LANES = 2
"""Batches on their way at a time: one is computed, the next one gathered and uploaded."""

WARM = 3
"""Passes of one shape before it is captured as a graph: libraries choose and load their kernels in the first ones."""

TIMED = 5
"""Passes that are timed; the fastest counts, which is the one that nothing disturbed."""

SHARE = 0.45
"""Of a GPU's free memory for a batch that is chosen by measuring: shapes beside the graph's need memory of their own."""

CARRIED = {"u1": torch.uint8, "i1": torch.int8, "u2": torch.int16, "i2": torch.int16, "f4": torch.float32}
"""Stored values that go to the device as they are, and what torch takes them for: it knows little of uint16."""

log = logging.getLogger(__name__)


class Room:
    """Memory that grows to the largest that was asked for, seen as whatever is wanted."""

    def __init__(self, **where: Any) -> None:
        """`where` is what torch.empty takes: device, pin_memory."""
        self._where = where
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def seen_as(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor on the first bytes, contiguous; what was seen there before is overwritten through it."""
        size = int(np.prod(shape)) * dtype.itemsize
        if size > len(self._bytes):
            self._bytes = torch.empty(0, dtype=torch.uint8)  # what is too small goes before what is larger comes
            self._bytes = torch.empty(size, dtype=torch.uint8, **self._where)
        return self._bytes[:size].view(dtype).view(*shape)


class Lane:
    """What one batch travels in; for one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._here = [Room(pin_memory=self.cuda) for _ in range(3)]
        self._there = [Room(device=device) if self.cuda else room for room in self._here]
        if self.cuda:
            self.uploaded, self.computed = torch.cuda.Event(), torch.cuda.Event()
            self.landed = torch.cuda.Event(blocking=True)  # a thread that waits leaves the core to those that read

    def fit(self, first: NDArray[Any], size: int) -> None:
        """Takes the memory for `size` patches like this one."""
        code = f"{first.dtype.kind}{first.dtype.itemsize}"
        self.dtype = np.dtype(code if code in CARRIED else np.float32)
        self.unsigned = self.dtype == np.uint16
        shape, plane = (size, *first.shape), (size, 1, *first.shape[1:])
        self.pixels_here = self._here[0].seen_as(shape, CARRIED[self.dtype.str[1:]])
        self.valid_here = self._here[1].seen_as(plane, torch.bool)
        self.pixels = self._there[0].seen_as(shape, self.pixels_here.dtype)
        self.valid = self._there[1].seen_as(plane, torch.bool)

    def gather(self, patches: Sequence[Handed]) -> None:
        """Writes patches into memory here, the last one again and again where there are too few."""
        pixels, valid = self.pixels_here.numpy().view(self.dtype), self.valid_here.numpy()
        for i in range(len(pixels)):
            one = patches[min(i, len(patches) - 1)]
            pixels[i], valid[i, 0] = one.pixels, one.valid

    def upload(self) -> None:
        self.pixels.copy_(self.pixels_here, non_blocking=True)
        self.valid.copy_(self.valid_here, non_blocking=True)

    def keep(self, made: Tensor) -> None:
        """Takes the result out of memory that the next batch computes in."""
        self.made = made
        if self.cuda:
            self.made = self._there[2].seen_as(made.shape, made.dtype)
            self.made.copy_(made)

    def download(self) -> None:
        self.made_here = self._here[2].seen_as(self.made.shape, self.made.dtype)
        self.made_here.copy_(self.made, non_blocking=True)

    def result(self, count: int) -> NDArray[np.uint8]:
        """(patch, output, row, col) of the first `count`, in memory of their own."""
        if self.cuda:
            self.landed.synchronize()
            copied: NDArray[np.uint8] = self.made_here[:count].numpy().copy()
            return copied
        made: NDArray[np.uint8] = self.made.contiguous().numpy()[:count]
        del self.made
        return made


class Graph:
    """A forward pass of one shape as a CUDA graph: one launch in place of one a layer."""

    def __init__(self, network: Any, pixels: Tensor, valid: Tensor, stream: torch.cuda.Stream) -> None:
        """Captures the pass on `stream`, with copies of `pixels` and `valid` as its own input."""
        self.pixels, self.valid = pixels.clone(), valid.clone()
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: other threads take pinned memory meanwhile, which is no part of the capture.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._made: Tensor = network(self.pixels, self.valid)

    def __call__(self, pixels: Tensor, valid: Tensor) -> Tensor:
        """The result; it lies where the next call puts its own."""
        self.pixels.copy_(pixels)
        self.valid.copy_(valid)
        self._graph.replay()
        return self._made


class StreamedNetwork:
    """Runs patches in batches of one fixed size; LANES threads may call at a time.

    The largest shape of patches that comes more than WARM times is captured as a CUDA graph; others run layer by layer.
    A graph must reproduce the bytes of the pass that it replaces, or it is not used.
    """

    def __init__(
        self, fused: FusedNetwork, device: str, *, batch: int, lock: Lock, compiled: bool = False, graphs: bool = True
    ) -> None:
        """`fused` lies on `device` already; `lock` is held while a batch is launched, and on the CPU until it is done."""
        self.batch = batch
        self.device = torch.device(device)
        self._lock = lock
        self._network: Any = _compiled(fused) if compiled else fused
        self._closed = False
        self._seen: dict[tuple[int, ...], int] = {}
        self._graph: Graph | None = None
        self._graphs = graphs and self.device.type == "cuda"
        self._lanes = [Lane(self.device) for _ in range(LANES)]
        if self.device.type == "cuda":
            self._up, self._compute, self._down = (torch.cuda.Stream(self.device) for _ in range(3))
            torch.cuda.synchronize(self.device)  # the weights went there on another stream

    def run(self, patches: Sequence[Handed]) -> NDArray[np.uint8]:
        """(patch, output, row, col) of patches of one shape and dtype. Raises MemoryError, EngineError."""
        lane = self._lanes.pop()
        try:
            parts = [self._pass(lane, patches[i : i + self.batch]) for i in range(0, len(patches), self.batch)]
        finally:
            self._lanes.append(lane)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Waits for what is on its way and frees what it holds; runs end in a MemoryError then. The lock must be held."""
        self._closed = True
        self._finish()
        self._graph, self._lanes = None, [Lane(self.device) for _ in range(LANES)]
        self._network = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def seconds(self, shape: tuple[int, int, int]) -> float:
        """What a batch of patches (channel, row, col) that lies on the device takes, at its fastest.

        Raises MemoryError where several patches need more than SHARE of the memory which is free there.
        """
        best = float("inf")
        with self._failures((self.batch, *shape)), self._launching(), self._computing():
            free = self._free()
            stored = torch.rand(self.batch, *shape, device=self.device) * 10_000
            pixels = stored.to(memory_format=torch.channels_last)
            valid = torch.ones(self.batch, 1, *shape[1:], dtype=torch.bool, device=self.device)
            for i in range(WARM + TIMED):
                self._finish()
                begun = time.perf_counter()
                self._forward(pixels, valid)
                self._finish()
                if i >= WARM:
                    best = min(best, time.perf_counter() - begun)
            if self.batch > 1 and free - self._free() > SHARE * free:
                raise MemoryError(
                    f"{self.batch} patches at a time take more than {SHARE:.0%} of {self.device}'s memory"
                )
        return best

    def _pass(self, lane: Lane, patches: Sequence[Handed]) -> NDArray[np.uint8]:
        with self._failures((self.batch, *patches[0].pixels.shape)):
            with self._launching():
                lane.fit(patches[0].pixels, self.batch)
            lane.gather(patches)
            with self._launching():
                self._launch(lane)
            return lane.result(len(patches))

    def _launch(self, lane: Lane) -> None:
        if not lane.cuda:
            lane.keep(self._network(as_float(lane.pixels, unsigned=lane.unsigned), lane.valid))
            return
        with torch.cuda.stream(self._up):
            lane.upload()
            lane.uploaded.record()
        with self._computing():
            self._compute.wait_event(lane.uploaded)
            lane.keep(self._forward(as_float(lane.pixels, unsigned=lane.unsigned), lane.valid))
            lane.computed.record()
        # A stream of its own: on the uploads' it would hold up the next one until this batch is computed.
        with torch.cuda.stream(self._down):
            self._down.wait_event(lane.computed)
            lane.download()
            lane.landed.record()

    def _forward(self, pixels: Tensor, valid: Tensor) -> Tensor:
        shape = tuple(pixels.shape)
        if self._graph is not None and self._graph.pixels.shape == pixels.shape:
            return self._graph(pixels, valid)
        try:
            made: Tensor = self._network(pixels, valid)
        except torch.OutOfMemoryError:
            if self._graph is None:
                raise
            log.info("torch gives up a CUDA graph: its memory is needed")
            self._graphs = False
            self._drop_graph()
            made = self._network(pixels, valid)
        self._seen[shape] = self._seen.get(shape, 0) + 1
        larger = self._graph is None or pixels.numel() > self._graph.pixels.numel()
        if self._graphs and larger and self._seen[shape] >= WARM:
            self._capture(pixels, valid, made)
        return made

    def _capture(self, pixels: Tensor, valid: Tensor, made: Tensor) -> None:
        """Makes the graph of this shape, in place of a smaller one."""
        self._drop_graph()
        try:
            self._graph = Graph(self._network, pixels, valid, self._compute)
            reason = "" if torch.equal(self._graph(pixels, valid), made) else "it gives other bytes"
        except RuntimeError as error:
            reason = reason_of(error)
        if reason:
            self._graphs = False
            self._drop_graph()
            log.warning("torch goes on without a CUDA graph: %s", reason)

    def _drop_graph(self) -> None:
        self._finish()
        self._graph = None
        torch.cuda.empty_cache()

    @contextmanager
    def _launching(self) -> Iterator[None]:
        """Alone on the device's memory: what is taken there while a graph is captured would be the graph's."""
        with self._lock, torch.inference_mode():
            if self._closed:
                raise MemoryError("another batch ran out of memory")
            yield

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """On the stream that computes, with settings that give equal bytes: they are the process's, so only for now.

        Without `deterministic`, and with `benchmark`, cuDNN takes whatever algorithm was fastest just then, and sums in
        another order the next time. tf32 would round what is called fp32 to 10 bits.
        """
        if self.device.type != "cuda":
            yield
            return
        with (
            torch.cuda.stream(self._compute),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield

    @contextmanager
    def _failures(self, shape: Sequence[int]) -> Iterator[None]:
        """Torch's errors as MemoryError or EngineError, raised when nothing is on its way any more."""
        try:
            yield
        except RuntimeError as error:
            told = failure(error, tuple(shape))
            try:
                self._finish()  # the lane is filled again after this
            except RuntimeError:  # a device that failed says so again
                log.debug("the device does not come to an end", exc_info=True)
            raise told from error

    def _free(self) -> int:
        """Bytes that the device has left, 0 on the CPU, where nobody counts them."""
        return int(torch.cuda.mem_get_info(self.device)[0]) if self.device.type == "cuda" else 0

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def as_float(pixels: Tensor, *, unsigned: bool) -> Tensor:
    """Stored values as float32, channels last; `unsigned` says that int16 stands for uint16. Exact."""
    if unsigned:
        pixels = pixels.to(torch.int32) & 0xFFFF
    return pixels.to(dtype=torch.float32, memory_format=torch.channels_last)


def _compiled(fused: FusedNetwork) -> Any:
    """The network through torch.compile, anew for each shape.

    A run has up to nine shapes, a segmenter may step down over several batches: beyond its limit torch would run the rest
    uncompiled, and which shapes that are would depend on their order. fullgraph makes it an error.
    """
    import torch._dynamo

    config: Any = torch._dynamo.config
    config.cache_size_limit = max(config.cache_size_limit, 64)
    return torch.compile(fused, dynamic=False, fullgraph=True)
