"""Networks as OpenVINO graphs: converted from torch, kept, read again."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from geoseg.engines.graphs import Graph, serialised
from geoseg.engines.kept import graph_name, load_graph, save_graph
from geoseg.engines.ladder import reason_of
from geoseg.errors import EngineError, ModelError
from geoseg.protocols import Model, TorchModel
from geoseg.results import InputScaling

_importing = RLock()

INPUTS = ("pixels", "valid", "gain", "bias", "present")
"""Of a converted network; all but the first two become constants."""


def network_graph(model: Model, scaling: InputScaling, *, batch: int) -> Graph:
    """The fused network converted, from the cache where it is there. Of the scaling only the limit counts."""
    name = graph_name(model, batch=batch, limit=scaling.limit)
    kept = load_graph(name) if name else None
    if kept is None:
        kept = convert(model, scaling, batch=batch)
        if name:
            save_graph(name, kept)
    return kept


def opened(graph: Graph, core: Any) -> Any:
    """An openvino.Model with open rows and columns, and INPUTS. Raises EngineError where this OpenVINO cannot read it."""
    openvino = import_openvino()
    try:
        return core.read_model(graph[0], openvino.Tensor(np.frombuffer(graph[1], np.uint8)))
    except RuntimeError as error:
        raise EngineError(
            f"OpenVINO {openvino.__version__.split('-')[0]} cannot read the network ({reason_of(error)}); use --precision bf16, "
            f"or another version of OpenVINO"
        ) from error


def bound(graph: Any, scaling: InputScaling) -> Any:
    """An openvino.Model of which `pixels` and `valid` are the inputs; the scaling of bands is written into it."""
    openvino, values = import_openvino(), columns(scaling)
    for entry in list(graph.get_parameters()):
        (found,) = entry.output(0).get_names() & {*INPUTS}
        if found in values:
            constant = openvino.opset1.constant(values[found])
            entry.output(0).replace(constant.output(0))
            graph.remove_parameter(entry)
    graph.validate_nodes_and_infer_types()
    return graph


def columns(scaling: InputScaling) -> dict[str, NDArray[Any]]:
    """The inputs of a converted network that say how bands are scaled, each (1, channel, 1, 1)."""
    values = {
        "gain": np.array(scaling.gain, np.float32),
        "bias": np.array(scaling.bias, np.float32),
        "present": np.array([band is not None for band in scaling.bands]),
    }
    return {name: each.reshape(1, -1, 1, 1) for name, each in values.items()}


def convert(model: Model, scaling: InputScaling, *, batch: int) -> Graph:
    """The fused network converted, with the scaling of bands still an input.

    Pixels enter as float32, also where the scene holds integers: with bfloat16 inference OpenVINO would otherwise
    round stored values to 8 bits before scaling them (measured: an error of .03 instead of .002 after scaling).
    """
    import torch

    from geoseg.engines.fused import FusedNetwork

    class Open(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fused = FusedNetwork(cast(TorchModel, model).network(), spec, scaling)

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return self.fused.scaled(*values)

    spec, openvino = model.spec, import_openvino()
    side = max(spec.stride, 64 - 64 % spec.stride)
    pixels, valid = torch.zeros(batch, len(spec.bands), side, side), torch.ones(batch, 1, side, side, dtype=torch.bool)
    column = torch.zeros(1, len(spec.bands), 1, 1)
    example = (pixels, valid, column, column.clone(), column > 0)
    try:
        with torch.inference_mode(), _quiet_conversion():
            traced = torch.jit.trace(Open().eval(), example, check_trace=False)
            graph = openvino.convert_model(traced, example_input=example)
            for node, name in zip(graph.inputs, INPUTS, strict=True):
                node.get_tensor().set_names({name})
            return serialised(graph, openvino)
    except (EngineError, ModelError):
        raise
    except Exception as error:  # converters raise whatever they like
        raise EngineError(
            f"OpenVINO cannot convert the model {spec.name!r}: {reason_of(error)}; use --engine torch"
        ) from error


def import_openvino() -> Any:
    """The openvino module, imported without its usage reporting."""
    if "openvino" in sys.modules:
        return importlib.import_module("openvino")
    with without_telemetry():
        return importlib.import_module("openvino")


def openvino_core() -> Any:
    """The one Core of this process, which is never released.

    OpenVINO's CPU plugin gives the thread that creates it a signal stack, and unmaps that stack where the plugin is
    released: if that happens on another thread, the next Ctrl-C kills the process with a segmentation fault (2026.4,
    measured).
    """
    with _importing:
        return _core()


@functools.cache
def _core() -> Any:
    core = import_openvino().Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # creates the plugin
    return core


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Around the first import of OpenVINO and its tools: openvino_telemetry, which would call home, cannot be imported."""
    with _importing:
        before = sys.modules.get("openvino_telemetry")
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes `import` of it fail
        try:
            yield
        finally:
            sys.modules.pop("openvino_telemetry", None)
            if before is not None:
                sys.modules["openvino_telemetry"] = before


@contextmanager
def _quiet_conversion() -> Iterator[None]:
    """Without torch's notices about tracing."""
    from torch.jit._trace import TracerWarning

    with warnings.catch_warnings(), logging_as_it_was():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=TracerWarning)
        yield


@contextmanager
def logging_as_it_was() -> Iterator[None]:
    """Undoes what OpenVINO's tools do to the root logger: they set it and its handlers to ERROR, and give it more of them."""
    root = logging.getLogger()
    level, handlers = root.level, [(handler, handler.level, list(handler.filters)) for handler in root.handlers]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = [handler for handler, _, _ in handlers]
        for handler, its_level, filters in handlers:
            handler.setLevel(its_level)
            handler.filters[:] = filters
