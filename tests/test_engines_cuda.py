"""Threads share full batches, pixels travel as stored, and no byte tells: the GPU's road, here on the CPU."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from geoseg.engines.cuda_batch import batch_in, best_batch, known_batch
from geoseg.engines.cuda_pool import Handed
from geoseg.engines.cuda_streams import CARRIED, Lane, Room, StreamedNetwork, as_float
from geoseg.engines.fused import FusedNetwork
from geoseg.engines.torch_engine import FORWARD, Placed, TorchEngine
from geoseg.errors import EngineError, EngineMemoryError
from geoseg.results import Batch, InputScaling
from geoseg.spec import ModelSpec, bands, classes
from geoseg.testing.networks import CrampedNetwork

SPEC = ModelSpec(
    name="net", title="net", bands=bands(("red", "nir")), outputs=classes("background", "field"), patch=64, halo=0
)
SCALING = InputScaling(bands=(0, 1), gain=(1e-4, 2e-4), bias=(-2.0, 0.5), limit=4.0)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@dataclass(frozen=True)
class NetworkModel:
    """A model around a function that makes a network."""

    make: Callable[[], nn.Module]
    spec: ModelSpec = SPEC
    runtime: str = "torch"

    def fingerprint(self) -> str:
        return f"{id(self.make)}"

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()


def small_net() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(2, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(16, 2, 1)]
    return nn.Sequential(*layers)


NET = NetworkModel(small_net)


def batch_of(count: int, shape: tuple[int, int] = (32, 48), dtype: str = "uint16", seed: int = 3) -> Batch:
    """Stored values over the whole range of the dtype."""
    rng = np.random.default_rng(seed)
    size = (count, 2, *shape)
    if np.dtype(dtype).kind == "f":
        pixels = rng.normal(5000, 20000, size).astype(dtype)
    else:
        limits = np.iinfo(np.dtype(dtype))
        pixels = rng.integers(limits.min, limits.max, size, endpoint=True).astype(dtype)
    return Batch(pixels=pixels, valid=rng.random((count, *shape)) > 0.1)


def built(
    model: NetworkModel = NET,
    *,
    batch: int | None = 4,
    pooled: bool = True,
    device: str = "cpu",
    precision: str = "fp32",
) -> Any:
    engine = TorchEngine(device=device, batch=batch, pooled=pooled)
    return engine.build(model, SCALING, precision=precision, threads=None)


def in_threads(predict: Callable[[Batch], NDArray[np.uint8]], batches: Sequence[Batch]) -> list[NDArray[np.uint8]]:
    with ThreadPoolExecutor(len(batches)) as threads:
        return list(threads.map(predict, batches))


DTYPES = ("uint8", "int8", "uint16", "int16", ">u2", "int32", "float32", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_that_travel_as_stored_give_the_bytes_of_the_plain_road(dtype: str) -> None:
    batch = batch_of(7, dtype=dtype)
    if dtype == "uint16":
        assert (batch.pixels >= 32768).mean() > 0.4
    expected = built(pooled=False).predict(batch)
    found = built().predict(batch)
    assert found.dtype == np.uint8
    assert found.flags.owndata or found.base is not None
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 20


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "float64"])
def test_a_lane_carries_every_value_exactly(dtype: str) -> None:
    if np.dtype(dtype).itemsize == 2:
        limits = np.iinfo(np.dtype(dtype))
        pixels = np.arange(limits.min, limits.max + 1).astype(dtype).reshape(1, 256, 256)
    else:
        pixels = batch_of(1, (8, 8), dtype).pixels[0]
    lane = Lane(torch.device("cpu"))
    for size in (2, 1):  # the second time in memory that holds other values
        lane.fit(pixels, size)
        lane.gather([Handed(pixels=pixels, valid=np.ones(pixels.shape[1:], np.bool_), owner=0)])
        found = as_float(lane.pixels, unsigned=lane.unsigned)
        assert found.dtype == torch.float32
        assert lane.pixels.dtype == CARRIED.get(np.dtype(dtype).newbyteorder("=").str[1:], torch.float32)
        np.testing.assert_array_equal(found.numpy(), np.repeat(pixels[None].astype(np.float32), size, axis=0))
        assert lane.valid.all()


def test_memory_of_a_lane_grows_and_is_used_again() -> None:
    room = Room()
    large = room.seen_as((4, 5), torch.float32)
    small = room.seen_as((3,), torch.int16)
    assert small.data_ptr() == large.data_ptr()
    assert room.seen_as((100,), torch.float32).shape == (100,)


@pytest.fixture(scope="module")
def mixed() -> list[Batch]:
    """Batches of several shapes and counts, as tiles at the edges of a scene hand them in."""
    shapes = [(32, 48), (32, 32), (16, 48), (32, 48)]
    return [batch_of(1 + i % 5, shapes[i % 4], seed=i) for i in range(16)]


def test_threads_order_and_company_change_no_byte(mixed: list[Batch]) -> None:
    plain, pooled = built(pooled=False), built()
    expected = [plain.predict(batch) for batch in mixed]
    for order in (np.arange(16), np.random.default_rng(0).permutation(16), np.arange(16)[::-1]):
        found = in_threads(pooled.predict, [mixed[i] for i in order])
        for i, values in zip(order, found, strict=True):
            np.testing.assert_array_equal(values, expected[i])
    assert pooled.fingerprint == plain.fingerprint


def test_forward_passes_are_few_when_threads_share_them() -> None:
    roomy = CrampedNetwork(8)
    segmenter = built(NetworkModel(lambda: roomy), batch=8)
    segmenter._pool._patience_s = 30
    segmenter.predict(batch_of(1))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(segmenter.predict, [batch_of(2, seed=i) for i in range(4)]))
        segmenter._pool._patience_s = 0.01
    # Four times two patches from threads that the pool awaits: one pass, beside the first.
    assert roomy.sizes == [8, 8]


def test_a_shared_batch_halves_for_good_and_every_thread_gets_the_bytes(
    mixed: list[Batch], caplog: pytest.LogCaptureFixture
) -> None:
    cramped = CrampedNetwork(2)
    segmenter, plain = (
        built(NetworkModel(lambda: cramped), batch=8),
        built(NetworkModel(lambda: CrampedNetwork(2)), batch=2, pooled=False),
    )
    expected = [plain.predict(batch) for batch in mixed]
    for found, values in zip(in_threads(segmenter.predict, mixed), expected, strict=True):
        np.testing.assert_array_equal(found, values)
    assert segmenter.degraded
    assert segmenter.fingerprint == plain.fingerprint
    assert {size for size in cramped.sizes if size > 2} == {4, 8}  # both lanes may find out
    assert "torch runs out of memory; going on with 4 patches at a time on cpu" in caplog.text


def test_without_memory_for_one_patch_every_thread_is_told() -> None:
    segmenter = built(NetworkModel(lambda: CrampedNetwork(0)))

    def attempt(batch: Batch) -> NDArray[np.uint8]:
        with pytest.raises(
            EngineMemoryError, match=r"too little memory for 1 patch at a time on cpu, of 48 x 32 .*--patch"
        ):
            segmenter.predict(batch)
        return np.zeros(0, np.uint8)

    in_threads(attempt, [batch_of(2, seed=i) for i in range(4)])


def test_patches_that_the_network_cannot_take_are_refused() -> None:
    pixels = np.zeros((1, 3, 32, 32), np.uint8)
    with pytest.raises(EngineError, match=r"torch failed on patches of shape \(4, 3, 32, 32\).*check stride"):
        built().predict(Batch(pixels=pixels, valid=np.ones((1, 32, 32), np.bool_)))


def test_a_released_segmenter_frees_its_network_at_once() -> None:
    segmenter = built()
    segmenter.predict(batch_of(2))
    network = weakref.ref(segmenter._footing.network)
    gc.disable()
    try:
        del segmenter
        assert network() is None
    finally:
        gc.enable()


def test_a_closed_network_sends_its_callers_on() -> None:
    fused = FusedNetwork(NET.network(), SPEC, SCALING).eval()
    network = StreamedNetwork(fused, "cpu", batch=2, lock=FORWARD)
    batch = batch_of(1)
    patch = Handed(pixels=batch.pixels[0], valid=batch.valid[0], owner=0)
    assert network.run([patch] * 3).shape == (3, 2, 32, 48)
    with FORWARD:
        network.close()
    with pytest.raises(MemoryError):
        network.run([patch])


CURVES = {
    "saturates": ({1: 1.0, 2: 1.2, 4: 2.35, 8: 4.7}, 2),
    "rises": ({1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}, 8),
    "ends": ({1: 1.0, 2: 1.0}, 2),
    "flat": ({1: 1.0, 2: 2.0}, 1),
    "none": ({}, 0),
}


@pytest.mark.parametrize(("seconds", "expected"), CURVES.values(), ids=CURVES.keys())
def test_the_batch_doubles_while_it_pays_and_fits(seconds: dict[int, float], expected: int) -> None:
    def measured(size: int) -> float:
        if size not in seconds:
            raise MemoryError
        return seconds[size]

    assert best_batch(measured, 8) == expected
    assert best_batch(measured, 1) == min(1, expected)


def test_a_batch_is_measured_once_a_process_and_read_from_a_fingerprint() -> None:
    found = iter((4, 8))
    assert [known_batch("a GPU", lambda: next(found)) for _ in range(2)] == [4, 4]
    assert known_batch("another", lambda: next(found)) == 8
    assert batch_in("torch-2.6.0/bf16/NVIDIA H100 80GB HBM3/batch16") == 16
    assert batch_in("torch-2.6.0/bf16/NVIDIA H100 80GB HBM3/batch8/compiled") == 8
    assert batch_in("numpy-2.0") is None


def test_a_model_that_is_built_again_has_the_same_batch_and_a_resumed_run_that_of_the_first() -> None:
    first, again = built(batch=None), built(batch=None)
    assert first.fingerprint == again.fingerprint
    assert batch_in(first.fingerprint) in (1, 2, 4, 8)
    engine = TorchEngine(device="cpu", pooled=True)
    resumed = replace(engine, like="torch-2.6.0/fp32/some GPU/batch16").build(
        NET, SCALING, precision="fp32", threads=None
    )
    assert resumed.fingerprint.endswith("/batch16")
    np.testing.assert_array_equal(resumed.predict(batch_of(3)), built(batch=16, pooled=False).predict(batch_of(3)))


def test_a_model_that_finds_no_room_on_its_gpu_is_degraded_from_the_start(caplog: pytest.LogCaptureFixture) -> None:
    fused = FusedNetwork(NET.network(), SPEC, SCALING).eval()
    segmenter = TorchEngine()._pool(Placed(fused=fused, device="cuda", precision="fp32"), 0, SPEC)
    assert segmenter.degraded
    assert segmenter.fingerprint == built(batch=1).fingerprint
    assert (
        "no memory on cuda for even one patch of 64 x 64 pixels; going on with 1 patch at a time on cpu" in caplog.text
    )
    np.testing.assert_array_equal(segmenter.predict(batch_of(3)), built(batch=1).predict(batch_of(3)))


def test_the_cpu_stays_with_one_patch_at_a_time() -> None:
    segmenter = TorchEngine(device="cpu").build(NET, SCALING, precision="fp32", threads=None)
    assert type(segmenter).__name__ == "LadderSegmenter"
    assert segmenter.fingerprint.endswith("/batch1")


@pytest.fixture
def gpu_batches() -> list[Batch]:
    return [batch_of(1 + i % 5, [(64, 96), (64, 64), (32, 96)][i % 3], seed=i) for i in range(24)]


@pytest.mark.gpu
@cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_gives_the_classes_of_the_cpu_and_the_same_bytes_from_threads(
    precision: str, gpu_batches: list[Batch], caplog: pytest.LogCaptureFixture
) -> None:
    plain = built(pooled=False)
    expected = [plain.predict(batch) for batch in gpu_batches]
    alone = [built(device="cuda", precision=precision).predict(batch) for batch in gpu_batches]
    segmenter = built(device="cuda", precision=precision)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):  # in the first round passes run layer by layer, then from a graph
            for found, values in zip(in_threads(segmenter.predict, gpu_batches), alone, strict=True):
                np.testing.assert_array_equal(found, values)
    assert "without a CUDA graph" not in caplog.text
    assert segmenter._footing.network._graph is not None
    assert not segmenter.degraded
    for found, values in zip(alone, expected, strict=True):
        assert (found.argmax(1) == values.argmax(1)).mean() > (0.999 if precision == "fp32" else 0.99)
    if precision == "fp32":
        assert max(np.abs(a.astype(int) - b).max() for a, b in zip(alone, expected, strict=True)) <= 1


@pytest.mark.gpu
@cuda
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_takes_pixels_as_stored(dtype: str) -> None:
    batch = batch_of(5, (64, 64), dtype)
    as_floats = Batch(pixels=batch.pixels.astype(np.float32), valid=batch.valid)
    segmenter = built(device="cuda")
    np.testing.assert_array_equal(segmenter.predict(batch), segmenter.predict(as_floats))


@pytest.mark.gpu
@cuda
def test_a_gpu_without_memory_for_a_batch_steps_down() -> None:
    cramped = CrampedNetwork(2)
    segmenter = built(NetworkModel(lambda: cramped), device="cuda", batch=8)
    expected = built(NetworkModel(lambda: CrampedNetwork(2)), device="cuda", batch=2).predict(batch_of(9))
    np.testing.assert_array_equal(segmenter.predict(batch_of(9)), expected)
    assert segmenter.degraded
    assert segmenter.fingerprint.endswith("/batch2")
    nowhere = built(NetworkModel(lambda: CrampedNetwork(2)), device="cuda", batch=None)
    assert batch_in(nowhere.fingerprint) in (1, 2)
