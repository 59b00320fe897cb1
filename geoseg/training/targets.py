"""Training targets: parcels become a mask of background, field and boundary, and a distance to the field's edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.enums import MergeAlg
from rasterio.features import rasterize
from rasterio.transform import Affine
from scipy import ndimage

BACKGROUND, FIELD, BOUNDARY = 0, 1, 2
IGNORE = 255
"""In targets: this pixel does not count."""


def class_mask(
    parcels: Sequence[Any] | NDArray[Any], shape: tuple[int, int], *, boundary_px: float
) -> NDArray[np.uint8]:
    """Parcels in pixel coordinates (x right, y down, pixel corners integer) as a (row, col) class mask.

    A pixel is boundary where its centre lies within half of `boundary_px` of a parcel's edge, and where parcels
    overlap. A band of at least 1 px keeps touching parcels apart under 4-connectivity, whatever their direction.
    The scene's own frame is no boundary: parcels must reach beyond it where they go on. With `boundary_px` 0 there are
    no boundary pixels.
    """
    margin = boundary_px + 2
    window = shapely.box(-margin, -margin, shape[1] + margin, shape[0] + margin)
    inside = np.asarray(parcels, dtype=object)
    inside = inside[shapely.intersects(inside, window)] if len(inside) else inside
    if not len(inside):
        return np.zeros(shape, dtype=np.uint8)
    identity = Affine.identity()
    counts = rasterize(
        ((p, 1) for p in inside), out_shape=shape, transform=identity, merge_alg=MergeAlg.add, dtype="uint8"
    )
    mask = np.where(counts > 0, FIELD, BACKGROUND).astype(np.uint8)
    if not boundary_px:
        return mask
    edges = shapely.buffer(shapely.boundary(inside), boundary_px / 2, quad_segs=2)
    near_edge = rasterize(((e, 1) for e in edges), out_shape=shape, transform=identity, dtype="uint8")
    mask[(near_edge > 0) | (counts > 1)] = BOUNDARY
    return mask


def instance_mask(ids: NDArray[np.integer[Any]], *, boundary_px: float) -> NDArray[np.uint8]:
    """A (row, col) raster of field numbers (0 is none) as such a class mask.

    A pixel is boundary where its centre lies within half of `boundary_px` of a side between two numbers.
    """
    mask = np.where(ids > 0, FIELD, BACKGROUND).astype(np.uint8)
    if boundary_px:
        mask[_from_edges(ids) + 0.5 <= boundary_px / 2] = BOUNDARY
    return mask


def edge_distance(ids: NDArray[np.integer[Any]], *, saturation_px: int) -> NDArray[np.float32]:
    """(row, col) distance within each field (number above 0) to its edge, 1 at `saturation_px` and beyond, 0 outside.

    The raster's frame is no edge. A pixel depends on those up to `saturation_px` + 1 away.
    """
    distance = np.minimum((_from_edges(ids) + 0.5) / saturation_px, 1)
    return np.where(ids > 0, distance, 0).astype(np.float32)


def _from_edges(ids: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Distance of each pixel from the nearest one with a side towards another number; infinite where there is none."""
    edge = np.zeros(ids.shape, dtype=bool)
    down, right = ids[1:] != ids[:-1], ids[:, 1:] != ids[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    if not edge.any():
        return np.full(ids.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~edge), dtype=np.float64)
