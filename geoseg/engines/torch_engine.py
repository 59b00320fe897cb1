"""PyTorch on the CPU, CUDA or Apple's GPUs."""

from __future__ import annotations

import importlib.util
import logging
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from geoseg.engines.batches import MOST
from geoseg.engines.cuda_batch import batch_in, best_batch, known_batch
from geoseg.engines.cuda_segmenter import PooledFooting, PooledSegmenter
from geoseg.engines.hardware import cpu_has_bf16, cpu_label
from geoseg.engines.ladder import Footing, LadderSegmenter, Rung, reason_of, rungs, short_of_memory
from geoseg.errors import EngineError
from geoseg.protocols import Model, TorchModel
from geoseg.results import InputScaling
from geoseg.spec import ModelSpec

if TYPE_CHECKING:
    from geoseg.engines.cuda_streams import StreamedNetwork
    from geoseg.engines.fused import FusedNetwork

log = logging.getLogger(__name__)

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
    """Patches a forward pass; None: 1 on the CPU and Apple's GPUs, on CUDA what is found fastest, batches.MOST at most."""
    pooled: bool | None = None
    """Whether threads share batches, see cuda_segmenter; None: on CUDA."""
    like: str | None = None
    """Fingerprint of an earlier try of the run: its batch is taken, in place of one that is measured anew."""
    compile: bool = False
    """Whether pooled networks go through torch.compile: minutes at the start, and bytes of their own."""

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

    def build(
        self, model: Model, scaling: InputScaling, *, precision: str, threads: int | None
    ) -> LadderSegmenter | PooledSegmenter:
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
        fused = FusedNetwork(cast(TorchModel, model).network(), model.spec, scaling).eval()
        placed = Placed(fused=fused, device=device, precision=exact)
        if self.pooled if self.pooled is not None else device.startswith("cuda"):
            batch = self.batch or (batch_in(self.like) if self.like else None)
            if batch is None:
                key = (model.fingerprint(), exact, self.compile, hardware_label(device, exact), torch.__version__)
                batch = known_batch(key, lambda: self._measured(placed, model.spec))
            return self._pool(placed, batch, model.spec)

        def stand(rung: Rung) -> Footing:
            fingerprint = placed.onto(rung)
            return Footing(forward=partial(forward, fused, device=rung.device), fingerprint=fingerprint)

        return LadderSegmenter(rungs(self.batch or 1, device), stand, engine="torch", lock=FORWARD)

    def _network(self, placed: Placed, rung: Rung) -> StreamedNetwork:
        from geoseg.engines.cuda_streams import StreamedNetwork

        return StreamedNetwork(placed.fused, rung.device, batch=rung.batch, lock=FORWARD, compiled=self.compile)

    def _measured(self, placed: Placed, spec: ModelSpec) -> int:
        """The batch that is fastest for the model's own patches; 0 where the device has no memory for one of them."""

        def seconds(size: int) -> float:
            rung = Rung(device=placed.device, batch=size)
            placed.onto(rung)
            network = self._network(placed, rung)
            try:
                return network.seconds((len(spec.bands), spec.patch, spec.patch))
            finally:
                with FORWARD:
                    network.close()

        batch = best_batch(seconds, most_patches(spec))
        log.info("torch takes %d patches at a time on %s", batch, placed.device)
        return batch

    def _pool(self, placed: Placed, batch: int, spec: ModelSpec) -> PooledSegmenter:
        from geoseg.engines.cuda_streams import LANES

        def stand(rung: Rung) -> PooledFooting:
            fingerprint = placed.onto(rung) + ("/compiled" if self.compile else "")
            return PooledFooting(network=self._network(placed, rung), fingerprint=fingerprint)

        steps = rungs(max(1, batch), placed.device)
        homeless = not batch and len(steps) > 1
        if homeless:
            log.warning(
                "torch has no memory on %s for even one patch of %d x %d pixels; going on with %s, which is slower: end what "
                "else uses %s, or use a smaller --patch",
                placed.device, spec.patch, spec.patch, steps[-1], placed.device,
            )  # fmt: skip
            steps = steps[-1:]
        segmenter = PooledSegmenter(steps, stand, engine="torch", lock=FORWARD, lanes=LANES)
        segmenter.degraded = homeless
        return segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A fused network that moves between devices."""

    fused: FusedNetwork
    device: str
    """Where it belongs."""
    precision: str
    """fp32 or bf16, in which it computes there."""

    def onto(self, rung: Rung) -> str:
        """Brings it onto a rung; the fingerprint of what it computes there."""
        import torch

        kept = self.precision
        if rung.device != self.device:
            kept = torch_precision(FALLBACK[kept], rung.device)
        self.fused.autocast = (rung.device.split(":")[0], torch.bfloat16) if kept == "bf16" else None
        self.fused.to(device=rung.device).to(memory_format=torch.channels_last)
        return "/".join([f"torch-{torch.__version__}", kept, hardware_label(rung.device, kept), f"batch{rung.batch}"])


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
        raise failure(error, pixels.shape) from error
    return out


def failure(error: RuntimeError, shape: tuple[int, ...]) -> MemoryError | EngineError:
    """What an error of torch on patches of a shape means: memory is short, or they do not go through."""
    import torch

    if isinstance(error, torch.OutOfMemoryError) or short_of_memory(error):
        return MemoryError(reason_of(error))
    return EngineError(
        f"torch failed on patches of shape {shape}: {str(error).splitlines()[0]}; "
        f"check stride and bands in the model's spec, or try --precision fp32"
    )


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
    """The power of two of patches that a GPU takes at most."""
    side = spec.patch * spec.upsample
    return 1 << max(0, min(MOST, GPU_BATCH_PIXELS // (side * side)).bit_length() - 1)


def hardware_label(device: str, precision: str) -> str:
    """What computes, as far as bytes depend on it."""
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    if device == "mps":
        return "Apple GPU"
    # On the CPU, float32 sums of torch depend on how many threads share them; bfloat16 ones do not (measured).
    return cpu_label() if precision == "bf16" else f"{cpu_label()} {torch.get_num_threads()} threads"
