"""RasterReader: whatever rasterio opens, read as one scene that lies north up, east right."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.readers.composition import compose_scene, georeference_remark
from geoseg.readers.decoding import decode
from geoseg.readers.handles import reading
from geoseg.readers.identity import file_digest, meaning, pixel_files, sampled_pixels
from geoseg.readers.inspection import Source, inspect_file
from geoseg.readers.places import local_path
from geoseg.readers.salvage import decode_around
from geoseg.readers.validity import both_valid, check_request, rectangles
from geoseg.reading import OnReadError
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
    on_read_error: OnReadError = "stop"
    """`stop` raises InputError where pixels cannot be decoded; `mask` takes the file's block there as not valid."""
    sources: tuple[Source, ...] = field(init=False, repr=False)
    """The files as they lie on disk, in order."""
    scene: Scene = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("no raster was given; name a file")
        if self.on_read_error not in get_args(OnReadError):
            raise InputError(f"no way {self.on_read_error!r} to meet read errors; use 'stop' or 'mask'")
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
        """Stored pixels of `window` in the dtype that holds the bands read, see protocols.Reader.

        With `on_read_error="mask"`, blocks of a file that cannot be decoded are 0 in that file's bands and not valid.
        """
        wanted = check_request(self.scene, window, bands)
        pixels = np.empty((len(wanted), *window.shape), np.result_type(*(self.scene.bands[i].dtype for i in wanted)))
        unread = None if self.on_read_error == "stop" else np.zeros(window.shape, np.bool_)
        valid: NDArray[np.bool_] | None = None
        first = 0
        for source in self.sources:
            places = [place for place, i in enumerate(wanted) if first <= i < first + len(source.bands)]
            if places:
                numbers = [wanted[place] - first for place in places]
                if unread is None:
                    good = decode(pixels, places, source, window, numbers)
                else:
                    good = decode_around(pixels, places, source, window, numbers, unread=unread)
                valid = both_valid(valid, good)
            first += len(source.bands)
        return Block(
            pixels=pixels,
            valid=np.ones(window.shape, np.bool_) if valid is None else valid,
            window=window,
            unread=() if unread is None else rectangles(unread, window),
        )

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
