"""Area of interest: which pixels of a scene a run is asked for."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """A polygon in pixel coordinates (x = col, y = row). Picklable; called with a window, it gives its pixels."""

    wkb: bytes
    region: Window
    """Bounding window, clipped to the scene."""

    def fingerprint(self) -> str:
        """Hash over the polygon: the same area from another file is the same."""
        return hashlib.sha256(self.wkb).hexdigest()

    def __call__(self, window: Window) -> NDArray[np.bool_]:
        """(row, col) True for pixels whose centre lies inside."""
        shape = shapely.from_wkb(self.wkb)
        shapely.prepare(shape)
        box = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        if shapely.contains_properly(shape, box):
            return np.ones(window.shape, np.bool_)
        cols, rows = np.arange(window.col, window.col_stop) + 0.5, np.arange(window.row, window.row_stop) + 0.5
        return np.asarray(shapely.contains_xy(shape, cols[None, :], rows[:, None]), np.bool_)


def area_of_interest(text: str, scene: Scene) -> Area:
    """The area that `--aoi` names: a vector file in any CRS, or west,south,east,north in degrees (pixels without a CRS)."""
    shape = _box(text, scene) if _is_box(text) else _file(text, scene)
    a, b, c, d, e, f = tuple(~scene.transform)[:6]
    pixels: Any = shapely.transform(
        shapely.make_valid(shape),
        lambda xy: np.stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f], axis=1),
    )
    left, top, right, bottom = shapely.bounds(pixels)
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise InputError(f"the area of interest {text} is empty or lies outside what the scene's CRS can express")
    row, col = math.floor(top), math.floor(left)
    region = Window(row, col, math.ceil(bottom) - row, math.ceil(right) - col) & Window(0, 0, *scene.shape)
    if not region:
        raise InputError(f"the area of interest {text} lies outside {scene.name}; choose one that overlaps it")
    return Area(wkb=shapely.to_wkb(pixels), region=region)


def _is_box(text: str) -> bool:
    parts = text.split(",")
    try:
        return len(parts) == 4 and all(math.isfinite(float(part)) for part in parts)
    except ValueError:
        return False


def _box(text: str, scene: Scene) -> Any:
    west, south, east, north = (float(part) for part in text.split(","))
    if west >= east or south >= north:
        raise InputError(f"--aoi {text} is empty; expected west,south,east,north with west < east and south < north")
    box = shapely.box(west, south, east, north)
    return box if scene.crs is None else _projected(box, CRS.from_epsg(4326), scene)


def _file(text: str, scene: Scene) -> Any:
    import geopandas as gpd
    from pyogrio.errors import DataLayerError, DataSourceError

    if not Path(text).exists():
        raise InputError(f"--aoi {text}: no such file, nor a box; expected a vector file or west,south,east,north")
    try:
        frame = gpd.read_file(text)
    except (DataSourceError, DataLayerError) as error:
        raise InputError(f"--aoi {text} cannot be read ({error}); expected a vector file such as GeoJSON") from error
    drawn = frame.geometry.to_numpy() if isinstance(frame, gpd.GeoDataFrame) else np.empty(0, object)
    drawn = drawn[shapely.get_dimensions(drawn) == 2]
    if not len(drawn) or shapely.is_empty(drawn).all():
        raise InputError(f"--aoi {text} holds no polygons; draw the area as one or more polygons")
    shape = shapely.union_all(shapely.make_valid(drawn))
    if scene.crs is None or frame.crs is None:
        return shape
    return _projected(shape, frame.crs, scene)


def _projected(shape: Any, crs: Any, scene: Scene) -> Any:
    """The part of an area that can concern the scene, in its CRS.

    It is cut to the scene's surroundings first, since a CRS such as UTM expresses only a part of the globe, and its edges,
    straight in their own CRS, are followed closely.
    """
    from pyproj import Transformer

    outline = _outline(scene, crs)
    if outline is not None:
        shape = shapely.intersection(shape, outline)
    if shapely.is_empty(shape):
        return shape
    left, bottom, right, top = shapely.bounds(shape)
    change = Transformer.from_crs(crs, scene.crs, always_xy=True)
    fine = shapely.segmentize(shape, max(right - left, top - bottom) / 256)
    return shapely.transform(fine, lambda xy: np.stack(change.transform(xy[:, 0], xy[:, 1]), axis=1))


def _outline(scene: Scene, crs: Any) -> Any:
    """The scene with a margin, in another CRS; None where that makes no simple shape (poles, antimeridian)."""
    from pyproj import Transformer

    rows, cols = scene.shape
    a, b, c, d, e, f = tuple(scene.transform)[:6]
    ring = shapely.segmentize(shapely.box(0, 0, cols, rows), max(rows, cols) / 32)
    change = Transformer.from_crs(scene.crs, crs, always_xy=True)

    def moved(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        col, row = pixels[:, 0], pixels[:, 1]
        return np.stack(change.transform(a * col + b * row + c, d * col + e * row + f), axis=1)

    outline = shapely.transform(ring, moved)
    bounds = shapely.bounds(outline)
    width, height = bounds[2] - bounds[0], bounds[3] - bounds[1]
    if not np.isfinite(bounds).all() or not outline.is_valid or (CRS(crs).is_geographic and width > 180):
        return None
    return shapely.buffer(outline, 0.05 * max(width, height))
