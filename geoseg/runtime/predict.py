"""One tile, one task: read, batch, predict, crop, write, journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from geoseg.disk import room_for
from geoseg.engines.batches import MOST
from geoseg.engines.turned import TurnedSegmenter
from geoseg.errors import GeosegError, RunError
from geoseg.grid import Patch, Tile, TileGrid, Window
from geoseg.kernels.blend import add_weighted, hann_weights, weighted_means
from geoseg.protocols import InstanceSegmenter, Model, Reader, Segmenter
from geoseg.results import NODATA, Batch, Block, InputScaling
from geoseg.shared import SharedArrays
from geoseg.stitch.journal import Journal, TileRecord
from geoseg.stitch.store import MaskStore

Clip = Callable[[Window], NDArray[np.bool_]]
"""True inside the area of interest, for any window in scene pixels."""

KEPT_BYTES = 256 * 2**20
"""Predicted patches that a process keeps where several tiles need them: where patches are blended."""

_cache: SharedArrays[tuple[str, Window]] = SharedArrays(bytes_kept=KEPT_BYTES)
_segmenters: dict[tuple[Any, ...], Segmenter | InstanceSegmenter] = {}
_build_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """How to bring a model onto its engine; travels as a recipe, is built once a process."""

    model: Model
    scaling: InputScaling
    engine: str
    """As asked for: a name, or auto, which every worker settles for itself."""
    precision: str
    streams: int = 1
    """Threads that predict at a time, see choose_engine()."""
    turned: bool = False
    """Whether each patch is predicted in eight positions."""
    like: str | None = None
    """Fingerprint of the engine of an earlier try, see choose_engine()."""

    def segmenter(self) -> Segmenter:
        from geoseg.engines import choose_engine

        def build() -> Segmenter:
            built = choose_engine(
                self.model, name=self.engine, precision=self.precision, like=self.like, streams=self.streams
            ).build(self.model, self.scaling, precision=self.precision, threads=None)
            return TurnedSegmenter(built) if self.turned else built

        return cast(Segmenter, self._once(build))

    def finder(self) -> InstanceSegmenter:
        """For models that find objects one by one."""
        from geoseg.engines.finder import build_finder

        return cast(
            InstanceSegmenter,
            self._once(lambda: build_finder(self.model, self.scaling, precision=self.precision)),
        )

    def _once(self, build: Callable[[], Segmenter | InstanceSegmenter]) -> Segmenter | InstanceSegmenter:
        """One model a process: activations are what fills memory."""
        key = (
            self.model.fingerprint(),
            self.scaling,
            self.engine,
            self.precision,
            self.streams,
            self.turned,
            self.like,
        )
        with _build_lock:
            if key not in _segmenters:
                _segmenters.clear()
                _segmenters[key] = build()
            return _segmenters[key]


def release_memory() -> None:
    """Frees the models of this process, whose activations are most of its memory, and the pixels that it keeps."""
    from geoseg.readers.blocks import release_blocks

    release_blocks()
    with _build_lock:
        _segmenters.clear()
    _cache.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A tile's core."""

    probabilities: NDArray[np.uint8]
    """(channel, row, col) as stored, 255 where not valid."""
    valid: NDArray[np.bool_]
    """(row, col)."""
    unread: tuple[Window, ...]
    """Parts that could not be read, in scene pixels."""
    read_s: float
    predict_s: float
    patches: int
    """Patches that the model saw for it."""
    model_pixels: int
    """Pixels that it saw."""
    engine: str
    """Fingerprint of the engine; empty where there was nothing to predict."""
    degraded: bool
    """True where the engine had to step down for want of memory."""


