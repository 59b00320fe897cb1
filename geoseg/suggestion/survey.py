"""What a model sees in each square of a scene, summed up tile by tile in whole numbers, so that tiles decide nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import TileGrid, Window
from geoseg.kernels.choice import entropy_uncertainty, margin_uncertainty
from geoseg.protocols import Reader
from geoseg.results import NODATA, PROBABILITY_MAX, InputScaling
from geoseg.runtime.area import Area
from geoseg.runtime.predict import Predictor, classes_of, input_channels, predict_core

Measure = Literal["margin", "entropy"]

REACH = 2**13
"""Scaled values are limited to it where the model sets no limit of its own."""

STEPS = 2**19
"""Scaled values count in REACH / STEPS, or finer: the squares of 4096 x 4096 of them fit into 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Squares of `side` pixels. What the scene has more than whole squares is left over on both sides in equal parts."""

    shape: tuple[int, int]
    """(rows, columns) of the scene in pixels."""
    side: int

    @property
    def count(self) -> tuple[int, int]:
        """Squares along rows and columns; one that is cut where the scene is smaller."""
        return max(1, self.shape[0] // self.side), max(1, self.shape[1] // self.side)

    @property
    def start(self) -> tuple[int, int]:
        """Scene pixel where the first square begins."""
        rows, cols = (max(0, n - k * self.side) // 2 for n, k in zip(self.shape, self.count, strict=True))
        return rows, cols

    def window(self, row: int, col: int) -> Window:
        """The square in line `row` and column `col`."""
        window = Window(self.start[0] + row * self.side, self.start[1] + col * self.side, self.side, self.side)
        return window & Window(0, 0, *self.shape)

    @property
    def extent(self) -> Window:
        """All squares together."""
        rows, cols = self.count
        window = Window(*self.start, rows * self.side, cols * self.side)
        return window & Window(0, 0, *self.shape)

    def touched(self, window: Window) -> tuple[range, range]:
        """Lines and columns of squares that a window touches."""
        part = window & self.extent
        if not part:
            return range(0), range(0)
        rows = range((part.row - self.start[0]) // self.side, (part.row_stop - 1 - self.start[0]) // self.side + 1)
        cols = range((part.col - self.start[1]) // self.side, (part.col_stop - 1 - self.start[1]) // self.side + 1)
        return rows, cols


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Sums over the valid pixels of squares, in lines `rows` and columns `cols` of the lattice."""

    rows: range
    cols: range
    values: NDArray[np.int64]
    """(quantity, row, col), see `Layout`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Quantities of the sums, in this order: valid, uncertainty, a count a class, sums of channels, sums of their squares."""

    classes: int
    channels: int

    @property
    def size(self) -> int:
        return 2 + self.classes + 2 * self.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyTile:
    """The task of a survey: everything in it is a recipe, so that it travels to any worker."""

    reader: Reader
    predictor: Predictor
    grid: TileGrid
    lattice: Lattice
    by: Measure
    area: Area | None
    run: str

    @property
    def layout(self) -> Layout:
        spec = self.predictor.model.spec
        return Layout(classes=len(spec.class_names), channels=len(self.predictor.scaling.bands))

    def __call__(self, index: tuple[int, int]) -> Sums:
        core = self.grid.tile(index).core
        made = predict_core(self.reader, self.predictor, self.grid, self.grid.tile(index), clip=self.area, run=self.run)
        layout, scaling = self.layout, self.predictor.scaling
        rows, cols = self.lattice.touched(core)
        sums = Sums(rows=rows, cols=cols, values=np.zeros((layout.size, len(rows), len(cols)), np.int64))
        part = core & self.lattice.extent
        if not part or not made.valid.any():
            return sums
        inside = part.within(core).slices
        valid, probabilities = made.valid[inside], made.probabilities[(slice(layout.classes), *inside)]
        block = self.reader.read(part, [band for band in scaling.bands if band is not None])
        lines = _cuts(part.row, part.row_stop, self.lattice.start[0], self.lattice.side)
        columns = _cuts(part.col, part.col_stop, self.lattice.start[1], self.lattice.side)

        def add(at: int, values: NDArray[Any]) -> None:
            down = np.add.reduceat(np.where(valid, values, 0), lines, axis=0, dtype=np.int64)
            sums.values[at] = np.add.reduceat(down, columns, axis=1)

        uncertain = margin_uncertainty if self.by == "margin" else entropy_uncertainty
        mask = classes_of(probabilities, valid, layout.classes)
        add(0, valid)
        add(1, uncertain(probabilities, largest=largest_of(self.by)))
        for name in range(layout.classes):
            add(2 + name, mask == name)
        for channel, values in enumerate(input_channels(block.pixels, scaling)):
            steps = _steps(values, valid, scaling, channel)
            add(2 + layout.classes + channel, steps)
            add(2 + layout.classes + layout.channels + channel, steps * steps)
        return sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found in each square of a scene."""

    valid: NDArray[np.float64]
    """(row, col) share of the square's pixels that are valid, of a whole square also where the scene cuts it."""
    uncertainty: NDArray[np.float64]
    """(row, col) mean over valid pixels, 0 to 1; 0 without valid pixels."""
    shares: NDArray[np.float64]
    """(row, col, class) shares of valid pixels."""
    bands: NDArray[np.float64]
    """(row, col, 2 x channel) means, then standard deviations, of the bands as the model sees them."""

    @classmethod
    def of(cls, values: NDArray[np.int64], layout: Layout, *, side: int, by: Measure, unit: float) -> Survey:
        """Means of the sums over a whole scene, (quantity, row, col)."""
        valid = values[0].astype(np.float64)
        count = np.maximum(valid, 1.0)
        first = 2 + layout.classes
        mean = values[first : first + layout.channels] / count
        square = values[first + layout.channels :] / count
        deviation = np.sqrt(np.maximum(0.0, square - mean * mean))
        return cls(
            valid=valid / side**2,
            uncertainty=values[1] / count / largest_of(by),
            shares=np.moveaxis(values[2:first] / count, 0, -1),
            bands=np.moveaxis(np.concatenate([mean, deviation]) * unit, 0, -1),
        )


def largest_of(by: Measure) -> int:
    """What full uncertainty of a pixel counts as."""
    return PROBABILITY_MAX if by == "margin" else NODATA * 256


def unit_of(scaling: InputScaling) -> float:
    """What a step of the scaled values is worth."""
    return (min(REACH, scaling.limit) if scaling.limit else REACH) / STEPS


def _steps(stored: NDArray[Any], valid: NDArray[np.bool_], scaling: InputScaling, channel: int) -> NDArray[np.int64]:
    """(row, col) values as the network sees them, in whole steps."""
    unit = unit_of(scaling)
    x = np.where(valid, stored, 0).astype(np.float64) * scaling.gain[channel] + scaling.bias[channel]
    return np.rint(np.clip(x / unit, -STEPS, STEPS)).astype(np.int64)


def _cuts(start: int, stop: int, origin: int, side: int) -> NDArray[np.int64]:
    """Where squares begin between `start` and `stop`, counted from `start`."""
    first = origin + ((start - origin) // side + 1) * side
    return np.concatenate([[0], np.arange(first, stop, side) - start]).astype(np.int64)
