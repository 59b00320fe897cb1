"""OpenVINO on the CPU: 1.5 to 3 times torch's speed on convolutional networks."""

from __future__ import annotations

import importlib.util
import math
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.engines.composed import composed_graph
from geoseg.engines.conversion import bound, import_openvino, network_graph, opened, openvino_core
from geoseg.engines.graphs import Graph, unpacked
from geoseg.engines.hardware import core_count, cpu_label
from geoseg.engines.ladder import Footing, LadderSegmenter, Rung, reason_of, rungs, short_of_memory
from geoseg.errors import EngineError
from geoseg.protocols import Model, int8_network
from geoseg.results import NODATA, InputScaling

COMPILED = 4
"""Networks compiled at a time, each with activations of its own. See CompiledNetwork."""

ALIVE = 4
"""The largest activations that are alive together: the two ends of a layer, and skip connections."""

SPARE = 2
"""Over what the largest activations add up to (measured: 1.2 to 1.8 on U-Nets, torch and OpenVINO, both precisions)."""

STREAM_BYTES = 384 * 2**20
"""Activations a core that streams may hold: small networks gain a tenth by them, large ones nothing (measured on 2 cores)."""

HINTS = {"fp32": "f32", "bf16": "bf16"}


@dataclass(slots=True, kw_only=True)
class OpenVinoEngine:
    name: str = "openvino"
    batch: int = 1
    """Patches a forward pass. One is fastest on a CPU, and holds the least memory."""
    streams: int = 1
    """Threads that predict at a time, each on its share of the cores and with activations of its own. They need not wait for
    each other within a network, and while one reads or writes, the others go on. Results do not depend on it."""

    def available(self) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "openvino is not installed; pip install openvino, or use --engine torch"
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed, and OpenVINO converts from it; pip install torch"
        return None

    def supports(self, model: Model) -> bool:
        if model.spec.instances is not None:
            return False
        return model.runtime == "openvino" or (model.runtime == "torch" and getattr(model, "traceable", True))

    def build(self, model: Model, scaling: InputScaling, *, precision: str, threads: int | None) -> LadderSegmenter:
        """The model converted for this engine; `precision` is auto, fp32, bf16 or int8.

        Where memory runs out the batch halves, and the segmenter is `degraded`.
        """
        if reason := self.available():
            raise EngineError(reason)
        openvino = import_openvino()
        core = openvino_core()
        exact = openvino_precision(precision, core)
        fixed = memory_may_be_refused()
        config = settings(exact, core)
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        if exact == "int8":
            kept, told = quantised_graph(model)
            exact, graph = f"int8-{told[:8]}", opened(kept, core)
        elif model.runtime == "openvino":
            graph = composed_graph(model, core, limit=scaling.limit)
        else:
            graph = opened(network_graph(model, scaling, batch=self.batch), core)
        graph = bound(graph, scaling)
        streams = 1
        if self.batch == 1 and not fixed:  # a longer ladder is stepped down by one thread
            width = 4 if config["INFERENCE_PRECISION_HINT"] == "f32" else 2
            streams = min(self.streams, streams_with(activation_bytes(graph, model.spec.patch, width=width)))
        if streams > 1:
            config |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(streams)}

        def stand(rung: Rung) -> Footing:
            labels = [f"openvino-{openvino.__version__.split('-')[0]}", exact, cpu_label(), f"batch{rung.batch}"]
            labels += ["fixed-shapes"] if fixed else []
            network = CompiledNetwork(graph, core=core, config=config, patch=model.spec.patch, fixed=fixed)
            return Footing(forward=network.forward, fingerprint="/".join(labels))

        return LadderSegmenter(
            rungs(self.batch, "cpu"), stand, engine="OpenVINO", lock=threading.BoundedSemaphore(streams)
        )


