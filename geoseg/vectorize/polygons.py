"""Outlines in integer pixels to georeferenced polygons with attributes: one affine, then geodesic measures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.grid import Window
from geoseg.kernels.ellipsoid import ring_measures
from geoseg.results import PROBABILITY_MAX, Outlines
from geoseg.scene import WGS84, Scene, to_lonlat

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd

AT_ONCE = 10_000
"""Polygons that are measured at a time, which bounds the memory that takes."""


def nothing() -> Outlines:
    """Outlines of no object."""
    none, offsets = np.empty(0, np.int64), np.zeros(1, np.int64)
    return Outlines(
        first=np.empty((0, 2), np.int64), kind=np.empty(0, np.uint8), pixels=none, own=none, sums=none, touches=none > 0,
        sides=none, opened=none, support=none,
        vertices=np.empty((0, 2), np.int32), junction=none > 0, rings=offsets, objects=offsets,
    )  # fmt: skip


def polygons(outlines: Outlines, transform: Affine) -> NDArray[np.object_]:
    """(object,) shapely polygons; `transform` maps (col, row) to (x, y)."""
    if not len(outlines):
        return np.empty(0, object)
    row, col = outlines.vertices.T / float(outlines.scale)
    a, b, c, d, e, f = tuple(transform)[:6]
    coordinates = np.stack([a * col + b * row + c, d * col + e * row + f], axis=1)
    offsets = (outlines.rings, outlines.objects)
    return np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, coordinates, offsets))


def geodesic(shapes: NDArray[np.object_], crs: CRS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(object,) geodesic areas in m2 and perimeters in m of polygons on WGS 84, holes subtracted and walked along too.

    To 1e-6 for outlines of short edges (see geoseg.kernels.ellipsoid); others exactly, after Karney, Algorithms for
    geodesics, J. Geodesy 87 (2013), as in GeographicLib behind pyproj.Geod.
    """
    area, perimeter = np.zeros(len(shapes)), np.zeros(len(shapes))
    for start in range(0, len(shapes), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        area[part], perimeter[part] = _geodesic(shapes[part], crs)
    return area, perimeter


def _geodesic(shapes: NDArray[np.object_], crs: CRS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _, coordinates, (rings, objects) = shapely.to_ragged_array(shapes)
    lon, lat = (np.asarray(axis, np.float64) for axis in to_lonlat(coordinates[:, 0], coordinates[:, 1], crs))
    areas, lengths, fine = ring_measures(lon, lat, np.asarray(rings, np.int64))
    for i in np.flatnonzero(~fine):
        part = slice(rings[i], rings[i + 1] - 1)
        value, lengths[i] = WGS84.polygon_area_perimeter(lon[part], lat[part])
        areas[i] = abs(value)
    total = np.add.reduceat(areas, objects[:-1])
    return 2 * areas[objects[:-1]] - total, np.add.reduceat(lengths, objects[:-1])


def fields(
    outlines: Outlines,
    scene: Scene,
    class_names: Sequence[str],
    *,
    origin: tuple[int, int],
    pixel_size_m: float,
    with_confidence: bool = True,
    with_support: bool = True,
    unread: Sequence[Window] | None = None,
) -> gpd.GeoDataFrame:
    """Field polygons in the scene's CRS, in the order of `outlines`.

    Columns: `confidence`, the mean probability of the class over its own pixels; `boundary_support`, the mean probability of
    a boundary along the outline; `compactness`, 4 pi area / perimeter^2 (Polsby and Popper 1991), 1 for a circle;
    `nodata_fraction`, the share of the outline that borders on the scene's edge or on nodata, beyond which the field may go on.

    Args:
        outlines: in scene pixels; measures are those of the polygons as written.
        scene: gives transform and CRS.
        class_names: by class id.
        origin: scene pixel (row, col) of the lattice's origin; ids count from there.
        pixel_size_m: side of a pixel in metres, used where there is no CRS.
        with_confidence: False where the source has no probabilities: the column is then empty.
        with_support: False where the source says nothing of boundaries: that column is then empty.
        unread: parts of the scene that could not be read; fields that touch one are marked in a column `unread`, which is
            there unless this is None.
    """
    import geopandas as gpd

    shapes = polygons(outlines, scene.transform)
    if scene.crs is not None:
        area, perimeter = geodesic(shapes, scene.crs)
    else:
        unit = units_in_m(scene, pixel_size_m)
        area, perimeter = shapely.area(shapes) * unit**2, shapely.length(shapes) * unit
    rows, cols = (outlines.first - np.array(origin)).T if len(outlines) else (np.empty(0, int), np.empty(0, int))
    confidence = outlines.sums / (PROBABILITY_MAX * np.maximum(outlines.own, 1))
    closed = outlines.sides - outlines.opened
    support = np.where(closed > 0, outlines.support / (PROBABILITY_MAX * np.maximum(closed, 1)), np.nan)
    names = np.array([*class_names, *(f"class_{i}" for i in range(len(class_names), 256))], object)
    columns = {
        "id": np.array([f"r{row}c{col}" for row, col in zip(rows, cols, strict=True)], object),
        "class": names[outlines.kind],
        "area_m2": np.round(area, 2),
        "perimeter_m": np.round(perimeter, 2),
        "confidence": np.round(confidence, 4) if with_confidence else np.full(len(outlines), np.nan),
        "boundary_support": np.round(support, 4) if with_support else np.full(len(outlines), np.nan),
        "compactness": np.round(4 * np.pi * area / np.where(perimeter > 0, perimeter, np.nan) ** 2, 4),
        "touches_edge": outlines.touches,
        "nodata_fraction": np.round(outlines.opened / np.maximum(outlines.sides, 1), 4),
    }
    if unread is not None:
        columns["unread"] = touching(outlines, unread)
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=scene.crs)


def touching(outlines: Outlines, windows: Sequence[Window]) -> NDArray[np.bool_]:
    """(object,) True for objects that touch one of the windows."""
    found = np.zeros(len(outlines), np.bool_)
    if windows:
        boxes = [shapely.box(window.col, window.row, window.col_stop, window.row_stop) for window in windows]
        at, _ = shapely.STRtree(boxes).query(polygons(outlines, Affine.identity()), predicate="intersects")
        found[at] = True
    return found


def longest_pixel_m(scene: Scene, pixel_size_m: float) -> float:
    """Metres that a step of one pixel covers at most, in whatever direction, at the scene's centre; inf where unknown."""
    a, b, _, d, e, _ = tuple(scene.transform)[:6]
    if scene.crs is None:
        steps = np.array([[a, b], [d, e]]) * units_in_m(scene, pixel_size_m)
    else:
        rows, cols = scene.shape
        x, y = scene.transform @ (cols / 2, rows / 2)
        lon, lat = to_lonlat(np.array([x, x + a, x + b]), np.array([y, y + d, y + e]), scene.crs)
        towards, _, lengths = WGS84.inv(lon[[0, 0]], lat[[0, 0]], lon[1:], lat[1:])
        steps = np.stack([lengths * np.sin(np.radians(towards)), lengths * np.cos(np.radians(towards))])
    return float(np.linalg.norm(steps, ord=2)) if np.isfinite(steps).all() else math.inf


def units_in_m(scene: Scene, pixel_size_m: float) -> float:
    """Length in metres of one unit of the scene's coordinates, at its centre."""
    return pixel_size_m / math.sqrt(abs(float(scene.transform.determinant)))
