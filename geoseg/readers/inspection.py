"""What one file holds, read from its header and checked: a value, and no pixels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from affine import Affine
from pyproj import CRS
from pyproj.exceptions import CRSError

from geoseg.errors import InputError
from geoseg.readers.handles import gdal_errors, open_fresh
from geoseg.readers.mosaic import Gap, mosaic_gaps
from geoseg.readers.naming import described_name, file_band_name
from geoseg.readers.orientation import Orientation, nearest_orientation, usable
from geoseg.readers.places import local_path, may_be_remote
from geoseg.readers.validity import possible_nodata
from geoseg.scene import Band, as_time

log = logging.getLogger(__name__)

MAX_BLOCK_BYTES = 256 * 2**20
MAX_BANDS = 65_535

DECODE_BLOCKS = frozenset({"GTiff", "JP2OpenJPEG", "HFA", "PNG", "JPEG", "WEBP"})
"""Drivers that decode whole blocks, whatever part of them is asked for."""

DECODE_IN_ORDER = frozenset({"PNG", "JPEG", "WEBP"})
"""Drivers that come to a row through all rows above: below one that is damaged nothing can be read."""

UNPLACED = Affine(1, 0, 0, 0, -1, 0)
"""Coordinates of a file without georeference: (col, -row)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file as it lies on disk."""

    path: str
    native_shape: tuple[int, int]
    """(rows, columns) as stored."""
    orientation: Orientation
    transform: Affine
    """Canonical, see readers.orientation."""
    placed: bool
    """False where the file has no georeference and `transform` is only pixels."""
    crs: CRS | None
    bands: tuple[Band, ...]
    """The bands that hold measurements."""
    indexes: tuple[int, ...]
    """Their numbers in the file, from 1."""
    alpha: int | None
    """The number of the alpha band, or None."""
    alpha_dtype: str
    """NumPy dtype of the alpha band; empty without one."""
    file_mask: bool
    """True where one mask (internal, .msk, NODATA_VALUES) covers all bands."""
    band_masks: tuple[bool, ...]
    """For each band True where it has a mask of its own."""
    block: tuple[int, int]
    """(rows, columns) of the blocks that the file is stored in."""
    whole_blocks: bool
    """True where a part of a block may be readable while the block is not: in mosaics of other files, and where masks or
    bands have blocks of their own."""
    in_order: bool
    """True where a row is read through all rows above."""
    gaps: tuple[Gap, ...]
    """What cannot be read of a mosaic because the files behind it cannot be opened."""
    remark: str | None
    """What the user should know about the georeference; None if nothing."""
    time: datetime | None
    """When the image was taken, where the file says so."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the canonical image."""
        return self.orientation.shape(self.native_shape)

    def with_nodata(self, nodata: float) -> Source:
        """The same file with `nodata` in every band, where the band's dtype can hold it."""
        bands = (replace(band, nodata=possible_nodata(nodata, np.dtype(band.dtype))) for band in self.bands)
        return replace(self, bands=tuple(bands))


def inspect_file(path: str, *, names: Sequence[str] | None = None, palette: bool = False) -> Source:
    """Opens `path`, checks that it can be read with bounded memory, and describes it.

    `names` are the user's, if this is the only file: they may claim a band that is marked as alpha by mistake. With
    `palette`, colour numbers are values.
    Raises InputError.
    """
    _check_path(path)
    with gdal_errors(path, "open"), ExitStack() as stack:
        dataset, placed = open_fresh(path)
        stack.enter_context(dataset)
        _check_size(dataset, path)
        colours = tuple(colour.name for colour in dataset.colorinterp)
        _check_pixels(dataset, colours, path, palette=palette)
        alpha = _alpha(colours, names)
        indexes = tuple(i for i in range(1, dataset.count + 1) if i != alpha)
        if not indexes:
            raise InputError(f"{path!r} holds nothing but an alpha band; give a file with image bands")
        flags = [{flag.name for flag in band} for band in dataset.mask_flag_enums]
        transform, crs, remark = _georeference(dataset, path, placed=placed)
        orientation = Orientation() if transform is None else nearest_orientation(transform)
        shape = (int(dataset.height), int(dataset.width))
        file_mask = any("per_dataset" in f and "alpha" not in f for f in flags)
        band_masks = tuple(not flags[i - 1] for i in indexes)
        one_grid = len(set(dataset.block_shapes)) == 1 and not file_mask and not any(band_masks)
        return Source(
            path=path,
            native_shape=shape,
            orientation=orientation,
            transform=UNPLACED if transform is None else orientation.transform(transform, shape),
            placed=transform is not None,
            crs=crs,
            bands=_bands(dataset, indexes, colours, path),
            indexes=indexes,
            alpha=alpha,
            alpha_dtype="" if alpha is None else dataset.dtypes[alpha - 1],
            file_mask=file_mask,
            band_masks=band_masks,
            block=dataset.block_shapes[0],
            whole_blocks=dataset.driver not in DECODE_BLOCKS or not one_grid,
            in_order=dataset.driver in DECODE_IN_ORDER and one_grid,
            gaps=mosaic_gaps(path, shape) if dataset.driver == "VRT" else (),
            remark=remark,
            time=_time_taken(dataset, path),
        )


def _check_path(path: str) -> None:
    if local_path(path) is None and not may_be_remote(path):
        raise InputError(f"no file {path!r}; check the path, and quote names that contain spaces")


