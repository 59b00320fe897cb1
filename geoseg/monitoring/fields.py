"""Fields to be watched: polygons with ids, in any CRS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from geoseg.errors import InputError
from geoseg.scene import Scene
from geoseg.vectorize.polygons import geodesic

if TYPE_CHECKING:
    import geopandas as gpd

PARQUET = (".parquet", ".geoparquet", ".pq")
AREAL = (3, 6)
"""shapely's numbers of polygons and multipolygons."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WatchedFields:
    ids: NDArray[np.object_]
    """(field,) texts, each once."""
    shapes: NDArray[np.object_]
    """(field,) polygons and multipolygons."""
    crs: CRS | None
    """None where coordinates are those of a scene without a CRS: (col, -row)."""
    area_m2: NDArray[np.float64]
    """(field,) geodesic; nan without a CRS."""
    name: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, frame: gpd.GeoDataFrame, *, name: str, id_column: str | None = None) -> WatchedFields:
        """The polygons of a table. Ids are those of `id_column`, else of a column `id`, else the numbers of the rows from 0.

        Raises InputError where there are no polygons, or ids are missing or come twice.
        """
        shapes = np.asarray(frame.geometry.array, dtype=object)
        ids = _ids(frame, id_column, name)
        missing = shapely.is_missing(shapes) | shapely.is_empty(shapes)
        wrong = ~missing & ~shapely.is_valid(shapes)
        repaired = np.array([_areal(shape) for shape in shapely.make_valid(shapes)], dtype=object)
        kept = ~missing & (shapely.area(repaired) > 0)
        if not kept.any():
            raise InputError(f"{name} holds no polygons; give a layer of fields")
        notes = []
        if lost := int((~kept).sum()):
            notes.append(f"{name}: {lost} of {len(ids)} geometries have no area and were left out")
        if int((wrong & kept).sum()):
            notes.append(f"{name}: {int((wrong & kept).sum())} invalid polygons were repaired")
        crs = None if frame.crs is None else CRS.from_user_input(frame.crs)
        area = np.full(int(kept.sum()), np.nan) if crs is None else geodesic(repaired[kept], crs)[0]
        return cls(ids=ids[kept], shapes=repaired[kept], crs=crs, area_m2=area, name=name, notes=tuple(notes))

    def in_pixels(self, scene: Scene) -> NDArray[np.object_]:
        """(field,) polygons in pixels of a scene, x = col and y = -row; None where a field is nowhere in its CRS.

        Vertices are reprojected, edges stay straight between them.
        """
        if self.crs is None and scene.crs is not None:
            raise InputError(
                f"{self.name} has no CRS, and {scene.name} is in {scene.crs.name}; assign one, e.g. with "
                f"`ogr2ogr -a_srs EPSG:25832 out.gpkg {self.name}`"
            )
        if self.crs is not None and scene.crs is None:
            raise InputError(
                f"{scene.name} has no CRS, and {self.name} is in {self.crs.name}; give the scene's own with --crs"
            )
        a, b, c, d, e, f = tuple(~scene.transform)[:6]
        change = None
        if self.crs is not None and not self.crs.equals(scene.crs, ignore_axis_order=True):
            change = Transformer.from_crs(self.crs, scene.crs, always_xy=True).transform

        def moved(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            x, y = (xy[:, 0], xy[:, 1]) if change is None else change(xy[:, 0], xy[:, 1])
            with np.errstate(invalid="ignore"):
                return np.stack([a * x + b * y + c, -(d * x + e * y + f)], axis=1)

        return _moved(self.shapes, moved)

    def centres_m(self) -> NDArray[np.float64]:
        """(field, 2 or 3) places whose straight distances are metres: on the globe, or in the plane without a CRS."""
        points = shapely.get_coordinates(shapely.centroid(self.shapes))
        if self.crs is None:
            return np.asarray(points)
        change = Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
        lon, lat = (np.radians(part) for part in change.transform(points[:, 0], points[:, 1]))
        radius = 6371008.8
        return radius * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def open_fields(source: str, *, id_column: str | None = None) -> WatchedFields:
    """Fields of a vector file; `FILE|layername=NAME` picks a layer, else `fields`, else the only one."""
    import geopandas as gpd
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError

    file, _, layer = source.partition("|layername=")
    path = Path(file)
    if not path.exists():
        raise InputError(f"{file} does not exist; give a vector file with polygons of fields")
    try:
        if path.suffix.lower() in PARQUET:
            return WatchedFields.of(gpd.read_parquet(path), name=path.name, id_column=id_column)
        layer = layer or _layer(path, [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None])
        frame = pyogrio.read_dataframe(path, layer=layer)
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise InputError(
            f"{path.name} cannot be read ({' '.join(str(error).split())}); give a vector file with polygons"
        ) from error
    return WatchedFields.of(frame, name=path.name, id_column=id_column)


def _layer(path: Path, layers: list[str]) -> str:
    if "fields" in layers or len(layers) == 1:
        return "fields" if "fields" in layers else layers[0]
    if not layers:
        raise InputError(f"{path.name} holds no geometries; give a vector file with polygons of fields")
    raise InputError(
        f"{path.name} has the layers {', '.join(layers)}, and none is called 'fields'; "
        f"name one: '{path.name}|layername={layers[0]}'"
    )


def _ids(frame: gpd.GeoDataFrame, column: str | None, name: str) -> NDArray[np.object_]:
    if column is not None and column not in frame.columns:
        known = ", ".join(str(known) for known in frame.columns if known != frame.geometry.name) or "none"
        raise InputError(f"{name} has no column {column!r}; its columns are: {known}")
    column = column or ("id" if "id" in frame.columns else None)
    if column is None:
        return np.array([str(row) for row in range(len(frame))], dtype=object)
    values = frame[column]
    if values.isna().any():
        raise InputError(f"{int(values.isna().sum())} fields of {name} have no {column}; number them")
    if values.dtype.kind == "f" and (values == values.round()).all():
        values = values.astype("int64")  # whole numbers that a file without integers keeps
    texts = values.astype(str)
    if texts.duplicated().any():
        twice = texts[texts.duplicated()].iloc[0]
        raise InputError(
            f"the {column} {twice!r} of {name} stands for several fields; choose another column with --id-column"
        )
    return np.asarray(texts.to_numpy(dtype=object))


def _moved(
    shapes: NDArray[np.object_], change: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.object_]:
    xy, part = shapely.get_coordinates(shapes, return_index=True)
    moved = change(xy)
    nowhere = np.zeros(len(shapes), np.bool_)
    np.logical_or.at(nowhere, part, ~np.isfinite(moved).all(axis=1))
    moved[nowhere[part]] = xy[nowhere[part]]
    out: NDArray[np.object_] = shapely.set_coordinates(shapes.copy(), moved)
    out[nowhere] = None
    # Moving vertices can make a polygon touch itself.
    touching = ~nowhere & ~shapely.is_valid(out)
    out[touching] = [_areal(shape) for shape in shapely.make_valid(out[touching])]
    return out


def _areal(shape: Any) -> Any:
    """The polygons of what make_valid leaves."""
    if shape is None or shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    parts = shapely.get_parts(shapely.get_parts(shape))
    return shapely.union_all(parts[np.isin(shapely.get_type_id(parts), AREAL)])
