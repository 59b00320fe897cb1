"""RasterReader: whatever rasterio opens, read as one scene that lies north up, east right."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as FileWindow

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.readers.composition import compose_scene, georeference_remark
from geoseg.readers.handles import reading
from geoseg.readers.identity import file_digest, meaning, pixel_files, sampled_pixels
from geoseg.readers.inspection import Source, inspect_file
from geoseg.readers.orientation import Orientation
from geoseg.readers.places import local_path
from geoseg.readers.validity import both_valid, check_request, stored_valid
from geoseg.results import Block
from geoseg.scene import Scene

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterReader:
    """One file with all its bands, or several single-band files on one grid.

    The files are inspected once, here; a pickled reader carries what was found and opens its own handles where it goes.
    Raises InputError for what cannot be read.
    """

    paths: tuple[str, ...]
    """File names, or any other name that GDAL opens."""
    band_names: tuple[str, ...] | None = None
    """Names for all bands in file order, '-' for those to ignore; None to believe the files."""
    crs: str | None = None
    """The CRS of files that have none."""
    pixel_size_m: float | None = None
    """Pixel size in metres, for scenes without a CRS."""
    scale: tuple[float, ...] | None = None
    """physical = stored * scale + offset: one value or one a band, in place of the files' own."""
    offset: tuple[float, ...] | None = None
    """See `scale`."""
    nodata: float | None = None
    """Stored value that means "no data", in place of the files' own."""
    palette: bool = False
    """Take the colour numbers of palette images as values: they are the classes of a mask."""
    sources: tuple[Source, ...] = field(init=False, repr=False)
    """The files as they lie on disk, in order."""
    scene: Scene = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("no raster was given; name a file")
        names = self.band_names if len(self.paths) == 1 else None
        sources = tuple(inspect_file(path, names=names, palette=self.palette) for path in self.paths)
        if self.nodata is not None:
            sources = tuple(source.with_nodata(self.nodata) for source in sources)
        scene = compose_scene(
            sources,
            band_names=self.band_names,
            crs=self.crs,
            pixel_size_m=self.pixel_size_m,
            scale=self.scale,
            offset=self.offset,
        )
        object.__setattr__(self, "sources", sources)
        object.__setattr__(self, "scene", scene)
        remark = georeference_remark(sources, scene)
        if remark:
            logger.warning(remark)

    def read(self, window: Window, bands: Sequence[int] | None = None) -> Block:
        """Stored pixels of `window` in the dtype that holds the bands read, see protocols.Reader."""
        wanted = check_request(self.scene, window, bands)
        pixels = np.empty((len(wanted), *window.shape), np.result_type(*(self.scene.bands[i].dtype for i in wanted)))
        valid: NDArray[np.bool_] | None = None
        first = 0
        for source in self.sources:
            places = [place for place, i in enumerate(wanted) if first <= i < first + len(source.bands)]
            if places:
                good = _read_into(pixels, places, source, window, [wanted[place] - first for place in places])
                valid = both_valid(valid, good)
            first += len(source.bands)
        return Block(pixels=pixels, valid=np.ones(window.shape, np.bool_) if valid is None else valid, window=window)

    def content_hash(self) -> str:
        """SHA-256 over samples of every file (those behind a VRT too) and what the options make of them."""
        digest = hashlib.sha256(meaning(self.scene).encode())
        for source in self.sources:
            local = local_path(source.path)
            if local is None or not local.is_file():
                digest.update(sampled_pixels(self.scene, self.read))
                continue
            with reading(source.path, placed=source.placed) as dataset:
                files = pixel_files(dataset.files)
            for file in files:
                digest.update(file_digest(file))
        return digest.hexdigest()


def _read_into(
    pixels: NDArray[Any], places: list[int], source: Source, window: Window, bands: list[int]
) -> NDArray[np.bool_] | None:
    """Reads `bands` of one file to `places` in (band, row, col) `pixels`; returns their validity, None if all valid.

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
        for dtype, members in groups.items():
            numbers = [source.indexes[bands[at]] for at in members]
            with_alpha = alpha is not None and dtype == source.alpha_dtype
            straight = dtype == pixels.dtype and len(members) == len(pixels) and source.orientation == Orientation()
            if straight and not with_alpha:
                part = dataset.read(numbers, window=where, out=pixels)
            else:
                part = dataset.read([*numbers, alpha] if with_alpha else numbers, window=where)
                if with_alpha:
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
