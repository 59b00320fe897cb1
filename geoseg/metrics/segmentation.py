"""Over- and under-segmentation: how much of its field a prediction leaves out, and how much it takes in beside it.

For a prediction S and the reference O that it overlaps most:

    OC = 1 - |S n O| / |O|      over-classification: near 1 where a field is cut into pieces
    UC = 1 - |S n O| / |S|      under-classification: near 1 where a prediction covers more than the field
    TC = sqrt((OC^2 + UC^2) / 2)
    GOC, GUC, GTC = means of OC, UC, TC over predictions, weighted by |S|

The errors are those of Persello and Bruzzone 2010, "A Novel Protocol for Accuracy Assessment in Classification of Very
High Resolution Images", IEEE TGRS 48 (3), who take the pair from the reference's side; starting from the prediction and
weighting by its area is how they are used for field boundaries.

All are 0 at best and 1 at worst. Every prediction that counts is in them: one that overlaps no reference counts with
OC = UC = 1, where common code leaves it out. References that nothing overlaps have no S and cannot be in them; their
number and their share of the area are given beside, and the scores must not be read without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.metrics.comparison import Comparison
from geoseg.metrics.pixels import ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationErrors:
    weight: float
    """Sum of |S| over the predictions that count, in m2 (square pixels without a CRS)."""
    over: float
    """Sum of |S| OC."""
    under: float
    """Sum of |S| UC."""
    combined: float
    """Sum of |S| TC."""
    predictions_without_overlap: int
    """Predictions that count and overlap no reference; in the global scores with OC = UC = 1."""
    references_without_overlap: int
    """References that no prediction overlaps; not in the global scores."""
    missed_area: float
    """Their area."""
    true_area: float
    """Area of all references."""

    def __add__(self, other: SegmentationErrors) -> SegmentationErrors:
        """Sums of two images together."""
        return SegmentationErrors(
            weight=self.weight + other.weight,
            over=self.over + other.over,
            under=self.under + other.under,
            combined=self.combined + other.combined,
            predictions_without_overlap=self.predictions_without_overlap + other.predictions_without_overlap,
            references_without_overlap=self.references_without_overlap + other.references_without_overlap,
            missed_area=self.missed_area + other.missed_area,
            true_area=self.true_area + other.true_area,
        )

    @property
    def goc(self) -> float | None:
        """Global over-classification; None where nothing was predicted."""
        return ratio(self.over, self.weight)

    @property
    def guc(self) -> float | None:
        """Global under-classification; None where nothing was predicted."""
        return ratio(self.under, self.weight)

    @property
    def gtc(self) -> float | None:
        """Global total classification error; None where nothing was predicted."""
        return ratio(self.combined, self.weight)

    def to_dict(self) -> dict[str, Any]:
        return {
            "goc": self.goc,
            "guc": self.guc,
            "gtc": self.gtc,
            "predictions_without_overlap": self.predictions_without_overlap,
            "references_without_overlap": self.references_without_overlap,
            "references_without_overlap_area_share": ratio(self.missed_area, self.true_area),
        }


def segmentation_errors(compared: Comparison) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(predicted object,) OC, UC and TC of each prediction; 1 where it overlaps no reference."""
    overlap = compared.overlap
    which, shared = compared.best()
    found = which >= 0
    over, under = np.ones(which.size), np.ones(which.size)
    over[found] = np.clip(1 - shared[found] / overlap.true_area[which[found]], 0, 1)
    under[found] = np.clip(1 - shared[found] / overlap.pred_area[found], 0, 1)
    return over, under, np.sqrt((over**2 + under**2) / 2)


def score_segmentation(compared: Comparison) -> SegmentationErrors:
    """Global errors. With partial labels only over the predictions that count (see `score_objects`)."""
    overlap = compared.overlap
    size = np.where(compared.counted, overlap.pred_area, 0.0) * compared.area_m2
    over, under, combined = segmentation_errors(compared)
    which, _ = compared.best()
    covered = np.zeros(overlap.true_area.size, dtype=np.bool_)
    covered[overlap.true_index] = True
    return SegmentationErrors(
        weight=float(size.sum()),
        over=float((size * over).sum()),
        under=float((size * under).sum()),
        combined=float((size * combined).sum()),
        predictions_without_overlap=int((compared.counted & (which < 0)).sum()),
        references_without_overlap=int((~covered).sum()),
        missed_area=float(overlap.true_area[~covered].sum()) * compared.area_m2,
        true_area=float(overlap.true_area.sum()) * compared.area_m2,
    )
