"""Labels of a scene: polygons, class masks or field numbers, given window by window as the targets of training."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.protocols import Reader
from geoseg.scene import Scene
from geoseg.training.recipe import SceneEntry, Targets
from geoseg.training.targets import IGNORE, class_mask, edge_distance, instance_mask

FRAME_PX = 3
"""Polygons are often drawn up to the image's frame, give or take that much: no boundary is learnt so near to it."""

PARQUET = (".parquet", ".geoparquet", ".pq")
RASTERS = (".tif", ".tiff", ".vrt", ".png", ".jp2", ".img", ".asc")

log = logging.getLogger(__name__)


class Labels(Protocol):
    """What is known of a scene's fields."""

    @property
    def fields(self) -> int | None:
        """How many fields there are; None where the labels do not say."""
        ...

    def mask(self, window: Window) -> NDArray[np.uint8]:
        """(row, col) class ids, 255 where nothing is known. A window is the crop of the whole."""
        ...

    def distance(self, window: Window) -> NDArray[np.float32]:
        """(row, col) distance to the field's edge, see `targets.edge_distance`."""
        ...

    def fingerprint(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolygonLabels:
    """Field polygons in pixel coordinates (x = col, y = row)."""

    parcels: NDArray[Any]
    shape: tuple[int, int]
    targets: Targets
    area: Any | None = None
    """Polygon in pixel coordinates outside of which nothing is known."""
    buffer_px: float | None = None
    """With partial labels: so far around the parcels the land is known to be no field; None for complete labels."""
    notes: tuple[str, ...] = ()
    """What was done to the polygons on the way in."""
    _tree: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tree", shapely.STRtree(self.parcels))

    @property
    def fields(self) -> int:
        return len(self.parcels)

    def mask(self, window: Window) -> NDArray[np.uint8]:
        width = self.targets.boundary_px
        here = self._near(window, width + 2)
        drawn = class_mask(here, window.shape, boundary_px=width)
        names = self.targets.names
        legend = np.array(
            [names.index(name) if name in names else IGNORE for name in ("background", "field", "boundary")]
        )
        known = np.ones(window.shape, dtype=bool)
        if self.buffer_px is not None:
            reach = self.buffer_px + width / 2
            near = self._near(window, reach + 2)
            known = _burnt(shapely.buffer(near, reach) if reach else near, window.shape)
        if self.area is not None:
            known &= _burnt([shapely.transform(self.area, lambda xy: xy - (window.col, window.row))], window.shape)
        known &= _inside(window, self.shape, FRAME_PX + int(np.ceil(width)))
        return np.where(known, legend[drawn], IGNORE).astype(np.uint8)

    def distance(self, window: Window) -> NDArray[np.float32]:
        reach = self.targets.distance_px
        wide = window.grown(reach + 1) & Window(0, 0, *self.shape)
        here = self._near(wide, 1)
        ids = np.zeros(wide.shape, dtype=np.int32)
        if len(here):
            numbered = ((parcel, i + 1) for i, parcel in enumerate(here))
            ids = rasterize(numbered, out_shape=wide.shape, transform=Affine.identity(), dtype="int32")
        return edge_distance(ids, saturation_px=reach)[window.within(wide).slices]

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for parcel in self.parcels:
            digest.update(shapely.to_wkb(parcel))
        digest.update(b"" if self.area is None else shapely.to_wkb(self.area))
        return digest.hexdigest()

    def _near(self, window: Window, margin: float) -> NDArray[Any]:
        """The parcels within `margin` of the window, in its own coordinates."""
        box = shapely.box(window.col - margin, window.row - margin, window.col_stop + margin, window.row_stop + margin)
        found = np.sort(self._tree.query(box, predicate="intersects"))
        moved: NDArray[Any] = shapely.transform(self.parcels[found], lambda xy: xy - (window.col, window.row))
        return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterLabels:
    """Class ids or field numbers on the scene's grid."""

    reader: Reader
    targets: Targets
    legend: Mapping[int, int]
    """Class id of each stored value; other values are unknown. Not used with instances."""
    instances: bool = False

    @property
    def fields(self) -> None:
        return None

    def mask(self, window: Window) -> NDArray[np.uint8]:
        if not self.instances:
            block = self.reader.read(window, [0])
            mask = np.full(window.shape, IGNORE, dtype=np.uint8)
            for value, id_ in self.legend.items():
                mask[block.valid & (block.pixels[0] == value)] = id_
            return mask
        names, width = self.targets.names, self.targets.boundary_px
        ids, valid, inner = self._ids(window, int(np.ceil(width)) + 1)
        drawn = instance_mask(ids, boundary_px=width)
        legend = np.array(
            [names.index(name) if name in names else IGNORE for name in ("background", "field", "boundary")]
        )
        return np.where(valid, legend[drawn], IGNORE).astype(np.uint8)[inner.slices]

    def distance(self, window: Window) -> NDArray[np.float32]:
        reach = self.targets.distance_px
        ids, _, inner = self._ids(window, reach + 1)
        if not self.instances:  # the components of the field class stand for fields
            fields = [v for v, id_ in self.legend.items() if self.targets.names[id_] == self.targets.field_class]
            ids = np.isin(ids, fields).astype(np.int32)
        return edge_distance(ids, saturation_px=reach)[inner.slices]

    def fingerprint(self) -> str:
        return self.reader.content_hash()

    def _ids(self, window: Window, margin: int) -> tuple[NDArray[Any], NDArray[np.bool_], Window]:
        """Stored values (0 without data) and validity around the window, and where it lies in them."""
        wide = window.grown(margin) & Window(0, 0, *self.reader.scene.shape)
        block = self.reader.read(wide, [0])
        return np.where(block.valid, block.pixels[0], 0), block.valid, window.within(wide)


def open_labels(
    entry: SceneEntry, scene: Scene, targets: Targets, *, folder: Path, pixel_size_m: float | None
) -> Labels:
    """The labels of a scene; `pixel_size_m` says that the scene was resampled to that size. Raises InputError."""
    path = folder / entry.labels
    if not path.exists():
        raise InputError(f"labels {path} of {scene.name}: no such file; paths are relative to the recipe's folder")
    if path.suffix.lower() in RASTERS:
        return _raster(entry, path, scene, targets, pixel_size_m=pixel_size_m)
    missing = [name for name in ("background", "field") if name not in targets.names]
    if missing:
        raise InputError(
            f"polygons ({path}) make the classes background, field and boundary, but targets.classes lacks {', '.join(missing)}"
        )
    area = None
    parcels, notes = read_polygons(
        path, scene, layer=entry.layer, where=entry.where, inside=True, none=entry.labelled_area is not None
    )
    if entry.labelled_area is not None:
        areas, _ = read_polygons(folder / entry.labelled_area, scene, layer=entry.labelled_layer)
        area = shapely.union_all(areas)
    return PolygonLabels(
        parcels=parcels, shape=scene.shape, targets=targets, area=area, notes=notes,
        buffer_px=entry.buffer_px if entry.partial else None,
    )  # fmt: skip


def read_polygons(
    path: Path,
    scene: Scene,
    *,
    layer: str | None = None,
    where: str | None = None,
    inside: bool = False,
    none: bool = False,
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Polygons of a vector file in the scene's pixel coordinates (x = col, y = row), valid ones; and what was repaired.

    Another CRS is reprojected. A scene without a CRS takes polygons in pixels: x right, y up, or y down where all of
    them lie so. With `inside` only those that meet the scene come back, and there must be some unless `none` says that a
    labelled area without fields is one.
    """
    drawn, crs = _read(path, layer=layer, where=where)
    areal = np.isin(shapely.get_type_id(drawn), (3, 6)) & ~shapely.is_empty(drawn)
    if not areal.any():
        more = f" where {where}" if where else ""
        raise InputError(
            f"{path}{more} holds no polygons ({len(drawn)} other geometries); expected the outlines of fields"
        )
    wrong = ~shapely.is_valid(drawn[areal])
    polygons = _valid(drawn[areal])
    notes = [f"{path.name}: {int(wrong.sum())} invalid polygons were repaired"] if wrong.any() else []
    if scene.crs is not None:
        if crs is None:
            raise InputError(f"{path} does not say its CRS, and {scene.name} has one; write it into the file")
        if crs != scene.crs:
            import geopandas as gpd

            polygons = _valid(gpd.GeoSeries(polygons, crs=crs).to_crs(scene.crs).to_numpy())
    elif shapely.bounds(polygons)[:, 1].min() >= -FRAME_PX:  # rows counted downwards, as image tools do
        polygons = shapely.transform(polygons, lambda xy: xy * (1, -1))
    a, b, c, d, e, f = tuple(~scene.transform)[:6]
    pixels = shapely.transform(
        polygons, lambda xy: np.stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f], axis=1)
    )
    pixels = pixels[np.isfinite(shapely.bounds(pixels)).all(axis=1)]
    if inside:
        pixels = pixels[shapely.intersects(pixels, shapely.box(0, 0, scene.shape[1], scene.shape[0]))]
        if not len(pixels) and none:
            notes.append(f"{path.name}: no field lies in {scene.name}; its labelled area is all background")
        elif not len(pixels):
            raise InputError(
                f"none of the {len(polygons)} polygons of {path} meets {scene.name}; check that they belong to this scene, "
                f"and the CRS of both"
            )
    return np.asarray(pixels, dtype=object), tuple(notes)


def _read(path: Path, *, layer: str | None, where: str | None) -> tuple[NDArray[Any], Any]:
    import geopandas as gpd
    from pyogrio.errors import DataLayerError, DataSourceError

    if not path.exists():
        raise InputError(f"labels {path}: no such file; paths are relative to the recipe's folder")
    try:
        if path.suffix.lower() in PARQUET:
            frame = gpd.read_parquet(path)
            frame = _selected(frame, where, path) if where else frame
        else:
            frame = gpd.read_file(path, layer=layer, where=where)
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise InputError(
            f"labels {path} cannot be read ({error}); expected a vector file, and its layer and columns"
        ) from error
    if not isinstance(frame, gpd.GeoDataFrame) or frame.geometry.name not in frame:
        raise InputError(f"labels {path} have no geometry; expected field polygons")
    raw = frame.geometry.to_numpy()
    return raw[~shapely.is_missing(raw)], frame.crs


def _selected(frame: Any, where: str, path: Path) -> Any:
    """The rows of a GeoParquet file that a condition names: OGR reads no such files here."""
    try:
        return frame.query(where)
    except Exception as error:  # pandas raises what its parser and the operators on the columns raise
        raise InputError(
            f"labels {path}: `where: {where}` cannot be used ({error}); of GeoParquet a condition of pandas is expected, "
            f"such as \"crop != 'none'\", and the columns are {', '.join(map(str, frame.columns))}"
        ) from error


def _valid(polygons: Any) -> NDArray[Any]:
    repaired = np.asarray(shapely.make_valid(polygons, method="structure", keep_collapsed=False), dtype=object)
    whole: NDArray[Any] = repaired[shapely.area(repaired) > 0]
    return whole


def _raster(
    entry: SceneEntry, path: Path, scene: Scene, targets: Targets, *, pixel_size_m: float | None
) -> RasterLabels:
    from geoseg.readers import open_scene
    from geoseg.readers.resample import ResampledReader

    reader = open_scene([str(path)], crs=entry.crs, pixel_size_m=entry.pixel_size_m, palette=True)
    if pixel_size_m is not None:
        reader = ResampledReader(source=reader, pixel_size_m=pixel_size_m, method="nearest")
    found = reader.scene
    apart = np.abs(np.array(~scene.transform @ found.transform)[:6] - np.array([1, 0, 0, 0, 1, 0]))
    if found.shape != scene.shape or found.crs != scene.crs or apart.max() > 0.01:
        raise InputError(
            f"labels {path} ({found.shape[1]} x {found.shape[0]} pixels) lie on another grid than {scene.name} "
            f"({scene.shape[1]} x {scene.shape[0]}); warp them to it, or give polygons"
        )
    values = entry.values or dict(zip(("background", "field", "boundary"), range(3), strict=True))
    unknown = [name for name in values if name not in targets.classes]
    if unknown:
        raise InputError(
            f"labels {path}: values names the class {unknown[0]!r}; targets.classes are {', '.join(targets.classes)}"
        )
    legend = {value: targets.names.index(name) for name, value in values.items() if name in targets.names}
    return RasterLabels(reader=reader, targets=targets, legend=legend, instances=entry.instances)


def _burnt(shapes: Sequence[Any] | NDArray[Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    drawn = [one for one in shapes if not one.is_empty]
    if not drawn:
        return np.zeros(shape, dtype=bool)
    return np.asarray(rasterize(drawn, out_shape=shape, transform=Affine.identity(), dtype="uint8") > 0)


def _inside(window: Window, shape: tuple[int, int], margin: int) -> NDArray[np.bool_]:
    """Pixels of the window that lie at least `margin` from the scene's frame."""
    rows = np.arange(window.row, window.row_stop)
    cols = np.arange(window.col, window.col_stop)
    inner_rows = (rows >= margin) & (rows < shape[0] - margin)
    inner_cols = (cols >= margin) & (cols < shape[1] - margin)
    return inner_rows[:, None] & inner_cols[None, :]
