"""Views: objects as single patches saw them, in scene pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Patch, Window
from geoseg.pieces import Arrays
from geoseg.results import PROBABILITY_MAX, Objects
from geoseg.spec import InstanceRule

OWN, WHOLE, CUT = range(3)
"""How well a patch sees an object: all of it, and its first pixel lies in the patch's cell; all of it; not all of it."""


NEAR, BLUR = 2, 16
"""Masks of detectors end so many pixels from where an object does, and as many more as one in BLUR of its size."""


PART = 0.25
"""Intersection over union up to which a mask within another is a smaller object, or what spills over from beside it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Views:
    kind: NDArray[np.uint8]
    """(view,) class ids."""
    score: NDArray[np.uint8]
    """(view,) stored."""
    sight: NDArray[np.uint8]
    """(view,) OWN, WHOLE or CUT."""
    first: NDArray[np.int64]
    """(view, 2) row and column of the first pixel."""
    box: NDArray[np.int64]
    """(view, 4) first row, first column, height and width."""
    patch: NDArray[np.int64]
    """(view, 4) the window of the patch that saw it, like `box`."""
    cell: NDArray[np.int64]
    """(view, 2) first row and column of that patch's cell: in small scenes several patches have one window."""
    starts: NDArray[np.int64]
    """(view + 1,) where the pixels of each begin in `bits`, in bytes."""
    bits: NDArray[np.uint8]
    """The pixels of the boxes, eight a byte, each box from a byte of its own."""

    def __len__(self) -> int:
        return len(self.kind)

    def mask(self, view: int) -> NDArray[np.bool_]:
        """(row, col) of a view's box."""
        height, width = (int(size) for size in self.box[view, 2:])
        bits = self.bits[self.starts[view] : self.starts[view + 1]]
        return np.unpackbits(bits, count=height * width).view(np.bool_).reshape(height, width)

    def window(self, view: int) -> Window:
        row, col, height, width = (int(value) for value in self.box[view])
        return Window(row, col, height, width)

    def arrays(self) -> Arrays:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def joined(cls, parts: Sequence[Views]) -> Views:
        """All views, one part after the other."""
        sizes = np.concatenate([[0], *(np.diff(part.starts) for part in parts)])
        flat = {
            each.name: np.concatenate([getattr(part, each.name) for part in parts])
            for each in fields(cls)
            if each.name != "starts"
        }
        return cls(starts=np.cumsum(sizes, dtype=np.int64), **flat)

    @classmethod
    def none(cls) -> Views:
        flat, places = np.empty(0, np.uint8), np.empty((0, 4), np.int64)
        return cls(
            kind=flat, score=flat, sight=flat, first=places[:, :2], box=places, patch=places, cell=places[:, :2],
            starts=np.zeros(1, np.int64),
            bits=flat,
        )  # fmt: skip


def seen(objects: Objects, patch: Patch, valid: NDArray[np.bool_], scene: Window, rule: InstanceRule) -> Views:
    """What a patch's objects are worth to the scene: those of enough score that reach into its cell, the best of each, whatever
    its class.

    Args:
        objects: in the patch's frame.
        patch: that was predicted.
        valid: (row, col) of the frame.
        scene: all of it, at whose sides nothing is cut.
        rule: limits of score and overlap.
    """
    found: list[tuple[int, int, int, Window, NDArray[np.bool_]]] = []
    limit = np.floor(PROBABILITY_MAX * rule.score + 0.5)
    for kind, score, box, mask in zip(
        objects.kind.tolist(), objects.score.tolist(), objects.box.tolist(), objects.masks(), strict=True
    ):
        if score < limit:
            continue
        place = Window(box[0] + patch.frame.row, box[1] + patch.frame.col, box[2], box[3])
        inside = place & patch.window
        if not inside:
            continue
        pixels = mask[inside.within(place).slices] & valid[inside.within(patch.frame).slices]
        own = inside & patch.cell
        if own and pixels[own.within(inside).slices].any():
            found.append((-score, kind, len(found), *_tight(inside, pixels)))
    found.sort(key=lambda one: (one[0], one[3].row, one[3].col, one[2]))
    kept: list[tuple[int, int, int, Window, NDArray[np.bool_]]] = []
    for one in found:
        if all(agreement(one[3], one[4], other[3], other[4], patch.window) <= rule.overlap for other in kept):
            kept.append(one)
    if not kept:
        return Views.none()
    first = np.array([_first(window, pixels) for *_, window, pixels in kept])
    packed = [np.packbits(pixels) for *_, pixels in kept]
    sight = [
        CUT if _cut(window, patch.window, scene) else OWN if _holds(patch.cell, row, col) else WHOLE
        for (*_, window, _), (row, col) in zip(kept, first.tolist(), strict=True)
    ]
    window = patch.window
    return Views(
        kind=np.array([one[1] for one in kept], np.uint8), score=np.array([-one[0] for one in kept], np.uint8),
        sight=np.array(sight, np.uint8), first=first.astype(np.int64),
        box=np.array([(place.row, place.col, place.height, place.width) for *_, place, _ in kept], np.int64),
        patch=np.tile(np.array([window.row, window.col, window.height, window.width], np.int64), (len(kept), 1)),
        cell=np.tile(np.array([patch.cell.row, patch.cell.col], np.int64), (len(kept), 1)),
        starts=np.cumsum([0, *map(len, packed)], dtype=np.int64), bits=np.concatenate(packed),
    )  # fmt: skip


def agreement(
    one: Window, mask: NDArray[np.bool_], other: Window, its: NDArray[np.bool_], common: Window, *, cut: bool = False
) -> float:
    """Intersection over union of two masks within a window; where one is `cut`, over the smaller of them, unless that is a part
    of the other by far. 0 where they share no pixel there."""
    here, there = one & common, other & common
    both = here & there
    if not both:
        return 0.0
    shared = int(np.count_nonzero(mask[both.within(one).slices] & its[both.within(other).slices]))
    if not shared:
        return 0.0
    sizes = [
        int(np.count_nonzero(values[part.within(box).slices]))
        for values, part, box in ((mask, here, one), (its, there, other))
    ]
    union = sum(sizes) - shared
    if cut and shared <= PART * union:
        return 0.0
    return shared / (min(sizes) if cut else union)


def _tight(window: Window, pixels: NDArray[np.bool_]) -> tuple[Window, NDArray[np.bool_]]:
    rows, cols = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    row, col, height, width = rows[0], cols[0], rows[-1] + 1 - rows[0], cols[-1] + 1 - cols[0]
    inner = Window(int(row), int(col), int(height), int(width))
    return Window(window.row + inner.row, window.col + inner.col, inner.height, inner.width), pixels[inner.slices]


def _first(window: Window, pixels: NDArray[np.bool_]) -> tuple[int, int]:
    return window.row, window.col + int(pixels[0].argmax())


def _holds(cell: Window, row: int, col: int) -> bool:
    return cell.row <= row < cell.row_stop and cell.col <= col < cell.col_stop


def _cut(box: Window, window: Window, scene: Window) -> bool:
    """Whether an object reaches a side of its patch beyond which the scene goes on, or ends as near to it as masks are sharp."""
    down, right = (NEAR + size // BLUR for size in box.shape)
    return (
        (box.row - down < window.row > scene.row)
        or (box.col - right < window.col > scene.col)
        or (box.row_stop + down > window.row_stop < scene.row_stop)
        or (box.col_stop + right > window.col_stop < scene.col_stop)
    )
