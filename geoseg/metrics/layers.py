"""Layers that are compared: field polygons, or a raster of classes whose connected components are the fields.

Both can be put on a grid, where they become labels, classes and validity. Without a CRS coordinates are pixels,
(col, -row), as everywhere in geoseg; a raster without any georeference is read that way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from geoseg.errors import InputError
from geoseg.results import NODATA

if TYPE_CHECKING:
    import geopandas as gpd

CLASS_NAMES: Mapping[str, int] = {"background": 0, "field": 1, "boundary": 2}
"""Class ids by name, as bundled models write them."""

PIXEL_SPACE = Affine.scale(1, -1)
"""(col, row) to (col, -row): the coordinates of scenes without a CRS."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnGrid:
    """A layer on the grid of the comparison."""

    labels: NDArray[np.int32]
    """(row, col) object ids, 0 for none."""
    classes: NDArray[np.uint8]
    """(row, col) class ids; arbitrary where not valid."""
    valid: NDArray[np.bool_]
    """(row, col), True where the layer says something."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FieldPolygons:
    name: str
    """For messages and reports."""
    geometry: NDArray[Any]
    """(object,) valid shapely polygons or multipolygons with an area."""
    crs: CRS | None
    """None where coordinates are pixels, (col, -row)."""
    notes: tuple[str, ...] = ()
    """What was done to the layer on the way in."""

    @property
    def objects(self) -> int:
        return int(self.geometry.size)

    @property
    def definition(self) -> str:
        """What counts as field."""
        return "inside polygons"

    @classmethod
    def of(cls, frame: gpd.GeoDataFrame, *, name: str) -> FieldPolygons:
        """The polygons of a GeoDataFrame; invalid ones are repaired, empty and flat ones dropped.

        A multipolygon is one object. Raises InputError where there are geometries but no polygons.
        """
        import shapely

        raw = np.asarray(frame.geometry.array, dtype=object)
        given = raw[~(shapely.is_missing(raw) | shapely.is_empty(raw))]
        areal = np.isin(shapely.get_type_id(given), (3, 6, 7))  # polygon, multipolygon, collection
        if given.size and not areal.any():
            kind = given[0].geom_type
            raise InputError(f"{name} holds {kind} geometries, but fields are polygons; give a polygon layer")
        wrong = ~shapely.is_valid(given[areal])
        repaired = polygons_only(given[areal])
        usable = shapely.area(repaired) > 0
        notes: list[str] = []
        if dropped := raw.size - int(usable.sum()):
            notes.append(f"{name}: {dropped} of {raw.size} geometries are empty or have no area and were left out")
        if wrong.any():
            notes.append(f"{name}: {int(wrong.sum())} invalid polygons were repaired")
        return cls(name=name, geometry=repaired[usable], crs=known_crs(frame.crs), notes=tuple(notes))

    def to_crs(self, crs: CRS | None) -> FieldPolygons:
        """The same polygons in another CRS."""
        if crs is None or self.crs is None or self.crs == crs:
            return self
        import geopandas as gpd

        moved = gpd.GeoSeries(self.geometry, crs=self.crs).to_crs(crs)
        if self.objects and not np.isfinite(moved.bounds.to_numpy()).all():
            raise InputError(
                f"{self.name} ({self.crs.name}) reaches places that {crs.name} cannot show; "
                f"check the CRS of both layers, or clip them to one region"
            )
        # Reprojecting moves vertices, not edges: a valid polygon can come out touching itself.
        return FieldPolygons(name=self.name, geometry=polygons_only(moved.to_numpy()), crs=crs, notes=self.notes)

    def on(self, grid: GeoBox) -> OnGrid:
        """Burnt into the grid by pixel centres; where polygons overlap, the smaller one lies on top."""
        import shapely
        from rasterio.features import rasterize

        here = self.to_crs(grid_crs(grid)).geometry
        order = np.argsort(-shapely.area(here), kind="stable")
        labels = np.zeros(grid.shape, dtype=np.int32)
        if here.size:
            shapes = ((here[i], int(i) + 1) for i in order)
            rasterize(shapes, out=labels, transform=grid.transform, all_touched=False)
        classes = (labels > 0).astype(np.uint8)
        return OnGrid(labels=labels, classes=classes, valid=np.ones(grid.shape, dtype=bool))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FieldRaster:
    name: str
    """For messages and reports."""
    classes: NDArray[np.uint8]
    """(row, col) class ids; arbitrary where not valid."""
    valid: NDArray[np.bool_]
    """(row, col), True where a class is known."""
    labels: NDArray[np.int32]
    """(row, col) object ids, 0 for none."""
    transform: Affine
    """Maps (col, row) of a pixel corner to (x, y)."""
    crs: CRS | None
    field_id: int
    """The class that is field."""
    class_names: Mapping[str, int]
    """Class ids by name."""
    instances: bool = False
    """True where the raster gave object ids rather than classes."""
    notes: tuple[str, ...] = ()

    @property
    def objects(self) -> int:
        return int(np.count_nonzero(np.bincount(self.labels.ravel())[1:]))

    @property
    def definition(self) -> str:
        """What counts as field."""
        if self.instances:
            return "ids above 0, each id is an object"
        name = next((name for name, i in self.class_names.items() if i == self.field_id), None)
        return f"class {self.field_id}{f' ({name})' if name else ''}, objects are its 4-connected components"

    @property
    def grid(self) -> GeoBox:
        return GeoBox(self.classes.shape, self.transform, self.crs)

    @classmethod
    def of(
        cls,
        classes: NDArray[np.uint8],
        *,
        name: str,
        transform: Affine,
        crs: CRS | None,
        field_id: int = 1,
        class_names: Mapping[str, int] = CLASS_NAMES,
        valid: NDArray[np.bool_] | None = None,
        labels: NDArray[np.int32] | None = None,
        notes: tuple[str, ...] = (),
    ) -> FieldRaster:
        """A class mask and its objects: 4-connected components of the field class, unless `labels` are given."""
        from scipy import ndimage

        known = classes != NODATA if valid is None else valid
        if labels is None:
            labels = np.zeros(classes.shape, dtype=np.int32)
            ndimage.label((classes == field_id) & known, output=labels)
        return cls(
            name=name,
            classes=classes,
            valid=known,
            labels=labels,
            transform=transform,
            crs=crs,
            field_id=field_id,
            class_names=class_names,
            notes=notes,
        )

    @classmethod
    def of_instances(
        cls,
        ids: NDArray[Any],
        *,
        name: str,
        transform: Affine,
        crs: CRS | None,
        valid: NDArray[np.bool_] | None = None,
        notes: tuple[str, ...] = (),
    ) -> FieldRaster:
        """A raster of object ids: all pixels of one id are one object, whatever they touch; 0 is none.

        Args:
            ids: (row, col) integers; arbitrary where not valid.
            name: for messages and reports.
            transform: maps (col, row) of a pixel corner to (x, y).
            crs: None where coordinates are pixels.
            valid: (row, col), True where something is known; None for all.
            notes: what was done on the way in.

        Raises:
            InputError: an id is below 0.
        """
        known = np.ones(ids.shape, dtype=np.bool_) if valid is None else valid
        present, inverse = np.unique(np.where(known, ids, 0), return_inverse=True)
        if present.size and int(present[0]) < 0:
            raise InputError(f"{name} holds the object id {present[0]}; ids are 0 (none) and above: set it as nodata")
        first = 0 if present.size and int(present[0]) == 0 else 1
        labels = (inverse.reshape(ids.shape) + first).astype(np.int32)
        return cls(
            name=name,
            classes=(labels > 0).astype(np.uint8),
            valid=known,
            labels=labels,
            transform=transform,
            crs=crs,
            field_id=1,
            class_names={"background": 0, "field": 1},
            instances=True,
            notes=notes,
        )

    def on(self, grid: GeoBox) -> OnGrid:
        """As it is on its own grid, else warped to the nearest pixel; labels are warped, not drawn anew."""
        if grid == self.grid:
            return OnGrid(labels=self.labels, classes=self.classes, valid=self.valid)
        if grid_crs(grid) is None and self.transform == grid.transform == PIXEL_SPACE:
            raise InputError(
                f"{self.name} has {_size(self.classes.shape)} pixels, but the other raster has {_size(grid.shape)} and "
                f"neither has a georeference; give rasters of one size or georeference them"
            )
        valid = self._warp(self.valid.astype(np.uint8), grid) > 0
        labels = self._warp(self.labels, grid)
        return OnGrid(labels=labels, classes=self._warp(self.classes, grid), valid=valid)

    def _warp(self, values: NDArray[Any], grid: GeoBox) -> NDArray[Any]:
        from rasterio.enums import Resampling
        from rasterio.warp import reproject

        # Without a CRS both grids share one plane; any CRS on both sides makes the warp a plain affine.
        source, target = (crs.to_wkt() if crs else "EPSG:3857" for crs in (self.crs, grid_crs(grid)))
        out = np.zeros(grid.shape, dtype=values.dtype)
        reproject(
            values,
            out,
            src_transform=self.transform,
            src_crs=source,
            dst_transform=grid.transform,
            dst_crs=target,
            resampling=Resampling.nearest,
            init_dest_nodata=False,
        )
        return out


Layer = FieldPolygons | FieldRaster


def class_id(name_or_id: str | int, *, names: Mapping[str, int] = CLASS_NAMES) -> int:
    """The id of a field class given by name or number; raises InputError for unknown names and for background."""
    text = str(name_or_id).strip()
    if text.isdecimal() and 0 < int(text) <= NODATA:
        return int(text)
    if found := names.get(text):
        return found
    known = ", ".join(f"{name} ({i})" for name, i in names.items() if i)
    raise InputError(f"{text!r} cannot be the field class; give a name, {known}, or a number from 1 to {NODATA}")


def known_crs(crs: Any) -> CRS | None:
    """The CRS, or None where there is none or only a placeholder (GeoPackage's undefined and engineering systems)."""
    if crs is None:
        return None
    crs = CRS.from_user_input(crs)
    return None if crs.is_engineering or crs.name.startswith(("Undefined", "Unknown engineering")) else crs


def grid_crs(grid: GeoBox) -> CRS | None:
    """The CRS of an odc-geo GeoBox as pyproj knows it."""
    return None if grid.crs is None else CRS.from_user_input(grid.crs.proj)


def polygons_only(geometry: NDArray[Any]) -> NDArray[Any]:
    """Valid geometries with the areal parts kept only, one out for each in."""
    import shapely

    out = geometry.astype(object)
    todo = np.flatnonzero(~shapely.is_valid(out) | ~np.isin(shapely.get_type_id(out), (3, 6)))
    for i in todo.tolist():
        parts = shapely.get_parts(shapely.make_valid(out[i]))
        while (shapely.get_type_id(parts) > 3).any():  # collections within collections
            parts = shapely.get_parts(parts)
        areal = parts[shapely.get_type_id(parts) == 3]
        out[i] = shapely.union_all(areal)
    return out


def _size(shape: Any) -> str:
    return f"{shape[1]} x {shape[0]}"
