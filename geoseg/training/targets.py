"""Training targets: parcels become a mask of background, field and boundary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.enums import MergeAlg
from rasterio.features import rasterize
from rasterio.transform import Affine

BACKGROUND, FIELD, BOUNDARY = 0, 1, 2
IGNORE = 255
"""In targets: this pixel does not count."""


def class_mask(
    parcels: Sequence[Any] | NDArray[Any], shape: tuple[int, int], *, boundary_px: float
) -> NDArray[np.uint8]:
    """Parcels in pixel coordinates (x right, y down, pixel corners integer) as a (row, col) class mask.

    A pixel is boundary where its centre lies within half of `boundary_px` of a parcel's edge, and where parcels
    overlap. A band of at least 1 px keeps touching parcels apart under 4-connectivity, whatever their direction.
    The scene's own frame is no boundary: parcels must reach beyond it where they go on.
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
    edges = shapely.buffer(shapely.boundary(inside), boundary_px / 2, quad_segs=2)
    near_edge = rasterize(((e, 1) for e in edges), out_shape=shape, transform=identity, dtype="uint8")
    mask = np.where(counts > 0, FIELD, BACKGROUND).astype(np.uint8)
    mask[(near_edge > 0) | (counts > 1)] = BOUNDARY
    return mask
