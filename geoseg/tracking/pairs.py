"""Pairs of an old and a new field, and the groups that pairs make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.metrics.overlap import Overlap

Indices = NDArray[np.intp]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Fields of both layers that share land, and what they share."""

    old: Indices
    """(pair,) index of the old field."""
    new: Indices
    """(pair,) index of the new field."""
    area: Floats
    """(pair,) shared area."""
    of_old: Floats
    """(pair,) shared area / that of the old field."""
    of_new: Floats
    """(pair,) shared area / that of the new field."""
    iou: Floats
    """(pair,) intersection over union."""

    @classmethod
    def of(cls, overlap: Overlap) -> Pairs:
        """From an overlap of new fields as predictions with old ones as truth."""
        old, new, area = overlap.true_index, overlap.pred_index, overlap.area
        return cls(
            old=old,
            new=new,
            area=area,
            of_old=area / overlap.true_area[old],
            of_new=area / overlap.pred_area[new],
            iou=overlap.iou,
        )

    def __getitem__(self, which: Indices | Flags) -> Pairs:
        return Pairs(
            old=self.old[which],
            new=self.new[which],
            area=self.area[which],
            of_old=self.of_old[which],
            of_new=self.of_new[which],
            iou=self.iou[which],
        )

    def and_also(self, other: Pairs) -> Pairs:
        return Pairs(
            old=np.concatenate([self.old, other.old]),
            new=np.concatenate([self.new, other.new]),
            area=np.concatenate([self.area, other.area]),
            of_old=np.concatenate([self.of_old, other.of_old]),
            of_new=np.concatenate([self.of_new, other.of_new]),
            iou=np.concatenate([self.iou, other.iou]),
        )


def groups(pairs: Pairs, olds: int, news: int) -> tuple[Indices, Indices, Indices]:
    """(pair,) which group each belongs to; (group,) old fields in it; (group,) new fields in it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = olds + news
    graph = coo_array((np.ones(pairs.old.size, np.int8), (pairs.old, olds + pairs.new)), shape=(size, size))
    count, labels = connected_components(graph, directed=False)
    return (
        labels[pairs.old],
        np.bincount(labels[:olds], minlength=count),
        np.bincount(labels[olds:], minlength=count),
    )


def measured(links: NDArray[np.intp], pairs: Pairs, news: int) -> Pairs:
    """The links with what they share, which may be nothing."""
    old, new = links.T
    nothing = np.zeros(old.size)
    out = Pairs(old=old, new=new, area=nothing.copy(), of_old=nothing.copy(), of_new=nothing.copy(), iou=nothing.copy())
    keys = pairs.old * max(news, 1) + pairs.new
    order = np.argsort(keys)
    wanted = old * max(news, 1) + new
    at = np.searchsorted(keys[order], wanted)
    there = np.flatnonzero(at < keys.size)
    there = there[keys[order[at[there]]] == wanted[there]]
    source = order[at[there]]
    out.area[there], out.iou[there] = pairs.area[source], pairs.iou[source]
    out.of_old[there], out.of_new[there] = pairs.of_old[source], pairs.of_new[source]
    return out


def best_first(pairs: Pairs, ranks: tuple[Indices, Indices]) -> Indices:
    """The order of pairs by IoU, the highest first; ties by the two outlines, whichever of them is old.

    Args:
        pairs: to be put in order.
        ranks: numbers of the old and of the new fields' outlines.
    """
    return in_order(pairs.iou, ranks[0][pairs.old], ranks[1][pairs.new])


def in_order(score: Floats, old: Indices, new: Indices) -> Indices:
    """The highest score first; ties by the numbers of the two outlines, whichever of them is old.

    Args:
        score: (pair,)
        old: (pair,) number of the old field's outline.
        new: (pair,) number of the new field's outline.
    """
    return np.lexsort((old, np.maximum(old, new), np.minimum(old, new), -np.round(score, 9)))
