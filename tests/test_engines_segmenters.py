"""Engines agree with each other and with arithmetic done by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from geoseg.engines import choose_engine, engines
from geoseg.engines.batches import MOST
from geoseg.engines.fused import FusedNetwork
from geoseg.engines.hardware import cpu_has_bf16, cpu_label
from geoseg.engines.openvino_engine import OpenVinoEngine
from geoseg.engines.torch_engine import TorchEngine
from geoseg.errors import EngineError
from geoseg.protocols import Segmenter
from geoseg.results import Batch, InputScaling
from geoseg.spec import Channel, ModelSpec, bands, classes
from geoseg.testing.models import IdentityModel

RGBN = ("red", "green", "blue", "nir")
needs_bf16 = pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bfloat16 arithmetic")


@dataclass(frozen=True)
class NetworkModel:
    """A model around a function that makes a network."""

    make: Callable[[], nn.Module]
    spec: ModelSpec
    runtime: str = "torch"

    def fingerprint(self) -> str:
        return "0"

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()


def small_unet() -> nn.Module:
    from geoseg.models.networks import build_network

    architecture = {"type": "unet", "encoder": "tu-mobilenetv3_small_100", "decoder_channels": [32, 16, 16, 8, 8]}
    return build_network(architecture, channels=4, outputs=3)


def spec_of(names: tuple[str, ...] = RGBN, **values: Any) -> ModelSpec:
    defaults: dict[str, Any] = {"outputs": classes("background", "field", "boundary"), "patch": 128, "halo": 0}
    return ModelSpec(name="net", title="net", bands=bands(names), **{**defaults, **values})


def scaling_of(channels: int, *, gain: float = 1e-3, bias: float = -3.0, limit: float | None = 4.0) -> InputScaling:
    return InputScaling(bands=tuple(range(channels)), gain=(gain,) * channels, bias=(bias,) * channels, limit=limit)


def batch_of(shape: tuple[int, int, int, int], dtype: str = "uint16", high: int = 6000) -> Batch:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, high, shape).astype(dtype)
    return Batch(pixels=pixels, valid=rng.random((shape[0], *shape[2:])) > 0.1)


UNET = NetworkModel(small_unet, spec_of())


def same(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float((a.argmax(1) == b.argmax(1)).mean())


@pytest.fixture(scope="module")
def reference() -> tuple[Batch, NDArray[np.uint8]]:
    batch = batch_of((2, 4, 128, 160))
    segmenter = TorchEngine(device="cpu").build(UNET, scaling_of(4), precision="fp32", threads=None)
    return batch, segmenter.predict(batch)


def test_torch_matches_the_formula(reference: tuple[Batch, NDArray[np.uint8]]) -> None:
    batch, found = reference
    x = np.clip(batch.pixels.astype(np.float32) * 1e-3 - 3, -4, 4) * batch.valid[:, None]
    with torch.inference_mode():
        p = torch.softmax(UNET.network()(torch.from_numpy(x.astype(np.float32))), dim=1).numpy()
    expected = np.floor(254 * p + 0.5)
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.999


def test_openvino_agrees_with_torch(reference: tuple[Batch, NDArray[np.uint8]]) -> None:
    batch, expected = reference
    segmenter = OpenVinoEngine().build(UNET, scaling_of(4), precision="fp32", threads=None)
    found = segmenter.predict(batch)
    assert same(found, expected) >= 0.999
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert segmenter.fingerprint.startswith("openvino-")
    assert segmenter.fingerprint.endswith(f"/fp32/{cpu_label()}/batch1")


@needs_bf16
@pytest.mark.parametrize("engine", [TorchEngine(device="cpu"), OpenVinoEngine()], ids=lambda engine: engine.name)
def test_half_precision_stays_near(engine: Any, reference: tuple[Batch, NDArray[np.uint8]]) -> None:
    batch, expected = reference
    segmenter = engine.build(UNET, scaling_of(4), precision="auto", threads=None)
    assert "/bf16/" in segmenter.fingerprint
    found = segmenter.predict(batch)
    assert same(found, expected) > 0.99
    assert np.abs(found.astype(int) - expected).mean() < 2


@needs_bf16
@pytest.mark.parametrize("engine", [TorchEngine(device="cpu"), OpenVinoEngine()], ids=lambda engine: engine.name)
def test_scaling_is_exact_whatever_the_precision(engine: Any) -> None:
    """Stored values differ by less than bfloat16 resolves: rounded before scaling, they would all look alike."""
    spec = spec_of(("red",), outputs=classes("background", "field"))
    stored = np.arange(3000, 3016, dtype=np.uint16).repeat(4).reshape(1, 1, 8, 8)
    batch = Batch(pixels=stored, valid=np.ones((1, 8, 8), np.bool_))
    scaling = scaling_of(1, gain=0.25, bias=-750.0)
    segmenter = engine.build(
        NetworkModel(lambda: FieldLogit(nn.Identity()), spec), scaling, precision="bf16", threads=1
    )
    assert len(np.unique(segmenter.predict(batch)[:, 1])) >= 14


class FieldLogit(nn.Module):
    """A 1 x 1 convolution that hands the first band on as the logit of class 1."""

    def __init__(self, before: nn.Module) -> None:
        super().__init__()
        self.before = before
        self.convolution = nn.Conv2d(1, 2, 1, bias=False)
        self.convolution.weight.data = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.convolution(self.before(x))
        return found


@pytest.mark.parametrize("engine", [TorchEngine(device="cpu"), OpenVinoEngine()], ids=lambda engine: engine.name)
def test_missing_bands_and_invalid_pixels_are_zero(engine: Any) -> None:
    spec = spec_of(("red",), outputs=classes("background", "field"))
    model = NetworkModel(lambda: FieldLogit(nn.Identity()), spec)
    pixels = np.full((1, 1, 8, 8), 50.0, np.float32)
    pixels[..., :4] = np.nan
    valid = np.ones((1, 8, 8), np.bool_)
    valid[..., :4] = False
    batch = Batch(pixels=pixels, valid=valid)
    found = engine.build(model, scaling_of(1, gain=1, bias=0, limit=4), precision="fp32", threads=1).predict(batch)
    assert (found[..., :4] == 127).all()
    assert (found[:, 1, :, 4:] == np.floor(254 / (1 + np.exp(-4)) + 0.5)).all()
    absent = InputScaling(bands=(None,), gain=(0.0,), bias=(0.0,), limit=None)
    found = engine.build(model, absent, precision="fp32", threads=1).predict(batch)
    assert (found == 127).all()


@pytest.mark.parametrize("engine", [TorchEngine(device="cpu"), OpenVinoEngine()], ids=lambda engine: engine.name)
def test_sigmoid_channels_stand_beside_the_softmax(engine: Any) -> None:
    outputs = (Channel(name="background"), Channel(name="field"), Channel(name="edge", kind="boundary"))
    spec = spec_of(("a", "b", "c"), outputs=outputs)
    pixels = np.random.default_rng(0).normal(0, 2, (1, 3, 8, 8)).astype(np.float32)
    batch = Batch(pixels=pixels, valid=np.ones((1, 8, 8), np.bool_))
    model = NetworkModel(nn.Identity, spec)
    found = engine.build(model, scaling_of(3, gain=1, bias=0, limit=None), precision="fp32", threads=1).predict(batch)
    a, b, c = pixels[0]
    field = 1 / (1 + np.exp(a - b))
    expected = np.floor(254 * np.stack([1 - field, field, 1 / (1 + np.exp(-c))]) + 0.5)
    assert np.abs(found[0] - expected).max() <= 1


@pytest.mark.parametrize("engine", [TorchEngine(device="cpu"), OpenVinoEngine()], ids=lambda engine: engine.name)
def test_upsampling_comes_back_to_the_scene(engine: Any) -> None:
    spec = spec_of(("red",), outputs=classes("background", "field"), upsample=2)
    batch = Batch(pixels=np.full((1, 1, 12, 16), 2, np.uint8), valid=np.ones((1, 12, 16), np.bool_))
    model = NetworkModel(lambda: FieldLogit(nn.Identity()), spec)
    found = engine.build(model, scaling_of(1, gain=1, bias=0), precision="fp32", threads=1).predict(batch)
    assert found.shape == (1, 2, 12, 16)
    assert (found[:, 1] == np.floor(254 / (1 + np.exp(-2)) + 0.5)).all()


def predict_in_threads(segmenter: Segmenter, batches: list[Batch], *, threads: int) -> list[NDArray[np.uint8]]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(segmenter.predict, batches))


def test_openvino_gives_equal_bytes_from_threads_and_thread_counts() -> None:
    shapes = [(64, 64), (64, 96), (96, 64), (96, 96), (128, 64), (64, 128)]
    batches = [batch_of((1, 4, *shape)) for shape in shapes] * 2
    segmenter = OpenVinoEngine().build(UNET, scaling_of(4), precision="auto", threads=1)
    expected = [segmenter.predict(batch) for batch in batches]
    wide = OpenVinoEngine().build(UNET, scaling_of(4), precision="auto", threads=2)
    streams = OpenVinoEngine(streams=3).build(UNET, scaling_of(4), precision="auto", threads=None)
    assert streams.fingerprint == segmenter.fingerprint
    for found in (predict_in_threads(each, batches, threads=12) for each in (segmenter, wide, streams)):
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_ctrl_c_finds_its_signal_stack_after_networks_were_released_elsewhere() -> None:
    code = """
