"""One of the two layers: its polygons in an order that does not depend on the file's, its ids, and a common CRS."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from geoseg.errors import InputError
from geoseg.metrics.grids import equal_area_around
from geoseg.metrics.layers import FieldPolygons, known_crs, polygons_only
from geoseg.scene import to_lonlat

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

NAMED = 5
"""So many wrong ids, or columns, are named in an error."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    polygons: FieldPolygons
    """Valid polygons with an area."""
    rows: NDArray[np.intp]
    """(field,) which row of the layer each is. The order of fields is that of `digests`, then of ids, then of rows."""
    digests: NDArray[np.str_]
    """(field,) hex digest of the outline as it is in the file, wherever its rings begin and whichever way they run."""
    ids: NDArray[np.object_]
    """(field,) the layer's own ids as text, None where there are none."""

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, frame: gpd.GeoDataFrame, *, name: str, ids: NDArray[np.object_]) -> Side:
        """The fields of a layer; invalid polygons are repaired, empty and flat ones left out, both noted.

        Args:
            frame: a layer of polygons.
            name: for messages.
            ids: (row,) ids as text, or None.
        """
        import shapely

        raw = shapely.force_2d(np.asarray(frame.geometry.array, dtype=object))
        given = np.flatnonzero(~(shapely.is_missing(raw) | shapely.is_empty(raw)) & _finite(raw))
        areal = np.isin(shapely.get_type_id(raw[given]), (3, 6, 7))  # polygon, multipolygon, collection
        if given.size and not areal.any():
            raise InputError(
                f"{name} holds {raw[given[0]].geom_type} geometries, but fields are polygons; give a polygon layer"
            )
        given = given[areal]
        shapes = shapely.normalize(raw[given])
        valid = polygons_only(shapes)
        usable = shapely.area(valid) > 0
        wrong = int((~shapely.is_valid(shapes[usable])).sum())
        rows = given[usable]
        digests = np.array([hashlib.sha256(wkb).hexdigest() for wkb in shapely.to_wkb(shapes[usable])], dtype="U64")
        order = np.lexsort((rows, ids[rows].astype(str), digests))
        notes = []
        if left_out := len(frame) - rows.size:
            notes.append(f"{name}: {left_out} of {len(frame)} geometries are empty or have no area and were left out")
        if wrong:
            notes.append(f"{name}: {wrong} invalid polygons were repaired to be compared; they are written as they are")
        return cls(
            polygons=FieldPolygons(
                name=name, geometry=valid[usable][order], crs=known_crs(frame.crs), notes=tuple(notes)
            ),
            rows=rows[order],
            digests=digests[order],
            ids=ids[rows][order],
        )


def _finite(shapes: NDArray[Any]) -> NDArray[np.bool_]:
    """(geometry,) True where all coordinates are numbers."""
    import shapely

    coordinates, index = shapely.get_coordinates(shapes, return_index=True)
    wrong = np.bincount(index[~np.isfinite(coordinates).all(axis=1)], minlength=len(shapes))
    return np.asarray(wrong == 0, dtype=np.bool_)


def together(old: Side, new: Side) -> tuple[Side, Side]:
    """Both in one equal-area CRS in metres, which does not depend on which is which; without any CRS as they are.

    Raises InputError where only one has a CRS, or a layer reaches off the globe.
    """
    a, b = old.polygons, new.polygons
    if (a.crs is None) != (b.crs is None):
        without, stated = (a, b) if a.crs is None else (b, a)
        assert stated.crs is not None
        raise InputError(
            f"{without.name} has no CRS, but {stated.name} is in {stated.crs.name}; say which it is in with --crs"
        )
    if a.crs is None:
        return old, new
    crs = equal_area_around(*_middle(old, new), CRS.from_epsg(4326))
    return replace(old, polygons=a.to_crs(crs)), replace(new, polygons=b.to_crs(crs))


def with_crs(*frames: gpd.GeoDataFrame, crs: str | None) -> tuple[gpd.GeoDataFrame, ...]:
    """The layers, those without a CRS with the one that the user states.

    Raises InputError where PROJ does not know it, or no layer needs it.
    """
    if crs is None:
        return frames
    try:
        stated = CRS.from_user_input(int(crs) if crs.isdecimal() else crs)
    except CRSError as error:
        raise InputError(f"--crs {crs} is no CRS that PROJ knows; use a code such as EPSG:32632") from error
    if all(known_crs(frame.crs) is not None for frame in frames):
        raise InputError("--crs is for layers that do not state their CRS, but both layers do; leave it out")
    return tuple(
        frame if known_crs(frame.crs) is not None else frame.set_crs(stated, allow_override=True) for frame in frames
    )


def _middle(*sides: Side) -> tuple[float, float]:
    """Longitude and latitude of the middle of all fields: the mean of directions from the centre of a sphere.

    Sums are exact, so the order of fields does not matter.
    """
    import shapely

    directions = [np.empty((0, 3))]
    for side in sides:
        if len(side):
            left, bottom, right, top = shapely.bounds(side.polygons.geometry).T
            assert side.polygons.crs is not None
            place = to_lonlat((left + right) / 2, (bottom + top) / 2, side.polygons.crs)
            lon, lat = (np.radians(np.asarray(values, np.float64)) for values in place)
            if not np.isfinite(lon + lat).all():
                raise InputError(
                    f"{side.polygons.name} reaches places where its CRS, {side.polygons.crs.name}, is not defined; "
                    f"check whether it is the right one"
                )
            directions.append(np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1))
    x, y, z = (math.fsum(column) for column in np.concatenate(directions).T)
    return math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y)))


def column_ids(frame: gpd.GeoDataFrame, column: str | None, *, name: str) -> NDArray[np.object_]:
    """(row,) ids as text, None where missing.

    Args:
        frame: the layer.
        column: which one; None for `id` where there is one.
        name: for messages.

    Raises InputError where a named column does not exist.
    """
    if column is None and "id" not in frame.columns:
        return np.full(len(frame), None, dtype=object)
    wanted = column or "id"
    if wanted not in frame.columns or wanted == frame.geometry.name:
        known = ", ".join(str(c) for c in frame.columns if c != frame.geometry.name) or "none"
        raise InputError(f"{name} has no column {wanted!r} with ids; its columns: {known}")
    return _texts(frame[wanted])


def check_ids(ids: NDArray[np.object_], *, name: str, column: str) -> None:
    """InputError where an id is missing or occurs twice: an identity cannot be kept then."""
    missing = sum(text is None for text in ids)
    if missing:
        raise InputError(
            f"{missing} of {len(ids)} fields of {name} have no {column}; fill the column, or name another one with --id"
        )
    names, counts = np.unique(ids.astype(str), return_counts=True)
    twice = names[counts > 1]
    if twice.size:
        shown = ", ".join(twice[:NAMED]) + (", ..." if twice.size > NAMED else "")
        raise InputError(
            f"{twice.size} ids of {name} occur more than once in its column {column} ({shown}); every field needs its own: "
            f"name another column with --id"
        )


def _texts(column: pd.Series) -> NDArray[np.object_]:
    """Numbers without a decimal point where they are whole, as columns with gaps are read as floats."""
    import pandas as pd

    def text(value: Any) -> str | None:
        if pd.isna(value) or not str(value).strip():
            return None
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        return str(value)

    return np.array([*map(text, column.astype(object)), None], dtype=object)[:-1]
