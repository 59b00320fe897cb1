"""Values that travel along the road: blocks of pixels, batches of patches, scaling coefficients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.spec import Channel

NODATA = 255
"""In masks and probabilities: no data here."""

PROBABILITY_MAX = 254
"""A probability p is stored as floor(254 p + .5)."""

BOUNDARY = "boundary"
"""Name of the class of pixels between fields."""

SMOOTH_SCALE = 64
"""Units in a pixel of the vertices of smooth outlines: they are whole numbers, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Determination:
    """Where fields come from, in the words of fiboa (https://fiboa.org)."""

    collection: str
    """Name of all fields that were found together; with a field's id it is unique."""
    method: Literal["auto-imagery", "unknown"]
    """`auto-imagery`: found by a model in images. `unknown`: drawn along a raster of somebody else's."""
    time: datetime | None
    """When the image was taken, in UTC, where known."""


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objects:
    """What a model that finds objects one by one says of a patch. They may overlap."""

    kind: NDArray[np.uint8]
    """(object,) class ids."""
    score: NDArray[np.uint8]
    """(object,) as floor(254 score + .5)."""
    box: NDArray[np.int32]
    """(object, 4) first row, first column, height and width in the patch."""
    pixels: NDArray[np.bool_]
    """The pixels of the boxes, flat, box after box: True where the object is."""

    @classmethod
    def of(cls, kind: NDArray[Any], scores: NDArray[Any], masks: NDArray[np.bool_]) -> Objects:
        """From classes (object,), scores (object,) of 0 to 1, and masks (object, row, col) of the whole patch; empty ones go."""
        boxes, pixels, some = [], [np.empty(0, np.bool_)], []
        for number, mask in enumerate(masks):
            rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            if not len(rows):
                continue
            some.append(number)
            boxes.append((rows[0], cols[0], rows[-1] + 1 - rows[0], cols[-1] + 1 - cols[0]))
            pixels.append(mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].reshape(-1))
        stored = np.floor(PROBABILITY_MAX * np.clip(np.asarray(scores, np.float64), 0, 1) + 0.5)
        return cls(
            kind=np.asarray(kind)[some].astype(np.uint8), score=stored[some].astype(np.uint8),
            box=np.array(boxes, np.int32).reshape(-1, 4), pixels=np.concatenate(pixels),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.kind)

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """(row, col) of each object's box."""
        start = 0
        for height, width in self.box[:, 2:].tolist():
            yield self.pixels[start : start + height * width].reshape(height, width)
            start += height * width


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Which of a source's outputs tell where fields end."""

    channel: int | None = None
    """Stored output that says so by itself: the probability of a boundary, or the distance to the nearest; None for none."""
    inverted: bool = False
    """True for a distance, which is small where fields end."""
    free_class: int | None = None
    """Class id of boundary pixels, which may be given to the fields beside them; None where there is no such class."""

    @classmethod
    def of(cls, outputs: Sequence[Channel]) -> Lines:
        """What a model's outputs say: a boundary goes before a distance."""
        for i, output in enumerate(outputs):
            if output.kind == "boundary" or (output.kind == "class" and output.name == BOUNDARY):
                return cls(channel=i, free_class=i if output.kind == "class" else None)
        distance = next((i for i, output in enumerate(outputs) if output.kind == "distance"), None)
        return cls(channel=distance, inverted=distance is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRules:
    """How classes become outlines of fields. Lengths are in pixels, areas in their number."""

    min_pixels: float = 0
    """Smaller objects are left out, after they are merged over tiles."""
    hole_pixels: float = 0
    """Enclosed gaps below it are filled."""
    reach: float = 0
    """Boundary pixels up to that far away are given to the nearest field."""
    fragment: float = 0
    """Parts below it are not divided from their neighbours."""
    smooth: bool = False
    """Outlines follow the contour of the probability, below a pixel, in place of the pixels' sides."""
    tolerance: float = 0
    """Largest distance between the simplified outlines and those before; 0 leaves them as they are."""
    classes: int = 255
    """Channels of stored probabilities that are classes and compete; those beyond are outputs of another kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlines:
    """Objects as outlines in integers, ordered by their first pixel in row-major order: a clean coverage.

    Where objects lie side by side, their outlines have the same vertices.
    """

    first: NDArray[np.int64]
    """(object, 2) row and column of the first pixel."""
    kind: NDArray[np.uint8]
    """(object,) class ids."""
    pixels: NDArray[np.int64]
    """(object,) areas in pixels."""
    own: NDArray[np.int64]
    """(object,) pixels of the object's own class; the others were given to it or filled."""
    sums: NDArray[np.int64]
    """(object,) stored probabilities of the object's class, summed over those."""
    touches: NDArray[np.bool_]
    """(object,) True where the object has a side without data beyond it: the scene's edge or nodata."""
    sides: NDArray[np.int64]
    """(object,) sides of pixels along the outline, holes too."""
    opened: NDArray[np.int64]
    """(object,) those of them towards the scene's edge or nodata."""
    support: NDArray[np.int64]
    """(object,) stored evidence of a boundary, summed over the others."""
    vertices: NDArray[np.int32]
    """(vertex, 2) row and column in scene pixels x `scale`; rings are closed (first vertex again at the end)."""
    junction: NDArray[np.bool_]
    """(vertex,) True where more than two of the four sides that meet in a pixel corner are boundaries."""
    rings: NDArray[np.int64]
    """(ring + 1,) where each ring begins in `vertices`."""
    objects: NDArray[np.int64]
    """(object + 1,) where each object begins in `rings`: its shell first, then its holes by first vertex."""
    scale: int = 1
    """Units of `vertices` in a pixel: 1 for outlines along the pixels' sides, SMOOTH_SCALE for smooth ones."""

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def joined(cls, parts: Sequence[Outlines]) -> Outlines:
        """The objects of all parts, one part after the other."""
        names = (*PER_OBJECT, *PER_VERTEX)
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
            rings=_chained([part.rings for part in parts]),
            objects=_chained([part.objects for part in parts]),
            scale=parts[0].scale,
        )

    def taken(self, order: NDArray[np.int64]) -> Outlines:
        """The objects with these numbers, in this order."""
        rings, objects = members(self.objects, order)
        vertices, starts = members(self.rings, rings)
        flat = {name: getattr(self, name)[order] for name in PER_OBJECT}
        flat |= {name: getattr(self, name)[vertices] for name in PER_VERTEX}
        return Outlines(**flat, rings=starts, objects=objects, scale=self.scale)


PER_OBJECT = ("first", "kind", "pixels", "own", "sums", "touches", "sides", "opened", "support")
"""The entries of Outlines with one row an object."""

PER_VERTEX = ("vertices", "junction")
"""The entries of Outlines with one row a vertex."""


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
