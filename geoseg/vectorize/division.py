"""The graph of the regions that tiles sent: which of them are one field. Solved patch by patch of field area.

A patch is finished when no part of it reaches the last row of tiles that was read: what is held is the patches under way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import TileGrid
from geoseg.kernels.flood import EVIDENCE_MAX, PLACE_BITS
from geoseg.kernels.graph import gathered, join_shallow, join_weak
from geoseg.kernels.label import roots, unite
from geoseg.pieces import Arrays, Pieces
from geoseg.results import PROBABILITY_MAX, Lines
from geoseg.vectorize.regions import LINKS, Numbers, in_scene, least_first
from geoseg.vectorize.seams import Index

SIDE_OF_EXIT = ("", "top", "left", "right", "bottom")
"""Where the steps lead that geoseg.kernels.flood.basins gives."""

NODES = ("deepest", "first", "kind", "pixels", "inner")
EDGES = ("a", "b", "saddle", "length", "support")


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


def place_key(evidence: NDArray[np.uint16], row: NDArray[np.int64], col: NDArray[np.int64]) -> NDArray[np.int64]:
    """Evidence, row and column of the scene as one number, in their order."""
    return evidence.astype(np.int64) << 2 * PLACE_BITS | row << PLACE_BITS | col


def ranked(root: NDArray[np.int64], used: NDArray[np.int64]) -> NDArray[np.int64]:
    """(label + 1,) the position in `used` of the root of each label; 0 for label 0, which is none."""
    rank = np.zeros(len(root), np.int64)
    rank[used] = np.arange(len(used))
    return rank[root]


@dataclass(slots=True, kw_only=True)
class Graph:
    """Regions and lines that are held."""

    nodes: Arrays
    """NODES, and `at`, (node,) the position among all that were sent, ascending."""
    edges: Arrays
    """EDGES; ends are positions."""
    same: NDArray[np.int64]
    """(pair, 2) positions of regions that are one basin, because a descent leads over the seam."""

    @classmethod
    def empty(cls) -> Graph:
        none = np.empty(0, np.int64)
        return cls(
            nodes=dict.fromkeys(("at", *NODES), none), edges=dict.fromkeys(EDGES, none), same=np.empty((0, 2), np.int64)
        )

    def extended(self, others: list[Graph]) -> Graph:
        every = [self, *others]
        return Graph(
            nodes={name: np.concatenate([one.nodes[name] for one in every]) for name in self.nodes},
            edges={name: np.concatenate([one.edges[name] for one in every]) for name in self.edges},
            same=np.concatenate([one.same for one in every]),
        )

    def split(self, reaching: NDArray[np.int64]) -> tuple[Graph, Graph]:
        """The patches without any of these positions, and the others."""
        at = self.nodes["at"]
        a, b, same = (np.searchsorted(at, ends) for ends in (self.edges["a"], self.edges["b"], self.same))
        parent = np.arange(len(at), dtype=np.int64)
        unite(parent, a, b)
        unite(parent, same[:, 0], same[:, 1])
        root = roots(parent)
        waits = np.zeros(len(at), np.bool_)
        waits[root[np.searchsorted(at, reaching)]] = True
        waits = waits[root]
        done, held = (
            Graph(
                nodes={name: values[keep] for name, values in self.nodes.items()},
                edges={name: values[keep[a]] for name, values in self.edges.items()},
                same=self.same[keep[same[:, 0]]],
            )
            for keep in (~waits, waits)
        )
        return done, held


def divided(grid: TileGrid, pieces: Pieces, limits: Limits) -> Numbers:
    """The numbers of all sent regions of all tiles."""
    starts: dict[Index, int] = {}
    counts: dict[Index, int] = {}
    solved: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    held, above, count = Graph.empty(), dict[Index, Arrays](), 0
    for row in grid.tile_range[0]:
        here: dict[Index, Arrays] = {}
        found: list[Graph] = []
        reaching = [np.empty(0, np.int64)]
        for index in ((row, col) for col in grid.tile_range[1]):
            piece = pieces.load(LINKS, index)
            if piece is None:
                continue
            here[index], starts[index], counts[index] = piece, count, len(piece["first"])
            nodes = {name: piece[name].astype(np.int64) for name in NODES}
            nodes |= {"at": count + np.arange(counts[index]), "first": in_scene(piece["first"], grid, index)}
            edges = {name: piece[name] + (count if name in ("a", "b") else 0) for name in EDGES}
            found.append(Graph(nodes=nodes, edges=edges, same=np.empty((0, 2), np.int64)))
            along = piece["bottom"][piece["bottom"] >= 0]
            reaching.append(np.unique(along) + count)
            count += counts[index]
            for side, neighbours, step in (("top", above, (-1, 0)), ("left", here, (0, -1))):
                at = (row + step[0], index[1] + step[1])
                if at in neighbours:
                    found.append(
                        Graph(
                            nodes=dict.fromkeys(held.nodes, np.empty(0, np.int64)),
                            edges=_across(piece, neighbours[at], side, starts[index], starts[at]),
                            same=_continued(piece, neighbours[at], side, starts[index], starts[at]),
                        )
                    )
        last = row == grid.tile_range[0][-1]
        done, held = held.extended(found).split(np.concatenate(reaching[:1] if last else reaching))
        if len(done.nodes["at"]):
            solved.append((done.nodes["at"], _numbers(done, limits)))
        above = here
    values = np.empty(count, np.int64)
    for at_, numbers in solved:
        values[at_] = numbers
    return Numbers(starts=starts, counts=counts, values=values)


def _across(piece: Arrays, other: Arrays, side: str, start: int, other_start: int) -> Arrays:
    """EDGES over a seam: of each pair of pixels that face each other the neighbour's is the upper or left one."""
    facing = "bottom" if side == "top" else "right"
    a, b = other[facing].astype(np.int64), piece[side].astype(np.int64)
    both = np.flatnonzero((a >= 0) & (b >= 0))
    both = both[other["kind"][a[both]] == piece["kind"][b[both]]]
    saddle = np.maximum(other[f"{facing}_saddle"][both], piece[f"{side}_saddle"][both])
    support = np.maximum(other[f"{facing}_stored"][both], piece[f"{side}_stored"][both])
    row, col = piece["corner"]
    if side == "top":
        place = place_key(saddle, np.full(len(both), row - 1), col + both) << 1 | 1
    else:
        place = place_key(saddle, row + both, np.full(len(both), col - 1)) << 1
    ends = np.concatenate([a[both] + other_start, b[both] + start])
    known, local = np.unique(ends, return_inverse=True)
    first, second = local[: len(both)], local[len(both) :]
    ones = np.ones(len(both), np.int64)
    lines = gathered(np.arange(len(known)), first, second, place, ones, support.astype(np.int64))
    return dict(zip(EDGES, (known[lines[0]], known[lines[1]], *lines[2:]), strict=True))


