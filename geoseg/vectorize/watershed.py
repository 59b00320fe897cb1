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

from geoseg.kernels.flood import BLUR, basins, borders, line_support, smoothed, totals
from geoseg.kernels.graph import gathered, join_shallow, join_weak
from geoseg.kernels.label import roots, unite
from geoseg.pieces import Arrays, Pieces
from geoseg.protocols import ClassSource
from geoseg.vectorize.division import Limits, place_key, ranked
from geoseg.vectorize.evidence import splitting_evidence
from geoseg.vectorize.regions import save_regions
from geoseg.vectorize.seams import Index


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
        bottom = np.concatenate([[0], place_key(evidence[row + 1, col + 1], row + core.row, col + core.col)])
        opened = np.zeros(len(bottom), np.bool_)
        for rim in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            opened[rim] = True
        parent = np.arange(len(bottom), dtype=np.int64)
        join_shallow(parent, a, b, saddle, bottom, opened, self.limits.depth)
        root = roots(parent)

        # Nodes in the order of their bottoms, which is the same in every tile and in the whole.
        used = np.unique(root[1:])
        used = used[np.argsort(bottom[used])]
        node = ranked(root, used)
        at, below = np.divmod(place.astype(np.int64), 2)
        saddles = place_key(saddle, at // core.width + core.row, at % core.width + core.col) << 1 | below
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
