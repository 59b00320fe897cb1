"""PyTorch on the CPU, CUDA or Apple's GPUs."""

from __future__ import annotations

import importlib.util
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from geoseg.engines.batches import fixed_batches
from geoseg.engines.hardware import cpu_has_bf16, cpu_label
from geoseg.errors import EngineError
from geoseg.protocols import Model, TorchModel
from geoseg.results import Batch, InputScaling
from geoseg.spec import ModelSpec

if TYPE_CHECKING:
    from geoseg.engines.fused import FusedNetwork

FORWARD = threading.Lock()
"""One forward pass at a time a process: torch already uses all threads it was given."""

GPU_BATCH_PIXELS = 1 << 23
"""Network pixels a batch on a GPU, before its memory says otherwise."""

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class TorchEngine:
    name: str = "torch"
    device: str | None = None
    """cpu, cuda, cuda:1, mps; None takes the best there is."""
    batch: int | None = None
    """Patches a forward pass; None: 1 on the CPU, as many as fit on a GPU."""

    def available(self) -> str | None:
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed; pip install torch"
        if self.device is not None and self.device.startswith("cuda"):
            import torch

            if not torch.cuda.is_available():
                return "torch finds no CUDA device; use --engine torch on the CPU, or openvino"
        return None

    def supports(self, model: Model) -> bool:
        return model.runtime == "torch"

    def build(self, model: Model, scaling: InputScaling, *, precision: str, threads: int | None) -> TorchSegmenter:
        """The model on this engine; `precision` is auto, fp32 or bf16."""
        import torch

        from geoseg.engines.fused import FusedNetwork

        if reason := self.available():
            raise EngineError(reason)
        device = self.device or best_device()
        exact = torch_precision(precision, device)
        if threads is not None:
            torch.set_num_threads(threads)
        spec = model.spec
        network = cast(TorchModel, model).network()
        autocast = (device.split(":")[0], torch.bfloat16) if exact == "bf16" else None
        fused = FusedNetwork(network, spec, scaling, autocast=autocast).to(device=device)
        fused = fused.to(memory_format=torch.channels_last).eval()
        batch = self.batch or 1
        if self.batch is None and device.startswith("cuda"):
            batch = _probe_batch(fused, spec, device)
        return TorchSegmenter(fused, device=device, batch=batch, precision=exact)


class TorchSegmenter:
    """A fused network on a device."""

    def __init__(self, fused: FusedNetwork, *, device: str, batch: int, precision: str) -> None:
        self.fused = fused
        self.device = device
        self.batch = batch
        self.fingerprint = "/".join(
            [f"torch-{_torch_version()}", precision, _hardware(device, precision), f"batch{batch}"]
        )

    def predict(self, batch: Batch) -> NDArray[np.uint8]:
        """(patch, output, row, col) probabilities as floor(254 p + .5)."""
        with FORWARD:
            parts = [
                forward(self.fused, pixels, valid, self.device)[:count]
                for pixels, valid, count in fixed_batches(batch, self.batch)
            ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def forward(
    fused: FusedNetwork, pixels: NDArray[np.float32], valid: NDArray[np.bool_], device: str
) -> NDArray[np.uint8]:
    """One batch through the network."""
    import torch

    try:
        with torch.inference_mode():
            x = torch.from_numpy(pixels).to(device=device, memory_format=torch.channels_last)
            y = fused(x, torch.from_numpy(valid).to(device))
            out: NDArray[np.uint8] = y.cpu().contiguous().numpy()
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"{device} has too little memory for {len(pixels)} patches of {pixels.shape[3]} x {pixels.shape[2]}; "
            f"use a smaller --patch"
        ) from error
    except RuntimeError as error:
        raise EngineError(
            f"torch failed on patches of shape {pixels.shape}: {str(error).splitlines()[0]}; "
            f"check stride and bands in the model's spec, or try --precision fp32"
        ) from error
    return out


def best_device() -> str:
    """cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def torch_precision(wanted: str, device: str) -> str:
    """fp32 or bf16, what `wanted` (auto, fp32, bf16) means on `device`."""
    if wanted not in ("auto", "fp32", "bf16"):
        raise EngineError(f"engine 'torch' has no precision {wanted!r}; known: auto, fp32, bf16")
    if device == "mps":
        able = False
    elif device.startswith("cuda"):
        import torch

        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = cpu_has_bf16()
    if wanted == "auto":
        return "bf16" if able else "fp32"
    if wanted == "bf16" and not able:
        raise EngineError(f"{device} has no bfloat16 arithmetic; use --precision fp32 or auto")
    return wanted


def _probe_batch(fused: FusedNetwork, spec: ModelSpec, device: str) -> int:
    """The largest power of two of patches that the GPU takes, found once before the run."""
    import torch

    side = spec.patch * spec.upsample
    batch = 1 << max(0, (GPU_BATCH_PIXELS // (side * side)).bit_length() - 1)
    while batch > 1:
        try:
            forward(
                fused,
                np.zeros((batch, len(spec.bands), spec.patch, spec.patch), np.float32),
                np.ones((batch, 1, spec.patch, spec.patch), np.bool_),
                device,
            )
        except EngineError as error:
            if not isinstance(error.__cause__, torch.OutOfMemoryError):
                raise
            torch.cuda.empty_cache()
            batch //= 2
            log.info("GPU memory: down to %d patches a batch", batch)
        else:
            break
    return batch


def _hardware(device: str, precision: str) -> str:
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    if device == "mps":
        return "Apple GPU"
    # On the CPU, float32 sums of torch depend on how many threads share them; bfloat16 ones do not (measured).
    return cpu_label() if precision == "bf16" else f"{cpu_label()} {torch.get_num_threads()} threads"


def _torch_version() -> str:
    import torch

    version: Any = torch.__version__
    return str(version)
