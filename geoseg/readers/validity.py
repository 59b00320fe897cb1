"""Which stored values are data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.scene import Scene


def possible_nodata(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """The nodata value if a pixel of `dtype` can hold it, else None: -9999 never occurs in uint8."""
    if nodata is None:
        return None
    if math.isnan(nodata):
        # One NaN object for all, so that scenes that hold it compare equal.
        return math.nan if dtype.kind == "f" else None
    if dtype.kind == "f":
        return float(nodata) if abs(nodata) <= float(np.finfo(dtype).max) else None
    limits = np.iinfo(dtype)
    return float(nodata) if nodata == math.floor(nodata) and limits.min <= nodata <= limits.max else None


def stored_valid(pixels: NDArray[Any], nodata: Sequence[float | None]) -> NDArray[np.bool_] | None:
    """(row, col) True where every band of (band, row, col) holds data; None where all do without looking.

    Integer bands are compared with their nodata value; float bands must be finite too. Compared in the dtype the file
    stores, since nodata in a tag has often more digits than a float32 pixel.
    """
    valid: NDArray[np.bool_] | None = None
    for band, value in zip(pixels, nodata, strict=True):
        if pixels.dtype.kind == "f":
            good = np.isfinite(band)
            if value is not None and math.isfinite(value):
                good &= band != pixels.dtype.type(value)
        elif value is not None:
            good = band != pixels.dtype.type(int(value))
        else:
            continue
        valid = good if valid is None else valid & good
    return valid


def both_valid(first: NDArray[np.bool_] | None, second: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """Valid in both; None stands for valid everywhere."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def rectangles(flags: NDArray[np.bool_], window: Window) -> tuple[Window, ...]:
    """The True pixels of (row, col) `flags`, which lie at `window`, as windows that do not overlap, by row and column."""
    changes = np.flatnonzero((flags[1:] != flags[:-1]).any(axis=1)) + 1
    found = []
    for row, stop in pairwise([0, *changes.tolist(), len(flags)]):
        edges = np.flatnonzero(np.diff(flags[row], prepend=False, append=False)).tolist()
        found += [
            Window(window.row + row, window.col + col, stop - row, end - col)
            for col, end in zip(edges[::2], edges[1::2], strict=True)
        ]
    return tuple(found)


def check_request(scene: Scene, window: Window, bands: Sequence[int] | None) -> tuple[int, ...]:
    """The bands asked for. ValueError where window or bands are not the scene's: the caller's fault, not the user's."""
    if not window or not Window(0, 0, *scene.shape).contains(window):
        raise ValueError(f"{window} is not inside the scene of {scene.shape[0]} rows and {scene.shape[1]} columns")
    wanted = tuple(range(len(scene.bands))) if bands is None else tuple(bands)
    if not wanted or not all(0 <= i < len(scene.bands) for i in wanted):
        raise ValueError(f"bands {wanted} asked of a scene with bands 0 to {len(scene.bands) - 1}")
    return wanted