def _check_size(dataset: Any, path: str) -> None:
    if dataset.count < 1:
        parts = [str(name) for name in dataset.subdatasets]
        if parts:
            raise InputError(f"{path!r} is a container of rasters; give one of them: {', '.join(parts[:4])}")
        raise InputError(f"{path!r} has no bands; give a raster image")
    if dataset.count > MAX_BANDS:
        raise InputError(
            f"{path!r} claims {dataset.count} bands, at most {MAX_BANDS} are read; it is damaged or no image"
        )
    if min(dataset.height, dataset.width) < 1:
        raise InputError(f"{path!r} is {dataset.width} x {dataset.height} pixels; there is nothing to read")


def _check_pixels(dataset: Any, colours: tuple[str, ...], path: str, *, palette: bool) -> None:
    if "palette" in colours and not palette:
        raise InputError(
            f"{path!r} is a palette image: its values are colour numbers or classes, not measurements; "
            f"if it is a picture, expand it with `gdal_translate -expand rgb {path} expanded.tif`"
        )
    odd = sorted({dtype for dtype in dataset.dtypes if np.dtype(dtype).kind not in "uif"})
    if odd:
        raise InputError(
            f"{path!r} holds {', '.join(odd)} values, integers or floats are expected; "
            f"make a real-valued image of it first, e.g. its amplitude"
        )
    together: int | None = None
    for (rows, cols), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        size = rows * cols * np.dtype(dtype).itemsize
        if size * dataset.count <= MAX_BLOCK_BYTES:
            continue
        # Asked for only where it matters: over some damaged JPEG 2000 files GDAL looks for it without end (3.10).
        if together is None:
            together = dataset.count if str(getattr(dataset.interleaving, "name", "")) == "pixel" else 1
        size *= together
        if size > MAX_BLOCK_BYTES:
            raise InputError(
                f"{path!r} is stored in blocks of {cols} x {rows} pixels, {size / 2**20:,.0f} MiB each, and at most "
                f"{MAX_BLOCK_BYTES // 2**20} MiB are decoded at once; rewrite it in tiles with `gdal_translate -of COG`"
            )


def _alpha(colours: tuple[str, ...], names: Sequence[str] | None) -> int | None:
    """The number of the alpha band. Programs mark the fourth band of RGB + NIR files as alpha: names overrule them."""
    if "alpha" not in colours or len(colours) == 1:
        return None
    number = colours.index("alpha") + 1
    if names is not None and len(names) == len(colours):
        return number if names[number - 1].strip().lower() in ("alpha", "-", "") else None
    return number


def _bands(dataset: Any, numbers: Sequence[int], colours: tuple[str, ...], path: str) -> tuple[Band, ...]:
    # Each of these goes through all bands of the file.
    dtypes, descriptions, nodata = dataset.dtypes, dataset.descriptions, dataset.nodatavals
    scales, offsets = dataset.scales, dataset.offsets
    bands = []
    for number in numbers:
        i = number - 1
        dtype, scale, offset = np.dtype(dtypes[i]), float(scales[i]), float(offsets[i])
        if not (np.isfinite(scale) and np.isfinite(offset) and scale):
            raise InputError(
                f"{path!r} states scale {scale} and offset {offset} for band {number}, from which no values follow; "
                f"give the right ones with --scale and --offset, or correct the file with `gdal_edit -scale -offset`"
            )
        name = described_name(descriptions[i], colours[i])
        bands.append(
            Band(
                name=file_band_name(path) if name is None and len(numbers) == 1 else name,
                dtype=dtype.name,
                nodata=possible_nodata(nodata[i], dtype),
                scale=scale,
                offset=offset,
                scaled=scale != 1 or offset != 0,
            )
        )
    return tuple(bands)


def _georeference(dataset: Any, path: str, *, placed: bool) -> tuple[Affine | None, CRS | None, str | None]:
    """(affine, CRS, remark); no affine where the file only has pixels."""
    transform = Affine(*tuple(dataset.transform)[:6])
    if not placed or transform == Affine.identity():
        points = [name for name, there in (("GCPs", dataset.gcps[0]), ("RPCs", dataset.rpcs)) if there]
        if points:
            return (
                None,
                None,
                f"is located by {' and '.join(points)} only; warp it with `gdalwarp` to place its fields on a map",
            )
        return None, None, "has no georeference"
    if not usable(transform):
        raise InputError(
            f"{path!r} has the geotransform {transform.to_gdal()}, which maps different pixels to one place; "
            f"correct it with `gdal_edit -a_ullr`"
        )
    crs, remark = _file_crs(dataset, path)
    return transform, crs, remark


def _time_taken(dataset: Any, path: str) -> datetime | None:
    """From GDAL's metadata domain IMAGERY, which its drivers fill from what comes with an image. TIFF's tag DateTime is the time
    at which a file was written, and is not asked. Of remote files neither: GDAL would look for each sidecar that it knows."""
    if local_path(path) is None:
        return None
    told = dataset.tags(ns="IMAGERY").get("ACQUISITIONDATETIME", "").strip()
    if not told:
        return None
    try:
        return as_time(told)
    except ValueError:
        log.warning("%s says that it was taken at %r, which is no time in ISO 8601; say it with --time", path, told)
        return None


def _file_crs(dataset: Any, path: str) -> tuple[CRS | None, str | None]:
    if not dataset.crs:
        return None, "has no CRS"
    wkt = dataset.crs.to_wkt()
    try:
        crs = CRS.from_wkt(wkt)
    except CRSError as error:
        raise InputError(
            f"{path!r} has a CRS that PROJ does not understand ({error}); set it with `gdal_edit -a_srs EPSG:...`"
        ) from error
    if crs.is_engineering:
        return None, f"has a local CRS ({crs.name}) that says nothing of its place on earth"
    authority = crs.to_authority(min_confidence=100)
    known = CRS.from_authority(*authority) if authority else crs
    # Formats write the same CRS in different words; the registered one is the same for all of them.
    return known if known.equals(crs, ignore_axis_order=True) else crs, None
