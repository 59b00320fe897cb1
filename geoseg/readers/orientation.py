"""The eight ways an image can lie on its grid, and the way back to north up, east right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geoseg.grid import Window

_TIE = 1e-9
"""Scores closer than this are the same angle, computed along two ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """How the stored (native) image becomes the canonical one: transposed first, then flipped."""

    transposed: bool = False
    flip_rows: bool = False
    """Canonical rows run against the native axis they come from."""
    flip_cols: bool = False
    """Canonical columns run against the native axis they come from."""

    def shape(self, native: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of the canonical image."""
        return (native[1], native[0]) if self.transposed else native

    def transform(self, native: Affine, shape: tuple[int, int]) -> Affine:
        """The canonical affine of an image stored with `native` and `shape`."""
        (ax, ay), (bx, by), (x, y) = (native.a, native.d), (native.b, native.e), (native.c, native.f)
        rows, cols = self.shape(shape)
        if self.transposed:
            ax, ay, bx, by = bx, by, ax, ay
        if self.flip_cols:
            x, y, ax, ay = x + cols * ax, y + cols * ay, -ax, -ay
        if self.flip_rows:
            x, y, bx, by = x + rows * bx, y + rows * by, -bx, -by
        # Adding zero turns -0.0 into 0.0, which prints and hashes like it.
        return Affine(ax + 0.0, bx + 0.0, x + 0.0, ay + 0.0, by + 0.0, y + 0.0)

    def native_window(self, window: Window, shape: tuple[int, int]) -> Window:
        """Where a canonical window lies in the image of native `shape`."""
        rows, cols = self.shape(shape)
        row = rows - window.row_stop if self.flip_rows else window.row
        col = cols - window.col_stop if self.flip_cols else window.col
        if self.transposed:
            return Window(col, row, window.width, window.height)
        return Window(row, col, window.height, window.width)

    def canonical_window(self, native: Window, shape: tuple[int, int]) -> Window:
        """Where a window of the image of native `shape` lies in the canonical one."""
        rows, cols = self.shape(shape)
        if self.transposed:
            native = Window(native.col, native.row, native.width, native.height)
        row = rows - native.row_stop if self.flip_rows else native.row
        col = cols - native.col_stop if self.flip_cols else native.col
        return Window(row, col, native.height, native.width)

    def canonical(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Native (..., row, col) pixels as a canonical view."""
        if self.transposed:
            pixels = np.swapaxes(pixels, -1, -2)
        if self.flip_rows:
            pixels = pixels[..., ::-1, :]
        if self.flip_cols:
            pixels = pixels[..., ::-1]
        return pixels


def nearest_orientation(transform: Affine) -> Orientation:
    """The orientation whose columns run most eastward and rows most southward.

    Exactly between two (a grid turned by 45 degrees) the one whose columns run north of east is taken, so that all
    eight stored forms of one image still meet in the same canonical form.
    """
    best, best_score = Orientation(), (-math.inf, -math.inf)
    for transposed, flip_rows, flip_cols in product((False, True), repeat=3):
        candidate = Orientation(transposed=transposed, flip_rows=flip_rows, flip_cols=flip_cols)
        turned = candidate.transform(transform, (0, 0))
        across, down = math.hypot(turned.a, turned.d), math.hypot(turned.b, turned.e)
        score = (turned.a / across - turned.e / down, turned.d / across)
        if score[0] > best_score[0] + _TIE or (score[0] > best_score[0] - _TIE and score[1] > best_score[1] + _TIE):
            best, best_score = candidate, score
    return best


def usable(transform: Affine) -> bool:
    """Whether the affine maps pixels to distinct, finite places."""
    values = tuple(transform)[:6]
    return all(math.isfinite(v) for v in values) and transform.determinant != 0