class CompiledNetwork:
    """A converted network, compiled for whole patches and once more for all other shapes; safe to use from threads.

    A network for one shape is up to a tenth faster in 8 bits, but takes .3 s to compile, and a scene has nine shapes. The
    two kinds differ in last bits; which one takes a patch follows from its shape alone.
    """

    def __init__(self, graph: Any, *, core: Any, config: dict[str, Any], patch: int, fixed: bool = False) -> None:
        """`graph` has open rows and columns, `patch` is the side of whole patches in pixels; `fixed` compiles for each shape."""
        openvino = import_openvino()
        self.graph = graph
        self.core = core
        self.config = config
        self.patch = patch
        self.fixed = fixed
        self.outputs = int(graph.output(0).get_partial_shape()[1].get_length())
        self._tensor = openvino.Tensor
        self._shape = openvino.PartialShape
        self._compiled: OrderedDict[tuple[int, int], _Compiled] = OrderedDict()
        self._lock = threading.Lock()
        self._retrying = threading.Lock()

    def forward(self, pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(B, output, row, col) stored probabilities. Raises MemoryError, EngineError."""
        try:
            return self._infer(pixels, valid)
        except MemoryError:
            with self._lock:
                if not self._compiled and not self._retrying.locked():
                    raise
        with self._retrying:  # streams that ran short together take turns
            with self._lock:
                self._compiled.clear()  # other shapes hold their activations: without them there may be room
            return self._infer(pixels, valid)

    def _infer(self, pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        try:
            compiled = self._for(pixels.shape)
            request = compiled.taken()
            out = np.full((len(pixels), self.outputs, *pixels.shape[2:]), NODATA, np.uint8)
            request.set_input_tensor(0, self._tensor(pixels, shared_memory=True))
            request.set_input_tensor(1, self._tensor(valid, shared_memory=True))
            request.set_output_tensor(0, self._tensor(out, shared_memory=True))
            request.infer()
            compiled.idle.append(request)  # after an error it is given up
        except RuntimeError as error:
            if short_of_memory(error):
                raise MemoryError(reason_of(error)) from error
            raise EngineError(
                f"OpenVINO failed on patches of shape {pixels.shape}: {reason_of(error)}; "
                f"use --engine torch, or check stride and bands in the model's spec"
            ) from error
        if out.max(initial=0) == NODATA:
            # See memory_may_be_refused().
            raise MemoryError("it left its output unwritten")
        return out

    def _for(self, shape: tuple[int, ...]) -> _Compiled:
        """The network compiled for pixels of a shape; those used longest ago are given up with their memory."""
        batch, channels, rows, cols = shape
        key = (rows, cols) if self.fixed or rows == cols == self.patch else (-1, -1)
        with self._lock:
            if key in self._compiled:
                self._compiled.move_to_end(key)
                return self._compiled[key]
            while len(self._compiled) >= COMPILED:
                self._compiled.popitem(last=False)
            graph = self.graph.clone()
            graph.reshape({"pixels": self._shape([batch, channels, *key]), "valid": self._shape([batch, 1, *key])})
            self._compiled[key] = _Compiled(self.core.compile_model(graph, "CPU", self.config))
            return self._compiled[key]


@dataclass(frozen=True, slots=True)
class _Compiled:
    model: Any
    idle: list[Any] = field(default_factory=list)
    """Its inference requests that no thread uses."""

    def taken(self) -> Any:
        """An inference request, the caller's own until it lays it among the idle ones."""
        try:
            return self.idle.pop()
        except IndexError:
            return self.model.create_infer_request()


def memory_may_be_refused() -> bool:
    """Whether an allocation can fail on this system: address space is limited, or memory is not promised beyond what is there.

    Where it does in a network with open shapes, OpenVINO (2026.4) returns as if all were well, or crashes.
    """
    if sys.platform == "win32":
        return True
    import resource

    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return True
    overcommit = Path("/proc/sys/vm/overcommit_memory")
    return overcommit.is_file() and overcommit.read_text().strip() == "2"


def streams_with(working: int) -> int:
    """How many streams there is room for where each works in so many bytes."""
    return max(1, STREAM_BYTES * core_count() // max(1, working))


def activation_bytes(graph: Any, patch: int, *, width: int) -> int:
    """Working memory for one patch, from the graph itself, where geoseg.engines.footprint asks torch."""
    openvino = import_openvino()
    fixed = graph.clone()
    shapes = {node.any_name: list(node.get_partial_shape()) for node in fixed.inputs}
    fixed.reshape({name: openvino.PartialShape([1, shape[1], patch, patch]) for name, shape in shapes.items()})
    outputs = (output for op in fixed.get_ops() if op.get_type_name() != "Constant" for output in op.outputs())
    sizes = sorted(math.prod(output.get_shape()) for output in outputs if output.get_partial_shape().is_static)
    return SPARE * width * int(sum(sizes[-ALIVE:]))


def openvino_precision(wanted: str, core: Any) -> str:
    """fp32, bf16 or int8: what `wanted` (auto, fp32, bf16, int8) means on this CPU."""
    if wanted not in ("auto", "int8", *HINTS):
        raise EngineError(f"engine 'openvino' has no precision {wanted!r}; known: auto, {', '.join(HINTS)}, int8")
    able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted == "auto":
        return "bf16" if able else "fp32"
    if wanted == "bf16" and not able:
        raise EngineError(f"this CPU ({cpu_label()}) has no bfloat16 arithmetic; use --precision fp32 or auto")
    return wanted


def hint(precision: str, core: Any) -> str:
    """OpenVINO's name for a precision; a network in 8 bits computes what is not in 8 bits as `auto` would."""
    return HINTS[openvino_precision("auto", core) if precision == "int8" else precision]


def settings(precision: str, core: Any) -> dict[str, Any]:
    """How a network is compiled for a run."""
    return {"INFERENCE_PRECISION_HINT": hint(precision, core), "PERFORMANCE_HINT": "LATENCY"}


def quantised_graph(model: Model) -> tuple[Graph, str]:
    """A model's network in 8 bits, with the scaling of bands as inputs, and the hash of its file."""
    found = int8_network(model)
    if found is None:
        raise EngineError(
            f"the model {model.spec.name!r} has no network in 8 bits; make one with `geoseg models quantize`, or use "
            f"--precision bf16 or auto"
        )
    graph = unpacked(found.read())
    if graph is None:
        raise EngineError(f"the model {model.spec.name!r} has a damaged network in 8 bits; use --precision bf16")
    return graph, found.sha256
