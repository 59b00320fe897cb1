"""One tile, one task: read, batch, predict, crop, write, journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import GeosegError, RunError
from geoseg.grid import Patch, Tile, TileGrid, Window
from geoseg.protocols import Model, Reader, Segmenter
from geoseg.results import NODATA, Batch, Block, InputScaling
from geoseg.stitch.journal import Journal, TileRecord
from geoseg.stitch.store import MaskStore

Clip = Callable[[Window], NDArray[np.bool_]]
"""True inside the area of interest, for any window in scene pixels."""

_segmenters: dict[tuple[Any, ...], Segmenter] = {}
_build_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """How to bring a model onto its engine; travels as a recipe, is built once a process."""

    model: Model
    scaling: InputScaling
    engine: str
    """As asked for: a name, or auto, which every worker settles for itself."""
    precision: str
    threads: int | None = None

    def segmenter(self) -> Segmenter:
        from geoseg.engines import choose_engine

        key = (self.model.fingerprint(), self.scaling, self.engine, self.precision, self.threads)
        with _build_lock:
            if key not in _segmenters:
                _segmenters.clear()  # one model a process: activations are what fills memory
                _segmenters[key] = choose_engine(self.model, name=self.engine, precision=self.precision).build(
                    self.model, self.scaling, precision=self.precision, threads=self.threads
                )
            return _segmenters[key]


def release_segmenters() -> None:
    """Frees the models of this process: their activations are most of its memory."""
    with _build_lock:
        _segmenters.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    read_s: float
    predict_s: float
    patches: int
    model_pixels: int
    engine: str


def predict_core(
    reader: Reader, predictor: Predictor, grid: TileGrid, tile: Tile, *, clip: Clip | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], Timing]:
    """Stored probabilities (channel, row, col) and validity (row, col) of a tile's core, 255 where invalid.

    `clip` gives the area of interest: what lies outside is invalid in the result, and seen by the model all the same.
    """
    spec = predictor.model.spec
    begun = time.perf_counter()
    wanted = [band for band in predictor.scaling.bands if band is not None]
    block = reader.read(tile.window, wanted)
    read = time.perf_counter()
    inner = tile.inner.slices
    valid = np.ascontiguousarray(block.valid[inner])
    out = np.full((len(spec.outputs), *tile.core.shape), NODATA, np.uint8)
    patches = [patch for patch in grid.patches(tile) if _has_valid(block, patch.core & tile.core)]
    model_pixels, engine = 0, ""
    if patches:
        segmenter = predictor.segmenter()
        channels = _channels(block.pixels, predictor.scaling)
        for group in _same_shape(patches):
            batch = Batch(
                pixels=np.stack([_framed(channels, block.window, patch) for patch in group]),
                valid=np.stack([_framed(block.valid[None], block.window, patch)[0] for patch in group]),
            )
            for patch, prediction in zip(group, segmenter.predict(batch), strict=True):
                kept = patch.core & tile.core
                target, source = kept.within(tile.core).slices, kept.within(patch.frame).slices
                out[(slice(None), *target)] = prediction[(slice(None), *source)]
            model_pixels += sum(patch.frame.size for patch in group)
        engine = segmenter.fingerprint
    if clip is not None:
        valid &= clip(tile.core)
    out[:, ~valid] = NODATA
    timing = Timing(
        read_s=read - begun,
        predict_s=time.perf_counter() - read,
        patches=len(patches),
        model_pixels=model_pixels,
        engine=engine,
    )
    return out, valid, timing


def classes_of(probabilities: NDArray[np.uint8], valid: NDArray[np.bool_], count: int) -> NDArray[np.uint8]:
    """(row, col) class ids: argmax over the first `count` channels, ties to the lowest id, 255 where invalid."""
    mask: NDArray[np.uint8] = np.argmax(probabilities[:count], axis=0).astype(np.uint8)
    mask[~valid] = NODATA
    return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictTile:
    """The task of a run: everything in it is a recipe, so that it travels to any worker."""

    reader: Reader
    predictor: Predictor
    store: MaskStore
    journal: Journal
    clip: Clip | None = None
    engine: str | None = None
    """Fingerprint of the engine that an earlier try used: another one would mix results."""

    def __call__(self, index: tuple[int, int]) -> TileRecord:
        grid = self.store.grid
        tile = grid.tile(index)
        try:
            probabilities, valid, timing = predict_core(self.reader, self.predictor, grid, tile, clip=self.clip)
        except GeosegError as error:
            raise type(error)(
                f"{error} [tile {index[0]},{index[1]} at row {tile.core.row}, column {tile.core.col}]"
            ) from error
        if self.engine and timing.engine and timing.engine != self.engine:
            raise RunError(
                f"finished tiles were predicted by {self.engine}, here it would be {timing.engine}: their results differ; "
                f"go on where the others were made, or use --restart"
            )
        begun = time.perf_counter()
        spec = self.predictor.model.spec
        mask = classes_of(probabilities, valid, len(spec.class_names))
        try:
            self.store.write(tile, mask, probabilities)
        except OSError as error:
            raise RunError(_unwritable(self.store.path, error)) from error
        record = TileRecord(
            index=index,
            valid=int(valid.sum()),
            patches=timing.patches,
            model_pixels=timing.model_pixels,
            read_s=round(timing.read_s, 4),
            predict_s=round(timing.predict_s, 4),
            engine=timing.engine,
            write_s=round(time.perf_counter() - begun, 4),
        )
        try:
            self.journal.append(record)
        except OSError as error:
            raise RunError(_unwritable(self.journal.folder, error)) from error
        return record


def _unwritable(path: Path, error: OSError) -> str:
    return f"{path} cannot be written ({error.strerror or error}); make room and run the same command again to resume"


def _channels(pixels: NDArray[Any], scaling: InputScaling) -> NDArray[Any]:
    """(channel, row, col): the bands that were read, with zeros where an optional band is missing."""
    if None not in scaling.bands:
        return pixels
    read = iter(pixels)
    nothing = np.zeros(pixels.shape[1:], pixels.dtype)
    return np.stack([nothing if band is None else next(read) for band in scaling.bands])


def _has_valid(block: Block, window: Window) -> bool:
    return bool(block.valid[window.within(block.window).slices].any())


def _same_shape(patches: Iterable[Patch], *, most: int = 8) -> list[list[Patch]]:
    """Groups of patches of one shape, at most `most` each, in order of their first."""
    groups: dict[tuple[int, int], list[Patch]] = {}
    for patch in patches:
        groups.setdefault(patch.frame.shape, []).append(patch)
    return [group[i : i + most] for group in groups.values() for i in range(0, len(group), most)]


def _framed(pixels: NDArray[Any], window: Window, patch: Patch) -> NDArray[Any]:
    """(band, row, col) of a patch's frame: its window cut out of the block, grown by reflection."""
    part = pixels[(slice(None), *patch.window.within(window).slices)]
    if patch.window == patch.frame:
        return part
    frame, inside = patch.frame, patch.window
    grow = (
        (0, 0),
        (inside.row - frame.row, frame.row_stop - inside.row_stop),
        (inside.col - frame.col, frame.col_stop - inside.col_stop),
    )
    return np.pad(part, grow, mode="reflect")
