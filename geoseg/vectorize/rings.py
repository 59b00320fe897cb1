"""Chains of many tiles to the rings of whole objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoseg.kernels.outline import Chains
from geoseg.kernels.rings import arranged, survey


def assemble(
    chains: Sequence[Chains], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Joins open chains over seams and orders all rings.

    Args:
        chains: of all tiles, in one frame, labelled with the objects' numbers.
        numbers: (object,) of the objects that they belong to, ascending.

    Returns:
        vertices (n, 2), ring offsets (ring + 1,), object offsets into the rings (object + 1,): closed rings, each from its
        smallest vertex (row, then column), the shell of an object first. Independent of the tiles and of their order.
    """
    whole: list[NDArray[np.int32]] = []
    lengths: list[NDArray[np.int64]] = []
    labels: list[NDArray[np.int64]] = []
    opened: dict[tuple[int, int, int], tuple[NDArray[np.int32], tuple[int, int, int], int]] = {}
    for part in chains:
        closed, sizes = part.closed, np.diff(part.offsets)
        whole.append(part.vertices[np.repeat(closed, sizes)])
        lengths.append(sizes[closed])
        labels.append(part.labels[closed])
        for i in np.flatnonzero(~closed):
            vertices = part.vertices[part.offsets[i] : part.offsets[i + 1]]
            opened[_key(part.starts[i])] = (vertices, _key(part.nexts[i]), int(part.labels[i]))
    while opened:
        key = next(iter(opened))
        run, follow, label = opened.pop(key)
        joined = [run]
        while follow != key:
            piece, follow, _ = opened.pop(follow)
            joined.append(piece)
        ring = _corners(np.concatenate(joined))
        whole.append(ring)
        lengths.append(np.array([len(ring)]))
        labels.append(np.array([label]))
    if not whole:
        return np.empty((0, 2), np.int32), np.zeros(1, np.int64), np.zeros(len(numbers) + 1, np.int64)
    flat, of = np.concatenate(whole), np.concatenate(labels)
    del whole
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    lowest, shell = survey(flat, starts)
    rank = np.lexsort((flat[lowest, 1], flat[lowest, 0], ~shell, of))
    vertices, rings = arranged(flat, starts, lowest, rank)
    objects = np.append(np.searchsorted(of[rank], numbers, side="left"), len(rank))
    return vertices, rings, objects.astype(np.int64)


def _key(edge: NDArray[np.int32]) -> tuple[int, int, int]:
    return int(edge[0]), int(edge[1]), int(edge[2])


def _corners(ring: NDArray[np.int32]) -> NDArray[np.int32]:
    """A ring (first vertex not repeated at the end) without doubled and collinear vertices."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    # Edges run along rows or columns: two in a row are collinear exactly if both move along the same axis.
    return np.asarray(ring[(before[:, 0] == 0) != (after[:, 0] == 0)])
