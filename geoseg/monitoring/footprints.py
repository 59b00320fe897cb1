"""Which pixels a field covers, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.scene import Scene

STRIP_PIXELS = 4_000_000
"""A field whose bounding box is larger is taken in strips of rows of about that many pixels."""

LEAST = 1e-6
"""Of a pixel: less comes from rounding, and would count as one more pixel in quantiles."""

PIXELS = ("coverage", "centres")
"""How pixels count: by the share of them that lies in the field, or wholly where their centre does."""


def require_exactextract() -> None:
    """InputError where the library that coverage needs is not installed."""
    if find_spec("exactextract") is None:
        raise InputError(
            "weights by coverage need exactextract, which is not installed; install it with "
            "`pip install 'geoseg[monitor]'`, or take --pixels centres"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Footprint:
    """The pixels of one field, or of a strip of it, that lie in the scene."""

    field: int
    rows: NDArray[np.int64]
    """(pixel,) in the scene, row by row."""
    cols: NDArray[np.int64]
    weights: NDArray[np.float64]
    """(pixel,) above 0: the share of the pixel."""
    beyond: float = 0.0
    """Weight of pixels outside the scene."""

    def window(self) -> Window:
        """What must be read; empty where there are no pixels."""
        if not len(self.rows):
            return Window(0, 0, 0, 0)
        row, col = int(self.rows.min()), int(self.cols.min())
        return Window(row, col, int(self.rows.max()) + 1 - row, int(self.cols.max()) + 1 - col)


def bounding_window(shape: Any) -> Window:
    """The pixels around a polygon in (col, -row), perhaps outside the scene."""
    left, bottom, right, top = shapely.bounds(shape)
    row, col = math.floor(-top), math.floor(left)
    return Window(row, col, max(1, math.ceil(-bottom) - row), max(1, math.ceil(right) - col))


def strips(window: Window) -> list[Window]:
    """A window cut into strips of rows that are small enough."""
    height = max(1, STRIP_PIXELS // window.width)
    return [
        Window(row, window.col, min(height, window.row_stop - row), window.width)
        for row in range(window.row, window.row_stop, height)
    ]


def footprints(
    fields: Sequence[int], shapes: NDArray[np.object_], scene: Scene, *, pixels: str
) -> Iterator[list[Footprint]]:
    """For each field the strips of its footprint, mostly one.

    Args:
        fields: numbers in `shapes`.
        shapes: polygons in (col, -row) of the scene.
        scene: whose pixels they are.
        pixels: one of PIXELS.
    """
    small = {field: window for field in fields if (window := bounding_window(shapes[field])).size <= STRIP_PIXELS}
    whole = Window(0, 0, *scene.shape)
    at_once = _covered([*small], shapes, whole) if pixels == "coverage" else None
    for field in fields:
        if pixels == "centres":
            window = bounding_window(shapes[field])
            yield [_centres(field, shapes[field], strip, whole) for strip in strips(window)]
        elif at_once is not None and field in small:
            yield [next(at_once)]
        else:
            inside = bounding_window(shapes[field]) & whole
            yield [part for strip in (strips(inside) if inside else []) for part in _covered([field], shapes, strip)]


def _covered(fields: Sequence[int], shapes: NDArray[np.object_], window: Window) -> Iterator[Footprint]:
    """Coverage by exactextract, of the pixels of a window."""
    if not fields:
        return
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    # Values are not asked for: one zero stands for all pixels, whatever the size of the scene.
    grid = NumPyRasterSource(
        np.broadcast_to(np.zeros((1, 1), np.uint8), window.shape),
        xmin=window.col, ymin=-window.row_stop, xmax=window.col_stop, ymax=-window.row,
    )  # fmt: skip
    drawn = [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shapes[field])} for field in fields
    ]
    for field, found in zip(fields, exact_extract(grid, drawn, ["cell_id", "coverage"]), strict=True):
        cells, weights = found["properties"]["cell_id"], found["properties"]["coverage"]
        cells, weights = cells[weights >= LEAST], weights[weights >= LEAST]
        yield Footprint(
            field=field, rows=cells // window.width + window.row, cols=cells % window.width + window.col,
            weights=weights.astype(np.float64),
        )  # fmt: skip


def _centres(field: int, shape: Any, window: Window, whole: Window) -> Footprint:
    """The pixels whose centres lie in the field, as rasterio.mask takes them."""
    from affine import Affine
    from rasterio.features import rasterize

    place = Affine(1, 0, window.col, 0, -1, -window.row)
    burnt = rasterize([(shape, 1)], out_shape=window.shape, transform=place, dtype=np.uint8)
    rows, cols = np.nonzero(burnt)
    rows, cols = rows + window.row, cols + window.col
    here = (rows >= 0) & (rows < whole.height) & (cols >= 0) & (cols < whole.width)
    return Footprint(
        field=field, rows=rows[here], cols=cols[here], weights=np.ones(int(here.sum())), beyond=float((~here).sum())
    )