def predict_core(
    reader: Reader,
    predictor: Predictor,
    grid: TileGrid,
    tile: Tile,
    *,
    clip: Clip | None = None,
    run: str | None = None,
) -> Prediction:
    """Predicts a tile's core.

    Args:
        reader: gives the pixels.
        predictor: gives the model on its engine, the first time a patch holds data.
        grid: says which patches to predict.
        tile: whose core is wanted.
        clip: the area of interest: what lies outside is invalid in the result, and seen by the model all the same.
        run: names the run, so that patches which several tiles share need not be predicted again.
    """
    spec = predictor.model.spec
    begun = time.perf_counter()
    wanted = [band for band in predictor.scaling.bands if band is not None]
    block = reader.read(tile.window, wanted)
    read = time.perf_counter()
    valid = np.ascontiguousarray(block.valid[tile.inner.slices])
    out = np.full((len(spec.outputs), *tile.core.shape), NODATA, np.uint8)
    # Where patches are blended, whether one counts must not depend on the tile that asks.
    patches = [
        patch for patch in grid.patches(tile) if _has_valid(block, patch.core if grid.blend else patch.core & tile.core)
    ]
    seen = _Seen()
    if patches:
        segmenter = predictor.segmenter()
        channels = input_channels(block.pixels, predictor.scaling)

        def predict(some: Sequence[Patch]) -> list[NDArray[np.uint8]]:
            found: dict[Window, NDArray[np.uint8]] = {}
            for group in _same_shape(some):
                batch = Batch(
                    pixels=np.stack([framed(channels, block.window, patch) for patch in group]),
                    valid=np.stack([framed(block.valid[None], block.window, patch)[0] for patch in group]),
                )
                found |= zip((patch.frame for patch in group), segmenter.predict(batch), strict=True)
                seen.patches += len(group)
                seen.pixels += sum(patch.frame.size for patch in group)
            return [found[patch.frame] for patch in some]

        if grid.blend:
            predictions = _remembered(run, patches, predict) if run else predict(patches)
            _blend(out, grid, tile, patches, predictions)
        else:
            for patch, prediction in zip(patches, predict(patches), strict=True):
                kept = patch.core & tile.core
                target, source = kept.within(tile.core).slices, kept.within(patch.frame).slices
                out[(slice(None), *target)] = prediction[(slice(None), *source)]
        seen.engine, seen.degraded = segmenter.fingerprint, segmenter.degraded
    if clip is not None:
        valid &= clip(tile.core)
    out[:, ~valid] = NODATA
    return Prediction(
        probabilities=out, valid=valid, unread=tuple(part & tile.core for part in block.unread if part & tile.core),
        read_s=read - begun, predict_s=time.perf_counter() - read, patches=seen.patches, model_pixels=seen.pixels,
        engine=seen.engine, degraded=seen.degraded,
    )  # fmt: skip


def _remembered(
    run: str, patches: Sequence[Patch], predict: Callable[[Sequence[Patch]], list[NDArray[np.uint8]]]
) -> list[NDArray[np.uint8]]:
    """(channel, row, col) of each patch's frame, predicted by the first thread that asks for it."""
    by_key = {(run, patch.frame): patch for patch in patches}
    found = _cache.get(list(by_key), lambda keys: predict([by_key[key] for key in keys]))
    values = dict(zip(by_key, found, strict=True))
    return [values[run, patch.frame] for patch in patches]  # in small scenes several cells share a frame


@dataclass(slots=True)
class _Seen:
    """What the model was given on the way."""

    patches: int = 0
    pixels: int = 0
    engine: str = ""
    degraded: bool = False


def _blend(
    out: NDArray[np.uint8],
    grid: TileGrid,
    tile: Tile,
    patches: Sequence[Patch],
    predictions: Sequence[NDArray[np.uint8]],
) -> None:
    """Weighted means of overlapping patches into (channel, row, col) `out`."""
    sums, total = np.zeros(out.shape, np.uint32), np.zeros(out.shape[1:], np.uint32)
    for patch, prediction in zip(patches, predictions, strict=True):
        kept, cell = patch.core & tile.core, patch.cell
        rows = hann_weights(
            kept.row, kept.height, before=cell.row > 0, after=cell.row_stop < grid.shape[0],
            cell=(cell.row, cell.row_stop), halo=grid.halo,
        )  # fmt: skip
        cols = hann_weights(
            kept.col, kept.width, before=cell.col > 0, after=cell.col_stop < grid.shape[1],
            cell=(cell.col, cell.col_stop), halo=grid.halo,
        )  # fmt: skip
        target, source = kept.within(tile.core).slices, kept.within(patch.frame).slices
        add_weighted(sums[(slice(None), *target)], total[target], prediction[(slice(None), *source)], rows, cols)
    weighted_means(sums, total, out)


