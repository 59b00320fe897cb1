"""Engines that run out of memory step down, say so, and end in one clear error."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from geoseg.engines import footprint
from geoseg.engines.batches import MOST
from geoseg.engines.footprint import values_a_pixel, working_bytes
from geoseg.engines.ladder import Footing, LadderSegmenter, Rung, rungs, short_of_memory
from geoseg.engines.numpy_engine import NumpyEngine
from geoseg.engines.openvino_engine import CompiledNetwork
from geoseg.engines.torch_engine import TorchEngine, most_patches
from geoseg.errors import EngineMemoryError
from geoseg.results import Batch, InputScaling
from geoseg.spec import ModelSpec, bands, classes
from geoseg.testing.models import IdentityModel
from geoseg.testing.networks import CrampedNetwork

SCALING = InputScaling(bands=(0,), gain=(0.1,), bias=(-2.0,), limit=None)

SPEC = ModelSpec(
    name="net", title="net", bands=bands(("red",)), outputs=classes("background", "field"), patch=64, halo=0
)


@dataclass(frozen=True)
class NetworkModel:
    net: nn.Module
    runtime: str = "torch"
    spec: ModelSpec = SPEC

    def fingerprint(self) -> str:
        return "0"

    def network(self) -> nn.Module:
        return self.net.eval()


def batch_of(count: int, side: int = 16) -> Batch:
    pixels = np.random.default_rng(3).integers(0, 50, (count, 1, side, side)).astype(np.uint8)
    return Batch(pixels=pixels, valid=np.ones((count, side, side), np.bool_))


def torch_segmenter(net: nn.Module, batch: int = 4) -> LadderSegmenter:
    return TorchEngine(device="cpu", batch=batch).build(NetworkModel(net), SCALING, precision="fp32", threads=None)


SHORTAGES: dict[str, Callable[[], Exception]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "bare": torch.OutOfMemoryError,
    "host": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    "numpy": lambda: MemoryError("Unable to allocate 8. GiB for an array"),
}  # fmt: skip


@pytest.mark.parametrize("shortage", SHORTAGES.values(), ids=SHORTAGES.keys())
def test_the_batch_halves_for_good_and_the_segmenter_says_so(
    shortage: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    batch, roomy, cramped = batch_of(6), CrampedNetwork(4), CrampedNetwork(1, shortage=shortage)
    expected = torch_segmenter(roomy)
    segmenter = torch_segmenter(cramped)
    assert not segmenter.degraded
    assert segmenter.fingerprint.endswith("/batch4")
    np.testing.assert_array_equal(segmenter.predict(batch), expected.predict(batch))
    assert segmenter.degraded
    assert segmenter.fingerprint.endswith("/batch1")
    assert cramped.sizes == [4, 2] + [1] * 6
    segmenter.predict(batch)
    assert cramped.sizes[8:] == [1] * 6
    assert "torch runs out of memory; going on with 2 patches at a time on cpu" in caplog.text
    assert not expected.degraded
    assert expected.fingerprint.endswith("/batch4")


def test_without_memory_for_one_patch_the_error_says_what_to_do() -> None:
    segmenter = torch_segmenter(CrampedNetwork(0))
    told = r"torch has too little memory for 1 patch at a time on cpu, of 16 x 16 .*--patch.*--workers.*--max-memory"
    for _ in range(2):
        with pytest.raises(EngineMemoryError, match=told):
            segmenter.predict(batch_of(2))


def test_beneath_a_gpu_lies_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    assert [(rung.device, rung.batch) for rung in rungs(5, "cuda")] == [
        ("cuda", 5), ("cuda", 2), ("cuda", 1), ("cpu", 1),
    ]  # fmt: skip
    assert [(rung.device, rung.batch) for rung in rungs(1, "cpu")] == [("cpu", 1)]

    def stand(rung: Rung) -> Footing:
        def forward(pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
            if rung.device != "cpu":
                raise MemoryError("CUDA out of memory")
            return pixels.astype(np.uint8)

        return Footing(forward=forward, fingerprint=str(rung))

    segmenter = LadderSegmenter(rungs(4, "cuda"), stand, engine="torch", lock=threading.Lock())
    segmenter.settle(batch_of(4))
    assert segmenter.degraded
    assert segmenter.fingerprint == "1 patch at a time on cpu"
    assert "torch has no memory on cuda for even one patch of 16 x 16 pixels; going on with 1 patch" in caplog.text
    segmenter = LadderSegmenter(rungs(4, "cuda"), stand, engine="torch", lock=threading.Lock())
    batch = batch_of(3)
    np.testing.assert_array_equal(segmenter.predict(batch), batch.pixels)
    assert segmenter.degraded


def test_a_smaller_batch_found_before_the_run_is_how_the_run_is_made(caplog: pytest.LogCaptureFixture) -> None:
    segmenter = torch_segmenter(CrampedNetwork(2), batch=8)
    segmenter.settle(batch_of(8))
    assert segmenter.fingerprint.endswith("/batch2")
    assert not segmenter.degraded
    assert not caplog.records


@pytest.mark.parametrize(("patch", "upsample", "batch"), [(64, 1, MOST), (512, 2, MOST), (1536, 1, 2), (8192, 1, 1)])
def test_a_gpu_begins_with_no_more_patches_than_it_is_asked_for(patch: int, upsample: int, batch: int) -> None:
    assert most_patches(replace(SPEC, patch=patch, upsample=upsample)) == batch


def test_to_tell_its_memory_leaves_a_network_as_it_was() -> None:
    model = NetworkModel(nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 2, 1)))
    assert [values_a_pixel(model) for _ in range(2)] == [5, 5]
    assert not any(module._forward_hooks for module in model.net.modules())
    assert {weights.device.type for weights in model.net.parameters()} == {"cpu"}
    assert torch_segmenter(model.net).predict(batch_of(1)).shape == (1, 2, 16, 16)


def test_activations_on_cuda_take_no_main_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(engine: str, device: str | None = None) -> int:
        model = NetworkModel(nn.Identity())
        return working_bytes(model, [(64, 64)], engine=engine, bf16=False, values=5, device=device)

    monkeypatch.setattr(footprint, "best_device", lambda: "cuda")
    assert told("torch") == told("torch", "cuda:1") == 0
    assert told("torch", "cpu") == told("torch", "mps") == told("openvino") > 0


def test_threads_step_down_together() -> None:
    net = CrampedNetwork(2)
    segmenter, batches = torch_segmenter(net, batch=8), [batch_of(n) for n in range(1, 9)]
    expected = [torch_segmenter(CrampedNetwork(2), batch=2).predict(batch) for batch in batches]
    with ThreadPoolExecutor(len(batches)) as pool:
        found = list(pool.map(segmenter.predict, batches))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert [size for size in net.sizes if size > 2] == [8, 4]
    assert segmenter.fingerprint.endswith("/batch2")


def test_a_failed_batch_is_not_kept_while_the_next_is_tried() -> None:
    kept: list[weakref.ref[Any]] = []

    def stand(rung: Rung) -> Footing:
        assert not any(held() is not None for held in kept), "memory of the failed batch is still held"

        def forward(pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
            kept.append(weakref.ref(pixels))
            if rung.batch > 1:
                raise MemoryError
            return pixels.astype(np.uint8)

        return Footing(forward=forward, fingerprint=str(rung))

    LadderSegmenter(rungs(4, "cpu"), stand, engine="torch", lock=threading.Lock()).predict(batch_of(4))
    assert len(kept) == 2 + 4


def test_an_array_model_without_memory_ends_in_the_same_error() -> None:
    @dataclass(frozen=True)
    class Hungry:
        spec: ModelSpec = IdentityModel().spec
        runtime: str = "numpy"

        def fingerprint(self) -> str:
            return "0"

        def predict(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
            return np.zeros((1 << 30, 1 << 30), np.uint8)

    segmenter = NumpyEngine().build(Hungry(), SCALING, precision="auto", threads=None)
    assert not segmenter.degraded
    with pytest.raises(EngineMemoryError, match=r"'identity' has too little memory for 2 patches.*--patch"):
        segmenter.predict(batch_of(2))


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("MPS backend out of memory", True),
        ("CUDNN_STATUS_ALLOC_FAILED", True),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 1024 bytes", True),
        ("Exception from src/core/src/runtime/allocator.cpp:79:\nstd::bad_alloc\n", True),
        ("Failed to allocate 9216000000 bytes of memory", True),
        ("Given groups=1, expected input to have 4 channels", False),
        ("", False),
    ],
)
def test_engines_errors_are_told_apart_by_their_texts(text: str, short: bool) -> None:
    assert short_of_memory(RuntimeError(text)) is short


CHILD = """
import resource, sys
from pathlib import Path
import numpy as np
from torch import nn
sys.path.insert(0, {here!r})
from test_engines_memory import NetworkModel, SCALING, batch_of
from geoseg.engines.openvino_engine import OpenVinoEngine
from geoseg.engines.torch_engine import TorchEngine
from geoseg.errors import EngineMemoryError

