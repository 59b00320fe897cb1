"""The method `watershed`: the field area divided along lines of boundary evidence, exactly as on the whole raster.

A tile finds the basins of its pixels (one pixel of neighbours decides every step), joins what it knows to be shallow, and
divides by itself every patch of field area that does not reach its rim. Of the others it sends regions and lines, as sums; over
all tiles these make one graph, on which the same two rules are applied once. See geoseg.kernels.graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import TileGrid
from geoseg.kernels.flood import BLUR, EVIDENCE_MAX, basins, borders, line_support, smoothed, totals
from geoseg.kernels.graph import gathered, join_shallow, join_weak
from geoseg.kernels.label import roots, unite
from geoseg.protocols import ClassSource
from geoseg.results import PROBABILITY_MAX, Lines
from geoseg.vectorize.evidence import splitting_evidence
from geoseg.vectorize.pieces import Arrays, Pieces
from geoseg.vectorize.regions import LINKS, Numbers, in_scene, least_first, save_regions
from geoseg.vectorize.seams import Index


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What divides. Chosen as geoseg.recipes.RunOptions.shaping says."""

    depth: int
    """Basins that are shallower, in units of smoothed evidence, are no fields of their own."""
    contrast: int
    """A line divides where its mean evidence is that much above the mean beside it, in 1/256 of a stored unit."""
    fragment: float
    """Pixels below which a region is no field of its own where it has a neighbour."""

    @classmethod
    def of(cls, lines: Lines, *, fragment: float) -> Limits:
        """For probabilities of a boundary; a distance rises towards the rim of a field, too, so that its depth must tell."""
        depth, contrast = (0.1, 0.0) if lines.inverted else (0.03, 0.22)
        return cls(
            depth=round(depth * EVIDENCE_MAX), contrast=round(contrast * PROBABILITY_MAX * 256), fragment=fragment
        )


SIDE_OF_EXIT = ("", "top", "left", "right", "bottom")
"""Where the steps lead that geoseg.kernels.flood.basins gives."""

