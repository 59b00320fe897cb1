"""Values that travel along the road: blocks of pixels, batches of patches, scaling coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window

NODATA = 255
"""In masks and probabilities: no data here."""

PROBABILITY_MAX = 254
"""A probability p is stored as floor(254 p + .5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    pixels: NDArray[Any]
    """(band, row, col), stored values in the scene's dtype; arbitrary where not valid."""
    valid: NDArray[np.bool_]
    """(row, col), True where every band that was read holds data."""
    window: Window
    """Where it lies, in scene pixels."""
    unread: tuple[Window, ...] = ()
    """Parts that could not be read and are not valid for that reason, in scene pixels; see `--on-read-error mask`."""

    def __post_init__(self) -> None:
        if self.pixels.shape[1:] != self.valid.shape or self.valid.shape != self.window.shape:
            raise ValueError(
                f"pixels {self.pixels.shape}, valid {self.valid.shape} and window {self.window.shape} disagree"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputScaling:
    """What turns stored values into the network's input: x = clip(stored * gain + bias, -limit, limit)."""

    bands: tuple[int | None, ...]
    """For each input channel the index of the scene's band, None for an optional band that is missing (zeros)."""
    gain: tuple[float, ...]
    bias: tuple[float, ...]
    limit: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    pixels: NDArray[Any]
    """(patch, channel, row, col), stored values in the order of the model's input channels."""
    valid: NDArray[np.bool_]
    """(patch, row, col)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlines:
    """Objects as exact pixel outlines in integer scene pixels, ordered by their first pixel in row-major order."""

    first: NDArray[np.int64]
    """(object, 2) row and column of the first pixel."""
    kind: NDArray[np.uint8]
    """(object,) class ids."""
    pixels: NDArray[np.int64]
    """(object,) areas in pixels."""
    sums: NDArray[np.int64]
    """(object,) stored probabilities of the object's class, summed over its pixels."""
    touches: NDArray[np.bool_]
    """(object,) True where the object has a side without data beyond it: the scene's edge or nodata."""
    vertices: NDArray[np.int32]
    """(vertex, 2) row and column of pixel corners; rings are closed (first vertex again at the end)."""
    rings: NDArray[np.int64]
    """(ring + 1,) where each ring begins in `vertices`."""
    objects: NDArray[np.int64]
    """(object + 1,) where each object begins in `rings`: its shell first, then its holes by first vertex."""

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def joined(cls, parts: Sequence[Outlines]) -> Outlines:
        """The objects of all parts, one part after the other."""
        flat = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (*PER_OBJECT, "vertices")}
        return cls(
            **flat,
            rings=_chained([part.rings for part in parts]),
            objects=_chained([part.objects for part in parts]),
        )

    def taken(self, order: NDArray[np.int64]) -> Outlines:
        """The objects with these numbers, in this order."""
        rings, objects = members(self.objects, order)
        vertices, starts = members(self.rings, rings)
        flat = {name: getattr(self, name)[order] for name in PER_OBJECT}
        return Outlines(**flat, vertices=self.vertices[vertices], rings=starts, objects=objects)


PER_OBJECT = ("first", "kind", "pixels", "sums", "touches")
"""The entries of Outlines with one row an object."""


def members(offsets: NDArray[np.int64], order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which entries the lists number `order` hold, one list after the other, and where each then begins.

    List i holds the entries offsets[i] to offsets[i + 1]; the beginnings are such offsets again, with the end at last.
    """
    sizes = np.diff(offsets)[order]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return np.arange(starts[-1]) + np.repeat(offsets[:-1][order] - starts[:-1], sizes), starts


def _chained(offsets: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Offsets of lists that are joined."""
    return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(one) for one in offsets]))]).astype(np.int64)
