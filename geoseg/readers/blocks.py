"""Decoded blocks of files, shared by all threads of a process.

Windows of neighbouring tiles overlap, and the blocks of a file reach beyond both: read window by window, with a dataset of
its own for each thread, a scene of 1024-pixel windows is decoded nearly three times over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as FileWindow

from geoseg.grid import Window
from geoseg.readers.inspection import Source
from geoseg.shared import SharedArrays

KEPT_BYTES = 128 * 2**20
"""Decoded blocks that a process keeps."""

LEAST_SIDE = 256
"""Smaller blocks and strips are read several at a time, so that a cell is at least so many pixels high and wide."""

MOST_CELL_BYTES = KEPT_BYTES // 4

_cells: SharedArrays[tuple[Any, ...]] = SharedArrays(bytes_kept=KEPT_BYTES)


def release_blocks() -> None:
    """Frees the memory of the blocks that this process keeps."""
    _cells.clear()


def read_blocks(
    dataset: Any,
    source: Source,
    file: tuple[Any, ...],
    numbers: Sequence[int],
    native: Window,
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    """(band, row, col) of `native`, a window of the file, like `dataset.read(numbers, out=out)`, from kept blocks.

    Mosaics, files that are decoded in order and very large blocks are read as they are. `file` names the file and
    changes with its content. Raises what rasterio raises.
    """
    where = FileWindow(native.col, native.row, native.width, native.height)
    if source.whole_blocks or source.in_order:
        return np.asarray(dataset.read(list(numbers), window=where, out=out))
    height, width = cell_shape(source)
    pixel = len(numbers) * np.dtype(dataset.dtypes[numbers[0] - 1]).itemsize
    if pixel * height * width > MOST_CELL_BYTES or pixel * native.size > KEPT_BYTES:
        return np.asarray(dataset.read(list(numbers), window=where, out=out))
    bands = tuple(numbers)

    def made(keys: Sequence[tuple[Any, ...]]) -> Iterator[NDArray[Any]]:
        for *_, row, col in keys:
            cell = _cell(source, row, col)
            yield dataset.read(list(bands), window=FileWindow(cell.col, cell.row, cell.width, cell.height))

    places = [
        (row, col)
        for row in range(native.row // height * height, native.row_stop, height)
        for col in range(native.col // width * width, native.col_stop, width)
    ]
    kept = _cells.get([(file, bands, *place) for place in places], made)
    if out is None:
        out = np.empty((len(bands), *native.shape), kept[0].dtype)
    for place, values in zip(places, kept, strict=True):
        cell = _cell(source, *place)
        part = cell & native
        out[(slice(None), *part.within(native).slices)] = values[(slice(None), *part.within(cell).slices)]
    return out


def cell_shape(source: Source) -> tuple[int, int]:
    """(rows, columns) of what is decoded at a time: whole blocks of the file."""
    height, width = (-(-LEAST_SIDE // side) * side for side in source.block)
    return height, width


def _cell(source: Source, row: int, col: int) -> Window:
    return Window(row, col, *cell_shape(source)) & Window(0, 0, *source.native_shape)