import signal, threading
from test_engines_segmenters import UNET, scaling_of
from geoseg.engines.openvino_engine import OpenVinoEngine

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to it
held = [OpenVinoEngine().build(UNET, scaling_of(4), precision="fp32", threads=1)]
releasing = threading.Thread(target=held.clear)
releasing.start()
releasing.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "interrupted"), done.stderr


ENGINES = [
    pytest.param(TorchEngine(device="cpu", batch=2), "fp32", id="torch-fp32"),
    pytest.param(TorchEngine(device="cpu", batch=2), "bf16", id="torch-bf16", marks=needs_bf16),
    pytest.param(OpenVinoEngine(), "fp32", id="openvino-fp32"),
    pytest.param(OpenVinoEngine(), "bf16", id="openvino-bf16", marks=needs_bf16),
]


@pytest.fixture
def torch_threads() -> Iterator[None]:
    """Leaves torch's thread count, which is the process's, as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("torch_threads")
@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_order_grouping_and_threads_do_not_change_a_byte(engine: Any, precision: str) -> None:
    batch = batch_of((9, 4, 64, 96))
    segmenter = engine.build(UNET, scaling_of(4), precision=precision, threads=2)
    expected = segmenter.predict(batch)
    shuffled = np.random.default_rng(0).permutation(9)
    for order in (np.arange(9), shuffled):
        for size in (1, 3, 8):
            groups = [order[start : start + size] for start in range(0, 9, size)]
            parts = [Batch(pixels=batch.pixels[group], valid=batch.valid[group]) for group in groups]
            for found in (
                [segmenter.predict(part) for part in parts],
                predict_in_threads(segmenter, parts, threads=4),
            ):
                np.testing.assert_array_equal(np.concatenate(found), expected[order])


@pytest.mark.usefixtures("torch_threads")
@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_equal_fingerprints_give_equal_bytes_whatever_the_engine_s_threads(engine: Any, precision: str) -> None:
    batch, found = batch_of((2, 4, 128, 128)), {}
    for threads in (1, 2, 3):
        segmenter = engine.build(UNET, scaling_of(4), precision=precision, threads=threads)
        result = segmenter.predict(batch)
        np.testing.assert_array_equal(result, found.setdefault(segmenter.fingerprint, result))
    assert len(found) == (3 if (engine.name, precision) == ("torch", "fp32") else 1)


class Unconvertible(nn.Module):
    """Leaves torch in the middle: nothing that a tracer can follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        solution: torch.Tensor = torch.linalg.lstsq(x, x).solution
        return solution


