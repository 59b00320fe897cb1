"""How much memory a network works in, told before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from geoseg.engines.openvino_engine import SHAPES_KEPT
from geoseg.protocols import Model, TorchModel

ASSUMED_VALUES = 128
"""Values a pixel that are held at a time where a network cannot be looked into."""

ALIVE = 4
"""The largest activations that are alive together: the two ends of a layer, and skip connections."""

SPARE = 2.0
"""Over what the largest activations add up to (measured: 1.2 to 1.8 on U-Nets, torch and OpenVINO, both precisions)."""


def working_bytes(model: Model, shapes: Sequence[tuple[int, int]], *, engine: str, bf16: bool, values: float) -> int:
    """Memory in bytes that an engine takes on the CPU for patches of these (row, col) shapes, beside the weights.

    `values` is what values_a_pixel() gives for the model.

    OpenVINO keeps the working memory of the shapes it saw last, torch that of the largest.
    """
    if model.runtime != "torch":
        return 0
    upsample = model.spec.upsample
    sizes = sorted((rows * cols * upsample**2 for rows, cols in shapes), reverse=True)
    pixels = sum(sizes[:SHAPES_KEPT]) if engine == "openvino" else sizes[0]
    width = 2 if bf16 and engine == "openvino" else 4  # torch keeps both forms of a tensor while it casts
    return int(SPARE * width * pixels * values) + sum(sizes[:1]) * len(model.spec.outputs) * 8


def values_a_pixel(model: Model) -> float:
    """Activations a network pixel that are alive at a time, from a pass without data; 0 for models of another kind."""
    if model.runtime != "torch":
        return 0
    import torch

    side = max(model.spec.stride, 256 - 256 % model.spec.stride)
    sizes: list[int] = []

    def note(_module: Any, _given: Any, made: Any) -> None:
        if isinstance(made, torch.Tensor):
            sizes.append(made.numel())

    try:
        network = cast(TorchModel, model).network().to("meta")
        for module in network.modules():
            if not list(module.children()):
                module.register_forward_hook(note)
        with torch.inference_mode():
            network(torch.zeros(1, len(model.spec.bands), side, side, device="meta"))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return ASSUMED_VALUES
    return sum(sorted(sizes)[-ALIVE:]) / side**2 if sizes else ASSUMED_VALUES
