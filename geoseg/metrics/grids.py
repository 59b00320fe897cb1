"""The grid and the CRS that two layers are compared in."""

from __future__ import annotations

import math

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS
from pyproj.crs import ProjectedCRS
from pyproj.crs.coordinate_operation import LambertAzimuthalEqualAreaConversion

from geoseg.errors import InputError
from geoseg.metrics.layers import FieldPolygons, FieldRaster, Layer, OnGrid, grid_crs
from geoseg.metrics.overlap import repeated_area
from geoseg.scene import WGS84, pixel_area_m2, pixel_areas_m2, to_lonlat

MAX_PIXELS = 100_000_000
"""Largest grid that two vector layers are burnt into."""

PIXELS_ACROSS = 100
"""The default grid shows the median true field about that many pixels wide."""

MAX_DISTORTION = 0.01
"""Lengths and areas in a CRS that are off by more are measured in an equal-area one."""

STEP_M = 100.0
"""Length that the distortion of a CRS is measured with."""

OVERLAP_TOLD = 0.02
"""Share of a layer's area on other polygons of it that is worth a note."""

PIXELS_TO_TELL = 25
"""A grid with that many pixels for each polygon of a layer shows whether they overlap."""


def metric_crs(truth: FieldPolygons, pred: FieldPolygons) -> CRS | None:
    """Where polygon areas are compared: the truth's own CRS where it keeps lengths, else an equal-area one around it.

    Equal-area rather than the local UTM zone: layers may span zones, or the antimeridian. Without a true field the
    prediction says where the place is.
    """
    import shapely

    layer = truth if truth.objects else pred.to_crs(truth.crs)
    crs = truth.crs
    if crs is None or not layer.objects:
        return crs if crs is None or crs.is_projected else CRS.from_epsg(6933)
    inside = shapely.point_on_surface(layer.geometry[0])
    left, bottom, right, top = shapely.total_bounds(layer.geometry)
    over = Affine(right - left, 0, left, 0, top - bottom, bottom)
    return _true_to_lengths(crs, over, around=(inside.x, inside.y))


def metric_grid_crs(grid: GeoBox) -> CRS | None:
    """Where outlines on a grid are measured: its own CRS where it keeps lengths, else an equal-area one around it."""
    crs = grid_crs(grid)
    if crs is None:
        return None
    rows, cols = grid.shape
    return _true_to_lengths(crs, grid.transform @ Affine.scale(cols, rows))


def metres_per_unit(crs: CRS | None) -> float:
    """Metres in a unit of a projected CRS; 1 without one."""
    return 1.0 if crs is None else float(crs.axis_info[0].unit_conversion_factor)


def _true_to_lengths(crs: CRS, over: Affine, *, around: tuple[float, float] | None = None) -> CRS:
    """`crs` where it is projected and distorts little, or no more than an equal-area one; else that one.

    Args:
        crs: the CRS of a layer.
        over: maps the unit square to the layer's bounds.
        around: the middle of the equal-area CRS; None for that of the bounds.
    """
    from pyproj import Transformer

    middle = over @ (0.5, 0.5) if around is None else around
    if not crs.is_projected:
        return equal_area_around(*middle, crs)
    places = np.array([over @ (u, v) for u in (0, 0.5, 1) for v in (0, 0.5, 1)])
    here = _distortion(crs, places[:, 0], places[:, 1])
    known = np.isfinite(here)
    if not known.any() or here[known].max() <= MAX_DISTORTION or not np.isfinite(to_lonlat(*middle, crs)).all():
        return crs
    other = equal_area_around(*middle, crs)
    moved = Transformer.from_crs(crs, other, always_xy=True).transform(*places[known].T)
    return other if _distortion(other, *moved).max() < here[known].max() else crs


def _distortion(crs: CRS, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(place,) how far (log of the ratio) steps along x and y and a square are from the geodesic; nan off the globe."""
    step = STEP_M / metres_per_unit(crs)
    out = np.zeros(len(x))
    for dx, dy in ((step / 2, 0), (0, step / 2)):
        ends = np.array([*to_lonlat(x - dx, y - dy, crs), *to_lonlat(x + dx, y + dy, crs)])
        known = np.isfinite(ends).all(axis=0)
        metres = np.full(len(x), np.nan)
        metres[known] = WGS84.inv(*ends[:, known])[2]
        out = np.maximum(out, _log_ratio(metres, STEP_M))
    squares = pixel_areas_m2(Affine.scale(step), crs, rows=y / step - 0.5, cols=x / step - 0.5)
    return np.maximum(out, _log_ratio(squares, STEP_M**2))


def _log_ratio(values: NDArray[np.float64], expected: float) -> NDArray[np.float64]:
    """(value,) absolute log of the ratio; nan where the value is unknown or 0."""
    known = np.where(values > 0, values, np.nan)
    return np.asarray(np.abs(np.log(known / expected)), dtype=np.float64)


def equal_area_around(x: float, y: float, crs: CRS) -> CRS:
    """An equal-area CRS in metres whose middle is near a place of `crs`."""
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
    """Share of the polygons' area that lies on other polygons of the same layer.

    0 where the layer burnt into the grid shows no overlap worth telling; exact where it does, or is too coarse to.
    """
    import shapely

    total = float(shapely.area(layer.geometry).sum())
    pixels = int((on.labels > 0).sum())
    fine = pixels >= PIXELS_TO_TELL * layer.objects
    if fine and total - pixels * abs(grid.transform.determinant) <= OVERLAP_TOLD * total:
        return 0.0
    return repeated_area(layer.geometry, at_least=OVERLAP_TOLD * total) / total


def burnt_notes(layer: FieldPolygons, on: OnGrid, grid: GeoBox) -> list[str]:
    """What to know about polygons and their pixels: that they overlap each other, that no pixel shows them."""
    notes = []
    if layer.objects and (share := repeated_share(layer, on, grid)) > OVERLAP_TOLD:
        notes.append(f"{layer.name}: polygons overlap each other ({share:.1%} of their area is covered twice or more)")
    if layer.objects and not on.labels.any():
        advice = "" if grid.crs is None else "; give a smaller --pixel-size-m"
        notes.append(
            f"{layer.name}: no field covers the middle of a pixel: the grid is too coarse for pixel scores{advice}"
        )
    return notes


def pixel_side(grid: GeoBox) -> float:
    """Side of a square as large as the pixel in the middle of the grid: in metres, or in units without a CRS."""
    crs = grid_crs(grid)
    if crs is None or metric_grid_crs(grid) == crs:
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
