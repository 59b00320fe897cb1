"""Which of many squares to label next: uncertain ones that differ from each other and from what is labelled.

Greedy farthest-point selection (k-center, Sener & Savarese 2018, "Active learning for convolutional neural networks: a
core-set approach", algorithm 1), weighted with uncertainty. Of a square i with uncertainty u and distance d to the
nearest square that is labelled or chosen already, the next one has the largest

    u_i ** (1 - diversity) * d_i ** diversity

A product needs no common unit of both. diversity 0 is plain uncertainty sampling (Lewis & Gale 1994), 1 plain k-center.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def margin_uncertainty(probabilities: NDArray[np.uint8], *, largest: int) -> NDArray[np.int64]:
    """(row, col) 1 - (p1 - p2) of the two most probable classes, in units of 1 / `largest` (Scheffer et al. 2001).

    `probabilities` are (class, row, col) with two classes or more, stored as whole numbers up to `largest`.
    """
    best = np.partition(probabilities, -2, axis=0)[-2:].astype(np.int64)
    margin: NDArray[np.int64] = best[1] - best[0]
    return largest - margin


def entropy_uncertainty(probabilities: NDArray[np.uint8], *, largest: int) -> NDArray[np.int64]:
    """(row, col) entropy of the classes as a share of its maximum, in units of 1 / `largest`, rounded (Shannon 1948).

    Probabilities are made to add up to 1; where all are 0 nothing is known, and it is 1.
    """
    total = probabilities.sum(axis=0, dtype=np.float64)
    p = np.divide(probabilities, total, out=np.full(probabilities.shape, 1 / len(probabilities)), where=total > 0)
    surprise = -p * np.log(p, out=np.zeros_like(p), where=p > 0)
    share = surprise.sum(axis=0) / np.log(len(p))
    return np.asarray(np.rint(share * largest), np.int64)


def standardised(groups: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(square, feature): each column with mean 0 and deviation 1, constant ones 0, and each group of equal weight."""
    parts = []
    for group in groups:
        spread = group.std(axis=0)
        known = spread > 1e-9 * np.maximum(1.0, np.abs(group).max(axis=0, initial=0.0))
        scaled = np.where(known, (group - group.mean(axis=0)) / np.where(known, spread, 1.0), 0.0)
        parts.append(scaled / np.sqrt(max(1, group.shape[1])))
    return np.concatenate(parts, axis=1)


def chosen(
    uncertainty: NDArray[np.float64],
    features: NDArray[np.float64],
    *,
    count: int,
    diversity: float,
    labelled: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Numbers of the squares to label, best first.

    Args:
        uncertainty: (square,) not negative.
        features: (square, feature) in comparable units.
        count: how many at most.
        diversity: 0 to 1, see above.
        labelled: (square,) True for squares that are labelled: never chosen, but what others are to differ from.

    Ties go to the more uncertain, then to the lower number. Without a labelled square the first is the most uncertain.
    """
    open_ = ~labelled
    distance = np.full(len(uncertainty), np.inf)
    for i in np.flatnonzero(labelled).tolist():
        distance = np.minimum(distance, _distance(features, i))
    weight = np.power(uncertainty, 1 - diversity)
    picked: list[int] = []
    while len(picked) < count and open_.any():
        alone = bool(np.isinf(distance).all())
        score = uncertainty if alone else weight * np.power(distance, diversity)
        order = np.lexsort((np.arange(len(score)), -uncertainty, -score, ~open_))
        best = int(order[0])
        picked.append(best)
        open_[best] = False
        distance = np.minimum(distance, _distance(features, best))
    return np.array(picked, np.int64)


def _distance(features: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    gap: NDArray[np.float64] = np.sqrt(np.square(features - features[number]).sum(axis=1))
    return gap
