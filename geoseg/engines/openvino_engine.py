"""OpenVINO on the CPU: 1.5 to 3 times torch's speed on convolutional networks."""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from geoseg.engines.hardware import cpu_label
from geoseg.engines.ladder import Footing, LadderSegmenter, Rung, reason_of, rungs, short_of_memory
from geoseg.errors import EngineError
from geoseg.protocols import Model, TorchModel
from geoseg.results import InputScaling

SHAPES_KEPT = 4
"""Compiled shapes kept at a time: a row of patches has three, and each holds its own activations."""

HINTS = {"fp32": "f32", "bf16": "bf16"}


@dataclass(slots=True, kw_only=True)
class OpenVinoEngine:
    name: str = "openvino"
    batch: int = 1
    """Patches a forward pass. One is fastest on a CPU, and holds the least memory."""

    def available(self) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "openvino is not installed; pip install openvino, or use --engine torch"
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed, and OpenVINO converts from it; pip install torch"
        return None

    def supports(self, model: Model) -> bool:
        return model.runtime == "torch"

    def build(self, model: Model, scaling: InputScaling, *, precision: str, threads: int | None) -> LadderSegmenter:
        """The model converted for this engine; `precision` is auto, fp32 or bf16.

        Where memory runs out the batch halves, and the segmenter is `degraded`.
        """
        if reason := self.available():
            raise EngineError(reason)
        openvino = import_openvino()
        core = openvino.Core()
        exact = openvino_precision(precision, core)
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[exact], "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        graph = convert(model, scaling, openvino, batch=self.batch)

        def stand(rung: Rung) -> Footing:
            labels = [f"openvino-{openvino.__version__.split('-')[0]}", exact, cpu_label(), f"batch{rung.batch}"]
            network = ShapedNetwork(graph, core=core, config=config)
            return Footing(forward=network.forward, fingerprint="/".join(labels))

        return LadderSegmenter(rungs(self.batch, "cpu"), stand, engine="OpenVINO", lock=threading.Lock())


class ShapedNetwork:
    """A converted network, compiled for each shape of patch when it first comes; for one thread at a time."""

    def __init__(self, graph: Any, *, core: Any, config: dict[str, Any]) -> None:
        openvino = import_openvino()
        self.graph = graph
        self.core = core
        self.config = config
        self._tensor = openvino.Tensor
        self._shape = openvino.PartialShape
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def forward(self, pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(B, output, row, col) stored probabilities. Raises MemoryError, EngineError."""
        try:
            return self._infer(pixels, valid)
        except MemoryError:
            if not self._requests:
                raise
            self._requests.clear()  # other shapes hold their activations: without them there may be room
        return self._infer(pixels, valid)

    def _infer(self, pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        try:
            request = self._request(pixels.shape, valid.shape)
            request.set_input_tensor(0, self._tensor(pixels, shared_memory=True))
            request.set_input_tensor(1, self._tensor(valid, shared_memory=True))
            request.infer()
            out: NDArray[np.uint8] = request.get_output_tensor(0).data.copy()
        except RuntimeError as error:
            if short_of_memory(error):
                raise MemoryError(reason_of(error)) from error
            raise EngineError(
                f"OpenVINO failed on patches of shape {pixels.shape}: {reason_of(error)}; "
                f"use --engine torch, or check stride and bands in the model's spec"
            ) from error
        return out

    def _request(self, pixels: tuple[int, ...], valid: tuple[int, ...]) -> Any:
        """The inference request for a shape; those used longest ago are given up with their memory."""
        if pixels in self._requests:
            self._requests.move_to_end(pixels)
            return self._requests[pixels]
        while len(self._requests) >= SHAPES_KEPT:
            self._requests.popitem(last=False)
        graph = self.graph.clone()
        graph.reshape({"pixels": self._shape(list(pixels)), "valid": self._shape(list(valid))})
        request = self.core.compile_model(graph, "CPU", self.config).create_infer_request()
        self._requests[pixels] = request
        return request


def convert(model: Model, scaling: InputScaling, openvino: Any, *, batch: int) -> Any:
    """The fused network as an OpenVINO graph with open rows and columns.

    Pixels enter as float32, also where the scene holds integers: with bfloat16 inference OpenVINO would otherwise
    round stored values to 8 bits before scaling them (measured: an error of .03 instead of .002 after scaling).
    """
    import torch

    from geoseg.engines.fused import FusedNetwork

    spec = model.spec
    fused = FusedNetwork(cast(TorchModel, model).network(), spec, scaling).eval()
    side = max(spec.stride, 64 - 64 % spec.stride)
    example = (torch.zeros(batch, len(spec.bands), side, side), torch.ones(batch, 1, side, side, dtype=torch.bool))
    try:
        with torch.inference_mode(), _quiet_conversion():
            traced = torch.jit.trace(fused, example, check_trace=False)
            graph = openvino.convert_model(traced, example_input=example)
    except Exception as error:  # converters raise whatever they like
        raise EngineError(
            f"OpenVINO cannot convert the model {spec.name!r}: {reason_of(error)}; use --engine torch"
        ) from error
    for node, name in zip(graph.inputs, ("pixels", "valid"), strict=True):
        node.get_tensor().set_names({name})
    return graph


def openvino_precision(wanted: str, core: Any) -> str:
    """fp32 or bf16, what `wanted` (auto, fp32, bf16) means on this CPU."""
    if wanted not in ("auto", *HINTS):
        raise EngineError(f"engine 'openvino' has no precision {wanted!r}; known: auto, {', '.join(HINTS)}")
    able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted == "auto":
        return "bf16" if able else "fp32"
    if wanted == "bf16" and not able:
        raise EngineError(f"this CPU ({cpu_label()}) has no bfloat16 arithmetic; use --precision fp32 or auto")
    return wanted


def import_openvino() -> Any:
    """The openvino module, imported without its usage reporting (openvino_telemetry would call home)."""
    if "openvino" not in sys.modules:
        missing = object()
        before = sys.modules.get("openvino_telemetry", missing)
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes `import` of it fail
        try:
            import openvino
        finally:
            if before is missing:
                del sys.modules["openvino_telemetry"]
            else:
                sys.modules["openvino_telemetry"] = before  # type: ignore[assignment]
        return openvino
    return sys.modules["openvino"]


@contextmanager
def _quiet_conversion() -> Iterator[None]:
    """Without torch's notices about tracing, and with logging as it was: the converter sets the root logger to ERROR."""
    from torch.jit._trace import TracerWarning

    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=TracerWarning)
        try:
            yield
        finally:
            root.setLevel(level)
            root.handlers[:] = handlers
