"""Models that find objects one by one, on the CPU or a GPU: InstanceSegmenters."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from geoseg.engines.fused import FusedNetwork
from geoseg.engines.torch_engine import FORWARD, best_device, failure, hardware_label
from geoseg.errors import EngineError, EngineMemoryError
from geoseg.protocols import InstanceModel, InstanceSegmenter, Model, TorchModel
from geoseg.results import Batch, InputScaling, Objects
from geoseg.spec import ModelSpec

INSIDE = 0.5
"""A pixel belongs to an object where its mask is above it."""

log = logging.getLogger(__name__)


def build_finder(model: Model, scaling: InputScaling, *, precision: str) -> InstanceSegmenter:
    """The model on the best device there is. Detectors choose among thousands of boxes by small differences, so that they
    compute in float32 whatever `auto` means for others."""
    if precision not in ("auto", "fp32"):
        raise EngineError(
            f"{model.spec.name} finds objects one by one and computes in float32; leave --precision {precision} out"
        )
    if model.runtime == "numpy":
        return ArrayFinder(model=cast(InstanceModel, model))
    return TorchFinder(cast(TorchModel, model), scaling, device=best_device())


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFinder:
    """A model whose find() works as it is."""

    model: InstanceModel
    degraded: bool = field(default=False, init=False)

    @property
    def fingerprint(self) -> str:
        return f"numpy-{np.__version__}"

    def find(self, batch: Batch) -> Sequence[Objects]:
        try:
            found = self.model.find(batch)
        except MemoryError as error:
            raise _too_little(self.model.spec.name, batch, error) from error
        if len(found) != len(batch.pixels):
            raise EngineError(
                f"{self.model.spec.name} gives {len(found)} sets of objects for {len(batch.pixels)} patches"
            )
        return [checked(each, self.model.spec, batch.valid.shape[1:]) for each in found]


class TorchFinder:
    """A detector of torch, one patch at a time. Where a GPU has too little memory, the CPU goes on."""

    def __init__(self, model: TorchModel, scaling: InputScaling, *, device: str) -> None:
        self.degraded = False
        self._name = model.spec.name
        self._spec = model.spec
        self._fused = FusedNetwork(model.network(), model.spec, scaling).eval()
        self._onto(device)

    def find(self, batch: Batch) -> Sequence[Objects]:
        """The objects of each patch. Raises EngineMemoryError, EngineError. Safe to call from several threads."""
        with FORWARD:
            try:
                return [self._one(batch, i) for i in range(len(batch.pixels))]
            except MemoryError as error:
                if self._device == "cpu":
                    raise _too_little(self._name, batch, error) from error
                log.warning("memory of %s is too small for %s; going on with the CPU", self._device, self._name)
                self.degraded = True  # before the fingerprint changes, which others read first
                self._onto("cpu")
                return [self._one(batch, i) for i in range(len(batch.pixels))]

    def _onto(self, device: str) -> None:
        import torch

        self._device = device
        self._fused.to(device)
        self.fingerprint = f"torch-{torch.__version__}/fp32/{hardware_label(device, 'fp32')}/objects"

    def _one(self, batch: Batch, number: int) -> Objects:
        import torch

        pixels = np.ascontiguousarray(batch.pixels[number : number + 1], np.float32)
        valid = np.ascontiguousarray(batch.valid[number : number + 1, None])
        fused = self._fused
        try:
            exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            with torch.inference_mode(), exact:
                x = fused.inputs(
                    torch.from_numpy(pixels).to(self._device), torch.from_numpy(valid).to(self._device), fused.gain,
                    fused.bias, fused.present,
                )  # fmt: skip
                found = fused.network(x)[0]
                kind, scores = (found[name].cpu().numpy() for name in ("labels", "scores"))
                masks = (found["masks"][:, 0] > INSIDE).cpu().numpy()
        except RuntimeError as error:
            raise failure(error, pixels.shape) from error
        except (KeyError, TypeError, IndexError) as error:
            raise EngineError(
                f"the network of {self._name} gives no scores, labels and masks for each patch ({error!r}); see InstanceModel"
            ) from error
        return checked(Objects.of(kind, scores, masks), self._spec, pixels.shape[-2:])


def checked(objects: Objects, spec: ModelSpec, shape: tuple[int, ...]) -> Objects:
    """EngineError for objects of classes that the spec does not name, or that lie beyond a patch of this (row, col) shape."""
    classes, box = len(spec.class_names), objects.box
    if len(objects) and not (int(objects.kind.min()) > 0 and int(objects.kind.max()) < classes):
        raise EngineError(
            f"{spec.name} finds classes {int(objects.kind.min())} to {int(objects.kind.max())}, and its spec names 1 to "
            f"{classes - 1} (0 is the background); correct its outputs"
        )
    if len(objects) and (box.min() < 0 or ((box[:, :2] + box[:, 2:]).max(axis=0) > shape).any()):
        raise EngineError(
            f"{spec.name} finds objects beyond its patch of {shape[1]} x {shape[0]} pixels; correct its boxes"
        )
    return objects


def _too_little(name: str, batch: Batch, error: MemoryError) -> EngineMemoryError:
    rows, cols = batch.pixels.shape[-2:]
    return EngineMemoryError(
        f"{name} has too little memory for a patch of {cols} x {rows} pixels ({error}); use a smaller --patch"
    )
