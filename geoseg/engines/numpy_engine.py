"""Models that compute with NumPy themselves: the engine only hands them stored values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import EngineError, EngineMemoryError
from geoseg.protocols import Model
from geoseg.results import Batch, InputScaling


class ArrayModel(Model, Protocol):
    """What a model with `runtime == "numpy"` offers besides."""

    def predict(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Stored values (patch, channel, row, col) and validity (patch, row, col), as they come from the scene, to
        (patch, output, row, col) probabilities as floor(254 p + .5).

        Safe to call from several threads; equal input gives equal bytes.
        """
        ...


@dataclass(slots=True, kw_only=True)
class NumpyEngine:
    name: str = "numpy"

    def available(self) -> str | None:
        return None

    def supports(self, model: Model) -> bool:
        return model.runtime == "numpy"

    def build(
        self,
        model: Model,
        scaling: InputScaling,  # noqa: ARG002
        *,
        precision: str,  # noqa: ARG002
        threads: int | None,  # noqa: ARG002
    ) -> NumpySegmenter:
        """`scaling`, `precision` and `threads` are the model's own business."""
        if not self.supports(model) or not hasattr(model, "predict"):
            raise EngineError(
                f"model {model.spec.name!r} runs on {model.runtime!r} and has no predict(); use --engine auto"
            )
        return NumpySegmenter(cast(ArrayModel, model))


class NumpySegmenter:
    def __init__(self, model: ArrayModel) -> None:
        self.model = model
        self.fingerprint = f"numpy-{np.__version__}"
        self.degraded = False

    def predict(self, batch: Batch) -> NDArray[np.uint8]:
        """(patch, output, row, col) probabilities as floor(254 p + .5). Raises EngineMemoryError."""
        try:
            return self.model.predict(batch.pixels, batch.valid)
        except MemoryError as error:
            count, channels, rows, cols = batch.pixels.shape
            raise EngineMemoryError(
                f"the model {self.model.spec.name!r} has too little memory for {count} patches of {cols} x {rows} pixels and "
                f"{channels} bands ({error}); use a smaller --patch, fewer --workers or a larger --max-memory"
            ) from error
