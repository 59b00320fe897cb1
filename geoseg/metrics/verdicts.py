"""What became of each field: matched, split, merged, missed; and of each prediction: matched, split, merged, false.

    matched   IoU > .5, see objects.py
    split     a true field, not matched, in which at least two predictions lie mostly (more than half of their area), and
              which these cover to more than half; the predictions are its pieces
    merged    a prediction, not matched, that at least two true fields lie mostly in; so are the true fields in it
    missed    any other true field
    false     any other prediction

Each side adds up: every true field has one of the first four, every prediction that counts one of the other four. With
partial labels the predictions that do not count are `ignored`; fields that such a prediction swallows are merged all
the same, for they are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.metrics.comparison import Comparison

MATCHED, SPLIT, MERGED, MISSED, FALSE, IGNORED = range(6)
"""Codes of `Verdicts`; a prediction is never missed, a true field neither false nor ignored."""

NAMES = ("matched", "split", "merged", "missed", "false", "ignored")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts:
    pred: NDArray[np.uint8]
    """(predicted object,) codes."""
    true: NDArray[np.uint8]
    """(true object,) codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictCounts:
    true: tuple[int, ...]
    """True fields by code."""
    predicted: tuple[int, ...]
    """Predictions by code."""

    @classmethod
    def of(cls, verdicts: Verdicts) -> VerdictCounts:
        counts = [tuple(np.bincount(side, minlength=len(NAMES)).tolist()) for side in (verdicts.true, verdicts.pred)]
        return cls(true=counts[0], predicted=counts[1])

    def __add__(self, other: VerdictCounts) -> VerdictCounts:
        """Counts of two images together."""
        return VerdictCounts(
            true=tuple(a + b for a, b in zip(self.true, other.true, strict=True)),
            predicted=tuple(a + b for a, b in zip(self.predicted, other.predicted, strict=True)),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "true": {NAMES[i]: self.true[i] for i in (MATCHED, SPLIT, MERGED, MISSED)},
            "predicted": {NAMES[i]: self.predicted[i] for i in (MATCHED, SPLIT, MERGED, FALSE, IGNORED)},
        }


def judge(compared: Comparison) -> Verdicts:
    """The verdict on every object of both sides."""
    overlap = compared.overlap
    pred_matched = np.zeros(overlap.pred_area.size, dtype=np.bool_)
    true_matched = np.zeros(overlap.true_area.size, dtype=np.bool_)
    pred_matched[compared.matched_pred] = True
    true_matched[compared.matched_true] = True

    in_true = 2 * overlap.area > overlap.pred_area[overlap.pred_index]  # the prediction lies mostly in the field
    pieces = np.bincount(overlap.true_index[in_true], minlength=true_matched.size)
    cover = np.bincount(overlap.true_index[in_true], weights=overlap.area[in_true], minlength=true_matched.size)
    split = ~true_matched & (pieces >= 2) & (2 * cover > overlap.true_area)

    in_pred = 2 * overlap.area > overlap.true_area[overlap.true_index]  # the field lies mostly in the prediction
    swallowed = np.bincount(overlap.pred_index[in_pred], minlength=pred_matched.size)
    merging = ~pred_matched & (swallowed >= 2)

    of_split = np.zeros_like(pred_matched)
    of_split[overlap.pred_index[in_true & split[overlap.true_index]]] = True
    in_merging = np.zeros_like(true_matched)
    in_merging[overlap.true_index[in_pred & merging[overlap.pred_index]]] = True

    pred = np.select([pred_matched, ~compared.counted, merging, of_split], [MATCHED, IGNORED, MERGED, SPLIT], FALSE)
    true = np.select([true_matched, split, in_merging], [MATCHED, SPLIT, MERGED], MISSED)
    return Verdicts(pred=pred.astype(np.uint8), true=true.astype(np.uint8))
