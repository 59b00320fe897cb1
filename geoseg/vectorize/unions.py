"""Objects and gaps that reach a tile's rim, put together over all tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import TileGrid
from geoseg.kernels.label import roots, unite
from geoseg.pieces import Arrays, Pieces
from geoseg.results import FieldRules
from geoseg.vectorize.seams import RIM, SIDES, Index, Seams, spread

SUMS = ("pixels", "own", "sums")
ENTRY = ("number", "kind", *SUMS, "touches", "lowest", "highest")


def united(grid: TileGrid, pieces: Pieces, rules: FieldRules) -> Seams:
    """What the second pass left at the tiles' rims: gaps are filled where one object is all around, sums added up, and only
    then objects below the minimum dropped."""
    starts: dict[Index, int] = {}
    parts: dict[str, list[NDArray[Any]]] = {name: [np.empty(0, np.int64)] for name in (*ENTRY, "row", "tile")}
    pairs: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    blocked: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    count = 0
    before: dict[Index, Arrays] = {}
    for row in grid.tile_range[0]:
        here: dict[Index, Arrays] = {}
        for number, index in enumerate((row, col) for col in grid.tile_range[1]):
            piece = pieces.load(RIM, index)
            if piece is not None:
                here[index], starts[index] = piece, count
                for name in ENTRY:
                    parts[name].append(piece[name].copy())  # not a view that keeps the whole piece
                size = len(piece["number"])
                parts["row"].append(np.full(size, row))
                parts["tile"].append(np.full(size, (row - grid.tile_range[0].start) * len(grid.tile_range[1]) + number))
                count += size
            for side, neighbours in (("top", before), ("left", here)):
                _, (down, right), facing = SIDES[side]
                at = (row + down, index[1] + right)
                if at[0] < grid.tile_range[0].start or at[1] < grid.tile_range[1].start:
                    continue
                for gaps, closed in _contacts(
                    piece, side, starts.get(index, 0), neighbours.get(at), facing, starts.get(at, 0)
                ):
                    (blocked if closed else pairs).append(gaps)
        before = here
    flat = {name: np.concatenate(values) for name, values in parts.items()}
    fill = _filled(flat, np.concatenate(pairs), np.concatenate(blocked), rules.hole_pixels)
    return _settled(grid, pieces, starts, flat, fill, rules.min_pixels)


def _contacts(
    piece: Arrays | None, side: str, start: int, other: Arrays | None, facing: str, other_start: int
) -> Iterator[tuple[NDArray[np.int64], bool]]:
    """Gaps that meet across a seam, as (pair, 2) entries; and those that meet a gap which cannot be filled, as entries."""
    a, gap_a = _along(piece, side, start)
    b, gap_b = _along(other, facing, other_start)
    if a is None and b is None:
        return
    if a is None or b is None:
        found, gap = (b, gap_b) if a is None else (a, gap_a)
        assert found is not None
        yield np.unique(found[gap]), True
        return
    both = gap_a & gap_b
    yield np.unique(np.stack([a[both], b[both]], axis=1), axis=0), False
    yield np.unique(a[gap_a & (b < 0)]), True
    yield np.unique(b[gap_b & (a < 0)]), True


def _along(piece: Arrays | None, side: str, start: int) -> tuple[NDArray[np.int64] | None, NDArray[np.bool_]]:
    """Entries along a side, -1 for none, and which of them are gaps."""
    if piece is None:
        return None, np.empty(0, np.bool_)
    places = spread(piece[side]).astype(np.int64) - 1
    gap = np.concatenate([piece["number"] == 0, [False]])[places]
    return np.where(places >= 0, places + start, -1), gap


def _filled(
    flat: Arrays, pairs: NDArray[np.int64], blocked: NDArray[np.int64], hole_pixels: float
) -> NDArray[np.int64]:
    """(entry,) number of the object that fills a gap; 0 for gaps that stay, and for objects."""
    size = len(flat["number"])
    parent = np.arange(size, dtype=np.int64)
    unite(parent, pairs[:, 0], pairs[:, 1])
    root = roots(parent)
    pixels, highest, stays = np.zeros(size, np.int64), np.zeros(size, np.int64), flat["number"] > 0
    lowest = np.full(size, np.iinfo(np.int64).max)
    np.add.at(pixels, root, flat["pixels"])
    np.minimum.at(lowest, root, flat["lowest"])
    np.maximum.at(highest, root, flat["highest"])
    stays[root[blocked]] = True
    fill = np.where(~stays & (lowest == highest) & (pixels < hole_pixels), highest, 0)
    return np.asarray(fill[root])


def _settled(
    grid: TileGrid, pieces: Pieces, starts: dict[Index, int], flat: Arrays, fill: NDArray[np.int64], min_pixels: float
) -> Seams:
    of = np.where(flat["number"] > 0, flat["number"], fill)
    number, first, member = np.unique(of, return_index=True, return_inverse=True)
    is_object = flat["number"] > 0
    objects: Arrays = {"number": number, "kind": flat["kind"][first].astype(np.uint8)}
    objects["kind"][member[is_object]] = flat["kind"][is_object]
    for name in SUMS:
        objects[name] = np.zeros(len(number), np.int64)
        np.add.at(objects[name], member, flat[name])
    objects["touches"] = np.zeros(len(number), np.bool_)
    objects["touches"][member[flat["touches"].astype(np.bool_)]] = True
    objects["row"] = np.full(len(number), np.iinfo(np.int64).min)
    np.maximum.at(objects["row"], member, flat["row"])
    places = np.unique(np.stack([member, flat["tile"]], axis=1), axis=0)
    several = np.bincount(places[:, 0], minlength=len(number)) > 1
    kept = (number > 0) & (objects["pixels"] >= min_pixels)
    several &= kept
    objects["first"] = np.stack([(number - 1) // grid.shape[1], (number - 1) % grid.shape[1]], axis=1)
    return Seams(
        grid=grid, pieces=pieces, starts=starts, numbers=np.where(kept, number, 0)[member], crossing=several[member],
        objects={name: values[several] for name, values in objects.items()},
    )  # fmt: skip
