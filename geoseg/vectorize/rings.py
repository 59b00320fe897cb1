"""Chains of many tiles to the rings of whole objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoseg.kernels.outline import Chains
from geoseg.kernels.rings import arranged, survey


def assemble(
    chains: Sequence[Chains], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Joins open chains over seams and orders all rings.

    Args:
        chains: of all tiles, in one frame, labelled with the objects' numbers.
        numbers: (object,) of the objects that they belong to, ascending.

    Returns:
        vertices (n, 2), which of them are junctions (n,), ring offsets (ring + 1,), object offsets into the rings
        (object + 1,), as `ordered` gives them. Independent of the tiles and of their order.
    """
    vertices: list[NDArray[np.int32]] = [np.empty((0, 2), np.int32)]
    junction: list[NDArray[np.bool_]] = [np.empty(0, np.bool_)]
    lengths: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    labels: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    opened: dict[tuple[int, int, int], tuple[Chains, int]] = {}
    for part in chains:
        closed, sizes = part.closed, np.diff(part.offsets)
        of_closed = np.repeat(closed, sizes)
        vertices.append(part.vertices[of_closed])
        junction.append(part.junction[of_closed])
        lengths.append(sizes[closed])
        labels.append(part.labels[closed])
        opened |= {_key(part.starts[i]): (part, int(i)) for i in np.flatnonzero(~closed)}
    while opened:
        first, (part, i) = opened.popitem()
        size = 0
        while True:
            run = slice(part.offsets[i], part.offsets[i + 1])
            vertices.append(part.vertices[run])
            junction.append(part.junction[run])
            size += len(vertices[-1])
            follow = _key(part.nexts[i])
            if follow == first:
                break
            part, i = opened.pop(follow)
        lengths.append(np.array([size]))
        labels.append(part.labels[[i]])
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return ordered(np.concatenate(vertices), np.concatenate(junction), starts, np.concatenate(labels), numbers)


def ordered(
    vertices: NDArray[np.int32], junction: NDArray[np.bool_], starts: NDArray[np.int64], of: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Rings in canonical order.

    Args:
        vertices: (n, 2), ring after ring, the first one of a ring not repeated at its end.
        junction: (n,) which of them are junctions.
        starts: (ring + 1,) where each ring begins.
        of: (ring,) number of the object that it belongs to.
        numbers: (object,) of the objects, ascending.

    Returns:
        vertices (n + ring, 2), junctions (n + ring,), ring offsets (ring + 1,), object offsets into the rings
        (object + 1,): closed rings, each from its smallest vertex (row, then column), the shell of an object first.
    """
    lowest, shell = survey(vertices, starts)
    rank = np.lexsort((vertices[lowest, 1], vertices[lowest, 0], ~shell, of))
    vertices, junction, rings = arranged(vertices, junction, starts, lowest, rank)
    objects = np.append(np.searchsorted(of[rank], numbers, side="left"), len(rank))
    return vertices, junction, rings, objects.astype(np.int64)


def _key(edge: NDArray[np.int32]) -> tuple[int, int, int]:
    return int(edge[0]), int(edge[1]), int(edge[2])