def limit(free):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + free, resource.RLIM_INFINITY))

resource.setrlimit(resource.RLIMIT_AS, (1 << 45, resource.RLIM_INFINITY))
layers = [nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 2, 1)]
model = NetworkModel(nn.Sequential(*layers))
engine = {{"torch": TorchEngine(device="cpu", batch=8), "openvino": OpenVinoEngine(batch=8)}}[{engine!r}]
segmenter = engine.build(model, SCALING, precision="fp32", threads=1)
alone = type(engine)(batch=1).build(model, SCALING, precision="fp32", threads=1)
many, large = batch_of(8, 512), batch_of(1, 6000)
expected = alone.predict(many)
segmenter.predict(batch_of(8))
limit(700 << 20)
found = segmenter.predict(many)
assert segmenter.degraded, segmenter.fingerprint
assert abs(found.astype(int) - expected).max() <= 1
try:
    segmenter.predict(large)
except EngineMemoryError as error:
    print(segmenter.fingerprint, error)
assert np.array_equal(segmenter.predict(many), expected)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address spaces are limited on Linux")
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_engines_in_a_small_address_space_step_down_and_end_in_the_error(engine: str) -> None:
    code = CHILD.format(here=str(Path(__file__).parent), engine=engine)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert child.returncode == 0, child.stderr
    assert "/batch1" in child.stdout
    assert "too little memory for 1 patch at a time on cpu, of 6000 x 6000 pixels" in child.stdout


def test_streams_that_run_short_together_are_tried_one_at_a_time() -> None:
    """Each fails as long as another one is under way; nobody gives up because another has made room already."""
    together, running = threading.Barrier(4, timeout=30), threading.Semaphore(1)
    failed: list[bool] = []

    class Cramped(CompiledNetwork):
        def __init__(self) -> None:
            self._lock, self._retrying = threading.Lock(), threading.Lock()
            self._compiled = OrderedDict({(16, 16): None})  # type: ignore[dict-item]

        def _infer(self, pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
            if not hasattr(mine, "failed"):
                mine.failed = True
                together.wait()
                failed.append(True)
                raise MemoryError("the first time")
            if not running.acquire(blocking=False):
                raise MemoryError("side by side")
            time.sleep(0.01)
            running.release()
            return np.zeros((1, 2, 16, 16), np.uint8)

    mine, network, batch = threading.local(), Cramped(), batch_of(1)
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(network.forward, batch.pixels.astype(np.float32), batch.valid[:, None]) for _ in range(4)]
        assert all(each.result().shape == (1, 2, 16, 16) for each in made)
    assert len(failed) == 4
