"""Batches of one fixed size: PyTorch does not promise the same bits for another batch size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geoseg.results import Batch

MOST = 8
"""Patches that a segmenter is asked for at a time: a larger fixed batch is filled up with patches nobody wants."""


def fixed_batches(batch: Batch, size: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_], int]]:
    """Pixels (size, channel, row, col) as float32, validity (size, 1, row, col) and how many of them count.

    The last batch is filled up by repeating its last patch.
    """
    for start in range(0, len(batch.pixels), size):
        pixels = batch.pixels[start : start + size]
        valid = batch.valid[start : start + size, None]
        count = len(pixels)
        if count < size:
            fill = np.minimum(np.arange(size), count - 1)
            pixels, valid = pixels[fill], valid[fill]
        yield np.ascontiguousarray(pixels, dtype=np.float32), np.ascontiguousarray(valid), count