def _continued(piece: Arrays, other: Arrays, side: str, start: int, other_start: int) -> NDArray[np.int64]:
    """(exit, 2) regions of either tile that are one basin, because a descent leads over the seam."""
    facing = "bottom" if side == "top" else "right"
    out = []
    for one, its_side, its_start, two, two_side, two_start in (
        (piece, side, start, other, facing, other_start), (other, facing, other_start, piece, side, start)
    ):  # fmt: skip
        exits = one["exits"][one["exits"][:, 1] == SIDE_OF_EXIT.index(its_side)]
        out.append(np.stack([exits[:, 0] + its_start, two[two_side][exits[:, 2]] + two_start], axis=1))
    return np.concatenate(out)


def _numbers(graph: Graph, limits: Limits) -> NDArray[np.int64]:
    """(region,) number of the field that each is part of, for whole patches."""
    nodes, edges, at = graph.nodes, graph.edges, graph.nodes["at"]
    parent = np.arange(len(at), dtype=np.int64)
    same = np.searchsorted(at, graph.same)
    unite(parent, same[:, 0], same[:, 1])
    root = roots(parent)
    bottom = least_first(nodes["deepest"], root)
    order = np.argsort(edges["saddle"])
    a, b = (root[np.searchsorted(at, edges[end][order])] for end in ("a", "b"))
    saddle = edges["saddle"][order]
    join_shallow(parent, a, b, saddle >> 47, bottom, np.zeros(len(parent), np.bool_), limits.depth)
    root = roots(parent)
    used = np.unique(root)
    used = used[np.argsort(bottom[used])]
    node = ranked(root, used)
    lines = gathered(node, a, b, saddle, edges["length"][order], edges["support"][order])
    pixels, inner = (np.zeros(len(used), np.int64) for _ in range(2))
    np.add.at(pixels, node, nodes["pixels"])
    np.add.at(inner, node, nodes["inner"])
    joined = join_weak(lines[0], lines[1], lines[3], lines[4], pixels, inner, limits.contrast, limits.fragment)
    return least_first(nodes["first"], joined[node])
