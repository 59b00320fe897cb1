"""Histograms of a whole scene, made window by window: what a global method knows before the first tile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.protocols import Reader

SIDE = 1024
"""Side in pixels of what is read at a time."""

THREADS = 4


class Binning(Protocol):
    """Values to numbered bins; bins are half-open: (upper(i - 1), upper(i)]."""

    @property
    def count(self) -> int: ...

    def codes(self, values: NDArray[np.float64]) -> NDArray[np.int64]: ...

    def upper(self, code: int) -> float:
        """Values above it lie in later bins."""
        ...

    def centers(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """A bin for each stored whole number: nothing is rounded."""

    lowest: int
    count: int
    gain: float = 1.0
    offset: float = 0.0

    def codes(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.rint((values - self.offset) / self.gain).astype(np.int64) - self.lowest

    def upper(self, code: int) -> float:
        return float(self.lowest + code) * self.gain + self.offset

    def centers(self) -> NDArray[np.float64]:
        return np.asarray((self.lowest + np.arange(self.count)) * self.gain + self.offset, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Even:
    """65,536 bins of one width over a range that is known; values beyond count for its ends."""

    low: float
    high: float
    count: int = 1 << 16

    def codes(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        raw = np.ceil((values - self.low) * (self.count / (self.high - self.low))) - 1
        numbers: NDArray[np.int64] = np.clip(raw, 0, self.count - 1).astype(np.int64)
        return numbers

    def upper(self, code: int) -> float:
        return self.low + (code + 1) * (self.high - self.low) / self.count

    def centers(self) -> NDArray[np.float64]:
        return self.low + (np.arange(self.count) + 0.5) * (self.high - self.low) / self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Floating:
    """Bins for any finite values: the first 20 bits of a float32, 2,048 bins from a power of two to the next."""

    count: int = 1 << 20

    def codes(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        bits = (values.astype(np.float32) + np.float32(0)).view(np.int32)  # + 0: -0 is 0
        ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats count downwards
        return (ordered.astype(np.int64) >> 12) + (self.count >> 1)

    def upper(self, code: int) -> float:
        return float(self._values(np.array([code]), 0xFFF)[0])

    def centers(self) -> NDArray[np.float64]:
        return self._values(np.arange(self.count), 0x7FF)

    def _values(self, codes: NDArray[np.int64], rest: int) -> NDArray[np.float64]:
        ordered = (((codes - (self.count >> 1)) << 12) | rest).astype(np.int32)
        bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
        return np.nan_to_num(bits.view(np.float32).astype(np.float64))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    counts: NDArray[np.int64]
    """(bin,) valid pixels of the scene."""
    binning: Binning

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def upper(self, code: int) -> float:
        """See Binning.upper()."""
        return self.binning.upper(code)

    def quantile(self, share: float) -> tuple[float, float] | None:
        """The ends of the bin in which the value lies that so large a share of all values does not exceed; None for no values."""
        total = np.cumsum(self.counts)
        if not total[-1]:
            return None
        code = int(np.searchsorted(total, max(1, int(np.ceil(share * total[-1])))))
        return self.upper(max(code - 1, 0)), self.upper(code)

    def moments(self, first: int, last: int) -> tuple[float, float]:
        """Mean and variance of the bins from `first` to `last`; (0, 0) where they are empty."""
        counts = self.counts[first : last + 1].astype(np.float64)
        filled = np.flatnonzero(counts)
        if not len(filled):
            return 0.0, 0.0
        weights, values = counts[filled], self.binning.centers()[first + filled]
        mean = float((weights * values).sum() / weights.sum())
        return mean, float((weights * (values - mean) ** 2).sum() / weights.sum())


Measure = Callable[[NDArray[Any], NDArray[np.bool_]], tuple[NDArray[np.float64], NDArray[np.bool_]]]
"""Stored pixels (band, row, col) and validity (row, col) to values (value, row, col) and which pixels count (row, col)."""


def scene_histograms(
    reader: Reader,
    bands: Sequence[int],
    measure: Measure,
    binnings: Sequence[Binning],
    *,
    halo: int = 0,
    check: Callable[[], None] = lambda: None,
) -> list[Histogram]:
    """Histograms of values over all of a scene. Sums of whole numbers: the order of windows does not matter.

    Args:
        reader: gives the pixels.
        bands: indices of those to read.
        measure: makes the values.
        binnings: one for each value of a pixel.
        halo: pixels around a pixel that its values depend on.
        check: called for each window; raises where the run is to end.
    """
    whole = Window(0, 0, *reader.scene.shape)
    totals = [np.zeros(binning.count, np.int64) for binning in binnings]
    lock = threading.Lock()

    def count(inner: Window) -> None:
        check()
        outer = inner.grown(halo) & whole
        block = reader.read(outer, bands)
        if not block.valid.any():
            return
        values, counted = measure(block.pixels, block.valid)
        part = inner.within(outer).slices
        counted = counted[part]
        for total, binning, value in zip(totals, binnings, values, strict=True):
            made = np.bincount(binning.codes(value[part][counted]), minlength=binning.count)
            with lock:
                total += made

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(count, _windows(whole)):
            pass
    return [Histogram(counts=total, binning=binning) for total, binning in zip(totals, binnings, strict=True)]


def _windows(whole: Window) -> Iterator[Window]:
    for row in range(0, whole.height, SIDE):
        for col in range(0, whole.width, SIDE):
            yield Window(row, col, SIDE, SIDE) & whole
