"""The grid and the CRS that two layers are compared in."""

from __future__ import annotations

import math

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS
from pyproj.crs import ProjectedCRS
from pyproj.crs.coordinate_operation import LambertAzimuthalEqualAreaConversion

from geoseg.errors import InputError
from geoseg.metrics.layers import FieldPolygons, FieldRaster, Layer, OnGrid, grid_crs
from geoseg.scene import pixel_area_m2, to_lonlat

MAX_PIXELS = 100_000_000
"""Largest grid that two vector layers are burnt into."""

PIXELS_ACROSS = 100
"""The default grid shows the median true field about that many pixels wide."""


def metric_crs(truth: FieldPolygons) -> CRS | None:
    """Where polygon areas are compared: the truth's own projected CRS, else an equal-area one around the truth.

    Equal-area rather than the local UTM zone: layers may span zones, or the antimeridian.
    """
    import shapely

    crs = truth.crs
    if crs is None or _has_true_lengths(crs):
        return crs
    if not truth.objects:
        return CRS.from_epsg(6933)
    inside = shapely.point_on_surface(truth.geometry[0])
    return _equal_area_around(inside.x, inside.y, crs)


def metric_grid_crs(grid: GeoBox) -> CRS | None:
    """Where outlines on a grid are measured: its own projected CRS, else an equal-area one around its middle."""
    crs = grid_crs(grid)
    if crs is None or _has_true_lengths(crs):
        return crs
    rows, cols = grid.shape
    return _equal_area_around(*(grid.transform @ (cols / 2, rows / 2)), crs)


def metres_per_unit(crs: CRS | None) -> float:
    """Metres in a unit of a projected CRS; 1 without one."""
    return 1.0 if crs is None else float(crs.axis_info[0].unit_conversion_factor)


def _has_true_lengths(crs: CRS) -> bool:
    return bool(crs.is_projected and "pseudo-mercator" not in crs.name.lower())


def _equal_area_around(x: float, y: float, crs: CRS) -> CRS:
    lon, lat = (round(float(value), 1) for value in to_lonlat(x, y, crs))
    return ProjectedCRS(LambertAzimuthalEqualAreaConversion(lat, lon), name=f"equal-area around {lon}, {lat}")


def raster_grid(pred: Layer, truth: Layer) -> tuple[GeoBox, str]:
    """The grid of a comparison with a raster, and whose it is."""
    if isinstance(truth, FieldRaster):
        return truth.grid, "truth"
    if isinstance(pred, FieldRaster):
        return pred.grid, "prediction"
    raise InputError("neither layer is a raster; compare polygons by their areas")


def common_grid(pred: FieldPolygons, truth: FieldPolygons, pixel_size_m: float | None) -> GeoBox:
    """A grid over both layers, in the truth's (metric) CRS."""
    import shapely

    crs = truth.crs
    if pixel_size_m is not None and crs is None:
        raise InputError("without a CRS there are no metres; leave the pixel size out: one unit is one pixel")
    if pixel_size_m is not None and not (pixel_size_m > 0 and math.isfinite(pixel_size_m)):
        raise InputError(f"a pixel size of {pixel_size_m} m cannot be used; give a number above 0")
    every = np.concatenate([pred.geometry, truth.geometry])
    left, bottom, right, top = shapely.total_bounds(every) if every.size else (0.0, 0.0, 1.0, 1.0)
    if crs is None:
        size = 1.0
    elif pixel_size_m is not None:
        size = pixel_size_m / metres_per_unit(crs)
    else:
        reference = truth.geometry if truth.objects else every
        typical = math.sqrt(float(np.median(shapely.area(reference)))) if reference.size else 1.0
        size = _round_number(max(typical / PIXELS_ACROSS, math.sqrt((right - left) * (top - bottom) / MAX_PIXELS)))
    first_col, last_row = math.floor(left / size), math.floor(bottom / size)
    cols, rows = math.ceil(right / size) - first_col, math.ceil(top / size) - last_row
    if rows * cols > 2 * MAX_PIXELS:
        raise InputError(
            f"a grid of {cols} x {rows} pixels of {size:g} is too large; give a larger --pixel-size-m, "
            f"or clip the layers to one place"
        )
    shape = (max(rows, 1), max(cols, 1))
    return GeoBox(shape, Affine(size, 0, first_col * size, 0, -size, (last_row + shape[0]) * size), crs)


def _round_number(size: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= size * (1 - 1e-9)))


def repeated_share(layer: FieldPolygons, on: OnGrid, grid: GeoBox) -> float:
    """Share of the polygons' area that lies on other polygons of the same layer, measured on the grid."""
    import shapely

    burnt = float((on.labels > 0).sum()) * abs(grid.transform.determinant)
    total = float(shapely.area(layer.geometry).sum())
    return 1 - burnt / total if total else 0.0


def pixel_side(grid: GeoBox) -> float:
    """Side of a square as large as the pixel in the middle of the grid: in metres, or in units without a CRS."""
    crs = grid_crs(grid)
    if crs is None or _has_true_lengths(crs):
        return math.sqrt(abs(grid.transform.determinant)) * metres_per_unit(crs)
    return math.sqrt(grid_pixel_m2(grid))


def grid_pixel_m2(grid: GeoBox) -> float:
    """Geodesic area of the pixel in the middle of the grid."""
    crs = grid_crs(grid)
    rows, cols = grid.shape
    area = pixel_area_m2(grid.transform, crs, row=rows / 2, col=cols / 2) if crs else math.nan
    if not area > 0:
        raise InputError("the area of a pixel is unknown: the grid does not lie on the globe; check its georeference")
    return area
