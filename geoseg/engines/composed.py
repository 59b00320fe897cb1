"""What geoseg.engines.fused does, in OpenVINO's own operations: around a network that comes in a file of ONNX or OpenVINO."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from geoseg.engines.conversion import INPUTS, import_openvino
from geoseg.engines.ladder import reason_of
from geoseg.errors import EngineError
from geoseg.protocols import GraphModel, Model
from geoseg.results import PROBABILITY_MAX
from geoseg.spec import ModelSpec


def composed_graph(model: Model, core: Any, *, limit: float | None) -> Any:
    """An openvino.Model with the inputs of a converted network (see conversion.INPUTS) around the one in the model's file.

    Raises EngineError where OpenVINO cannot read the file, or where its network is not one of images to logits.
    """
    path = cast(GraphModel, model).graph()
    try:
        body = core.read_model(path)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot read {path} ({reason_of(error)}); export the model again") from error
    check_body(body, model.spec, str(path))
    return compose(body, model.spec, limit=limit)


def check_body(body: Any, spec: ModelSpec, name: str) -> None:
    """EngineError unless a network has one input of the spec's bands and one output of its classes."""
    ports = [list(body.inputs), list(body.outputs)]
    for side, found, count in zip(("input", "output"), ports, (len(spec.bands), len(spec.outputs)), strict=True):
        if len(found) != 1:
            raise EngineError(
                f"{name} has {len(found)} {side}s, expected one: bands to logits; export the network alone"
            )
        shape = found[0].get_partial_shape()
        if len(shape) != 4 or (shape[1].is_static and shape[1].get_length() != count):
            raise EngineError(
                f"{name} has an {side} of shape {shape}, expected (batch, {count}, rows, columns) after its spec"
            )


def compose(body: Any, spec: ModelSpec, *, limit: float | None) -> Any:
    """Scaling before a network, softmax and quantisation after it; `body` is used up."""
    openvino = import_openvino()
    op, count, factor = openvino.opset13, len(spec.bands), spec.upsample
    shapes = ([-1, count, -1, -1], [-1, 1, -1, -1], *[[1, count, 1, 1]] * 3)
    kinds = ("f32", "boolean", "f32", "f32", "boolean")
    entries = [
        op.parameter(openvino.PartialShape(s), getattr(openvino.Type, k)) for s, k in zip(shapes, kinds, strict=True)
    ]
    for entry, name in zip(entries, INPUTS, strict=True):
        entry.output(0).set_names({name})
    pixels, valid, gain, bias, present = entries
    x = op.add(op.multiply(pixels, gain), bias)
    if limit is not None:
        x = op.clamp(x, -limit, limit)
    x = op.select(op.logical_and(valid, present), x, np.float32(0))
    if factor > 1:
        x = op.interpolate(
            x, np.array([factor, factor], np.float32), "linear_onnx", "scales", axes=np.array([2, 3], np.int32),
            coordinate_transformation_mode="half_pixel",
        )  # fmt: skip
    old = body.get_parameters()[0]
    old.output(0).replace(x.output(0))
    logits = op.convert(body.get_results()[0].input_value(0), "f32")
    p = _probabilities(op, logits, len(spec.class_names), len(spec.outputs))
    if factor > 1:
        p = op.avg_pool(p, [factor] * 2, [0, 0], [0, 0], [factor] * 2, True)
    p = op.floor(op.add(op.multiply(p, np.float32(PROBABILITY_MAX)), np.float32(0.5)))
    return openvino.Model([op.convert(op.clamp(p, 0.0, float(PROBABILITY_MAX)), "u8")], entries, spec.name)


def _probabilities(op: Any, logits: Any, classes: int, outputs: int) -> Any:
    if classes == outputs:
        return op.softmax(logits, 1)
    parts = op.variadic_split(logits, np.int64(1), np.array([classes, outputs - classes]))
    return op.concat([op.softmax(parts.output(0), 1), op.sigmoid(parts.output(1))], 1)
