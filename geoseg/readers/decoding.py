"""From one file to pixels and validity of a window, as they lie in the scene."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as FileWindow

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.readers.blocks import read_blocks
from geoseg.readers.handles import UndecodedError, reading, signature
from geoseg.readers.inspection import Source
from geoseg.readers.orientation import Orientation
from geoseg.readers.validity import both_valid, stored_valid


def decode(
    pixels: NDArray[Any],
    places: list[int],
    source: Source,
    window: Window,
    bands: list[int],
    *,
    shared: bool = True,
) -> NDArray[np.bool_] | None:
    """Reads `bands` of one file to `places` in (band, row, col) `pixels`; returns their validity, None if all valid.

    `window` is in scene pixels. Blocks come from those that the process keeps if they are `shared`: more is decoded than
    the window then. Raises InputError; UndecodedError where it is the pixels that cannot be read.
    What shares a dtype is read in one call, the alpha band with it: pixel-interleaved blocks are decoded once.
    """
    turn = source.orientation.canonical
    native = source.orientation.native_window(window, source.native_shape)
    where = FileWindow(native.col, native.row, native.width, native.height)
    groups: dict[str, list[int]] = {}
    for at, number in enumerate(bands):
        groups.setdefault(source.bands[number].dtype, []).append(at)
    alpha = source.alpha
    valid: NDArray[np.bool_] | None = None
    with reading(source.path, placed=source.placed) as dataset:
        if (dataset.height, dataset.width) != source.native_shape or dataset.count < max(source.indexes):
            raise InputError(f"{source.path!r} has changed since it was opened; start again")
        _check_gaps(source, native, [source.indexes[band] for band in bands])
        file = (source.path, *signature(source.path))

        def read(numbers: list[int], out: NDArray[Any] | None = None) -> NDArray[Any]:
            if shared:
                return read_blocks(dataset, source, file, numbers, native, out)
            return np.asarray(dataset.read(numbers, window=where, out=out))

        for dtype, members in groups.items():
            numbers = [source.indexes[bands[at]] for at in members]
            last = [alpha] if alpha is not None and dtype == source.alpha_dtype else []
            straight = dtype == pixels.dtype and len(members) == len(pixels) and source.orientation == Orientation()
            if straight and not last:
                part = read(numbers, pixels)
            else:
                part = read(numbers + last)
                if last:
                    alpha, part, mask = None, part[:-1], part[-1]
                    valid = both_valid(valid, mask != 0)
                for at, band in zip(members, turn(part), strict=True):
                    pixels[places[at]] = band
            valid = both_valid(valid, stored_valid(part, [source.bands[bands[at]].nodata for at in members]))
        masks = [] if alpha is None else [dataset.read(alpha, window=where)]
        if source.file_mask:
            masks.append(dataset.read_masks(source.indexes[0], window=where))
        masks += [dataset.read_masks(source.indexes[band], window=where) for band in bands if source.band_masks[band]]
        for mask in masks:
            valid = both_valid(valid, mask != 0)
    return None if valid is None else np.ascontiguousarray(turn(valid))


def _check_gaps(source: Source, native: Window, numbers: list[int]) -> None:
    for gap in source.gaps:
        if gap.band in (0, source.alpha, *numbers) and gap.window & native:
            raise UndecodedError(f"cannot read {source.path!r}, which is made of other files: {gap.reason}")
