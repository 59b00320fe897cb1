"""Area of interest: which pixels of a scene a run is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """A polygon in pixel coordinates (x = col, y = row). Picklable; called with a window, it gives its pixels."""

    wkb: bytes
    region: Window
    """Bounding window, clipped to the scene."""

    def __call__(self, window: Window) -> NDArray[np.bool_]:
        """(row, col) True for pixels whose centre lies inside."""
        from affine import Affine
        from rasterio.features import geometry_mask

        shape = shapely.from_wkb(self.wkb)
        return np.asarray(geometry_mask([shape], window.shape, Affine.translation(window.col, window.row), invert=True))


def area_of_interest(text: str, scene: Scene) -> Area:
    """The area that `--aoi` names: a vector file in any CRS, or west,south,east,north in degrees (pixels without a CRS)."""
    shape = _box(text, scene) if _is_box(text) else _file(text, scene)
    a, b, c, d, e, f = tuple(~scene.transform)[:6]
    pixels: Any = shapely.transform(
        shape, lambda xy: np.stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f], axis=1)
    )
    pixels = shapely.make_valid(pixels)
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
    if scene.crs is None:
        return box
    # Edges are straight in degrees, not in the scene's CRS: follow them closely.
    return _projected(shapely.segmentize(box, max(east - west, north - south) / 64), "EPSG:4326", scene)


def _file(text: str, scene: Scene) -> Any:
    import geopandas as gpd
    from pyogrio.errors import DataLayerError, DataSourceError

    if not Path(text).exists():
        raise InputError(f"--aoi {text}: no such file, nor a box; expected a vector file or west,south,east,north")
    try:
        frame = gpd.read_file(text)
    except (DataSourceError, DataLayerError) as error:
        raise InputError(f"--aoi {text} cannot be read ({error}); expected a vector file such as GeoJSON") from error
    if not len(frame) or frame.geometry.is_empty.all():
        raise InputError(f"--aoi {text} holds no polygons; draw the area first")
    shape = shapely.union_all(shapely.make_valid(frame.geometry.to_numpy()))
    if scene.crs is None or frame.crs is None:
        return shape
    return _projected(shape, frame.crs, scene)


def _projected(shape: Any, crs: Any, scene: Scene) -> Any:
    from pyproj import Transformer

    change = Transformer.from_crs(crs, scene.crs, always_xy=True)
    return shapely.transform(shape, lambda xy: np.stack(change.transform(xy[:, 0], xy[:, 1]), axis=1))
