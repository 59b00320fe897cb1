"""What became of each field.

1. Links: of two fields that share land, one lies in the other (`inside`) and is no scrap of it (`part`).
2. Fields that links join are a group: one to one, one to several (split), several to one (merged), several to several
   (rearranged). Of the last kind, pairs that are surely the same are taken apart first, where nobody is left alone.
3. What is left hardly overlaps anything: fields of one shape, near each other, have moved.
4. What is left then and covers the same land in another division is rearranged, the rest gone and new.

All rules are the same from old to new as from new to old: swapping the layers swaps split and merged, new and gone, and
nothing else. Ties go by the outlines themselves, never by order or id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.metrics.outlines import sums
from geoseg.metrics.overlap import overlap_of_polygons
from geoseg.tracking.displaced import displaced
from geoseg.tracking.pairs import Flags, Floats, Indices, Pairs, best_first, groups, measured
from geoseg.tracking.side import Side
from geoseg.tracking.thresholds import Thresholds, reached

EVENTS = ("same", "moved", "split", "merged", "rearranged", "new", "gone")
"""By code."""
SAME, MOVED, SPLIT, MERGED, REARRANGED, NEW, GONE = range(7)
NONE = 255

Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Events:
    old: Codes
    """(old field,) code of what became of it; never NEW."""
    new: Codes
    """(new field,) code of how it came to be; never GONE."""
    links: Pairs
    """Old and new fields that belong together; an old one that is gone and a new one that is new have none."""
    codes: Codes
    """(link,)"""
    old_area: Floats
    """(old field,)"""
    new_area: Floats
    """(new field,)"""


def find_events(old: Side, new: Side, thresholds: Thresholds) -> Events:
    """What became of the fields of `old` in `new`; both in one CRS that keeps areas."""
    overlap = overlap_of_polygons(new.polygons.geometry, old.polygons.geometry)
    old_area, new_area = overlap.true_area, overlap.pred_area
    pairs = Pairs.of(overlap)
    ranks = _ranks(old.digests, new.digests)

    linked = _cut(pairs[_linked(pairs, thresholds)], len(old), len(new), thresholds)
    links, codes = _grouped(linked, len(old), len(new), thresholds, ranks)

    free_old, free_new = _free(links, len(old), len(new))
    moved = displaced(old.polygons.geometry, new.polygons.geometry, free_old, free_new, thresholds, ranks)
    links, codes = _more(links, codes, measured(moved, pairs, len(new)), MOVED)

    free_old, free_new = _free(links, len(old), len(new))
    both = np.minimum(pairs.of_old, pairs.of_new)
    left = pairs[free_old[pairs.old] & free_new[pairs.new] & reached(both, thresholds.part)]
    again = left[_divided_anew(left, old_area, new_area, thresholds)]
    links, codes = _more(links, codes, again, REARRANGED)

    of_old, of_new = np.full(len(old), GONE, dtype=np.uint8), np.full(len(new), NEW, dtype=np.uint8)
    of_old[links.old], of_new[links.new] = codes, codes
    return Events(old=of_old, new=of_new, links=links, codes=codes, old_area=old_area, new_area=new_area)


def _linked(pairs: Pairs, limits: Thresholds) -> Flags:
    """One of the two lies in the other, and is no mere scrap of it."""
    larger, smaller = np.maximum(pairs.of_old, pairs.of_new), np.minimum(pairs.of_old, pairs.of_new)
    return reached(larger, limits.inside) & reached(smaller, limits.part)


def _cut(linked: Pairs, olds: int, news: int, limits: Thresholds) -> Pairs:
    """Without links, in groups of several to several, from fields that are surely still themselves.

    Where a border has moved far into a neighbour the three or four fields would be rearranged otherwise, also the one that
    hardly changed. A link stays where it is the only one of the other field.
    """
    group, in_old, in_new = groups(linked, olds, news)
    several = (in_old[group] > 1) & (in_new[group] > 1)
    sure = several & reached(linked.iou, (1 + limits.same_iou) / 2)
    sure_old, sure_new = np.isin(linked.old, linked.old[sure]), np.isin(linked.new, linked.new[sure])
    elsewhere_old = np.bincount(linked.old[~sure_new], minlength=olds)[linked.old] > 0
    elsewhere_new = np.bincount(linked.new[~sure_old], minlength=news)[linked.new] > 0
    cut = (sure_old & (sure_new | elsewhere_new)) | (sure_new & elsewhere_old)
    return linked[sure | ~cut]


def _grouped(
    linked: Pairs, olds: int, news: int, limits: Thresholds, ranks: tuple[Indices, Indices]
) -> tuple[Pairs, Codes]:
    """The links that count, and what they are."""
    group, in_old, in_new = groups(linked, olds, news)
    one_old, one_new = in_old[group] == 1, in_new[group] == 1
    covered_old = sums(group, linked.of_old, in_old.size)[group]
    covered_new = sums(group, linked.of_new, in_old.size)[group]
    split = one_old & ~one_new & reached(covered_old, limits.cover)
    merged = one_new & ~one_old & reached(covered_new, limits.cover)
    rearranged = ~one_old & ~one_new
    codes = np.full(group.size, NONE, dtype=np.uint8)
    codes[split], codes[merged], codes[rearranged] = SPLIT, MERGED, REARRANGED
    # A single pair stands for itself; where parts cover too little, so does the one that fits best.
    alone = np.flatnonzero(codes == NONE)
    alone = alone[best_first(linked[alone], ranks)]
    _, first = np.unique(group[alone], return_index=True)
    best = alone[first]
    iou = linked.iou[best]
    codes[best] = np.where(reached(iou, limits.same_iou), SAME, np.where(reached(iou, limits.moved_iou), MOVED, NONE))
    kept = codes != NONE
    return linked[kept], codes[kept]


def _free(links: Pairs, olds: int, news: int) -> tuple[Flags, Flags]:
    """(old field,) and (new field,) True where none of the links is its own."""
    free_old, free_new = np.ones(olds, dtype=np.bool_), np.ones(news, dtype=np.bool_)
    free_old[links.old], free_new[links.new] = False, False
    return free_old, free_new


def _more(links: Pairs, codes: Codes, others: Pairs, code: int) -> tuple[Pairs, Codes]:
    return links.and_also(others), np.concatenate([codes, np.full(others.old.size, code, dtype=np.uint8)])


def _divided_anew(left: Pairs, old_area: Floats, new_area: Floats, limits: Thresholds) -> Flags:
    """(pair,) True in groups where most of the old fields' land is land of the new ones, and the other way round."""
    group, in_old, _ = groups(left, old_area.size, new_area.size)
    shared = sums(group, left.area, in_old.size)
    enough = np.ones(in_old.size, dtype=np.bool_)
    for index, areas in ((left.old, old_area), (left.new, new_area)):
        fields, first = np.unique(index, return_index=True)
        whole = sums(group[first], areas[fields], in_old.size)
        enough &= reached(shared / np.where(whole > 0, whole, 1), limits.cover)
    return np.asarray(enough[group], dtype=np.bool_)


def _ranks(old: NDArray[np.str_], new: NDArray[np.str_]) -> tuple[Indices, Indices]:
    """Outlines of both layers numbered by digest: equal outlines have equal numbers."""
    _, numbers = np.unique(np.concatenate([old, new]), return_inverse=True)
    return numbers[: old.size], numbers[old.size :]
