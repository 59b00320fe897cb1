"""PyTorch on the CPU, CUDA or Apple's GPUs."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from geoseg.engines.batches import MOST
from geoseg.engines.hardware import cpu_has_bf16, cpu_label
from geoseg.engines.ladder import Footing, LadderSegmenter, Rung, reason_of, rungs, short_of_memory
from geoseg.errors import EngineError
from geoseg.protocols import Model, TorchModel
from geoseg.results import Batch, InputScaling
from geoseg.spec import ModelSpec

if TYPE_CHECKING:
    from geoseg.engines.fused import FusedNetwork

FORWARD = threading.Lock()
"""One forward pass at a time a process: torch already uses all threads it was given."""

GPU_BATCH_PIXELS = 1 << 23
"""Network pixels a batch on a GPU at most."""

FALLBACK = {"fp32": "fp32", "bf16": "auto"}
"""What a network in each precision asks of the CPU when it has to leave a GPU."""


@dataclass(slots=True, kw_only=True)
class TorchEngine:
    name: str = "torch"
    device: str | None = None
    """cpu, cuda, cuda:1, mps; None takes the best there is."""
    batch: int | None = None
    """Patches a forward pass; None: 1 on the CPU, at most batches.MOST on CUDA as its memory allows, 1 on Apple's GPUs."""

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

    def build(self, model: Model, scaling: InputScaling, *, precision: str, threads: int | None) -> LadderSegmenter:
        """The model on this engine; `precision` is auto, fp32 or bf16.

        Where memory runs out the batch halves, then the CPU takes over from a GPU, and the segmenter is `degraded`.
        """
        import torch

        from geoseg.engines.fused import FusedNetwork

        if reason := self.available():
            raise EngineError(reason)
        device = self.device or best_device()
        exact = torch_precision(precision, device)
        if threads is not None:
            torch.set_num_threads(threads)
        spec = model.spec
        fused = FusedNetwork(cast(TorchModel, model).network(), spec, scaling).eval()

        def stand(rung: Rung) -> Footing:
            kept = exact if rung.device == device else torch_precision(FALLBACK[exact], rung.device)
            fused.autocast = (rung.device.split(":")[0], torch.bfloat16) if kept == "bf16" else None
            fused.to(device=rung.device).to(memory_format=torch.channels_last)
            labels = [f"torch-{torch.__version__}", kept, _hardware(rung.device, kept), f"batch{rung.batch}"]
            return Footing(forward=partial(forward, fused, device=rung.device), fingerprint="/".join(labels))

        probed = self.batch is None and device.startswith("cuda")
        batch = most_patches(spec) if probed else self.batch or 1
        segmenter = LadderSegmenter(rungs(batch, device), stand, engine="torch", lock=FORWARD)
        if probed:
            segmenter.settle(_blank(batch, spec))
        return segmenter


def forward(
    fused: FusedNetwork, pixels: NDArray[np.float32], valid: NDArray[np.bool_], *, device: str
) -> NDArray[np.uint8]:
    """One batch through the network. Raises MemoryError where memory is short, EngineError for all else."""
    import torch

    try:
        with torch.inference_mode():
            x = torch.from_numpy(pixels).to(device=device, memory_format=torch.channels_last)
            y = fused(x, torch.from_numpy(valid).to(device))
            out: NDArray[np.uint8] = y.cpu().contiguous().numpy()
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or short_of_memory(error):
            raise MemoryError(reason_of(error)) from error
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


def most_patches(spec: ModelSpec) -> int:
    """The power of two of patches with which a GPU begins, before its memory says otherwise."""
    side = spec.patch * spec.upsample
    return 1 << max(0, min(MOST, GPU_BATCH_PIXELS // (side * side)).bit_length() - 1)


def _blank(count: int, spec: ModelSpec) -> Batch:
    shape = (count, len(spec.bands), spec.patch, spec.patch)
    return Batch(pixels=np.zeros(shape, np.float32), valid=np.ones((count, spec.patch, spec.patch), np.bool_))


def _hardware(device: str, precision: str) -> str:
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    if device == "mps":
        return "Apple GPU"
    # On the CPU, float32 sums of torch depend on how many threads share them; bfloat16 ones do not (measured).
    return cpu_label() if precision == "bf16" else f"{cpu_label()} {torch.get_num_threads()} threads"
