"""Overlap: which predicted object shares how much area with which true one. Objects are scored from it alone.

It comes from two label rasters (areas in pixels) or from two polygon layers (areas in the square of their unit).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError

BLOCK_ROWS = 512
"""Rows paired at a time, so that the table needs little memory beside the rasters."""

SLIVER = 1e-6
"""Share of the smaller polygon below which an overlap is rounding along a common border."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlap:
    pred_area: NDArray[np.float64]
    """(predicted object,) areas, all above 0."""
    true_area: NDArray[np.float64]
    """(true object,) areas, all above 0."""
    pred_index: NDArray[np.intp]
    """(pair,) index into pred_area."""
    true_index: NDArray[np.intp]
    """(pair,) index into true_area; each pair of objects occurs at most once."""
    area: NDArray[np.float64]
    """(pair,) shared area, above 0."""

    def __post_init__(self) -> None:
        if not self.pred_index.shape == self.true_index.shape == self.area.shape:
            raise InputError(
                f"{self.pred_index.size} predicted and {self.true_index.size} true indices for {self.area.size} "
                f"shared areas; give one of each for every pair"
            )

    @property
    def iou(self) -> NDArray[np.float64]:
        """(pair,) intersection over union."""
        union = self.pred_area[self.pred_index] + self.true_area[self.true_index] - self.area
        return self.area / union

    def at_least(self, area: float) -> Overlap:
        """Without the objects of either side that are smaller than `area`."""
        keep_pred, keep_true = self.pred_area >= area, self.true_area >= area
        keep = keep_pred[self.pred_index] & keep_true[self.true_index]
        return Overlap(
            pred_area=self.pred_area[keep_pred],
            true_area=self.true_area[keep_true],
            pred_index=(np.cumsum(keep_pred) - 1)[self.pred_index[keep]],
            true_index=(np.cumsum(keep_true) - 1)[self.true_index[keep]],
            area=self.area[keep],
        )


def overlap_of_labels(pred: NDArray[Any], truth: NDArray[Any], *, valid: NDArray[np.bool_] | None = None) -> Overlap:
    """Overlap of two label rasters, in pixels.

    Args:
        pred: (row, col) object ids, integers; 0 is no object. An object is all pixels of one id.
        truth: the same shape and rules.
        valid: (row, col), True where a pixel counts; None for all. Objects without a valid pixel do not occur.

    Raises:
        InputError: shapes disagree, or ids are negative or beyond 2^31.
    """
    if pred.shape != truth.shape or (valid is not None and valid.shape != pred.shape):
        shapes = [pred.shape, truth.shape] + ([] if valid is None else [valid.shape])
        raise InputError(f"prediction, truth and validity have shapes {shapes}; bring them onto one grid first")
    keys: list[NDArray[np.int64]] = []
    counts: list[NDArray[np.int64]] = []
    for start in range(0, pred.shape[0], BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        counted: Any = ... if valid is None else valid[rows]
        key, count = _count_pairs(pred[rows][counted].ravel(), truth[rows][counted].ravel())
        keys.append(key)
        counts.append(count)
    key, inverse = np.unique(np.concatenate([*keys, np.empty(0, np.int64)]), return_inverse=True)
    count = np.zeros(key.size, dtype=np.int64)
    np.add.at(count, inverse, np.concatenate([*counts, np.empty(0, np.int64)]))

    pred_id, true_id = key >> 32, key & 0xFFFFFFFF
    pred_ids, pred_of = np.unique(pred_id, return_inverse=True)
    true_ids, true_of = np.unique(true_id, return_inverse=True)
    pred_area = np.bincount(pred_of, weights=count, minlength=pred_ids.size).astype(np.float64)
    true_area = np.bincount(true_of, weights=count, minlength=true_ids.size).astype(np.float64)
    both = (pred_id > 0) & (true_id > 0)
    # Id 0 sorts first where it occurs: objects are counted from behind it.
    pred_zero, true_zero = int((pred_ids == 0).any()), int((true_ids == 0).any())
    return Overlap(
        pred_area=pred_area[pred_zero:],
        true_area=true_area[true_zero:],
        pred_index=pred_of[both] - pred_zero,
        true_index=true_of[both] - true_zero,
        area=count[both].astype(np.float64),
    )


def _count_pairs(pred: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Unique (pred << 32 | truth) keys of two flat arrays and how often each occurs."""
    for ids in (pred, truth):
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < 2**31:
            raise InputError(f"found object ids {ids.min()} to {ids.max()}, expected 0 to {2**31 - 1}; renumber them")
    if not pred.size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # Neighbours mostly belong to the same pair: only the runs are sorted.
    first = np.flatnonzero((pred[1:] != pred[:-1]) | (truth[1:] != truth[:-1])) + 1
    start = np.concatenate([[0], first])
    length = np.diff(start, append=pred.size)
    run = (pred[start].astype(np.int64) << 32) | truth[start].astype(np.int64)
    key, inverse = np.unique(run, return_inverse=True)
    count = np.zeros(key.size, dtype=np.int64)
    np.add.at(count, inverse, length)
    return key, count


def overlap_of_polygons(pred: NDArray[Any], truth: NDArray[Any]) -> Overlap:
    """Overlap of two polygon layers by exact areas, in the square of the coordinates' unit.

    Args:
        pred: (predicted object,) valid shapely polygons or multipolygons with an area above 0.
        truth: (true object,) the same, in the same coordinates. These should be metric: a degree is no length.

    Raises:
        InputError: an object has no area.
    """
    import shapely

    pred_area, true_area = shapely.area(pred), shapely.area(truth)
    for side, areas in (("predicted", pred_area), ("true", true_area)):
        if areas.size and not areas.min() > 0:
            raise InputError(f"{int((areas <= 0).sum())} {side} objects have no area; remove them first")
    tree = shapely.STRtree(truth)
    pred_index, true_index = tree.query(pred, predicate="intersects")
    shared = shapely.area(shapely.intersection(pred[pred_index], truth[true_index]))
    touching_only = shared <= 0
    return Overlap(
        pred_area=pred_area,
        true_area=true_area,
        pred_index=pred_index[~touching_only],
        true_index=true_index[~touching_only],
        area=shared[~touching_only],
    )


def repeated_area(polygons: NDArray[Any], *, at_least: float = 0.0) -> float:
    """Area by which valid polygons exceed their union; 0 where it is surely below `at_least` (which spares a union)."""
    import shapely

    areas = shapely.area(polygons)
    first, second = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    once = first < second
    first, second = first[once], second[once]
    shared = shapely.area(shapely.intersection(polygons[first], polygons[second]))
    real = shared > SLIVER * np.minimum(areas[first], areas[second])
    if not real.any() or shared[real].sum() < at_least:  # the sum counts what three polygons share thrice, not twice
        return 0.0
    involved = np.union1d(first[real], second[real])
    return float(areas[involved].sum() - shapely.area(shapely.union_all(polygons[involved])))
