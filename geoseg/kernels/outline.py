"""Outlines of a label raster as directed chains of integer vertices: along the pixels' sides, or smooth.

Each outline runs with its label on the right-hand side: clockwise on screen for shells, the other way for holes. Where two
pixels of one label touch at a corner only, the outline crosses from one to the other: shells never touch themselves,
and a hole that reaches its shell in one point stays a ring of its own, as the OGC's rules ask.

A junction is a pixel corner where three or four of the sides that meet in it are boundaries, between two labels or a label and
none. Every outline that passes one has a vertex there, also where it runs straight on: outlines of neighbours are then made of
the same vertices, and between two junctions they share all of them or none.

A smooth outline has a vertex for each pixel side in place of the corners, on the line between the centres of the two pixels,
and at junctions the corner itself. Four pixel centres around a corner span a square; in it there is one segment between two
of its sides, or at a junction a star from the corner to its sides. So smooth outlines cross no more than those along
the pixels' sides, wherever the vertices lie between the centres.

A tile traces the edges of its own pixels, one pixel of neighbours given around it. An outline that leaves the tile ends
in an open chain, whose continuation is named exactly: the (vertex, heading) of the next directed edge, which is the first edge of
just one chain of a neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from geoseg.results import SMOOTH_SCALE, members

# Headings, clockwise: east, south, west, north.
_STEP_ROW = np.array([0, 1, 0, -1], np.int64)
_STEP_COL = np.array([1, 0, -1, 0], np.int64)
# From the vertex that an edge starts at to the pixel on its right, by heading.
_RIGHT_ROW = np.array([0, 0, -1, -1], np.int64)
_RIGHT_COL = np.array([0, -1, -1, 0], np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Outlines of one tile. Vertices are (row, col) in the caller's frame, in pixels x `scale`."""

    vertices: NDArray[np.int32]
    """(vertex, 2), chain after chain: where an edge turns or ends in a junction. The vertex that an open chain begins at is the
    last one of the chain before; an open chain may have none."""
    junction: NDArray[np.bool_]
    """(vertex,) True at junctions."""
    offsets: NDArray[np.int64]
    """(chain + 1,) where each chain begins in `vertices`."""
    labels: NDArray[np.int64]
    """(chain,) the label on the right."""
    starts: NDArray[np.int32]
    """(chain, 3) row, col, heading of the first edge."""
    nexts: NDArray[np.int32]
    """(chain, 3) row, col, heading of the edge after the last; equal to `starts` for closed chains. In pixels, as `starts`."""
    scale: int = 1
    """Units of `vertices` in a pixel."""

    def __len__(self) -> int:
        return len(self.labels)

    def shifted(self, row: int, col: int) -> Chains:
        """The same chains in a frame whose first pixel is (-row, -col)."""
        move = np.array([row, col, 0], np.int32)
        return Chains(
            vertices=self.vertices + move[:2] * np.int32(self.scale),
            junction=self.junction,
            offsets=self.offsets,
            labels=self.labels,
            starts=self.starts + move,
            nexts=self.nexts + move,
            scale=self.scale,
        )

    def taken(self, chosen: NDArray[np.int64]) -> Chains:
        """Some of the chains, in this order."""
        vertices, offsets = members(self.offsets, chosen)
        return Chains(
            vertices=self.vertices[vertices],
            junction=self.junction[vertices],
            offsets=offsets,
            labels=self.labels[chosen],
            starts=self.starts[chosen],
            nexts=self.nexts[chosen],
            scale=self.scale,
        )

    @property
    def closed(self) -> NDArray[np.bool_]:
        """(chain,) True for whole rings."""
        return np.asarray((self.starts == self.nexts).all(axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contour:
    """What smooth outlines need to know of a tile and one pixel around it."""

    classes: NDArray[np.uint8]
    """(row + 2, col + 2) class ids, 255 for no data."""
    stored: NDArray[np.uint8]
    """(class, row + 2, col + 2) stored probabilities of the classes that compete; none where there are none."""


@numba.njit(nogil=True, cache=True)
def _turn(framed: NDArray[np.int64], row: int, col: int, heading: int, label: int) -> int:
    """Heading of the next edge of `label` at vertex (row, col), reached with `heading`."""
    left = (heading + 3) % 4
    ahead_left_row, ahead_left_col = row + _RIGHT_ROW[left], col + _RIGHT_COL[left]
    if framed[ahead_left_row + 1, ahead_left_col + 1] == label:
        return left
    if framed[row + _RIGHT_ROW[heading] + 1, col + _RIGHT_COL[heading] + 1] == label:
        return heading
    return (heading + 1) % 4


@numba.njit(nogil=True, cache=True)
def _begins_outside(framed: NDArray[np.int64], row: int, col: int, heading: int, label: int) -> bool:
    """True where the edge before this one belongs to a pixel outside the tile."""
    rows, cols = framed.shape[0] - 2, framed.shape[1] - 2
    # The two pixels behind the edge: on its left, then on its right.
    for side in range(2):
        h = (heading + 2) % 4 if side == 0 else (heading + 1) % 4
        r, c = row + _RIGHT_ROW[h], col + _RIGHT_COL[h]
        if framed[r + 1, c + 1] == label:
            return bool(r < 0 or c < 0 or r >= rows or c >= cols)
    return False


@numba.njit(nogil=True, cache=True)
def _is_junction(framed: NDArray[np.int64], row: int, col: int) -> bool:
    """True where the four pixels around vertex (row, col) have three or four boundaries between them."""
    a, b = framed[row, col], framed[row, col + 1]
    c, d = framed[row + 1, col], framed[row + 1, col + 1]
    return int(a != b) + int(b != d) + int(d != c) + int(c != a) > 2


@numba.njit(nogil=True, cache=True)
def _margin(stored: NDArray[np.uint8], kind: int, row: int, col: int) -> int:
    """By how much the class is ahead of the best of the others; negative where it is behind."""
    other = -1
    for channel in range(stored.shape[0]):
        if channel != kind and stored[channel, row, col] > other:
            other = stored[channel, row, col]
    return int(np.int64(stored[kind, row, col]) - other)


@numba.njit(nogil=True, cache=True)
def _reach(
    framed: NDArray[np.int64],
    classes: NDArray[np.uint8],
    stored: NDArray[np.uint8],
    row: int,
    col: int,
    over: int,
    across: int,
) -> int:
    """How far from the centre of pixel (row, col) towards that of its neighbour the contour lies, in 1 / SMOOTH_SCALE.

    Half way where both have a label, where the neighbour has no data, and where the margin does not change sign between
    them. Rows and columns are those of the arrays.
    """
    kind = classes[row, col]
    if framed[over, across] != 0 or classes[over, across] == 255 or kind >= stored.shape[0] or stored.shape[0] < 2:
        return SMOOTH_SCALE // 2
    inner, outer = _margin(stored, kind, row, col), _margin(stored, kind, over, across)
    if inner <= 0 or outer > 0:
        return SMOOTH_SCALE // 2
    apart = inner - outer
    nearest = SMOOTH_SCALE // 8
    return min(max((2 * SMOOTH_SCALE * inner + apart) // (2 * apart), nearest), SMOOTH_SCALE - nearest)


@numba.njit(nogil=True, cache=True)
def _trace(
    framed: NDArray[np.int64],
    smooth: bool,
    classes: NDArray[np.uint8],
    stored: NDArray[np.uint8],
    vertices: NDArray[np.int32],
    junction: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    labels: NDArray[np.int64],
    starts: NDArray[np.int32],
    nexts: NDArray[np.int32],
) -> tuple[int, int]:
    rows, cols = framed.shape[0] - 2, framed.shape[1] - 2
    scale = SMOOTH_SCALE if smooth else 1
    done = np.zeros((rows, cols), np.uint8)
    chains = 0
    used = 0
    # Open chains first: what is left then are whole rings.
    for whole in range(2):
        for r in range(rows):
            for c in range(cols):
                label = framed[r + 1, c + 1]
                if label == 0:
                    continue
                if whole == 0 and 0 < r < rows - 1 and 0 < c < cols - 1:
                    continue
                for heading in range(4):
                    if done[r, c] & (1 << heading):
                        continue
                    # The pixel on the left of the edge: north of the pixel for heading east, and so on.
                    left = (heading + 3) % 4
                    if framed[r + 1 + _STEP_ROW[left], c + 1 + _STEP_COL[left]] == label:
                        continue
                    row, col = r - _RIGHT_ROW[heading], c - _RIGHT_COL[heading]
                    if whole == 0 and not _begins_outside(framed, row, col, heading, label):
                        continue
                    start_row, start_col, start_heading = row, col, heading
                    if chains >= labels.shape[0]:
                        return -1, -1
                    labels[chains] = label
                    starts[chains, 0], starts[chains, 1], starts[chains, 2] = row, col, heading
                    offsets[chains] = used
                    h = heading
                    while True:
                        pr, pc = row + _RIGHT_ROW[h], col + _RIGHT_COL[h]
                        if pr < 0 or pc < 0 or pr >= rows or pc >= cols:
                            break
                        done[pr, pc] |= 1 << h
                        if used + 2 > vertices.shape[0]:
                            return -1, -1
                        if smooth:
                            down, right = _STEP_ROW[(h + 3) % 4], _STEP_COL[(h + 3) % 4]
                            reach = _reach(framed, classes, stored, pr + 1, pc + 1, pr + 1 + down, pc + 1 + right)
                            vertices[used, 0] = pr * scale + scale // 2 + down * reach
                            vertices[used, 1] = pc * scale + scale // 2 + right * reach
                            junction[used] = False
                            used += 1
                        row += _STEP_ROW[h]
                        col += _STEP_COL[h]
                        turned = _turn(framed, row, col, h, label)
                        joint = _is_junction(framed, row, col)
                        if joint or (turned != h and not smooth):
                            vertices[used, 0], vertices[used, 1] = row * scale, col * scale
                            junction[used] = joint
                            used += 1
                        h = turned
                        if row == start_row and col == start_col and h == start_heading:
                            break
                    nexts[chains, 0], nexts[chains, 1], nexts[chains, 2] = row, col, h
                    chains += 1
    if chains < offsets.shape[0]:
        offsets[chains] = used
    return chains, used


@numba.njit(nogil=True, cache=True)
def _count_corners(framed: NDArray[np.int64]) -> int:
    """Vertices at which more than a straight line passes: each label has one there, a label that meets itself two."""
    rows, cols = framed.shape[0] - 1, framed.shape[1] - 1
    total = 0
    for r in range(rows):
        for c in range(cols):
            a, b = framed[r, c], framed[r, c + 1]
            d, e = framed[r + 1, c], framed[r + 1, c + 1]
            if not ((a == b and d == e) or (a == d and b == e)):
                total += 1
    return total


@numba.njit(nogil=True, cache=True)
def _count_sides(framed: NDArray[np.int64]) -> int:
    """Directed edges of the tile's pixels."""
    total = 0
    for r in range(1, framed.shape[0] - 1):
        for c in range(1, framed.shape[1] - 1):
            label = framed[r, c]
            if label != 0:
                total += int(framed[r - 1, c] != label) + int(framed[r + 1, c] != label)
                total += int(framed[r, c - 1] != label) + int(framed[r, c + 1] != label)
    return total


def trace(framed: NDArray[np.int64], *, contour: Contour | None = None) -> Chains:
    """Outlines of the labels of a tile.

    Args:
        framed: (row + 2, col + 2) labels, 0 for none, with one pixel of the neighbours' labels around the tile.
        contour: gives smooth outlines; None for those along the pixels' sides.

    Returns:
        Chains in the tile's frame: vertex (0, 0) is the upper left corner of its first pixel.
    """
    framed = np.ascontiguousarray(framed, np.int64)
    edge = 2 * (framed.shape[0] + framed.shape[1])
    # At a corner at most four labels turn; each chain owns a corner or crosses the rim.
    corners = _count_corners(framed)
    room = 4 * corners + 8 + (_count_sides(framed) if contour is not None else 0)
    chain_room = 2 * corners + 2 * edge + 4
    vertices, junction = np.empty((room, 2), np.int32), np.empty(room, np.bool_)
    offsets = np.empty(chain_room + 1, np.int64)
    labels = np.empty(chain_room, np.int64)
    starts = np.empty((chain_room, 3), np.int32)
    nexts = np.empty((chain_room, 3), np.int32)
    if contour is None:
        classes, stored = np.empty((0, 0), np.uint8), np.empty((0, 0, 0), np.uint8)
    else:
        classes, stored = np.ascontiguousarray(contour.classes), np.ascontiguousarray(contour.stored)
    chains, used = _trace(
        framed, contour is not None, classes, stored, vertices, junction, offsets, labels, starts, nexts
    )
    if chains < 0:
        raise AssertionError("outline arrays were sized too small; this is a defect in geoseg")
    return Chains(
        vertices=vertices[:used].copy(),
        junction=junction[:used].copy(),
        offsets=offsets[: chains + 1].copy(),
        labels=labels[:chains].copy(),
        starts=starts[:chains].copy(),
        nexts=nexts[:chains].copy(),
        scale=1 if contour is None else SMOOTH_SCALE,
    )


def corners(framed: NDArray[np.int64], chains: Chains) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """The vertices of a tile's outlines, each once.

    Args:
        framed: as `trace` takes it.
        chains: as `trace` gives them, in the tile's frame.

    Returns:
        (vertex, 2) rows and columns, ascending; (vertex,) by bits 1 << heading, which of the pixel sides that leave it are
        boundaries (0 for smooth outlines, where nothing asks for it).
    """
    # Each vertex as one number, and sorted: ten times as fast as np.unique.
    keys = np.sort(chains.vertices[:, 0].astype(np.int64) * 2**32 + chains.vertices[:, 1])
    keys = keys[np.diff(keys, prepend=np.iinfo(np.int64).min) != 0]
    vertices = np.stack([(keys + 2**31) >> 32, (keys + 2**31) % 2**32 - 2**31], axis=1).astype(np.int32)
    if chains.scale > 1:
        return vertices, np.zeros(len(vertices), np.uint8)
    row, col = vertices[:, 0], vertices[:, 1]
    a, b = framed[row, col], framed[row, col + 1]
    c, d = framed[row + 1, col], framed[row + 1, col + 1]
    sides = (b != d) * 1 + (c != d) * 2 + (a != c) * 4 + (a != b) * 8
    return vertices, sides.astype(np.uint8)
