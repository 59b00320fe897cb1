"""Connected components as objects, equal to those of the whole raster whatever the tiling.

Two passes over the tiles. The first labels each tile alone and keeps sums and the labels along its rim; components
that touch across a seam are then united. The second labels again (cheaper than keeping labels), writes the final numbers
over the tile and one pixel around it, and traces outlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.kernels.label import border_pairs, label, measure, roots, unite
from geoseg.kernels.outline import Chains, trace
from geoseg.protocols import ClassSource, TileMap
from geoseg.results import Outlines
from geoseg.vectorize.rings import assemble

# The sides of a tile: name, index of its own rim, step to the neighbour, name of the neighbour's facing side.
_SIDES: dict[str, tuple[tuple[Any, Any], tuple[int, int], str]] = {
    "top": ((0, slice(None)), (-1, 0), "bottom"),
    "bottom": ((-1, slice(None)), (1, 0), "top"),
    "left": ((slice(None), 0), (0, -1), "right"),
    "right": ((slice(None), -1), (0, 1), "left"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TileComponents:
    """What is kept of a tile after the first pass."""

    index: tuple[int, int]
    first: NDArray[np.int64]
    pixels: NDArray[np.int64]
    sums: NDArray[np.int64]
    kind: NDArray[np.uint8]
    touches: NDArray[np.bool_]
    rims: dict[str, NDArray[np.int32]]
    """Labels along the four sides of the core."""
    rim_classes: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTile:
    """First pass: one tile's components, measured."""

    source: ClassSource
    wanted: tuple[int, ...]

    def __call__(self, index: tuple[int, int]) -> TileComponents:
        tile = self.source.grid.tile(index)
        framed = self.source.classes(tile.core.grown(1))
        inner = np.ascontiguousarray(framed[1:-1, 1:-1])
        labels, count = label(inner, _wanted(self.wanted))
        probabilities = self.source.probabilities(tile.core) if count else np.empty((0, 1, 1), np.uint8)
        first, pixels, sums, kind, touches = measure(labels, count, framed, probabilities)
        return TileComponents(
            index=index,
            first=first + np.array([tile.core.row, tile.core.col]),
            pixels=pixels,
            sums=sums,
            kind=kind,
            touches=touches,
            rims={side: labels[rim].copy() for side, (rim, _, _) in _SIDES.items()},
            rim_classes={side: inner[rim].copy() for side, (rim, _, _) in _SIDES.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineItem:
    index: tuple[int, int]
    numbers: NDArray[np.int64]
    """(label + 1,) the final number of each of the tile's labels, 0 for none."""
    rims: dict[str, NDArray[np.int64]]
    """Final numbers of the pixels just outside each side; absent where there is no neighbour."""
    corners: tuple[int, int, int, int]
    """Final numbers of the pixels diagonally outside: upper left, upper right, lower left, lower right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineTile:
    """Second pass: one tile's outlines, in scene pixels, labelled by final numbers."""

    source: ClassSource
    wanted: tuple[int, ...]

    def __call__(self, item: OutlineItem) -> Chains:
        core = self.source.grid.tile(item.index).core
        labels, _ = label(self.source.classes(core), _wanted(self.wanted))
        framed = np.zeros((core.height + 2, core.width + 2), np.int64)
        framed[1:-1, 1:-1] = item.numbers[labels]
        for side, target in (
            ("top", (0, slice(1, -1))), ("bottom", (-1, slice(1, -1))),
            ("left", (slice(1, -1), 0)), ("right", (slice(1, -1), -1)),
        ):  # fmt: skip
            if side in item.rims:
                framed[target] = item.rims[side]
        framed[0, 0], framed[0, -1], framed[-1, 0], framed[-1, -1] = item.corners
        return trace(framed).shifted(core.row, core.col)


@dataclass(frozen=True, slots=True)
class Components:
    """The vectorizer `components`: 4-connected pixels of one class are one object."""

    def outlines(
        self, source: ClassSource, wanted: Sequence[int], *, map_tiles: TileMap, min_pixels: float
    ) -> Outlines:
        found: dict[tuple[int, int], TileComponents] = {}
        indices = [tile.index for tile in source.grid]
        map_tiles(
            LabelTile(source=source, wanted=tuple(wanted)), indices,
            done=lambda part: found.__setitem__(part.index, part), stage="components",
        )  # fmt: skip
        parts = [found[index] for index in indices]
        objects = merge(parts, min_pixels=min_pixels)
        chains: list[Chains] = []
        map_tiles(
            OutlineTile(source=source, wanted=tuple(wanted)), objects.items(parts),
            done=chains.append, stage="outlines",
        )  # fmt: skip
        vertices, rings, first_ring = assemble(chains, count=len(objects.kind))
        return Outlines(
            first=objects.first, kind=objects.kind, pixels=objects.pixels, sums=objects.sums, touches=objects.touches,
            vertices=vertices, rings=rings, objects=first_ring,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """All objects of a run, numbered 1.. in order of their first pixels."""

    first: NDArray[np.int64]
    kind: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    sums: NDArray[np.int64]
    touches: NDArray[np.bool_]
    numbers: dict[tuple[int, int], NDArray[np.int64]]
    """By tile: the final number of each of its labels, 0 where the object was left out."""

    def items(self, parts: Sequence[TileComponents]) -> list[OutlineItem]:
        """What the second pass needs for each tile that has anything to trace."""
        by_index = {part.index: part for part in parts}
        out = []
        for part in parts:
            numbers = self.numbers[part.index]
            if not numbers.any():
                continue
            rims, (row, col) = {}, part.index
            for side, (_, (down, right), facing) in _SIDES.items():
                other = by_index.get((row + down, col + right))
                if other is not None:
                    rims[side] = self.numbers[other.index][other.rims[facing]]
            out.append(
                OutlineItem(index=part.index, numbers=numbers, rims=rims, corners=self._corners(by_index, part.index))
            )
        return out

    def _corners(
        self, by_index: dict[tuple[int, int], TileComponents], index: tuple[int, int]
    ) -> tuple[int, int, int, int]:
        def number(down: int, right: int) -> int:
            other = by_index.get((index[0] + down, index[1] + right))
            if other is None:
                return 0
            rim = other.rims["bottom" if down < 0 else "top"]
            return int(self.numbers[other.index][rim[-1 if right < 0 else 0]])

        return number(-1, -1), number(-1, 1), number(1, -1), number(1, 1)


def merge(parts: Sequence[TileComponents], *, min_pixels: float) -> Merged:
    """Unites components over seams, adds up their sums, and only then drops those below `min_pixels`."""
    offsets = np.concatenate([[0], np.cumsum([len(part.kind) for part in parts])]).astype(np.int64)
    start = {part.index: int(offset) for part, offset in zip(parts, offsets[:-1], strict=True)}
    by_index = {part.index: part for part in parts}
    parent = np.arange(offsets[-1], dtype=np.int64)
    for part in parts:
        for side in ("bottom", "right"):
            _, (down, right), facing = _SIDES[side]
            other = by_index.get((part.index[0] + down, part.index[1] + right))
            if other is None:
                continue
            pairs = border_pairs(part.rims[side], other.rims[facing], part.rim_classes[side], other.rim_classes[facing])
            unite(parent, pairs[:, 0] - 1 + start[part.index], pairs[:, 1] - 1 + start[other.index])
    root, member = np.unique(roots(parent), return_inverse=True)
    count = len(root)

    def total(name: str) -> NDArray[np.int64]:
        values = np.concatenate([getattr(part, name) for part in parts])
        out = np.zeros(count, np.int64)
        np.add.at(out, member, values)
        return out

    pixels, sums = total("pixels"), total("sums")
    touches = total("touches") > 0
    kind = np.concatenate([part.kind for part in parts])[root]
    firsts = np.concatenate([part.first for part in parts])
    order = np.lexsort((firsts[:, 1], firsts[:, 0], member))
    _, at = np.unique(member[order], return_index=True)
    first = firsts[order][at]

    keep = pixels >= min_pixels
    rank = np.lexsort((first[:, 1], first[:, 0]))
    rank = rank[keep[rank]]
    number = np.zeros(count, np.int64)
    number[rank] = np.arange(1, len(rank) + 1)
    final = number[member]
    return Merged(
        first=first[rank], kind=kind[rank], pixels=pixels[rank], sums=sums[rank], touches=touches[rank],
        numbers={
            part.index: np.concatenate([[0], final[start[part.index] : start[part.index] + len(part.kind)]])
            for part in parts
        },
    )  # fmt: skip


def _wanted(classes: Sequence[int]) -> NDArray[np.bool_]:
    table = np.zeros(256, np.bool_)
    table[list(classes)] = True
    return table
