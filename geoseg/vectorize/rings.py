"""Chains of many tiles to the rings of whole objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoseg.kernels.outline import Chains


def assemble(chains: Sequence[Chains], *, count: int) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Joins open chains over seams and orders all rings.

    Args:
        chains: of all tiles, in one frame, labelled 1..count.
        count: number of objects.

    Returns:
        vertices (n, 2), ring offsets (ring + 1,), object offsets into the rings (count + 1,): closed rings, each from its
        smallest vertex (row, then column), the shell of an object first. Independent of the tiles and of their order.
    """
    pieces: list[NDArray[np.int32]] = []
    labels: list[int] = []
    opened: dict[tuple[int, int, int], tuple[NDArray[np.int32], tuple[int, int, int], int]] = {}
    for part in chains:
        closed = part.closed
        for i in range(len(part)):
            vertices = part.vertices[part.offsets[i] : part.offsets[i + 1]]
            if closed[i]:
                pieces.append(vertices)
                labels.append(int(part.labels[i]))
            else:
                key, follow = _key(part.starts[i]), _key(part.nexts[i])
                opened[key] = (vertices, follow, int(part.labels[i]))
    while opened:
        key = next(iter(opened))
        run, follow, label = opened.pop(key)
        joined = [run]
        while follow != key:
            piece, follow, _ = opened.pop(follow)
            joined.append(piece)
        pieces.append(_corners(np.concatenate(joined)))
        labels.append(label)
    return _ordered(pieces, np.array(labels, np.int64), count)


def _key(edge: NDArray[np.int32]) -> tuple[int, int, int]:
    return int(edge[0]), int(edge[1]), int(edge[2])


def _corners(ring: NDArray[np.int32]) -> NDArray[np.int32]:
    """A ring (first vertex not repeated at the end) without doubled and collinear vertices."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    # Edges run along rows or columns: two in a row are collinear exactly if both move along the same axis.
    return np.asarray(ring[(before[:, 0] == 0) != (after[:, 0] == 0)])


def _ordered(
    pieces: list[NDArray[np.int32]], labels: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    if not pieces:
        return np.empty((0, 2), np.int32), np.zeros(1, np.int64), np.zeros(count + 1, np.int64)
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.concatenate(pieces).astype(np.int64)
    of = np.repeat(np.arange(len(pieces)), lengths)
    order = np.lexsort((flat[:, 1], flat[:, 0], of))
    lowest = order[starts[:-1]]  # flat index of every ring's smallest vertex
    following = np.arange(len(flat)) + 1
    following[starts[1:] - 1] = starts[:-1]
    cross = flat[:, 1] * flat[following, 0] - flat[following, 1] * flat[:, 0]
    shell = np.add.reduceat(cross, starts[:-1]) > 0  # clockwise on screen: rows grow downward
    rank = np.lexsort((flat[lowest, 1], flat[lowest, 0], ~shell, labels))

    out_lengths = lengths[rank] + 1
    rings = np.concatenate([[0], np.cumsum(out_lengths)]).astype(np.int64)
    ring_of = np.repeat(np.arange(len(rank)), out_lengths)
    step = np.arange(rings[-1]) - rings[ring_of]
    source = rank[ring_of]
    at = starts[source] + (lowest[source] - starts[source] + step) % lengths[source]
    objects = np.searchsorted(labels[rank], np.arange(1, count + 2), side="left")
    return flat[at].astype(np.int32), rings, objects.astype(np.int64)