def test_auto_falls_back_where_openvino_cannot_convert(caplog: pytest.LogCaptureFixture) -> None:
    model = NetworkModel(Unconvertible, spec_of(("a", "b", "c")))
    with pytest.raises(EngineError, match=r"OpenVINO cannot convert the model 'net'.*use --engine torch"):
        choose_engine(model, name="openvino").build(model, scaling_of(3), precision="auto", threads=None)
    if not torch.cuda.is_available():
        segmenter = choose_engine(model).build(model, scaling_of(3), precision="fp32", threads=None)
        assert segmenter.fingerprint.startswith("torch-")
        assert "going on with torch" in caplog.text


def test_engines_are_chosen_by_what_the_model_needs() -> None:
    assert list(engines())[:3] == ["torch", "openvino", "numpy"]
    assert choose_engine(IdentityModel()).name == "numpy"
    assert choose_engine(UNET).name == ("torch" if torch.cuda.is_available() else "openvino")
    with pytest.raises(EngineError, match="no engine 'tensorrt'; known: auto, torch, openvino, numpy"):
        choose_engine(UNET, name="tensorrt")
    with pytest.raises(EngineError, match=r"engine 'numpy' cannot run the model 'net'.*use torch or openvino"):
        choose_engine(UNET, name="numpy")
    with pytest.raises(EngineError, match="no precision 'int4'; known: auto, fp32, bf16"):
        choose_engine(UNET, precision="int4")
    with pytest.raises(EngineError, match="which needs 'abacus'"):
        choose_engine(NetworkModel(nn.Identity, spec_of(), runtime="abacus"))


def test_patches_that_the_network_cannot_take_are_refused() -> None:
    segmenter = TorchEngine(device="cpu").build(UNET, scaling_of(4), precision="fp32", threads=None)
    with pytest.raises(EngineError, match=r"torch failed on patches of shape \(1, 3, 64, 64\).*check stride"):
        segmenter.predict(batch_of((1, 3, 64, 64)))
    converted = OpenVinoEngine().build(UNET, scaling_of(4), precision="fp32", threads=None)
    with pytest.raises(EngineError, match=r"OpenVINO failed on patches of shape \(1, 5, 64, 64\)"):
        converted.predict(batch_of((1, 5, 64, 64)))


def test_fused_network_keeps_its_coefficients_in_float32() -> None:
    fused = FusedNetwork(nn.Identity(), spec_of(), scaling_of(4))
    assert {tensor.dtype for tensor in (fused.gain, fused.bias)} == {torch.float32}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(reference: tuple[Batch, NDArray[np.uint8]]) -> None:
    batch, expected = reference
    for precision in ("fp32", "bf16"):
        segmenter = TorchEngine(device="cuda", batch=MOST).build(UNET, scaling_of(4), precision=precision, threads=None)
        assert segmenter.fingerprint.endswith(f"/batch{MOST}")
        assert same(segmenter.predict(batch), expected) > 0.99