def classes_of(probabilities: NDArray[np.uint8], valid: NDArray[np.bool_], count: int) -> NDArray[np.uint8]:
    """(row, col) class ids: argmax over the first `count` channels, ties to the lowest id, 255 where invalid."""
    mask, best = np.zeros(valid.shape, np.uint8), probabilities[0]
    for i in range(1, count):  # twice as fast as numpy.argmax along the first axis
        mask = np.where(probabilities[i] > best, np.uint8(i), mask)
        best = np.maximum(best, probabilities[i])
    return np.where(valid, mask, np.uint8(NODATA))


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictTile:
    """The task of a run: everything in it is a recipe, so that it travels to any worker."""

    reader: Reader
    predictor: Predictor
    store: MaskStore
    journal: Journal
    clip: Clip | None = None
    engine: str | None = None
    """Fingerprint of the engine that an earlier try used: another one would mix results. None to take any."""
    run: str | None = None
    """Names the run, see predict_core()."""
    confident: int = 0
    """Stored probability below which the best class of a pixel counts as unknown: 255 in the mask."""

    def __call__(self, index: tuple[int, int]) -> TileRecord:
        grid = self.store.grid
        tile = grid.tile(index)
        try:
            made = predict_core(self.reader, self.predictor, grid, tile, clip=self.clip, run=self.run)
        except GeosegError as error:
            raise located(error, tile) from error
        check_engine(made.engine, wanted=self.engine, degraded=made.degraded)
        begun = time.perf_counter()
        spec = self.predictor.model.spec
        mask = classes_of(made.probabilities, made.valid, len(spec.class_names))
        if self.confident:
            best = made.probabilities[: len(spec.class_names)].max(axis=0)
            mask[best < self.confident] = NODATA
        with room_for(self.store.path):
            self.store.write(tile, mask, made.probabilities)
        record = TileRecord(
            index=index,
            valid=int(made.valid.sum()),
            patches=made.patches,
            model_pixels=made.model_pixels,
            read_s=round(made.read_s, 4),
            predict_s=round(made.predict_s, 4),
            engine=made.engine,
            degraded=made.degraded,
            unread=tuple((part.row, part.col, part.height, part.width) for part in made.unread),
            write_s=round(time.perf_counter() - begun, 4),
        )
        with room_for(self.journal.folder):
            self.journal.append(record)
        return record


def located(error: GeosegError, tile: Tile) -> GeosegError:
    """The error, with the place where it happened."""
    row, col = tile.index
    return type(error)(f"{error} [tile {row},{col} at row {tile.core.row}, column {tile.core.col}]")


def check_engine(engine: str, *, wanted: str | None, degraded: bool) -> None:
    """RunError where a tile was predicted by another engine than those that are finished."""
    if wanted and engine and engine != wanted and not degraded:
        raise RunError(
            f"finished tiles were predicted by {wanted}, here it would be {engine}: their results differ; go on where the "
            f"others were made, use --restart, or allow it with --allow-mixed-engines"
        )


def input_channels(pixels: NDArray[Any], scaling: InputScaling) -> NDArray[Any]:
    """(channel, row, col): the bands that were read, with zeros where an optional band is missing."""
    if None not in scaling.bands:
        return pixels
    read = iter(pixels)
    nothing = np.zeros(pixels.shape[1:], pixels.dtype)
    return np.stack([nothing if band is None else next(read) for band in scaling.bands])


def _has_valid(block: Block, window: Window) -> bool:
    return bool(block.valid[window.within(block.window).slices].any())


def _same_shape(patches: Iterable[Patch]) -> list[list[Patch]]:
    """Groups of patches of one shape, at most MOST each, in order of their first."""
    groups: dict[tuple[int, int], list[Patch]] = {}
    for patch in patches:
        groups.setdefault(patch.frame.shape, []).append(patch)
    return [group[i : i + MOST] for group in groups.values() for i in range(0, len(group), MOST)]


def framed(pixels: NDArray[Any], window: Window, patch: Patch) -> NDArray[Any]:
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
