"""Networks in 8 bits, made with NNCF and compared with float32. Never during a run."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.engines.conversion import (
    bound,
    columns,
    import_openvino,
    logging_as_it_was,
    network_graph,
    opened,
    openvino_core,
    without_telemetry,
)  # fmt: skip
from geoseg.engines.graphs import Graph, serialised
from geoseg.engines.openvino_engine import CompiledNetwork, hint
from geoseg.errors import EngineError
from geoseg.protocols import Model
from geoseg.results import InputScaling

PASSING = frozenset({"Concat", "Interpolate", "Relu", "MaxPool", "Reshape", "Transpose", "Pad"})
"""Operations that hand 8 bits on as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A patch of a scene, as stored."""

    pixels: NDArray[np.float32]
    """(1, channel, row, col)."""
    valid: NDArray[np.bool_]
    """(1, 1, row, col)."""
    scaling: InputScaling


def quantise(model: Model, samples: Sequence[Sample]) -> Graph:
    """The network with its wide convolutions in 8 bits, the scaling of bands still an input.

    Convolutions of more than one pixel, over all channels, take most of the time. Those that see the image itself stay as
    they are (measured: a third of the disagreement), and so do the others, which 8 bits make no faster.

    Args:
        model: whose network runs on OpenVINO.
        samples: patches that show what the network will see, to fit the ranges of its activations.
    """
    if importlib.util.find_spec("nncf") is None:
        raise EngineError("nncf is not installed, which makes networks of 8 bits; pip install 'geoseg[quantize]'")
    with _quiet(), without_telemetry():
        import nncf

        nncf.set_log_level(logging.ERROR)
        openvino = import_openvino()
        graph = opened(network_graph(model, samples[0].scaling, batch=1), openvino_core())
        quantised = nncf.quantize(
            graph,
            nncf.Dataset(list(samples), _inputs),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=_left_alone(graph), validate=False),
        )
    return serialised(quantised, openvino, half=True)


def disagreement(model: Model, graph: Graph, samples: Sequence[Sample]) -> float:
    """Share of valid pixels whose class differs from what the network says in float32."""
    classes = len(model.spec.class_names)
    core = openvino_core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    ours: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint("int8", core)}
    wrong = total = 0
    for sample in samples:
        given = sample.pixels, sample.valid
        reference = network_graph(model, sample.scaling, batch=1)
        found = []
        for each, config in ((reference, exact), (graph, ours)):
            ready = bound(opened(each, core), sample.scaling)
            network = CompiledNetwork(ready, core=core, config=config, patch=model.spec.patch, fixed=True)
            found.append(network.forward(*given))
        one, other = (np.argmax(probabilities[0, :classes], axis=0) for probabilities in found)
        valid = sample.valid[0, 0]
        wrong += int(((one != other) & valid).sum())
        total += int(valid.sum())
    return wrong / max(1, total)


def _inputs(sample: Sample) -> dict[str, NDArray[Any]]:
    """What a network with open scaling takes."""
    return {"pixels": sample.pixels, "valid": sample.valid, **columns(sample.scaling)}


def _left_alone(graph: Any) -> list[str]:
    """Names of the operations that stay as they are."""
    seeing: set[str] = set()  # what depends on the image with no convolution between
    alone = []
    for operation in graph.get_ordered_ops():
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        sources = [value.get_source_output().get_node() for value in operation.inputs()]
        sees = kind == "Parameter" or any(source.get_friendly_name() in seeing for source in sources)
        convolves = "Convolution" in kind
        if sees and not convolves:
            seeing.add(name)
        wide = kind == "Convolution" and max(sources[1].get_output_shape(0)[2:]) > 1
        if kind not in ("Parameter", "Constant", "Result", *PASSING) and not (wide and not sees):
            alone.append(name)
    return alone


@contextmanager
def _quiet() -> Iterator[None]:
    """Without NNCF's notices and progress bars."""
    with (
        warnings.catch_warnings(),
        logging_as_it_was(),
        Path(os.devnull).open("w") as nothing,
        redirect_stdout(nothing),
        redirect_stderr(nothing),
    ):
        warnings.simplefilter("ignore")
        yield
