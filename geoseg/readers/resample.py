"""ResampledReader: a scene on a grid of another pixel size, computed window by window with nothing but footprints.

GDAL's averaged reads change with the window that is asked for. Here a pixel depends on the source pixels in its own
footprint and on nothing else, so every window is the crop of the whole, bit for bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.protocols import Reader
from geoseg.readers.footprint import SNAP, Method, Taps, add_rows, axis_taps
from geoseg.readers.validity import check_request, rectangles
from geoseg.results import Block
from geoseg.scene import WGS84, Scene, to_lonlat

STRIP_BYTES = 32 * 2**20
"""Source pixels and their validity held at a time while reading."""

STRIP_ROWS = 512
"""Strips begin at multiples of it where they are that high: blocks of COGs are then decoded once."""

NOMINAL_TOLERANCE = 0.05
"""A metre of the CRS that is this close to a metre on the ground passes for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResampledReader:
    """`source` on a grid whose pixel edges lie at multiples of the new pixel size from the origin of the CRS.

    The grid keeps the source's orientation. A pixel is valid if at least half of its footprint is; it is then the
    area-weighted mean of the valid source pixels in it (bilinear where pixels become smaller), integers rounded half
    up. Where a footprint touches what could not be read, the pixel is unread, too.
    """

    source: Reader
    pixel_size_m: float
    """Side of the new pixels in metres."""
    method: Method = "average"
    """`average`, or `nearest` for values that must not be mixed."""
    scene: Scene = field(init=False, repr=False)
    _starts: tuple[float, float] = field(init=False, repr=False)
    """(row, col) of the new grid's corner in source pixels; never above 0."""
    _factors: tuple[float, float] = field(init=False, repr=False)
    """(row, col) size of a new pixel in source pixels."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.pixel_size_m) and self.pixel_size_m > 0):
            raise InputError(f"pixel size {self.pixel_size_m} m is no size; give metres above 0")
        if self.method not in ("average", "nearest"):
            raise InputError(f"no resampling method {self.method!r}; use 'average' or 'nearest'")
        old = self.source.scene
        width_m, height_m = pixel_sides_m(old)
        col_factor, row_factor = _whole(self.pixel_size_m / width_m), _whole(self.pixel_size_m / height_m)
        transform = old.transform
        u = (_tidy(transform.a * col_factor), _tidy(transform.d * col_factor))
        v = (_tidy(transform.b * row_factor), _tidy(transform.e * row_factor))
        # Place of the source's corner on the new lattice, counted in new pixels from the origin of the CRS.
        s, t = ~Affine(u[0], v[0], 0, u[1], v[1], 0) * (transform.c, transform.f)
        col0, cols, col_start = _lattice(s, old.shape[1], col_factor)
        row0, rows, row_start = _lattice(t, old.shape[0], row_factor)
        grid = Affine(u[0], v[0], col0 * u[0] + row0 * v[0], u[1], v[1], col0 * u[1] + row0 * v[1])
        scene = replace(
            old,
            shape=(rows, cols),
            transform=grid,
            # A mean may happen to be the nodata value: validity is what read() says.
            bands=tuple(replace(band, nodata=None) for band in old.bands),
            pixel_size_m=None if old.pixel_size_m is None else self.pixel_size_m,
        )
        object.__setattr__(self, "scene", scene)
        object.__setattr__(self, "_starts", (row_start, col_start))
        object.__setattr__(self, "_factors", (row_factor, col_factor))

    def read(self, window: Window, bands: Sequence[int] | None = None) -> Block:
        """Resampled pixels, 0 where not valid, see protocols.Reader. Holds one strip of the source at a time."""
        wanted = check_request(self.scene, window, bands)
        rows = self._taps(0, window.row, window.height)
        cols = self._taps(1, window.col, window.width)
        total = np.zeros((len(wanted), *window.shape), np.float64)
        weight = np.zeros(window.shape, np.float64)
        unread = np.zeros(window.shape, np.bool_)
        for strip in self._strips(rows, cols, len(wanted)):
            block = self.source.read(strip, wanted)
            add_rows(
                block.pixels, block.valid, strip.row, strip.col,
                rows.lo, rows.hi, rows.first, rows.last,
                cols.lo, cols.hi, cols.first, cols.last,
                total, weight,
            )  # fmt: skip
            for part in block.unread:
                unread[np.ix_(rows.touching(part.row, part.row_stop), cols.touching(part.col, part.col_stop))] = True
        valid = (weight >= 0.5 * rows.full * cols.full * (1 - SNAP)) & ~unread
        dtype = np.result_type(*(self.scene.bands[i].dtype for i in wanted))
        pixels = _stored(total, weight, valid, dtype)
        return Block(pixels=pixels, valid=valid, window=window, unread=rectangles(unread, window))

    def content_hash(self) -> str:
        """SHA-256 over the source's content and the new grid."""
        text = f"{self.source.content_hash()} {tuple(self.scene.transform)[:6]} {self.scene.shape} {self.method}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _taps(self, axis: int, first: int, count: int) -> Taps:
        return axis_taps(
            start=self._starts[axis],
            factor=self._factors[axis],
            first=first,
            count=count,
            size=self.source.scene.shape[axis],
            method=self.method,
        )

    def _strips(self, rows: Taps, cols: Taps, bands: int) -> Iterator[Window]:
        """The source under a window, from top to bottom in strips of bounded size."""
        row, stop = int(rows.lo.min()), int(rows.hi.max())
        col, width = int(cols.lo.min()), int(cols.hi.max() - cols.lo.min())
        if width < 1:
            return
        height = max(1, STRIP_BYTES // (width * (1 + bands * self.source.scene.dtype.itemsize)))
        if height >= STRIP_ROWS:
            height -= height % STRIP_ROWS
        while row < stop:
            end = min(stop, row - row % height + height)
            yield Window(row, col, end - row, width)
            row = end


def pixel_sides_m(scene: Scene) -> tuple[float, float]:
    """Width (along a row) and height of a pixel in metres.

    What the user said goes first. Units of a projected CRS count as what they are called if that is about true at the
    scene's centre, so that 10 m in UTM is 10.0; elsewhere (degrees, Web Mercator) sides are measured on the ellipsoid.
    InputError where nothing tells the size.
    """
    transform = scene.transform
    sides = math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)
    if scene.pixel_size_m is not None:
        # One number for both sides: the side of the square of the same area.
        unit = scene.pixel_size_m / math.sqrt(abs(transform.determinant))
        return sides[0] * unit, sides[1] * unit
    if scene.crs is None:
        raise InputError(f"{scene.name} has no CRS and so no known pixel size; give it in metres with --pixel-size")
    rows, cols = scene.shape
    middle = (cols / 2, rows / 2)
    across = _ground_m(scene, middle, (middle[0] + 1, middle[1]))
    down = _ground_m(scene, middle, (middle[0], middle[1] + 1))
    if scene.crs.is_projected:
        metres = scene.crs.axis_info[0].unit_conversion_factor
        nominal = sides[0] * metres, sides[1] * metres
        if all(abs(m / n - 1) < NOMINAL_TOLERANCE for m, n in zip((across, down), nominal, strict=True)):
            return nominal
    if not (math.isfinite(across) and math.isfinite(down) and across > 0 and down > 0):
        raise InputError(
            f"the size of {scene.name}'s pixels cannot be measured; reproject it with `gdalwarp -t_srs` first"
        )
    return across, down


