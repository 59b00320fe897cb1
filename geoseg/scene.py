"""Scene: what a reader offers, as a value. Georeference, bands and validity rules, but no pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod

from geoseg.errors import InputError
from geoseg.sensors import SYNONYMS

WGS84 = Geod(ellps="WGS84")

# Common names that files, sensors and people use, mapped to the names that models ask for.
BAND_ALIASES = {
    "r": "red", "b04": "red", "b4": "red", "sr_b4": "red", "rouge": "red",
    "g": "green", "b03": "green", "b3": "green", "sr_b3": "green",
    "b": "blue", "b02": "blue", "b2": "blue", "sr_b2": "blue",
    "n": "nir", "b08": "nir", "b8": "nir", "sr_b5": "nir", "near infrared": "nir", "near_infrared": "nir",
    "nir08": "nir", "infrared": "nir",
    "sr_b6": "swir16", "sr_b7": "swir22", **SYNONYMS,
}  # fmt: skip


def band_name(raw: str) -> str:
    """The common name behind a band description: `B04` -> `red`, `Red` -> `red`; unknown names in lower case."""
    name = raw.strip().lower()
    return BAND_ALIASES.get(name, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    name: str | None
    """Common name (`red`, `nir`, ...), or None where the file does not say."""
    dtype: str
    """NumPy dtype of the stored values."""
    nodata: float | None = None
    """Stored value that means "no data", or None."""
    scale: float = 1.0
    """physical = stored * scale + offset, as the file says (1 and 0 where it is silent)."""
    offset: float = 0.0
    """See `scale`."""
    scaled: bool = False
    """True where the file or the user states scale and offset, False where they are only the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    shape: tuple[int, int]
    """(rows, columns) of the canonical grid: north up, east right (see readers)."""
    transform: Affine
    """Maps (col, row) of a pixel corner to (x, y)."""
    crs: CRS | None
    """None where the file has none: coordinates are then pixels, (col, -row)."""
    bands: tuple[Band, ...]
    name: str
    """For messages and records, never for identity."""
    pixel_size_m: float | None = None
    """Given by the user for scenes without a CRS; None means: take it from the CRS."""
    time: datetime | None = None
    """When the image was taken, where known."""

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise InputError(f"{self.name} is {self.shape[1]} x {self.shape[0]} pixels: there is nothing to read")
        if not self.bands:
            raise InputError(f"{self.name} has no bands: there is nothing to read")

    @property
    def geobox(self) -> GeoBox:
        """The georeference as an odc-geo GeoBox."""
        return GeoBox(self.shape, self.transform, self.crs)

    @property
    def band_names(self) -> tuple[str | None, ...]:
        return tuple(band.name for band in self.bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        """One dtype that holds every band's stored values."""
        return np.result_type(*(np.dtype(band.dtype) for band in self.bands))

    def resolution_m(self) -> float | None:
        """Pixel size in metres (square root of the pixel's area at the scene's centre), or None if unknown."""
        if self.pixel_size_m is not None:
            return self.pixel_size_m
        if self.crs is None:
            return None
        rows, cols = self.shape
        size = float(pixel_areas_m2(self.transform, self.crs, rows=np.array([rows / 2]), cols=np.array([cols / 2]))[0])
        return math.sqrt(size) if size > 0 else None

    def cropped(self, row: int, col: int, height: int, width: int) -> Scene:
        """The part of the scene that begins at pixel (row, col)."""
        return replace(self, shape=(height, width), transform=self.transform @ Affine.translation(col, row))

    def with_band_names(self, names: Sequence[str]) -> Scene:
        """The same scene with its bands named by hand."""
        if len(names) != len(self.bands):
            raise InputError(
                f"--bands names {len(names)} bands ({','.join(names)}), but {self.name} has {len(self.bands)}; "
                f"name all of them in file order, with '-' for those to ignore"
            )
        bands = tuple(
            replace(band, name=None if name.strip() in ("-", "") else band_name(name))
            for band, name in zip(self.bands, names, strict=True)
        )
        return replace(self, bands=bands)


def pixel_areas_m2(
    transform: Affine, crs: CRS, *, rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(pixel,) geodesic areas in square metres of the pixels whose corners are at (rows, cols); nan off the globe."""
    a, b, c, d, e, f = tuple(transform)[:6]
    # (pixel, corner), around each pixel
    col, row = cols[:, None] + np.array([0, 1, 1, 0]), rows[:, None] + np.array([0, 0, 1, 1])
    lon, lat = to_lonlat(a * col + b * row + c, d * col + e * row + f, crs)
    out = np.full(len(rows), np.nan)
    for i in np.flatnonzero(np.isfinite(lon).all(axis=1) & np.isfinite(lat).all(axis=1)):
        area, _ = WGS84.polygon_area_perimeter(lon[i], lat[i])
        out[i] = abs(area)
    return out


def pixel_area_m2(transform: Affine, crs: CRS, *, row: float, col: float) -> float:
    """Geodesic area in square metres of one pixel, see `pixel_areas_m2`."""
    return float(pixel_areas_m2(transform, crs, rows=np.array([row]), cols=np.array([col]))[0])


FARTHEST = 5e8
"""No coordinate of a projected CRS is larger, in whatever unit of length: four times around the globe, in feet."""


def check_place(scene: Scene) -> None:
    """InputError where the coordinates are not what the CRS says: pixels in degrees, metres far beyond the globe."""
    if scene.crs is None:
        return
    rows, cols = scene.shape
    corners = [scene.transform @ (col, row) for row in (0, rows) for col in (0, cols)]
    x, y = np.array([c[0] for c in corners]), np.array([c[1] for c in corners])
    if scene.crs.is_geographic:
        wrong = bool(np.abs(y).max() > 91 or np.abs(x).max() > 540)
    else:  # PROJ makes longitudes and latitudes of any number; units are metres or feet
        wrong = bool(max(np.abs(x).max(), np.abs(y).max()) > FARTHEST)
    if wrong or replace(scene, pixel_size_m=None).resolution_m() is None:
        raise InputError(
            f"{scene.name} reaches from ({x.min():.6g}, {y.min():.6g}) to ({x.max():.6g}, {y.max():.6g}), which is no place "
            f"in {scene.crs.name}; correct its georeference"
        )


def to_lonlat(x: Any, y: Any, crs: CRS) -> tuple[Any, Any]:
    """Coordinates of `crs` as WGS 84 longitude and latitude in degrees."""
    from pyproj import Transformer

    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return lon, lat
