"""Counts and areas: are there as many fields as in truth, and as large ones?

count ratio = predicted / true
area bias = (sum of predicted areas - sum of true areas) / sum of true areas
of a matched pair of S and O: area error = ||S| - |O|| / |O|, area bias = (|S| - |O|) / |O|; their means over pairs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geoseg.metrics.boundary import mean_of, median_of
from geoseg.metrics.comparison import Comparison
from geoseg.metrics.pixels import ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaScores:
    predicted: int
    """Predictions that count."""
    true: int
    predicted_area: float
    """Sum over the predictions that count, in `unit`."""
    true_area: float
    """In `unit`."""
    unit: str
    """`m2`, or `pixels` without a CRS."""
    pair_bias: tuple[float, ...]
    """(matched pair,) (|S| - |O|) / |O|."""
    partial: bool = False
    """True where labels are partial: then areas of prediction and truth are not of the same land, and have no bias."""

    def __add__(self, other: AreaScores) -> AreaScores:
        """Counts and areas of two images together."""
        return AreaScores(
            predicted=self.predicted + other.predicted,
            true=self.true + other.true,
            predicted_area=self.predicted_area + other.predicted_area,
            true_area=self.true_area + other.true_area,
            unit=self.unit,
            pair_bias=self.pair_bias + other.pair_bias,
            partial=self.partial or other.partial,
        )

    @property
    def count_ratio(self) -> float | None:
        """Predicted fields for each true one."""
        return ratio(self.predicted, self.true)

    @property
    def bias(self) -> float | None:
        """Relative bias of the total area; None where labels are partial or there is no true field."""
        return None if self.partial else ratio(self.predicted_area - self.true_area, self.true_area)

    @property
    def pair_error(self) -> float | None:
        """Mean relative area error of matched pairs; None where nothing matched."""
        return mean_of(np.abs(self.pair_bias).tolist())

    def to_dict(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "predicted": self.predicted,
            "true": self.true,
            "count_ratio": self.count_ratio,
            "predicted_area": self.predicted_area,
            "true_area": self.true_area,
            "bias": self.bias,
            "matched_mean_error": self.pair_error,
            "matched_mean_bias": mean_of(self.pair_bias),
            "matched_median_bias": median_of(self.pair_bias),
        }


def score_areas(compared: Comparison) -> AreaScores:
    """Counts and areas of both sides and of the matched pairs, in the order of `compared.pairs`."""
    overlap = compared.overlap
    here, there = overlap.pred_area[compared.matched_pred], overlap.true_area[compared.matched_true]
    return AreaScores(
        predicted=int(compared.counted.sum()),
        true=overlap.true_area.size,
        predicted_area=float(overlap.pred_area[compared.counted].sum()) * compared.area_m2,
        true_area=float(overlap.true_area.sum()) * compared.area_m2,
        unit="m2" if compared.unit == "metre" else "pixels",
        pair_bias=tuple(((here - there) / there).tolist()),
        partial=compared.partial,
    )
