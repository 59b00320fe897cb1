"""Object scores: a predicted and a true field match where their IoU is above a threshold of at least one half.

    precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN)
    SQ = mean IoU of the matched pairs, RQ = F1, PQ = SQ x RQ         Kirillov et al. 2019, "Panoptic Segmentation"
    mean F1 = mean of F1 at IoU > .50, .55, ... .95                    the sweep of COCO (Lin et al. 2014)

In a layer that does not overlap itself, above one half no object can match two: the matching is one to one by
construction. Where a layer does overlap itself, pairs are taken best first and each object once, so that of two
doubled predictions one is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.metrics.overlap import Overlap
from geoseg.metrics.pixels import ratio

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
"""IoU thresholds of the sweep; the first one is that of precision, recall, F1 and PQ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectScores:
    predicted: int
    """Predicted objects that count: matched or wrong."""
    true: int
    """True objects: matched or missed."""
    matched: tuple[int, ...]
    """Matched pairs at each of THRESHOLDS."""
    iou_sum: float
    """Sum of the IoU of the pairs matched at the first threshold."""
    best_iou_sum: float
    """Sum over true objects of the IoU with the prediction that fits best (0 where none does)."""
    ignored: int = 0
    """Predicted objects that do not count, because the labels are partial and say nothing about them."""
    partial: bool = False
    """True where the labels are partial: see `score_objects`."""

    def __post_init__(self) -> None:
        if len(self.matched) != len(THRESHOLDS):
            raise InputError(f"found {len(self.matched)} counts of matches, expected one for each of {THRESHOLDS}")

    def __add__(self, other: ObjectScores) -> ObjectScores:
        """Counts of two images together."""
        if self.partial != other.partial:
            raise InputError("scores of partial and of complete labels cannot be pooled; report them apart")
        return ObjectScores(
            predicted=self.predicted + other.predicted,
            true=self.true + other.true,
            matched=tuple(a + b for a, b in zip(self.matched, other.matched, strict=True)),
            iou_sum=self.iou_sum + other.iou_sum,
            best_iou_sum=self.best_iou_sum + other.best_iou_sum,
            ignored=self.ignored + other.ignored,
            partial=self.partial,
        )

    @property
    def precision(self) -> float | None:
        """None where nothing was predicted."""
        return ratio(self.matched[0], self.predicted)

    @property
    def recall(self) -> float | None:
        """None where there is no true object."""
        return ratio(self.matched[0], self.true)

    @property
    def f1(self) -> float | None:
        """None where there is no object on either side."""
        return ratio(2 * self.matched[0], self.predicted + self.true)

    @property
    def mean_f1(self) -> float | None:
        """Mean F1 over THRESHOLDS."""
        return ratio(2 * sum(self.matched) / len(THRESHOLDS), self.predicted + self.true)

    @property
    def sq(self) -> float | None:
        """Segmentation quality; None where nothing matched."""
        return ratio(self.iou_sum, self.matched[0])

    @property
    def rq(self) -> float | None:
        """Recognition quality, the F1."""
        return self.f1

    @property
    def pq(self) -> float | None:
        """Panoptic quality: sum of matched IoU / (TP + FP / 2 + FN / 2)."""
        return ratio(2 * self.iou_sum, self.predicted + self.true)

    @property
    def mean_best_iou(self) -> float | None:
        """Mean over true objects of the best IoU with any prediction, matched or not."""
        return ratio(self.best_iou_sum, self.true)

    def to_dict(self) -> dict[str, Any]:
        sweep = [
            {
                "iou_above": threshold,
                "matched": count,
                "precision": ratio(count, self.predicted),
                "recall": ratio(count, self.true),
                "f1": ratio(2 * count, self.predicted + self.true),
            }
            for threshold, count in zip(THRESHOLDS, self.matched, strict=True)
        ]
        return {
            "iou_above": THRESHOLDS[0],
            "predicted": self.predicted,
            "true": self.true,
            "matched": self.matched[0],
            "ignored": self.ignored,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "mean_f1": self.mean_f1,
            "pq": self.pq,
            "sq": self.sq,
            "rq": self.rq,
            "mean_best_iou": self.mean_best_iou,
            "sweep": sweep,
        }


def match(overlap: Overlap) -> NDArray[np.intp]:
    """Indices of the pairs that match at the first of THRESHOLDS, best first, each object at most once.

    At a higher threshold the matching is the beginning of the same list.
    """
    iou = overlap.iou
    above = np.flatnonzero(iou > THRESHOLDS[0])
    best_first = above[np.argsort(-iou[above], kind="stable")]
    pred_used: set[int] = set()
    true_used: set[int] = set()
    pairs: list[int] = []
    for pair in best_first.tolist():
        pred, true = int(overlap.pred_index[pair]), int(overlap.true_index[pair])
        if pred not in pred_used and true not in true_used:
            pred_used.add(pred)
            true_used.add(true)
            pairs.append(pair)
    return np.array(pairs, dtype=np.intp)


def score_objects(overlap: Overlap, *, partial: bool = False) -> ObjectScores:
    """Scores of predicted against true objects.

    With `partial` labels a prediction counts only where more than half of its area lies in labelled objects: of the
    others nobody knows whether they are right. A match implies that much (IoU > .5 means that more than half of the
    prediction is shared), so recall and the matched IoU are what they would be with complete labels. Precision, F1
    and PQ then speak of the predictions on labelled land only: a field cut in two counts against them, a prediction
    that swallows a labelled field and as much unlabelled land counts as a missed field but not as a wrong prediction.
    """
    iou = overlap.iou
    pairs = match(overlap)
    matched_iou = iou[pairs]
    best = np.zeros(overlap.true_area.size)
    np.maximum.at(best, overlap.true_index, iou)
    ignored = int((~counted(overlap, pairs, partial=partial)).sum())
    return ObjectScores(
        predicted=overlap.pred_area.size - ignored,
        true=overlap.true_area.size,
        matched=tuple(int((matched_iou > threshold).sum()) for threshold in THRESHOLDS),
        iou_sum=float(matched_iou.sum()),
        best_iou_sum=float(best.sum()),
        ignored=ignored,
        partial=partial,
    )


def counted(overlap: Overlap, pairs: NDArray[np.intp], *, partial: bool = False) -> NDArray[np.bool_]:
    """(predicted object,) True where a prediction counts: everywhere, but with `partial` labels see `score_objects`.

    Args:
        overlap: of predicted and true objects.
        pairs: those of its pairs that match, from `match`.
        partial: the labels are partial.
    """
    if not partial:
        return np.ones(overlap.pred_area.size, dtype=np.bool_)
    shared = np.bincount(overlap.pred_index, weights=overlap.area, minlength=overlap.pred_area.size)
    inside = 2 * shared > overlap.pred_area
    inside[overlap.pred_index[pairs]] = True  # so by arithmetic, and kept so against rounding
    return np.asarray(inside, dtype=np.bool_)
