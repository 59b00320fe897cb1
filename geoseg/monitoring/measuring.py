"""Statistics of every field in one scene.

Fields are taken in groups that lie side by side, and one window is read for a group. What is computed depends on a field's own
pixels only, in their own order: neither groups nor windows change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.monitoring.footprints import STRIP_PIXELS, Footprint, bounding_window, footprints
from geoseg.monitoring.statistics import STATISTICS, weighted_statistics
from geoseg.monitoring.variables import Variables
from geoseg.protocols import Reader

WINDOW_PIXELS = 4_000_000
"""Pixels that are read at a time for a group of fields."""

CELL = 1024
"""Fields are put in order by squares of that many pixels, as files keep them in blocks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """One scene's part of the series."""

    variables: tuple[str, ...]
    statistics: NDArray[np.float64]
    """(field, variable, statistic) of STATISTICS; nan for gaps."""
    valid: NDArray[np.float64]
    """(field, variable) share of the field whose pixels have a value."""
    clear: NDArray[np.float64]
    """(field,) share of the field whose pixels hold data and no cloud."""
    cloud: NDArray[np.float64]
    """(field,) share of the field under cloud; nan where the scene does not say, or does not see the field."""
    seen: NDArray[np.bool_]
    """(field,) True where a pixel of the field lies in the scene."""


@dataclass(slots=True)
class _Pixels:
    """What was gathered of one field."""

    stored: list[NDArray[Any]] = field(default_factory=list)
    """(band, pixel) of each strip, clear ones only."""
    weights: list[NDArray[np.float64]] = field(default_factory=list)
    inside: float = 0.0
    beyond: float = 0.0
    cloud: float = 0.0

    def add(self, print_: Footprint, pixels: NDArray[Any], valid: NDArray[np.bool_], *, cloud: bool) -> None:
        weights = print_.weights
        self.inside += float(weights.sum())
        self.beyond += print_.beyond
        clear = valid
        if cloud:
            under = valid & (pixels[-1] != 0)
            self.cloud += float(weights[under].sum())
            clear = valid & ~under
        self.stored.append(pixels[:, clear])
        self.weights.append(weights[clear])


def measure(
    reader: Reader,
    shapes: NDArray[np.object_],
    variables: Variables,
    *,
    pixels: str = "coverage",
    window_pixels: int = WINDOW_PIXELS,
    done: Callable[[int], None] = lambda _: None,
) -> Measured:
    """Statistics of all fields in a scene.

    Args:
        reader: the scene.
        shapes: (field,) polygons in its pixels, x = col and y = -row; None for a field that is nowhere in it.
        variables: what to measure.
        pixels: one of PIXELS.
        window_pixels: how much may be read at a time; never decides the result.
        done: called with the number of fields that are ready; may raise to stop.
    """
    count, width = len(shapes), len(variables.each)
    out = Measured(
        variables=variables.names,
        statistics=np.full((count, width, len(STATISTICS)), np.nan),
        valid=np.zeros((count, width)),
        clear=np.zeros(count),
        cloud=np.full(count, np.nan),
        seen=np.zeros(count, np.bool_),
    )
    whole = Window(0, 0, *reader.scene.shape)
    near = [i for i, shape in enumerate(shapes) if shape is not None and bounding_window(shape) & whole]
    done(count - len(near))
    for group in groups(near, shapes, whole, window_pixels):
        for i, gathered in _gathered(reader, group, shapes, variables, pixels, window_pixels):
            area = gathered.inside + gathered.beyond if pixels == "centres" else float(shapely.area(shapes[i]))
            _settle(out, i, gathered, variables, area)
        done(len(group))
    return out


def groups(
    fields: Sequence[int], shapes: NDArray[np.object_], whole: Window, window_pixels: int
) -> Iterator[list[int]]:
    """Fields whose common window is small enough, or single ones."""
    windows = {i: bounding_window(shapes[i]) & whole for i in fields}
    order = sorted(fields, key=lambda i: (windows[i].row // CELL, windows[i].col // CELL, windows[i].row, i))
    group: list[int] = []
    around = Window(0, 0, 0, 0)
    for i in order:
        grown = _around([around, windows[i]]) if group else windows[i]
        if group and grown.size > window_pixels:
            yield group
            group, grown = [], windows[i]
        group.append(i)
        around = grown
    if group:
        yield group


def _gathered(
    reader: Reader, group: list[int], shapes: NDArray[np.object_], variables: Variables, pixels: str, window_pixels: int
) -> Iterator[tuple[int, _Pixels]]:
    """The pixels of each field of a group."""
    whole = Window(0, 0, *reader.scene.shape)
    around = _around([bounding_window(shapes[i]) & whole for i in group])
    block = reader.read(around, variables.positions) if around.size <= max(window_pixels, STRIP_PIXELS) else None
    for i, prints in zip(group, footprints(group, shapes, reader.scene, pixels=pixels), strict=True):
        gathered = _Pixels()
        for print_ in prints:
            window = print_.window()
            if not window:
                gathered.beyond += print_.beyond
                continue
            here = reader.read(window, variables.positions) if block is None else block
            place = print_.rows - here.window.row, print_.cols - here.window.col
            gathered.add(print_, here.pixels[:, place[0], place[1]], here.valid[place], cloud=variables.cloud)
        yield i, gathered


def _settle(out: Measured, i: int, gathered: _Pixels, variables: Variables, area: float) -> None:
    """Writes one field's line; its pixels are those of all strips."""
    if gathered.inside == 0:
        return
    out.seen[i] = True
    if variables.cloud:
        out.cloud[i] = min(1.0, gathered.cloud / area)
    weights = np.concatenate(gathered.weights)
    out.clear[i] = min(1.0, float(weights.sum()) / area)
    physical = variables.physical(np.concatenate(gathered.stored, axis=1))
    for place, variable in enumerate(variables.each):
        values = variable.values(physical)
        some = np.isfinite(values)
        out.valid[i, place] = min(1.0, float(weights[some].sum()) / area)
        out.statistics[i, place] = weighted_statistics(values[some], weights[some])


def _around(windows: Sequence[Window]) -> Window:
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    return Window(row, col, max(w.row_stop for w in windows) - row, max(w.col_stop for w in windows) - col)
