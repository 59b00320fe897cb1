"""OpenVINO on the CPU: 1.5 to 3 times torch's speed on convolutional networks."""

from __future__ import annotations

import importlib.util
import logging
import sys
import tempfile
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from geoseg.engines.hardware import cpu_label
from geoseg.engines.kept import Graph, graph_name, load_graph, save_graph
from geoseg.engines.ladder import Footing, LadderSegmenter, Rung, reason_of, rungs, short_of_memory
from geoseg.errors import EngineError, ModelError
from geoseg.protocols import Model, TorchModel
from geoseg.results import InputScaling

SHAPES_KEPT = 4
"""Compiled shapes kept at a time: a row of patches has three, and each holds its own activations."""

INPUTS = ("pixels", "valid", "gain", "bias", "present")
"""Of a converted network; all but the first two become constants."""

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
        graph = graph_of(model, scaling, openvino, core, batch=self.batch)

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


def graph_of(model: Model, scaling: InputScaling, openvino: Any, core: Any, *, batch: int) -> Any:
    """The fused network as an OpenVINO graph with open rows and columns; from the cache where it is there.

    Pixels enter as float32, also where the scene holds integers: with bfloat16 inference OpenVINO would otherwise
    round stored values to 8 bits before scaling them (measured: an error of .03 instead of .002 after scaling).
    """
    name = graph_name(model, batch=batch, limit=scaling.limit)
    kept = load_graph(name) if name else None
    if kept is None:
        kept = convert(model, scaling, openvino, batch=batch)
        if name:
            save_graph(name, kept)
    graph = core.read_model(kept[0], openvino.Tensor(np.frombuffer(kept[1], np.uint8)))
    values = {
        "gain": np.array(scaling.gain, np.float32),
        "bias": np.array(scaling.bias, np.float32),
        "present": np.array([band is not None for band in scaling.bands]),
    }
    for entry in list(graph.get_parameters()):
        (found,) = entry.output(0).get_names() & {*INPUTS}
        if found in values:
            constant = openvino.opset1.constant(values[found].reshape(1, -1, 1, 1))
            entry.output(0).replace(constant.output(0))
            graph.remove_parameter(entry)
    graph.validate_nodes_and_infer_types()
    return graph


def convert(model: Model, scaling: InputScaling, openvino: Any, *, batch: int) -> Graph:
    """The fused network converted, with the scaling of bands still an input."""
    import torch

    from geoseg.engines.fused import FusedNetwork

    class Open(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fused = FusedNetwork(cast(TorchModel, model).network(), spec, scaling)

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return self.fused.scaled(*values)

    spec = model.spec
    side = max(spec.stride, 64 - 64 % spec.stride)
    pixels, valid = torch.zeros(batch, len(spec.bands), side, side), torch.ones(batch, 1, side, side, dtype=torch.bool)
    column = torch.zeros(1, len(spec.bands), 1, 1)
    example = (pixels, valid, column, column.clone(), column > 0)
    try:
        with torch.inference_mode(), _quiet_conversion(), tempfile.TemporaryDirectory() as folder:
            traced = torch.jit.trace(Open().eval(), example, check_trace=False)
            graph = openvino.convert_model(traced, example_input=example)
            for node, name in zip(graph.inputs, INPUTS, strict=True):
                node.get_tensor().set_names({name})
            files = Path(folder, "graph.xml"), Path(folder, "graph.bin")
            openvino.serialize(graph, *files)
            return files[0].read_bytes(), files[1].read_bytes()
    except (EngineError, ModelError):
        raise
    except Exception as error:  # converters raise whatever they like
        raise EngineError(
            f"OpenVINO cannot convert the model {spec.name!r}: {reason_of(error)}; use --engine torch"
        ) from error


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
