"""What became of each field: links between two layers, and the groups that links make.

All rules are the same from old to new as from new to old: swapping the layers swaps split and merged, new and gone, and
nothing else. Ties go by the outlines themselves, never by order or id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.metrics.overlap import Overlap, overlap_of_polygons
from geoseg.tracking.side import Side
from geoseg.tracking.thresholds import TOLERANCE, Thresholds

EVENTS = ("same", "moved", "split", "merged", "rearranged", "new", "gone")
"""By code."""
SAME, MOVED, SPLIT, MERGED, REARRANGED, NEW, GONE = range(7)

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Events:
    old: NDArray[np.uint8]
    """(old field,) code of what became of it; never NEW."""
    new: NDArray[np.uint8]
    """(new field,) code of how it came to be; never GONE."""
    links: Pairs
    """Old and new fields that belong together; an old one that is gone and a new one that is new have none."""
    codes: NDArray[np.uint8]
    """(link,)"""
    old_area: Floats
    """(old field,)"""
    new_area: Floats
    """(new field,)"""
    pairs: Pairs
    """All that share land, linked or not."""


def find_events(old: Side, new: Side, thresholds: Thresholds) -> Events:
    """What became of the fields of `old` in `new`; both in one CRS that keeps areas."""
    overlap = overlap_of_polygons(new.polygons.geometry, old.polygons.geometry)
    old_area, new_area = overlap.true_area, overlap.pred_area
    pairs = Pairs.of(overlap)
    rank_old, rank_new = _ranks(old.digests, new.digests)
    found: list[tuple[Pairs, NDArray[np.uint8]]] = []

    linked = pairs[_linked(pairs, thresholds)]
    found.append(_of_groups(linked, len(old), len(new), thresholds, rank_old, rank_new))

    free_old, free_new = _free(found, len(old), len(new))
    moved = _displaced(old, new, free_old, free_new, thresholds, rank_old, rank_new)
    found.append((_measured(moved, pairs, len(new)), np.full(len(moved), MOVED, dtype=np.uint8)))

    free_old, free_new = _free(found, len(old), len(new))
    left = pairs[free_old[pairs.old] & free_new[pairs.new] & _reached(np.minimum(pairs.of_old, pairs.of_new), thresholds.part)]
    again = left[_divided_anew(left, old_area, new_area, thresholds)]
    found.append((again, np.full(again.old.size, REARRANGED, dtype=np.uint8)))

    links, codes = found[0]
    for more, its_codes in found[1:]:
        links, codes = links.and_also(more), np.concatenate([codes, its_codes])
    old_events, new_events = np.full(len(old), GONE, dtype=np.uint8), np.full(len(new), NEW, dtype=np.uint8)
    old_events[links.old], new_events[links.new] = codes, codes
    return Events(
        old=old_events, new=new_events, links=links, codes=codes, old_area=old_area, new_area=new_area, pairs=pairs
    )


def _reached(values: Floats, threshold: float) -> Flags:
    return np.asarray(values >= threshold - TOLERANCE, dtype=np.bool_)


def _linked(pairs: Pairs, limits: Thresholds) -> Flags:
    """One of the two lies in the other, and is no mere scrap of it."""
    larger, smaller = np.maximum(pairs.of_old, pairs.of_new), np.minimum(pairs.of_old, pairs.of_new)
    return _reached(larger, limits.inside) & _reached(smaller, limits.part)


def _groups(pairs: Pairs, olds: int, news: int) -> tuple[Indices, Indices, Indices]:
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


def _of_groups(
    linked: Pairs, olds: int, news: int, limits: Thresholds, rank_old: Indices, rank_new: Indices
) -> tuple[Pairs, NDArray[np.uint8]]:
    """The links that count, and what they are."""
    group, in_old, in_new = _groups(linked, olds, news)
    one_old, one_new = in_old[group] == 1, in_new[group] == 1
    covered = {
        SPLIT: _reached(np.bincount(group, weights=linked.of_old, minlength=in_old.size), limits.cover)[group],
        MERGED: _reached(np.bincount(group, weights=linked.of_new, minlength=in_old.size), limits.cover)[group],
    }
    split, merged = one_old & ~one_new & covered[SPLIT], one_new & ~one_old & covered[MERGED]
    rearranged = ~one_old & ~one_new
    # Where parts cover too little, the pair that fits best stands for itself; so does a single pair.
    alone = np.flatnonzero(~(split | merged | rearranged))
    best_first = alone[_order(linked[alone].iou, rank_old[linked.old[alone]], rank_new[linked.new[alone]])]
    _, first = np.unique(group[best_first], return_index=True)
    best = best_first[first]
    same = _reached(linked.iou, limits.same_iou)
    codes = np.full(group.size, GONE, dtype=np.uint8)
    codes[best] = np.where(same[best], SAME, np.where(_reached(linked.iou[best], limits.moved_iou), MOVED, GONE))
    codes[split], codes[merged], codes[rearranged] = SPLIT, MERGED, REARRANGED
    kept = codes != GONE
    return linked[kept], codes[kept]


def _free(
    found: list[tuple[Pairs, NDArray[np.uint8]]], olds: int, news: int
) -> tuple[Flags, Flags]:
    """(old field,) and (new field,) True where none of the links is its own."""
    free_old, free_new = np.ones(olds, dtype=np.bool_), np.ones(news, dtype=np.bool_)
    for pairs, _ in found:
        free_old[pairs.old], free_new[pairs.new] = False, False
    return free_old, free_new


def _displaced(
    old: Side, new: Side, free_old: Flags, free_new: Flags, limits: Thresholds, rank_old: Indices, rank_new: Indices
) -> NDArray[np.intp]:
    """(pair, 2) free old and new fields of about one shape, near each other: the most alike first, each once."""
    import shapely

    i, j = np.flatnonzero(free_old), np.flatnonzero(free_new)
    a, b = old.polygons.geometry[i], new.polygons.geometry[j]
    area_a, area_b = shapely.area(a), shapely.area(b)
    centre_a, centre_b = shapely.centroid(a), shapely.centroid(b)
    # Areas may differ by the factor `shape`, so the side of the mean area is at most this much longer than the old one's.
    widest = limits.reach * np.sqrt(area_a) / limits.shape**0.25
    p, q = shapely.STRtree(centre_b).query(centre_a, predicate="dwithin", distance=widest * (1 + TOLERANCE))
    alike = _reached(np.minimum(area_a[p], area_b[q]) / np.maximum(area_a[p], area_b[q]), limits.shape)
    side = np.sqrt(np.sqrt(area_a[p] * area_b[q]))
    near = shapely.distance(centre_a[p], centre_b[q]) <= limits.reach * side * (1 + TOLERANCE)
    p, q = p[alike & near], q[alike & near]
    iou = _laid_together(a[p], b[q])
    fits = _reached(iou, limits.shape)
    p, q, iou = p[fits], q[fits], iou[fits]
    used_old, used_new, taken = set(), set(), []
    for pair in _order(iou, rank_old[i[p]], rank_new[j[q]]).tolist():
        here, there = int(i[p[pair]]), int(j[q[pair]])
        if here not in used_old and there not in used_new:
            used_old.add(here)
            used_new.add(there)
            taken.append((here, there))
    return np.array(taken, dtype=np.intp).reshape(-1, 2)


def _laid_together(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """(pair,) IoU of polygons after their centroids are laid on each other."""
    import shapely

    a, b = (_about_origin(shapes) for shapes in (a, b))
    shared = shapely.area(shapely.intersection(a, b))
    return np.asarray(shared / (shapely.area(a) + shapely.area(b) - shared), dtype=np.float64)


def _about_origin(shapes: NDArray[Any]) -> NDArray[Any]:
    import shapely

    coordinates, index = shapely.get_coordinates(shapes, return_index=True)
    middle = shapely.get_coordinates(shapely.centroid(shapes))
    return np.asarray(shapely.set_coordinates(shapes.copy(), coordinates - middle[index]), dtype=object)


def _measured(links: NDArray[np.intp], pairs: Pairs, news: int) -> Pairs:
    """The links with what they share, which may be nothing."""
    old, new = links.T
    nothing = np.zeros(old.size)
    out = Pairs(
        old=old, new=new, area=nothing.copy(), of_old=nothing.copy(), of_new=nothing.copy(), iou=nothing.copy()
    )
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


def _divided_anew(left: Pairs, old_area: Floats, new_area: Floats, limits: Thresholds) -> Flags:
    """(pair,) True in groups where most of the old fields' land is land of the new ones, and the other way round."""
    group, in_old, _ = _groups(left, old_area.size, new_area.size)
    shared = np.bincount(group, weights=left.area, minlength=in_old.size)
    enough = np.ones(in_old.size, dtype=np.bool_)
    for index, areas in ((left.old, old_area), (left.new, new_area)):
        fields, first = np.unique(index, return_index=True)
        whole = np.bincount(group[first], weights=areas[fields], minlength=in_old.size)
        enough &= _reached(shared / np.where(whole > 0, whole, 1), limits.cover)
    return np.asarray(enough[group], dtype=np.bool_)


def _order(score: Floats, rank_old: Indices, rank_new: Indices) -> Indices:
    """The highest score first; ties by the two outlines, whichever of them is old."""
    low, high = np.minimum(rank_old, rank_new), np.maximum(rank_old, rank_new)
    return np.lexsort((rank_old, high, low, -np.round(score, 9)))


def _ranks(old: NDArray[np.str_], new: NDArray[np.str_]) -> tuple[Indices, Indices]:
    """Outlines of both layers numbered by digest: equal outlines have equal numbers."""
    _, numbers = np.unique(np.concatenate([old, new]), return_inverse=True)
    return numbers[: old.size], numbers[old.size :]
