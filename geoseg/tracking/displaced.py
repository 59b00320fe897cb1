"""Fields that hardly overlap their old place: found again by shape, near it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.tracking.pairs import Flags, Floats, Indices, in_order
from geoseg.tracking.thresholds import TOLERANCE, Thresholds, reached


def displaced(
    old: NDArray[Any],
    new: NDArray[Any],
    free_old: Flags,
    free_new: Flags,
    limits: Thresholds,
    ranks: tuple[Indices, Indices],
) -> Indices:
    """(pair, 2) free old and new fields of about one shape, near each other: the most alike first, each field once.

    Args:
        old: (old field,) polygons.
        new: (new field,) polygons.
        free_old: (old field,) True where it may be paired.
        free_new: (new field,) the same.
        limits: `shape` and `reach`.
        ranks: numbers of the outlines, by which ties go.
    """
    import shapely

    i, j = np.flatnonzero(free_old), np.flatnonzero(free_new)
    a, b = old[i], new[j]
    area_a, area_b = shapely.area(a), shapely.area(b)
    centre_a, centre_b = shapely.centroid(a), shapely.centroid(b)
    # Areas may differ by the factor `shape`, so the side of the mean area is at most this much longer than the old one's.
    widest = limits.reach * np.sqrt(area_a) / limits.shape**0.25
    p, q = shapely.STRtree(centre_b).query(centre_a, predicate="dwithin", distance=widest * (1 + TOLERANCE))
    alike = reached(np.minimum(area_a[p], area_b[q]) / np.maximum(area_a[p], area_b[q]), limits.shape)
    side = np.sqrt(np.sqrt(area_a[p] * area_b[q]))
    near = shapely.distance(centre_a[p], centre_b[q]) <= limits.reach * side * (1 + TOLERANCE)
    p, q = p[alike & near], q[alike & near]
    iou = _laid_together(a[p], b[q])
    fits = reached(iou, limits.shape)
    p, q, iou = i[p[fits]], j[q[fits]], iou[fits]
    order = in_order(iou, ranks[0][p], ranks[1][q])
    used_old, used_new, taken = set(), set(), []
    for pair in zip(p[order].tolist(), q[order].tolist(), strict=True):
        if pair[0] not in used_old and pair[1] not in used_new:
            used_old.add(pair[0])
            used_new.add(pair[1])
            taken.append(pair)
    return np.array(taken, dtype=np.intp).reshape(-1, 2)


def _laid_together(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """(pair,) IoU of polygons after their centroids are laid on each other."""
    import shapely

    a, b = _about_origin(a), _about_origin(b)
    shared = shapely.area(shapely.intersection(a, b))
    return np.asarray(shared / (shapely.area(a) + shapely.area(b) - shared), dtype=np.float64)


def _about_origin(shapes: NDArray[Any]) -> NDArray[Any]:
    import shapely

    coordinates, index = shapely.get_coordinates(shapes, return_index=True)
    middle = shapely.get_coordinates(shapely.centroid(shapes))
    return np.asarray(shapely.set_coordinates(shapes.copy(), coordinates - middle[index]), dtype=object)
