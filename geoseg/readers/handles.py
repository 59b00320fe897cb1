"""Open rasterio datasets: one for each thread and file, a bounded number, and none that crosses a process.

GDAL datasets must not be shared by threads. Each thread keeps the ones it used last; they close when they are pushed
out or when the thread ends. A forked process shares file positions with its parent, so it never uses (nor closes) the
handles it inherited.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio
from rasterio._err import CPLE_AWSError, CPLE_BaseError, CPLE_HttpResponseError, CPLE_OutOfMemoryError
from rasterio.env import set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geoseg.errors import InputError
from geoseg.readers.places import local_path

HANDLES_PER_THREAD = 32
CACHE_BYTES = 64 * 2**20
"""GDAL's block cache of the process, beside the blocks that `blocks` keeps; GDAL_CACHEMAX in the environment goes before it."""

OPTIONS = {"GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE", "GDAL_NUM_THREADS": "1", "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO"}
"""A JPEG that ends early is an error, not a grey area. One decoder a thread: with several, GDAL's JPEG 2000 driver (3.10,
measured) returns zeros for the missing part of a truncated file and no error. PNGs are read by rows: as a whole, GDAL
does not compare their checksums."""

_PROBLEMS = (RasterioError, CPLE_BaseError, OSError, ValueError, OverflowError)
"""What rasterio raises for broken files; ValueError among others for tags that are no text or numbers."""

_UNDECODED = (RasterioError, CPLE_BaseError, OSError)
"""What it raises for pixels that cannot be read or decoded."""

_PASSING = (CPLE_OutOfMemoryError, CPLE_HttpResponseError, CPLE_AWSError)
"""Troubles of the machine or the network and not of the file; the same pixels may be read next time."""

_local = threading.local()
_inherited: list[Any] = []
_warnings_lock = threading.Lock()
_cache_bounded = False


class UndecodedError(InputError):
    """Pixels of an open file that cannot be read or decoded, and never will be."""


@contextmanager
def gdal_errors(path: str, doing: str) -> Iterator[None]:
    """GDAL's configuration for one call; its errors come out as InputError that names the file."""
    _bound_cache()
    try:
        with rasterio.Env(**OPTIONS):
            yield
    except _PROBLEMS as error:
        raise InputError(_message(path, doing, error)) from error


PASS_OVER = ", or leave out what cannot be read with --on-read-error mask"
"""The way on where some pixels cannot be read."""


@contextmanager
def _undecoded(path: str) -> Iterator[None]:
    try:
        yield
    except _UNDECODED as error:
        if any(isinstance(one, _PASSING) for one in _chain(error)):
            raise
        raise UndecodedError(_message(path, "read", error)) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _message(path: str, doing: str, error: BaseException) -> str:
    reason = str(error.__cause__ or error).strip().rstrip(".")
    local = local_path(path)
    if local is not None and local.is_dir():
        return f"{path!r} is a directory that holds no raster as a whole; name the image file in it"
    if "not recognized as being in a supported" in reason:
        return (
            f"{path!r} is no raster; give an image that `gdalinfo` understands: GeoTIFF, COG, VRT, JPEG 2000, PNG, ..."
        )
    return (
        f"cannot {doing} {path!r}: {reason}; check it with `gdalinfo -checksum`, and download or export it again if it "
        f"is damaged{PASS_OVER if doing == 'read' else ''}"
    )


def open_fresh(path: str) -> tuple[Any, bool]:
    """A dataset of the caller's own, to be closed by it, and whether GDAL finds it placed. Call within gdal_errors().

    rasterio says only by a warning that there is no geotransform, and may then give one that GDAL left half-filled.
    """
    # Warning filters belong to the process: one thread at a time, and what other threads say is passed on.
    with _warnings_lock:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            dataset = rasterio.open(path, sharing=False)
        for other in said:
            if not issubclass(other.category, NotGeoreferencedWarning):
                warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return dataset, not any(issubclass(one.category, NotGeoreferencedWarning) for one in said)


@contextmanager
def reading(path: str, *, placed: bool = False) -> Iterator[Any]:
    """This thread's dataset for `path`; errors come out as InputError, those of pixels as UndecodedError.

    `placed` is what open_fresh() said.

    After an error the dataset is thrown away: GDAL reports a damaged JPEG once, and then fills the rest with grey.
    """
    with gdal_errors(path, "read"):
        kept = _kept()
        key = (path, *signature(path))
        dataset = kept.pop(key, None)
        if dataset is None:
            # Without a warning to expect there is no lock to take: remote files open side by side.
            dataset = rasterio.open(path, sharing=False) if placed else open_fresh(path)[0]
        try:
            with _undecoded(path):
                yield dataset
        except BaseException:
            dataset.close()
            raise
        kept[key] = dataset
        while len(kept) > HANDLES_PER_THREAD:
            _, oldest = kept.popitem(last=False)
            oldest.close()


def _kept() -> OrderedDict[tuple[Any, ...], Any]:
    datasets: OrderedDict[tuple[Any, ...], Any] | None = getattr(_local, "datasets", None)
    if datasets is None:
        datasets = _local.datasets = OrderedDict()
    return datasets


def _after_fork() -> None:
    """In a forked child: leave the parent's handles alone, and take a lock that no thread of the parent holds."""
    global _warnings_lock
    _warnings_lock = threading.Lock()
    _inherited.append(getattr(_local, "datasets", None))
    _local.datasets = OrderedDict()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def signature(path: str) -> tuple[int, ...]:
    """Changes when a local file is written anew, so that what is known of the old one is not used for it."""
    local = local_path(path)
    if local is None:
        return ()
    status = local.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _bound_cache() -> None:
    global _cache_bounded
    if not _cache_bounded:
        _cache_bounded = True
        if "GDAL_CACHEMAX" not in os.environ:
            set_gdal_config("GDAL_CACHEMAX", CACHE_BYTES)