def _ground_m(scene: Scene, begin: tuple[float, float], end: tuple[float, float]) -> float:
    """Geodesic distance of two (col, row) places in metres."""
    assert scene.crs is not None
    x, y = zip(scene.transform * begin, scene.transform * end, strict=True)
    lon, lat = to_lonlat(np.array(x), np.array(y), scene.crs)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return math.nan
    return float(WGS84.inv(lon[0], lat[0], lon[1], lat[1])[2])


def _lattice(corner: float, size: int, factor: float) -> tuple[int, int, float]:
    """First lattice number, number of pixels and start in source pixels of an axis that covers the source.

    `corner` is the source's corner on the new lattice. Edges within a millionth of a source pixel are the same.
    """
    slack = SNAP / factor
    first = math.floor(corner + slack)
    stop = math.ceil(corner + size / factor - slack)
    start = (first - corner) * factor
    return first, max(1, stop - first), float(round(start)) if abs(start - round(start)) < SNAP else start


def _whole(factor: float) -> float:
    """Factors that are integers, or their inverses, but for rounding."""
    if factor >= 1:
        return float(round(factor)) if abs(factor / round(factor) - 1) < 1e-9 else factor
    return 1 / _whole(1 / factor)


def _tidy(length: float) -> float:
    """Without the rounding of a product: 3.0 * (10 / 3) is 10."""
    return float(f"{length:.12g}")


def _stored(
    total: NDArray[np.float64], weight: NDArray[np.float64], valid: NDArray[np.bool_], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Weighted means in the dtype of the scene; 0 where not valid."""
    mean = np.divide(total, weight, out=total, where=valid)
    mean[:, ~valid] = 0
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        mean += 0.5
        np.floor(mean, out=mean)
        np.clip(mean, limits.min, limits.max, out=mean)
    return mean.astype(dtype)
