"""What is compared object by object: which overlap, which match, and where their outlines run.

Everything that is scored by object is scored from this one value, so that the scores speak of the same objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.metrics.objects import counted, match
from geoseg.metrics.outlines import Seen
from geoseg.metrics.overlap import Overlap


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    overlap: Overlap
    pred: NDArray[Any]
    """(predicted object,) shapely polygons or multipolygons, in the order of `overlap`."""
    true: NDArray[Any]
    """(true object,) the same, in the same coordinates, in which lengths are lengths."""
    pairs: NDArray[np.intp]
    """(matched pair,) indices into the pairs of `overlap`, best first."""
    counted: NDArray[np.bool_]
    """(predicted object,) True where a prediction counts; False only where labels are partial."""
    partial: bool
    metres: float
    """Metres in a unit of the coordinates; 1 without a CRS, where lengths stay in that unit."""
    area_m2: float
    """Square metres in a unit of the overlap's areas (square units of the coordinates without a CRS)."""
    unit: str
    """Of lengths: `metre`, or `pixel` without a CRS."""
    seen: Seen | None = None
    """Which places count; None for all."""

    @classmethod
    def of(
        cls,
        overlap: Overlap,
        pred: NDArray[Any],
        true: NDArray[Any],
        *,
        partial: bool = False,
        metres: float = 1.0,
        area_m2: float = 1.0,
        unit: str = "metre",
        seen: Seen | None = None,
    ) -> Comparison:
        """With the matching of `objects.match`; raises InputError where outlines and overlap are of other objects."""
        if (pred.size, true.size) != (overlap.pred_area.size, overlap.true_area.size):
            raise InputError(
                f"{pred.size} predicted and {true.size} true outlines for an overlap of {overlap.pred_area.size} and "
                f"{overlap.true_area.size} objects; give one outline for each object"
            )
        pairs = match(overlap)
        return cls(
            overlap=overlap,
            pred=pred,
            true=true,
            pairs=pairs,
            counted=counted(overlap, pairs, partial=partial),
            partial=partial,
            metres=metres,
            area_m2=area_m2,
            unit=unit,
            seen=seen,
        )

    @property
    def matched_pred(self) -> NDArray[np.intp]:
        """(matched pair,) index of the predicted object."""
        return self.overlap.pred_index[self.pairs]

    @property
    def matched_true(self) -> NDArray[np.intp]:
        """(matched pair,) index of the true object."""
        return self.overlap.true_index[self.pairs]

    def best(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """(predicted object,) the true object that each overlaps most (-1 for none), and the shared area."""
        overlap = self.overlap
        which = np.full(overlap.pred_area.size, -1, dtype=np.intp)
        shared = np.zeros(overlap.pred_area.size)
        ascending = np.argsort(overlap.area, kind="stable")
        # The last assignment stays: that of the largest area.
        which[overlap.pred_index[ascending]] = overlap.true_index[ascending]
        shared[overlap.pred_index[ascending]] = overlap.area[ascending]
        return which, shared
