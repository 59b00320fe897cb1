"""Outlines of the objects of a label raster, and which of their parts count."""

from __future__ import annotations

from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from geoseg.metrics.outlines import Seen


def traced(labels: NDArray[np.int32], ids: NDArray[np.int32], transform: Affine) -> NDArray[Any]:
    """(object,) polygons along the pixels' edges; multipolygons where an object has several 4-connected parts.

    Args:
        labels: (row, col) object ids, 0 for none.
        ids: (object,) the ids to trace, ascending; each occurs in `labels`.
        transform: maps (col, row) of a pixel corner to (x, y).
    """
    import shapely
    from rasterio.features import shapes

    wanted = np.isin(labels, ids)
    polygons: list[Any] = []
    of_id: list[int] = []
    for shape, value in shapes(labels, mask=wanted, connectivity=4, transform=transform):
        polygons.append(shapely.geometry.shape(shape))
        of_id.append(int(value))
    parts = np.empty(len(polygons), dtype=object)
    parts[:] = polygons
    index = np.searchsorted(ids, of_id)
    order = np.argsort(index, kind="stable")
    out = np.empty(ids.size, dtype=object)
    out[index] = parts
    several = np.isin(index[order], np.flatnonzero(np.bincount(index, minlength=ids.size) > 1))
    if several.any():
        which, compact = np.unique(index[order][several], return_inverse=True)
        out[which] = shapely.multipolygons(parts[order][several], indices=compact)
    return out


def ids_of(labels: NDArray[np.int32], valid: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(object,) ids with a valid pixel, ascending; the order of `overlap_of_labels`."""
    found = np.flatnonzero(np.bincount(labels[valid]))
    return found[found > 0].astype(np.int32)


def seen_on(valid: NDArray[np.bool_], transform: Affine, *, crs: CRS | None, grid_crs: CRS | None) -> Seen:
    """Places that count: with valid pixels all around, not on the frame and not beside nodata.

    An outline that runs along the frame or along nodata is where the data ends; nobody knows where the field does.

    Args:
        valid: (row, col)
        transform: of the raster.
        crs: of the places.
        grid_crs: of the raster.
    """
    to_grid = None if crs is None or crs == grid_crs else Transformer.from_crs(crs, grid_crs, always_xy=True)
    inverse = ~transform
    height, width = valid.shape

    def seen(xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        x, y = xy.T if to_grid is None else to_grid.transform(*xy.T)
        col = inverse.a * x + inverse.b * y + inverse.c
        row = inverse.d * x + inverse.e * y + inverse.f
        out = np.ones(len(xy), dtype=np.bool_)
        for right in (-0.5, 0.5):
            for down in (-0.5, 0.5):
                c, r = np.floor(col + right).astype(np.int64), np.floor(row + down).astype(np.int64)
                out &= (c >= 0) & (c < width) & (r >= 0) & (r < height)
                out &= valid[np.clip(r, 0, height - 1), np.clip(c, 0, width - 1)]
        return out

    return seen
