"""Values that travel along the road: blocks of pixels, batches of patches, scaling coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window

NODATA = 255
"""In masks and probabilities: no data here."""

PROBABILITY_MAX = 254
"""A probability p is stored as floor(254 p + .5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    pixels: NDArray[Any]
    """(band, row, col), stored values in the scene's dtype; arbitrary where not valid."""
    valid: NDArray[np.bool_]
    """(row, col), True where every band that was read holds data."""
    window: Window
    """Where it lies, in scene pixels."""

    def __post_init__(self) -> None:
        if self.pixels.shape[1:] != self.valid.shape or self.valid.shape != self.window.shape:
            raise ValueError(f"pixels {self.pixels.shape}, valid {self.valid.shape} and window {self.window.shape} disagree")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputScaling:
    """What turns stored values into the network's input: x = clip(stored * gain + bias, -limit, limit)."""

    bands: tuple[int | None, ...]
    """For each input channel the index of the scene's band, None for an optional band that is missing (zeros)."""
    gain: tuple[float, ...]
    bias: tuple[float, ...]
    limit: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    pixels: NDArray[Any]
    """(patch, channel, row, col), stored values in the order of the model's input channels."""
    valid: NDArray[np.bool_]
    """(patch, row, col)."""
