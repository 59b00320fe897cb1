"""Outline scores: how much of the outlines lies where it should, and how far away the outlines of matched fields are.

    P = share of the predicted outlines' length within the tolerance of any true outline, R the other way around,
    boundary F1 = 2 P R / (P + R)                         Csurka, Larlus, Perronnin 2013, "What is a good evaluation
                                                          measure for semantic segmentation?", BMVC
    mean boundary distance of a pair = (mean of d(a, B) along outline A + mean of d(b, A) along outline B) / 2
    PoLiS of a pair = (mean of d(a, B) over the vertices of A + mean of d(b, A) over the vertices of B) / 2
                                                          Avbelj, Mueller, Bamler 2015, "A Metric for Polygon
                                                          Comparison and Building Extraction Evaluation", IEEE GRSL 12

with d(a, B) the shortest distance from a point to an outline. Outlines are all rings of a field, holes too; where two
fields touch, both outlines count. d is exact; along outlines the means and lengths are taken at the middles of equal
pieces of at most `step`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.metrics.comparison import Comparison
from geoseg.metrics.outlines import MAX_POINTS, Points, Rings, distances, mean_by, near, step_for, sums
from geoseg.metrics.pixels import ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryScores:
    tolerance: float
    """In `unit`."""
    source: str
    """Where the tolerance comes from."""
    unit: str
    """`metre`, or `pixel` without a CRS."""
    step: float
    """Longest piece of outline that one point stands for, in `unit`."""
    predicted_length: float
    """Of the predicted outlines that count, in `unit`."""
    predicted_near: float
    """The part of it within the tolerance of a true outline."""
    true_length: float
    true_near: float
    partial: bool = False
    """True where only outlines on labelled land count."""

    def __add__(self, other: BoundaryScores) -> BoundaryScores:
        """Lengths of two images together."""
        if (self.tolerance, self.unit, self.partial) != (other.tolerance, other.unit, other.partial):
            raise InputError(
                f"boundary scores at {self.tolerance:g} and {other.tolerance:g} {self.unit} cannot be pooled; "
                f"evaluate both at one tolerance and with the same kind of labels"
            )
        return BoundaryScores(
            tolerance=self.tolerance,
            source=self.source,
            unit=self.unit,
            step=max(self.step, other.step),
            predicted_length=self.predicted_length + other.predicted_length,
            predicted_near=self.predicted_near + other.predicted_near,
            true_length=self.true_length + other.true_length,
            true_near=self.true_near + other.true_near,
            partial=self.partial,
        )

    @property
    def precision(self) -> float | None:
        """None where nothing was predicted."""
        return ratio(self.predicted_near, self.predicted_length)

    @property
    def recall(self) -> float | None:
        """None where there is no true outline."""
        return ratio(self.true_near, self.true_length)

    @property
    def f1(self) -> float | None:
        """0 where one side has outlines and the other none; None where neither has."""
        p, r = self.precision, self.recall
        if p is None and r is None:
            return None
        return (ratio(2 * p * r, p + r) or 0.0) if p is not None and r is not None else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "tolerance": self.tolerance,
            "tolerance_source": self.source,
            "unit": self.unit,
            "step": self.step,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "predicted_length": self.predicted_length,
            "true_length": self.true_length,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PairDistances:
    """Distances between the outlines of matched fields, in `unit`; NaN where a pair was not measured."""

    unit: str
    mean_boundary: tuple[float, ...]
    """(matched pair,) mean boundary distances."""
    polis: tuple[float, ...]
    """(matched pair,)"""

    def __add__(self, other: PairDistances) -> PairDistances:
        """Pairs of two images together."""
        if self.unit != other.unit:
            raise InputError(f"distances in {self.unit} and {other.unit} cannot be pooled; georeference both")
        return PairDistances(
            unit=self.unit, mean_boundary=self.mean_boundary + other.mean_boundary, polis=self.polis + other.polis
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "pairs": int(np.isfinite(self.mean_boundary).sum()),
            "mean_boundary_distance": mean_of(self.mean_boundary),
            "median_boundary_distance": median_of(self.mean_boundary),
            "polis": mean_of(self.polis),
            "median_polis": median_of(self.polis),
        }


def mean_of(values: Sequence[float]) -> float | None:
    """Mean of those that are numbers; None where none is."""
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def median_of(values: Sequence[float]) -> float | None:
    """Median of those that are numbers; None where none is."""
    known = np.asarray(values)[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutlineLengths:
    """What the boundary scores are sums of, by object."""

    predicted: NDArray[np.float64]
    """(predicted object,) length of its outline that counts."""
    predicted_near: NDArray[np.float64]
    true: NDArray[np.float64]
    true_near: NDArray[np.float64]


def score_boundaries(
    compared: Comparison, *, tolerance: float, source: str, step: float
) -> tuple[BoundaryScores, OutlineLengths]:
    """Boundary scores, and the lengths by object behind them.

    With partial labels recall is that of the labelled outlines, and precision speaks of the predicted outlines inside
    labelled fields and up to the tolerance around them: what is drawn on land without labels does not count.

    Args:
        compared: the objects.
        tolerance: in `compared.unit`.
        source: says where the tolerance comes from.
        step: longest piece of outline for one point, in `compared.unit`; longer where there would be too many points.
    """
    within = tolerance / compared.metres
    pred, true = Rings.of(compared.pred), Rings.of(compared.true)
    steps = [step_for(rings, step / compared.metres) for rings in (pred, true)]
    here = pred.points(steps[0]).seen(compared.seen)
    there = true.points(steps[1]).seen(compared.seen)
    if compared.partial:
        here = here.where(near(here, compared.true, within))
    found = near(here, true.pieces()[0], within), near(there, pred.pieces()[0], within)
    lengths = OutlineLengths(
        predicted=_sums(here, compared.pred.size) * compared.metres,
        predicted_near=_sums(here.where(found[0]), compared.pred.size) * compared.metres,
        true=_sums(there, compared.true.size) * compared.metres,
        true_near=_sums(there.where(found[1]), compared.true.size) * compared.metres,
    )
    scores = BoundaryScores(
        tolerance=tolerance,
        source=source,
        unit=compared.unit,
        step=max(steps) * compared.metres,
        predicted_length=float(lengths.predicted.sum()),
        predicted_near=float(lengths.predicted_near.sum()),
        true_length=float(lengths.true.sum()),
        true_near=float(lengths.true_near.sum()),
        partial=compared.partial,
    )
    return scores, lengths


def score_pairs(compared: Comparison, *, step: float) -> PairDistances:
    """Mean boundary distance and PoLiS of the matched pairs, in the order of `compared.pairs`.

    PoLiS looks at vertices only: an outline traced from pixels has one at every corner of a pixel, a drawn one few. In
    layers with more than MAX_POINTS vertices it is measured on every n-th pair.

    Args:
        compared: the objects.
        step: longest piece of outline for one point, in `compared.unit`; longer where there would be too many points.
    """
    a, b = compared.pred[compared.matched_pred], compared.true[compared.matched_true]
    rings = Rings.of(a), Rings.of(b)
    along = [r.points(step_for(r, step / compared.metres)).seen(compared.seen) for r in rings]
    every = 1 + max(r.ring.size for r in rings) // MAX_POINTS
    corners = [r.vertices().seen(compared.seen) for r in rings]
    corners = [points.where(points.owner % every == 0) for points in corners]
    return PairDistances(
        unit=compared.unit,
        mean_boundary=_both_ways(along, (a, b), compared.metres),
        polis=_both_ways(corners, (a, b), compared.metres),
    )


def _both_ways(
    points: Sequence[Points], outlines: tuple[NDArray[Any], NDArray[Any]], metres: float
) -> tuple[float, ...]:
    there = mean_by(distances(points[0], outlines[1]), points[0], outlines[0].size)
    back = mean_by(distances(points[1], outlines[0]), points[1], outlines[0].size)
    return tuple(((there + back) / 2 * metres).tolist())


def _sums(points: Points, objects: int) -> NDArray[np.float64]:
    return sums(points.owner, points.weight, objects)
