"""Readers: from the files of a scene to blocks of pixels.

    open_scene -> RasterReader (what rasterio opens), ArrayReader (pixels in memory)
    ResampledReader(source, ...) -> the same scene on the work grid

Importing this package costs nothing: rasterio and numba come with the first call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from geoseg.readers.places import local_path

if TYPE_CHECKING:
    from geoseg.protocols import Reader
    from geoseg.readers.salvage import OnReadError

__all__ = ["class_names", "forgiving", "made_by_geoseg", "open_scene", "resampled"]


def open_scene(
    paths: Sequence[str | os.PathLike[str]],
    *,
    bands: Sequence[str] | None = None,
    crs: str | None = None,
    pixel_size_m: float | None = None,
    scale: Sequence[float] | float | None = None,
    offset: Sequence[float] | float | None = None,
    nodata: float | None = None,
    palette: bool = False,
    on_read_error: OnReadError = "stop",
) -> Reader:
    """The reader of one scene: one file with all its bands, or single-band files on one grid.

    `bands` names all bands in file order ('-' for those to ignore); `crs` is for files that have none;
    `pixel_size_m` for scenes without a CRS; `scale` `offset` (one value, or one a band) and `nodata` replace
    the file's own; `palette` takes the colour numbers of palette images as values, which makes them class masks.
    Where pixels cannot be decoded, `on_read_error` "stop" raises InputError while reading, and "mask" takes the file's
    blocks there as not valid and lists them in Block.unread.
    Raises InputError for whatever cannot be read.
    """
    from geoseg.readers.raster import RasterReader

    return RasterReader(
        paths=tuple(_absolute(os.fspath(path)) for path in paths),
        band_names=None if bands is None else tuple(bands),
        crs=crs,
        pixel_size_m=pixel_size_m,
        scale=_floats(scale),
        offset=_floats(offset),
        nodata=nodata,
        palette=palette,
        on_read_error=on_read_error,
    )


def resampled(reader: Reader, pixel_size_m: float) -> Reader:
    """The same scene on a grid of another pixel size, snapped to its CRS."""
    from geoseg.readers.resample import ResampledReader

    return ResampledReader(source=reader, pixel_size_m=pixel_size_m)


def forgiving(reader: Reader) -> Reader:
    """A reader of the same scene that leaves out what cannot be read, where it knows how to."""
    from dataclasses import replace

    from geoseg.readers.raster import RasterReader
    from geoseg.readers.resample import ResampledReader

    if isinstance(reader, RasterReader):
        return replace(reader, on_read_error="mask")
    if isinstance(reader, ResampledReader):
        return replace(reader, source=forgiving(reader.source))
    return reader


def class_names(path: str) -> tuple[str, ...]:
    """Names of a mask's classes by id, as geoseg writes them into its files; else the names of the bands, if all have one."""
    tags, described = _told(path)
    if told := tags.get("GEOSEG_CLASSES", ""):
        return tuple(told.split(","))
    names = tuple(name for name in described if name)
    return names if len(names) == len(described) > 1 else ()


def made_by_geoseg(path: str) -> bool:
    """True for a mask or for probabilities that geoseg wrote."""
    return "GEOSEG_MODEL" in _told(path)[0]


def _told(path: str) -> tuple[dict[str, str], tuple[str | None, ...]]:
    """A file's tags, and its bands' names."""
    from geoseg.readers.handles import gdal_errors, open_fresh

    with gdal_errors(path, "open"):
        raster, _ = open_fresh(path)
        with raster:
            return dict(raster.tags()), tuple(raster.descriptions)


def _absolute(name: str) -> str:
    """Local paths are made absolute, so that workers in another directory find them; GDAL's own names stay."""
    path = local_path(name)
    return name if path is None else str(path.absolute())


def _floats(values: Sequence[float] | float | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    return (float(values),) if isinstance(values, int | float) else tuple(float(value) for value in values)