NODES = ("deepest", "first", "kind", "pixels", "inner")
EDGES = ("a", "b", "saddle", "length", "support")


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodTile:
    """First pass: the regions of a tile, and what must be known of those that reach its rim."""

    source: ClassSource
    wanted: tuple[int, ...]
    pieces: Pieces
    depth: int
    """Pixels along the sides that neighbours need to know."""
    limits: Limits

    def __call__(self, index: Index) -> Index:
        grid = self.source.grid
        core = grid.tile(index).core
        probabilities = self.source.probabilities(core.grown(1 + BLUR))
        classes = self.source.classes(core.grown(1))
        table = np.zeros(256, np.uint8)
        table[list(self.wanted)] = np.array(self.wanted) + 1
        kinds = table[classes]
        here = np.s_[BLUR + 1 : -BLUR - 1, BLUR + 1 : -BLUR - 1]
        keep = partial(
            save_regions, self.pieces, index, core, classes=np.ascontiguousarray(classes[1:-1, 1:-1]),
            stored=np.ascontiguousarray(probabilities[(slice(None), *here)]), width=grid.shape[1], depth=self.depth,
        )  # fmt: skip
        if not kinds[1:-1, 1:-1].any():
            nothing = np.empty(0, np.int64)
            keep(np.zeros(core.shape, np.int32), first=nothing, sent=nothing, links={})
            return index
        stored = splitting_evidence(probabilities, self.source.lines, self.wanted)
        evidence = smoothed(stored)
        inner = np.ascontiguousarray(stored[here])
        labels, bottoms, exits = basins(evidence, kinds)
        a, b, saddle, place = borders(labels, evidence, kinds)

        row, col = bottoms // core.width, bottoms % core.width
        bottom = np.concatenate([[0], _key(evidence[row + 1, col + 1], row + core.row, col + core.col)])
        opened = np.zeros(len(bottom), np.bool_)
        for rim in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            opened[rim] = True
        parent = np.arange(len(bottom), dtype=np.int64)
        join_shallow(parent, a, b, saddle, bottom, opened, self.limits.depth)
        root = roots(parent)

        # Nodes in the order of their bottoms, which is the same in every tile and in the whole.
        used = np.unique(root[1:])
        used = used[np.argsort(bottom[used])]
        node = _ranked(root, used)
        at, below = np.divmod(place.astype(np.int64), 2)
        saddles = _key(saddle, at // core.width + core.row, at % core.width + core.col) << 1 | below
        lines = gathered(node, a, b, saddles, np.ones(len(a), np.int64), line_support(inner, place))
        pixels, sums, first = totals(labels, node, len(used), inner)

        # Patches of field area that reach the rim are sent; the others are done with here.
        patch = np.arange(len(used), dtype=np.int64)
        unite(patch, lines[0], lines[1])
        patch = roots(patch)
        reaching = np.zeros(len(used), np.bool_)
        reaching[patch[opened[used]]] = True
        asked = reaching[patch]
        closed = ~asked[lines[0]]
        x, y, _, length, support = (values[closed] for values in lines)
        joined = join_weak(x, y, length, support, pixels, sums, self.limits.contrast, self.limits.fragment)
        region, final = np.unique(joined, return_inverse=True)
        least = np.full(len(region), np.iinfo(np.int64).max)
        np.minimum.at(least, final, first)
        kind = (kinds[1:-1, 1:-1].reshape(-1)[least] - 1).astype(np.uint8)
        sent = np.flatnonzero(asked[region])

        at = np.full(len(used), -1, np.int64)
        at[region[sent]] = np.arange(len(sent))
        mine = ~closed
        out = {
            "deepest": bottom[used][region[sent]], "first": first[region[sent]], "kind": kind[sent],
            "pixels": pixels[region[sent]], "inner": sums[region[sent]],
            "a": at[lines[0][mine]], "b": at[lines[1][mine]],
            "saddle": lines[2][mine], "length": lines[3][mine], "support": lines[4][mine],
        }  # fmt: skip
        table_of_labels = np.concatenate([[0], final[node[1:]] + 1]).astype(np.int32)
        out |= _rim(at[node], labels, evidence, inner, core.row, core.col)
        out |= _exits(at[node], exits, bottoms, core.width)
        keep(table_of_labels[labels], first=least, sent=sent + 1, links=out)
        return index


def _key(evidence: NDArray[np.uint16], row: NDArray[np.int64], col: NDArray[np.int64]) -> NDArray[np.int64]:
    """Evidence, row and column of the scene as one number, in their order."""
    return evidence.astype(np.int64) << 46 | row << 23 | col


def _ranked(root: NDArray[np.int64], used: NDArray[np.int64]) -> NDArray[np.int64]:
    """(label + 1,) the position in `used` of the root of each label; 0 for label 0, which is none."""
    rank = np.zeros(len(root), np.int64)
    rank[used] = np.arange(len(used))
    return rank[root]


def _rim(
    at: NDArray[np.int64], labels: NDArray[np.int32], evidence: NDArray[np.uint16], stored: NDArray[np.uint8], row: int,
    col: int,
) -> Arrays:  # fmt: skip
    """Along each side: which of the sent regions lies there (-1 for none), its evidence, smoothed and stored."""
    out: Arrays = {"corner": np.array([row, col])}
    inside = evidence[1:-1, 1:-1]
    for side, rim in (
        ("top", np.s_[0, :]), ("bottom", np.s_[-1, :]), ("left", np.s_[:, 0]), ("right", np.s_[:, -1])
    ):  # fmt: skip
        along = labels[rim]
        out[side] = np.where(along > 0, at[along], -1).astype(np.int32)
        out[f"{side}_saddle"], out[f"{side}_stored"] = inside[rim], stored[rim]
    return out


def _exits(at: NDArray[np.int64], exits: NDArray[np.int64], bottoms: NDArray[np.int64], width: int) -> Arrays:
    """Basins that go on in a neighbour: the region, the way out, and the place along that side."""
    leaving = np.flatnonzero(exits)
    way, row, col = exits[leaving], bottoms[leaving] // width, bottoms[leaving] % width
    along = np.where((way == 1) | (way == 4), col, row)
    return {"exits": np.stack([at[leaving + 1], way, along], axis=1)}


def divided(grid: TileGrid, pieces: Pieces, limits: Limits) -> Numbers:
    """All sent regions of all tiles as one graph: which of them are one field."""
    starts: dict[Index, int] = {}
    counts: dict[Index, int] = {}
    nodes: dict[str, list[NDArray[np.int64]]] = {name: [np.empty(0, np.int64)] for name in NODES}
    edges: dict[str, list[NDArray[np.int64]]] = {name: [np.empty(0, np.int64)] for name in EDGES}
    same: list[NDArray[np.int64]] = []
    above: dict[Index, Arrays] = {}
    count = 0
    for row in grid.tile_range[0]:
        here: dict[Index, Arrays] = {}
        for index in ((row, col) for col in grid.tile_range[1]):
            piece = pieces.load(LINKS, index)
            if piece is None:
                continue
            here[index], starts[index], counts[index] = piece, count, len(piece["first"])
            piece["first"] = in_scene(piece["first"], grid, index)
            for name in NODES:
                nodes[name].append(piece[name].astype(np.int64))
            for name in EDGES:
                edges[name].append(piece[name] + (count if name in ("a", "b") else 0))
            count += counts[index]
            for side, neighbours, step in (("top", above, (-1, 0)), ("left", here, (0, -1))):
                at = (row + step[0], index[1] + step[1])
                if at in neighbours:
                    other = neighbours[at]
                    across = _across(piece, other, side, starts[index], starts[at])
                    for name, values in zip(EDGES, across, strict=True):
                        edges[name].append(values)
                    same += _continued(piece, other, side, starts[index], starts[at])
        above = here
    if not count:
        return Numbers(starts=starts, counts=counts, values=np.empty(0, np.int64))
    flat = {name: np.concatenate(values) for name, values in (nodes | edges).items()}
    nodes.clear()
    edges.clear()
    return Numbers(starts=starts, counts=counts, values=_numbers(flat, same, limits))


def _across(piece: Arrays, other: Arrays, side: str, start: int, other_start: int) -> tuple[NDArray[np.int64], ...]:
    """Edges over a seam, one for each pair of pixels: the neighbour's is the upper or left one."""
    facing = "bottom" if side == "top" else "right"
    a, b = other[facing].astype(np.int64), piece[side].astype(np.int64)
    both = np.flatnonzero((a >= 0) & (b >= 0))
    both = both[other["kind"][a[both]] == piece["kind"][b[both]]]
    saddle = np.maximum(other[f"{facing}_saddle"][both], piece[f"{side}_saddle"][both])
    support = np.maximum(other[f"{facing}_stored"][both], piece[f"{side}_stored"][both])
    row, col = piece["corner"]
    if side == "top":
        place = _key(saddle, np.full(len(both), row - 1), col + both) << 1 | 1
    else:
        place = _key(saddle, row + both, np.full(len(both), col - 1)) << 1
    return a[both] + other_start, b[both] + start, place, np.ones(len(both), np.int64), support.astype(np.int64)


def _continued(piece: Arrays, other: Arrays, side: str, start: int, other_start: int) -> list[NDArray[np.int64]]:
    """(exit, 2) regions of either tile that are one basin, because a descent leads over the seam."""
    facing = "bottom" if side == "top" else "right"
    out = []
    for one, its_side, its_start, two, two_side, two_start in (
        (piece, side, start, other, facing, other_start), (other, facing, other_start, piece, side, start)
    ):  # fmt: skip
        exits = one["exits"][one["exits"][:, 1] == SIDE_OF_EXIT.index(its_side)]
        out.append(np.stack([exits[:, 0] + its_start, two[two_side][exits[:, 2]] + two_start], axis=1))
    return out


def _numbers(flat: Arrays, same: list[NDArray[np.int64]], limits: Limits) -> NDArray[np.int64]:
    """(region,) number of the field that each is part of."""
    parent = np.arange(len(flat["first"]), dtype=np.int64)
    for pairs in same:
        unite(parent, pairs[:, 0], pairs[:, 1])
    root = roots(parent)
    bottom = least_first(flat["deepest"], root)
    order = np.argsort(flat["saddle"])
    a, b, saddle = root[flat["a"][order]], root[flat["b"][order]], flat["saddle"][order]
    join_shallow(parent, a, b, saddle >> 47, bottom, np.zeros(len(parent), np.bool_), limits.depth)
    root = roots(parent)
    used = np.unique(root)
    used = used[np.argsort(bottom[used])]
    node = _ranked(root, used)
    lines = gathered(node, a, b, saddle, flat["length"][order], flat["support"][order])
    pixels, inner = (np.zeros(len(used), np.int64) for _ in range(2))
    np.add.at(pixels, node, flat["pixels"])
    np.add.at(inner, node, flat["inner"])
    joined = join_weak(lines[0], lines[1], lines[3], lines[4], pixels, inner, limits.contrast, limits.fragment)
    return least_first(flat["first"], joined[node])
