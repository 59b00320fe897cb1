"""Opens what people score: a vector file, a class mask, or a GeoDataFrame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.errors import InputError
from geoseg.metrics.layers import CLASS_NAMES, PIXEL_SPACE, FieldPolygons, FieldRaster, Layer, class_id, known_crs
from geoseg.results import NODATA

if TYPE_CHECKING:
    import geopandas as gpd

PARQUET = (".parquet", ".geoparquet", ".pq")


def open_layer(
    source: Any, *, field_class: str | int = "field", instances: bool = False, name: str = "fields"
) -> Layer:
    """A layer from a path (vector or raster), a GeoDataFrame, or a layer as it is.

    Args:
        source: a path may name its layer as QGIS does: `parcels.gpkg|layername=2024`.
        field_class: for rasters, the class that is field: a name or an id.
        instances: the source is a raster whose values are object ids (0 for none), not classes.
        name: for messages, where the source has no file name.

    Raises:
        InputError: the file is missing, unreadable, or holds neither polygons nor a class mask; or `instances` are
            asked of polygons.
    """
    layer = _open(source, field_class=field_class, instances=instances, name=name)
    if instances and not (isinstance(layer, FieldRaster) and layer.instances):
        found, way = ("polygons", "each of them is an object already: leave the option for instances out")
        if isinstance(layer, FieldRaster):
            found, way = ("classes", "make it with FieldRaster.of_instances")
        raise InputError(f"{layer.name} holds {found}, but a raster of object ids was expected; {way}")
    return layer


def _open(source: Any, *, field_class: str | int, instances: bool, name: str) -> Layer:
    if isinstance(source, FieldPolygons | FieldRaster):
        return source
    if not isinstance(source, str | Path):
        return FieldPolygons.of(source, name=name)
    path, layer = _named(source, wanted="a vector file or a class mask")
    frame = _read_frame(path, layer=layer, columns=[])
    if frame is None:
        return _read_raster(path, field_class=field_class, instances=instances)
    return FieldPolygons.of(frame, name=path.name)


def read_polygons(source: str | Path) -> tuple[gpd.GeoDataFrame, str]:
    """A vector layer with all its columns, from a path as `open_layer` takes it, and the file's name."""
    path, layer = _named(source, wanted="a vector file with polygons")
    frame = _read_frame(path, layer=layer, columns=None)
    if frame is None:
        raise InputError(f"{path.name} cannot be read as a vector file; give one with polygons")
    if not hasattr(frame, "geometry"):
        raise InputError(f"{path.name} has no geometry in its layer {layer}; give a layer of polygons")
    return frame, path.name


def _named(source: str | Path, *, wanted: str) -> tuple[Path, str]:
    file, _, layer = str(source).partition("|layername=")
    path = Path(file)
    if not path.exists():
        raise InputError(f"{file} does not exist; give {wanted}")
    return path, layer


def _read_frame(path: Path, *, layer: str, columns: list[str] | None) -> gpd.GeoDataFrame | None:
    """A layer with the columns that are wanted, None for all; None where the file is no vector file."""
    if path.suffix.lower() in PARQUET:
        return _read_parquet(path)
    layers = _vector_layers(path)
    if layers is None:
        return None
    return _read_vector(path, layer=layer or _choose_layer(path, layers), columns=columns)


def _read_parquet(path: Path) -> gpd.GeoDataFrame:
    import geopandas as gpd

    try:
        return gpd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path.name} cannot be read as GeoParquet ({error}); give a GeoParquet file") from error


def _vector_layers(path: Path) -> list[str] | None:
    """Names of the layers with a geometry, or None where the file is no vector file."""
    import pyogrio
    from pyogrio.errors import DataSourceError

    try:
        layers = pyogrio.list_layers(path)
    except DataSourceError:
        return None
    return [str(name) for name, geometry_type in layers if geometry_type is not None] or None


def _choose_layer(path: Path, layers: list[str]) -> str:
    if len(layers) == 1:
        return layers[0]
    if "fields" in layers:
        return "fields"
    raise InputError(
        f"{path.name} has the layers {', '.join(layers)}, and none is called 'fields'; "
        f"name one: '{path.name}|layername={layers[0]}'"
    )


def _read_vector(path: Path, *, layer: str, columns: list[str] | None) -> gpd.GeoDataFrame:
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        return pyogrio.read_dataframe(path, layer=layer, columns=columns)
    except (DataLayerError, DataSourceError) as error:
        raise InputError(f"{path.name} cannot be read ({error}); give a vector file with polygons") from error


def _read_raster(path: Path, *, field_class: str | int, instances: bool) -> FieldRaster:
    band = _read_band(path, wanted="object ids" if instances else "classes")
    notes = (f"{path.name} says that 0 is nodata: its background does not count",) if band.nodata == 0 else ()
    place: dict[str, Any] = {"name": path.name, "transform": band.transform, "crs": band.crs, "notes": notes}
    if instances:
        return FieldRaster.of_instances(band.values, valid=band.valid, **place)
    names = _legend(band.tags) or CLASS_NAMES
    field_id = class_id(field_class, names=names)
    valid = band.valid
    if band.nodata is None and band.values.dtype == np.uint8 and field_id != NODATA:
        valid = valid & (band.values != NODATA)
    known = band.values[valid]
    if known.size and not 0 <= int(known.min()) <= int(known.max()) <= NODATA:
        raise InputError(
            f"{path.name} holds values from {known.min()} to {known.max()}; class ids go from 0 to {NODATA}; "
            f"where the values are object ids, say so with --pred-instances or --truth-instances"
        )
    classes = np.where(valid, band.values, 0).astype(np.uint8)
    return FieldRaster.of(classes, field_id=field_id, class_names=names, valid=valid, **place)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Band:
    values: NDArray[Any]
    """(row, col) integers."""
    valid: NDArray[np.bool_]
    """(row, col), by nodata and masks of the file."""
    nodata: float | None
    transform: Affine
    crs: CRS | None
    tags: Mapping[str, str]


def _read_band(path: Path, *, wanted: str) -> _Band:
    """The one band of integers of a raster, alpha aside."""
    import warnings

    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as src:
                bands = [i for i, role in enumerate(src.colorinterp, 1) if role != ColorInterp.alpha]
                if len(bands) != 1 or not np.issubdtype(np.dtype(src.dtypes[0]), np.integer):
                    raise InputError(
                        f"{path.name} has {len(bands)} bands of {src.dtypes[0]}; give one band of integers, {wanted}, "
                        f"such as the mask.tif of a run"
                    )
                transform = src.transform
                crs = None if src.crs is None else known_crs(CRS.from_wkt(src.crs.to_wkt()))
                return _Band(
                    values=src.read(bands[0]),
                    valid=src.read_masks(bands[0]) > 0,
                    nodata=src.nodata,
                    transform=PIXEL_SPACE if crs is None and transform.is_identity else transform,
                    crs=crs,
                    tags=src.tags(),
                )
    except RasterioError as error:
        raise InputError(
            f"{path.name} can be read neither as a vector file nor as a raster ({error}); give polygons or a class mask"
        ) from error


def _legend(tags: Mapping[str, str]) -> dict[str, int]:
    """Class ids by name, as geoseg tags its masks: GEOSEG_CLASSES=background,field,... or CLASS_0=background, ..."""
    listed = {name: i for i, name in enumerate(tags.get("GEOSEG_CLASSES", "").split(",")) if name}
    ids = {key.removeprefix("CLASS_"): name for key, name in tags.items() if key.startswith("CLASS_")}
    return listed or {name: int(text) for text, name in ids.items() if text.isdecimal()}
