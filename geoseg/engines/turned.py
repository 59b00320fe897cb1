"""Test-time augmentation: a patch is predicted in eight positions, and the predictions are turned back and averaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.protocols import Segmenter
from geoseg.results import Batch

POSITIONS = 8


class TurnedSegmenter:
    """Means over the dihedral group D4: four quarter turns, each as it is and mirrored.

    What a field looks like does not depend on where north is, and errors that do are averaged away; it takes eight times as
    long. Sums are whole numbers, so that their order does not matter.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    @property
    def fingerprint(self) -> str:
        return self.segmenter.fingerprint

    @property
    def degraded(self) -> bool:
        return self.segmenter.degraded

    def predict(self, batch: Batch) -> NDArray[np.uint8]:
        """(patch, output, row, col) probabilities as floor(254 p + .5), where p is the mean of eight such values."""
        total: NDArray[np.uint16] | None = None
        for turns, mirrored in _positions():
            given = Batch(pixels=_turned(batch.pixels, turns, mirrored), valid=_turned(batch.valid, turns, mirrored))
            back = _turned_back(self.segmenter.predict(given), turns, mirrored)
            total = back.astype(np.uint16) if total is None else np.add(total, back, out=total)
        assert total is not None
        return ((total + POSITIONS // 2) // POSITIONS).astype(np.uint8)


def _positions() -> Iterator[tuple[int, bool]]:
    return ((turns, mirrored) for mirrored in (False, True) for turns in range(4))


def _turned(values: NDArray[Any], turns: int, mirrored: bool) -> NDArray[Any]:
    """(..., row, col): mirrored left to right if so, then turned by quarters."""
    values = values[..., ::-1] if mirrored else values
    return np.ascontiguousarray(np.rot90(values, turns, axes=(-2, -1)))


def _turned_back(values: NDArray[Any], turns: int, mirrored: bool) -> NDArray[Any]:
    values = np.rot90(values, -turns, axes=(-2, -1))
    return values[..., ::-1] if mirrored else values
