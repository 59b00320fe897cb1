"""Readers: from the files of a scene to blocks of pixels.

    open_scene -> RasterReader (what rasterio opens), StackReader (products: products/)
    ArrayReader: pixels in memory
    ResampledReader(source, ...) -> the same scene on the work grid

Importing this package costs nothing: rasterio and numba come with the first call.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from geoseg.readers.places import local_path

if TYPE_CHECKING:
    from geoseg.protocols import Reader, SceneOpener
    from geoseg.reading import Clouds, OnReadError, Prefer, ReadOptions

log = logging.getLogger(__name__)

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
    clouds: Clouds = "keep",
    prefer: Prefer = "newest",
) -> Reader:
    """The reader of one scene: a product, one file with all its bands, single-band files on one grid, or several scenes.

    Several products, or files of several bands, are joined: each pixel comes from the first scene that sees the ground
    there, by `prefer` the newest, the oldest, or as they are given.

    Products (a Sentinel-2 SAFE, a Landsat bundle, ...) are recognised by the readers that are installed, entry points of the
    group `geoseg.readers`; all else is a raster. Products name their bands and state scale and offset; where one has a cloud
    mask, it is the band `cloud`, and `clouds` "mask" makes what is under clouds and their shadows not valid.

    `bands` names all bands in file order ('-' for those to ignore); `crs` is for files that have none;
    `pixel_size_m` for scenes without a CRS; `scale` `offset` (one value, or one a band) and `nodata` replace
    the file's own; `palette` takes the colour numbers of palette images as values, which makes them class masks.
    Where pixels cannot be decoded, `on_read_error` "stop" raises InputError while reading, and "mask" takes the file's
    blocks there as not valid and lists them in Block.unread.
    Raises InputError for whatever cannot be read.
    """
    from geoseg.reading import ReadOptions

    names = tuple(_absolute(os.fspath(path)) for path in paths)
    options = ReadOptions(
        bands=None if bands is None else tuple(bands),
        crs=crs,
        pixel_size_m=pixel_size_m,
        scale=_floats(scale),
        offset=_floats(offset),
        nodata=nodata,
        palette=palette,
        on_read_error=on_read_error,
        clouds=clouds,
        prefer=prefer,
    )
    if len(names) > 1 and any(_is_scene(name, palette=palette) for name in names):
        from geoseg.readers.mosaicking import MosaicReader

        readers = tuple(_opened((name,), options) for name in names)
        return MosaicReader(readers=readers, prefer=prefer)
    return _opened(names, options)


def _opened(names: tuple[str, ...], options: ReadOptions) -> Reader:
    """The reader of one scene."""
    from geoseg.readers.raster import RasterReader

    opener = _opener(names[0]) if len(names) == 1 else None
    if opener is not None:
        return opener.opened(names[0], options)
    return RasterReader(
        paths=names,
        band_names=options.bands,
        crs=options.crs,
        pixel_size_m=options.pixel_size_m,
        scale=options.scale,
        offset=options.offset,
        nodata=options.nodata,
        palette=options.palette,
        on_read_error=options.on_read_error,
    )


def _is_scene(path: str, *, palette: bool) -> bool:
    """Whether `path` is a scene by itself and not one band of it."""
    from geoseg.readers.inspection import inspect_file

    return _opener(path) is not None or len(inspect_file(path, palette=palette).bands) > 1


def _opener(path: str) -> SceneOpener | None:
    """The first reader of products, by name, that recognises `path`; None where it is a raster."""
    from geoseg.plugins import PluginError, load_plugin, plugins

    for name in plugins("readers"):
        try:
            opener: SceneOpener = load_plugin("readers", name)
        except PluginError as error:
            log.warning("%s; scenes that it would read are taken for rasters", error)
            continue
        try:
            if opener.recognises(path):
                return opener
        except OSError as error:  # a folder that may not be read
            log.debug("%s cannot look at %s: %s", name, path, error)
    return None


def resampled(reader: Reader, pixel_size_m: float) -> Reader:
    """The same scene on a grid of another pixel size, snapped to its CRS."""
    from geoseg.readers.resample import ResampledReader

    return ResampledReader(source=reader, pixel_size_m=pixel_size_m)


def forgiving(reader: Reader) -> Reader:
    """A reader of the same scene that leaves out what cannot be read, where it knows how to."""
    from dataclasses import replace

    from geoseg.readers.mosaicking import MosaicReader
    from geoseg.readers.raster import RasterReader
    from geoseg.readers.resample import ResampledReader
    from geoseg.readers.stack import StackReader

    if isinstance(reader, RasterReader):
        return replace(reader, on_read_error="mask")
    if isinstance(reader, ResampledReader):
        return replace(reader, source=forgiving(reader.source))
    if isinstance(reader, MosaicReader):
        return replace(reader, readers=tuple(forgiving(one) for one in reader.readers))
    if isinstance(reader, StackReader):
        return replace(reader, sources=tuple(forgiving(source) for source in reader.sources))
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
