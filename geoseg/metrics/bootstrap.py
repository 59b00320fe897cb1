"""Bootstrap intervals: how far the scores of a place would move with other fields of the same kind.

Percentile bootstrap (Efron and Tibshirani 1993, "An Introduction to the Bootstrap"). With one image there is one unit to
draw: a true object together with the predictions that belong to it, which are its match and those that overlap it more
than any other true object. A prediction without overlap is a unit by itself. Units are drawn with replacement, as many
as there are, and every score is computed anew from their sums; the 2.5th and 97.5th percentile are the interval.

Units are taken to be independent. Neighbouring fields are not quite, so that intervals are rather too narrow than too
wide, and they speak of this place only: another landscape or date is another matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.metrics.areas import AreaScores
from geoseg.metrics.boundary import OutlineLengths, PairDistances
from geoseg.metrics.comparison import Comparison
from geoseg.metrics.objects import THRESHOLDS
from geoseg.metrics.outlines import quotient, sums
from geoseg.metrics.segmentation import segmentation_errors

LEVEL = 0.95
SEED = 0
"""The same layers give the same intervals."""

REPLICATES = 1000
"""Default number of draws: 0.1 s for a thousand objects."""

AT_ONCE = 64
"""Draws that are summed together."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    replicates: int
    units: int
    """Units drawn from."""
    scores: Mapping[str, tuple[float, float] | None]
    """Lower and upper end by score; None where a score has no meaning, or there are fewer than two units."""

    def to_dict(self) -> dict[str, Any]:
        ends = {name: None if ends is None else list(ends) for name, ends in self.scores.items()}
        return {"level": LEVEL, "replicates": self.replicates, "seed": SEED, "units": self.units, "scores": ends}


def intervals(
    compared: Comparison, lengths: OutlineLengths, pairs: PairDistances, areas: AreaScores, *, replicates: int
) -> Intervals:
    """95 % intervals of the object scores; all arguments are of the same objects."""
    totals, units = _sums(compared, lengths, pairs, areas)
    scores = _scores({name: np.array([column.sum()]) for name, column in totals.items()})
    if compared.partial:  # see AreaScores.partial
        scores["areas.bias"] = np.array([np.nan])
    if units < 2:
        return Intervals(replicates=replicates, units=units, scores=dict.fromkeys(scores))
    names, columns = list(totals), np.stack(list(totals.values()), axis=1)
    rng = np.random.default_rng(SEED)
    drawn = np.empty((replicates, len(names)))
    for start in range(0, replicates, AT_ONCE):
        several = range(start, min(start + AT_ONCE, replicates))
        counts = [np.bincount(rng.integers(units, size=units), minlength=units) for _ in several]
        drawn[start : start + len(several)] = np.stack(counts).astype(np.float64) @ columns
    resampled = _scores(dict(zip(names, drawn.T, strict=True)))
    return Intervals(
        replicates=replicates,
        units=units,
        scores={name: _ends(values) if np.isfinite(scores[name][0]) else None for name, values in resampled.items()},
    )


def units_of(compared: Comparison, lengths: OutlineLengths) -> tuple[NDArray[np.intp], int]:
    """(predicted object,) the unit of each prediction, and how many units there are; true objects come first.

    -1 is that of predictions that enter no score: with partial labels those that lie nowhere near one.
    """
    which, _ = compared.best()
    unit = which.copy()
    unit[compared.matched_pred] = compared.matched_true
    alone = np.flatnonzero((unit < 0) & (compared.counted | (lengths.predicted > 0)))
    unit[alone] = compared.true.size + np.arange(alone.size)
    return unit, compared.true.size + int(alone.size)


def _sums(
    compared: Comparison, lengths: OutlineLengths, pairs: PairDistances, areas: AreaScores
) -> tuple[dict[str, Array], int]:
    """(unit,) what the scores are ratios of."""
    overlap = compared.overlap
    unit, units = units_of(compared, lengths)
    known = unit >= 0
    of_true, of_pair = np.arange(compared.true.size), compared.matched_true
    weight = compared.counted * overlap.pred_area
    over, under, combined = segmentation_errors(compared)
    iou = overlap.iou[compared.pairs]
    best = np.zeros(overlap.true_area.size)
    np.maximum.at(best, overlap.true_index, overlap.iou)

    def pred(values: NDArray[Any]) -> Array:
        return sums(unit[known], values[known], units)

    def true(values: NDArray[Any]) -> Array:
        return sums(of_true, values, units)

    def pair(values: Any) -> Array:
        return sums(of_pair, np.asarray(values, dtype=np.float64), units)

    return {
        "predicted": pred(compared.counted),
        "true": true(np.ones(of_true.size)),
        "matched": pair(np.ones(of_pair.size)),
        "sweep": pair(sum((iou > threshold).astype(np.float64) for threshold in THRESHOLDS)) / len(THRESHOLDS),
        "iou": pair(iou),
        "best_iou": true(best),
        "weight": pred(weight),
        "true_area": true(overlap.true_area),
        "over": pred(weight * over),
        "under": pred(weight * under),
        "combined": pred(weight * combined),
        "pred_length": pred(lengths.predicted),
        "pred_near": pred(lengths.predicted_near),
        "true_length": true(lengths.true),
        "true_near": true(lengths.true_near),
        "distance": pair(np.nan_to_num(pairs.mean_boundary)),
        "distances": pair(np.isfinite(pairs.mean_boundary)),
        "polis": pair(np.nan_to_num(pairs.polis)),
        "polises": pair(np.isfinite(pairs.polis)),
        "area_error": pair(np.abs(areas.pair_bias)),
        "area_bias": pair(areas.pair_bias),
    }, units


def _scores(s: Mapping[str, Array]) -> dict[str, Array]:
    """(replicate,) scores from (replicate,) sums; NaN where there is nothing to divide by. Names as in the JSON form."""
    both = s["predicted"] + s["true"]
    p, r = quotient(s["pred_near"], s["pred_length"]), quotient(s["true_near"], s["true_length"])
    none = np.nan_to_num(p) * np.nan_to_num(r) == 0  # see BoundaryScores.f1
    return {
        "objects.precision": quotient(s["matched"], s["predicted"]),
        "objects.recall": quotient(s["matched"], s["true"]),
        "objects.f1": quotient(2 * s["matched"], both),
        "objects.mean_f1": quotient(2 * s["sweep"], both),
        "objects.pq": quotient(2 * s["iou"], both),
        "objects.sq": quotient(s["iou"], s["matched"]),
        "objects.rq": quotient(2 * s["matched"], both),
        "objects.mean_best_iou": quotient(s["best_iou"], s["true"]),
        "segmentation.goc": quotient(s["over"], s["weight"]),
        "segmentation.guc": quotient(s["under"], s["weight"]),
        "segmentation.gtc": quotient(s["combined"], s["weight"]),
        "boundary.precision": p,
        "boundary.recall": r,
        "boundary.f1": np.where(none & ~(np.isnan(p) & np.isnan(r)), 0.0, quotient(2 * p * r, p + r)),
        "matched_outlines.mean_boundary_distance": quotient(s["distance"], s["distances"]),
        "matched_outlines.polis": quotient(s["polis"], s["polises"]),
        "areas.count_ratio": quotient(s["predicted"], s["true"]),
        "areas.bias": quotient(s["weight"] - s["true_area"], s["true_area"]),
        "areas.matched_mean_error": quotient(s["area_error"], s["matched"]),
        "areas.matched_mean_bias": quotient(s["area_bias"], s["matched"]),
    }


def _ends(values: Array) -> tuple[float, float] | None:
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
