"""ArrayReader: a scene that is in memory already."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.readers.identity import meaning
from geoseg.readers.naming import described_name
from geoseg.readers.orientation import nearest_orientation, usable
from geoseg.readers.validity import both_valid, check_request, possible_nodata, stored_valid
from geoseg.results import Block
from geoseg.scene import Band, Scene

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayReader:
    """Pixels in memory. Picklable, and as large in the pickle as in memory."""

    pixels: NDArray[Any]
    """(band, row, col) stored values, canonical: north up, east right."""
    scene: Scene
    valid: NDArray[np.bool_] | None = None
    """(row, col) True where there is data, in addition to what nodata and finiteness say; None for everywhere."""

    def __post_init__(self) -> None:
        expected = (len(self.scene.bands), *self.scene.shape)
        if self.pixels.shape != expected:
            raise InputError(
                f"pixels are {self.pixels.shape}, the scene is {expected} (band, row, col); make them agree"
            )
        if self.pixels.dtype.kind not in "uif":
            raise InputError(
                f"pixels are {self.pixels.dtype}, integers or floats are expected; convert them with astype"
            )
        if self.valid is not None and (self.valid.shape != self.scene.shape or self.valid.dtype != np.bool_):
            raise InputError(
                f"valid is {self.valid.dtype} {self.valid.shape}, bool {self.scene.shape} is expected; True means valid"
            )

    def read(self, window: Window, bands: Sequence[int] | None = None) -> Block:
        """A copy of `window`, see protocols.Reader."""
        wanted = check_request(self.scene, window, bands)
        rows, cols = window.slices
        pixels = self.pixels[:, rows, cols][list(wanted)]
        given = None if self.valid is None else self.valid[rows, cols].copy()
        valid = both_valid(given, stored_valid(pixels, [self.scene.bands[i].nodata for i in wanted]))
        return Block(pixels=pixels, valid=np.ones(window.shape, np.bool_) if valid is None else valid, window=window)

    def content_hash(self) -> str:
        """SHA-256 over scene, pixels and validity."""
        digest = hashlib.sha256(f"{meaning(self.scene)} {self.pixels.dtype}".encode())
        digest.update(np.ascontiguousarray(self.pixels).view(np.uint8).data)
        if self.valid is not None:
            digest.update(np.ascontiguousarray(self.valid).view(np.uint8).data)
        return digest.hexdigest()


def from_array(
    pixels: NDArray[Any],
    *,
    transform: Affine | None = None,
    crs: CRS | str | None = None,
    names: Sequence[str | None] | None = None,
    nodata: float | None = None,
    scale: float = 1.0,
    offset: float = 0.0,
    valid: NDArray[np.bool_] | None = None,
    pixel_size_m: float | None = None,
    name: str = "array",
) -> ArrayReader:
    """A reader of (band, row, col) or (row, col) pixels that lie on the grid of `transform` in any orientation.

    Without `transform` coordinates are pixels, (col, -row), and there is no CRS.
    """
    pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3:
        raise InputError(f"pixels have {pixels.ndim} dimensions; give (band, row, col) or (row, col)")
    if names is not None and len(names) != len(pixels):
        raise InputError(f"{len(names)} names for {len(pixels)} bands; name each one, or none")
    shape = (pixels.shape[1], pixels.shape[2])
    if transform is None:
        transform, crs = Affine(1, 0, 0, 0, -1, 0), None
    elif not usable(transform):
        raise InputError(f"transform {tuple(transform)[:6]} maps different pixels to one place; give one that does not")
    else:
        turn = nearest_orientation(transform)
        transform = turn.transform(transform, shape)
        pixels, shape = turn.canonical(pixels), turn.shape(shape)
        valid = None if valid is None else turn.canonical(valid)
    band = Band(
        name=None,
        dtype=pixels.dtype.name,
        nodata=possible_nodata(nodata, pixels.dtype) if pixels.dtype.kind in "uif" else None,
        scale=scale,
        offset=offset,
        scaled=scale != 1 or offset != 0,
    )
    scene = Scene(
        shape=shape,
        transform=transform,
        crs=None if crs is None else CRS.from_user_input(crs),
        bands=(band,) * len(pixels),
        name=name,
        pixel_size_m=pixel_size_m,
    )
    if names is not None:
        scene = scene.with_band_names([each or "-" for each in names])
    return ArrayReader(pixels=pixels, scene=scene, valid=valid)


def from_dataarray(da: xr.DataArray) -> ArrayReader:
    """A reader of a DataArray as rioxarray and odc make them: (band, y, x) or (y, x) with a `spatial_ref`.

    Its values are loaded into memory. Nodata, scale and offset come from the attributes (`_FillValue`,
    `scale_factor`, `add_offset`), band names from `long_name` or the band coordinate.
    """
    try:
        import rioxarray  # noqa: F401 - registers .rio
    except ImportError as error:
        raise InputError("reading a DataArray needs rioxarray; install it, or use from_array") from error

    y, x = str(da.rio.y_dim), str(da.rio.x_dim)
    others = [str(dim) for dim in da.dims if dim not in (y, x)]
    if len(others) > 1:
        raise InputError(
            f"the DataArray has dimensions {da.dims}; select one of each but (band, y, x), e.g. with .isel"
        )
    da = da.transpose(*others, y, x)
    transform = Affine(*tuple(da.rio.transform())[:6])
    nodata = da.rio.nodata
    return from_array(
        np.asarray(da.values),
        transform=None if transform == Affine.identity() else transform,
        crs=None if da.rio.crs is None else CRS.from_wkt(da.rio.crs.to_wkt()),
        names=_names(da, others),
        nodata=None if nodata is None else float(nodata),
        scale=float(da.attrs.get("scale_factor", 1.0)),
        offset=float(da.attrs.get("add_offset", 0.0)),
        name=str(da.name or "DataArray"),
    )


def _names(da: xr.DataArray, band_dims: list[str]) -> list[str | None]:
    count = da.sizes[band_dims[0]] if band_dims else 1
    stated = da.attrs.get("long_name")
    described = (stated,) if isinstance(stated, str) else tuple(stated or ())
    if len(described) != count and band_dims and band_dims[0] in da.coords:
        described = tuple(str(value) for value in da.coords[band_dims[0]].values)
    return [described_name(text, "") for text in described] if len(described) == count else [None] * count
