"""How much memory a network works in, told before it runs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

from geoseg.engines.openvino_engine import ALIVE, COMPILED, SPARE, memory_may_be_refused, streams_with
from geoseg.engines.torch_engine import best_device
from geoseg.protocols import Model, TorchModel

ASSUMED_VALUES = 128
"""Values a pixel that are held at a time where a network cannot be looked into."""


def working_bytes(
    model: Model,
    shapes: Sequence[tuple[int, int]],
    *,
    engine: str,
    bf16: bool,
    values: float,
    streams: int = 1,
    device: str | None = None,
) -> int:
    """Main memory in bytes that an engine works in for patches of these (row, col) shapes, beside the weights.

    OpenVINO keeps the working memory of whole patches and of the largest other for each stream, torch that of the largest.
    On CUDA the activations lie in the GPU's own memory and count as 0; Apple's GPUs share the main one.

    Args:
        model: whose network runs.
        shapes: of the patches that it is given.
        engine: its name.
        bf16: whether the network computes in bfloat16.
        values: what values_a_pixel() gives for the model.
        streams: patches that OpenVINO predicts at a time.
        device: where torch runs, as TorchEngine.device: None for the best there is.
    """
    if model.runtime == "numpy" or (engine == "torch" and (device or best_device()).startswith("cuda")):
        return 0
    upsample = model.spec.upsample
    sizes = sorted((rows * cols * upsample**2 for rows, cols in shapes), reverse=True)
    fixed = memory_may_be_refused()
    pixels = sum(sizes[: COMPILED if fixed else 2]) if engine == "openvino" else sizes[0]
    width = 2 if bf16 and engine == "openvino" else 4  # torch keeps both forms of a tensor while it casts
    if engine == "openvino" and not fixed:
        pixels *= min(streams, streams_with(int(SPARE * width * sizes[0] * values)))
    return int(SPARE * width * pixels * values) + sum(sizes[:1]) * len(model.spec.outputs) * 8


def values_a_pixel(model: Model) -> float:
    """Activations a network pixel that are alive at a time, from a pass without data; 0 for models of another kind."""
    if model.runtime != "torch":
        return 0 if model.runtime == "numpy" else ASSUMED_VALUES
    import torch

    side = max(model.spec.stride, 256 - 256 % model.spec.stride)
    sizes: list[int] = []

    def note(_module: Any, _given: Any, made: Any) -> None:
        if isinstance(made, torch.Tensor):
            sizes.append(made.numel())

    hooks = []
    try:
        network = copy.deepcopy(cast(TorchModel, model).network()).to("meta")  # the model may keep its own and use it
        for module in network.modules():
            if not list(module.children()):
                hooks.append(module.register_forward_hook(note))
        with torch.inference_mode():
            network(torch.zeros(1, len(model.spec.bands), side, side, device="meta"))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # a network that needs real values to go through
        return ASSUMED_VALUES
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sorted(sizes)[-ALIVE:]) / side**2 if sizes else ASSUMED_VALUES
