"""Opens what people score: a vector file, a class mask, or a GeoDataFrame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import CRS

from geoseg.errors import InputError
from geoseg.metrics.layers import CLASS_NAMES, PIXEL_SPACE, FieldPolygons, FieldRaster, Layer, class_id
from geoseg.results import NODATA

PARQUET = (".parquet", ".geoparquet", ".pq")


def open_layer(source: Any, *, field_class: str | int = "field", name: str = "fields") -> Layer:
    """A layer from a path (vector or raster), a GeoDataFrame, or a layer as it is.

    Args:
        source: a path may name its layer as QGIS does: `parcels.gpkg|layername=2024`.
        field_class: for rasters, the class that is field: a name or an id.
        name: for messages, where the source has no file name.

    Raises:
        InputError: the file is missing, unreadable, or holds neither polygons nor a class mask.
    """
    if isinstance(source, FieldPolygons | FieldRaster):
        return source
    if not isinstance(source, str | Path):
        return FieldPolygons.of(source, name=name)
    file, _, layer = str(source).partition("|layername=")
    path = Path(file)
    if not path.exists():
        raise InputError(f"{file} does not exist; give a vector file or a class mask")
    if path.suffix.lower() in PARQUET:
        return _read_parquet(path)
    layers = _vector_layers(path)
    if layers is None:
        return _read_raster(path, field_class=field_class)
    return _read_vector(path, layer=layer or _choose_layer(path, layers))


def _read_parquet(path: Path) -> FieldPolygons:
    import geopandas as gpd

    try:
        frame = gpd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path.name} cannot be read as GeoParquet ({error}); give a GeoParquet file") from error
    return FieldPolygons.of(frame, name=path.name)


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


def _read_vector(path: Path, *, layer: str) -> FieldPolygons:
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        frame = pyogrio.read_dataframe(path, layer=layer, columns=[])
    except (DataLayerError, DataSourceError) as error:
        raise InputError(f"{path.name} cannot be read ({error}); give a vector file with polygons") from error
    return FieldPolygons.of(frame, name=path.name)


def _read_raster(path: Path, *, field_class: str | int) -> FieldRaster:
    import warnings

    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as src:
                bands = [i for i, role in enumerate(src.colorinterp, 1) if role != ColorInterp.alpha]
                if len(bands) != 1 or not np.issubdtype(np.dtype(src.dtypes[0]), np.integer):
                    raise InputError(
                        f"{path.name} has {len(bands)} bands of {src.dtypes[0]}; give a class mask, "
                        f"one band of integers such as the mask.tif of a run"
                    )
                names = _legend(src.tags()) or CLASS_NAMES
                field_id = class_id(field_class, names=names)
                values = src.read(bands[0])
                valid = src.read_masks(bands[0]) > 0
                if src.nodata is None and src.dtypes[0] == "uint8" and field_id != NODATA:
                    valid &= values != NODATA
                if src.nodata == 0:
                    notes.append(f"{path.name} says that 0 is nodata: its background does not count")
                transform, crs = src.transform, src.crs
    except RasterioError as error:
        raise InputError(
            f"{path.name} can be read neither as a vector file nor as a raster ({error}); give polygons or a class mask"
        ) from error
    known = values[valid]
    if known.size and not 0 <= int(known.min()) <= int(known.max()) <= NODATA:
        raise InputError(
            f"{path.name} holds values from {known.min()} to {known.max()}; class ids go from 0 to {NODATA}; "
            f"for object ids write polygons first"
        )
    if crs is None and transform.is_identity:
        transform = PIXEL_SPACE
    return FieldRaster.of(
        np.where(valid, values, 0).astype(np.uint8),
        name=path.name,
        transform=transform,
        crs=None if crs is None else CRS.from_wkt(crs.to_wkt()),
        field_id=field_id,
        class_names=names,
        valid=valid,
        notes=tuple(notes),
    )


def _legend(tags: Mapping[str, str]) -> dict[str, int]:
    """Class ids by name, as geoseg tags its masks: GEOSEG_CLASSES=background,field,... or CLASS_0=background, ..."""
    listed = {name: i for i, name in enumerate(tags.get("GEOSEG_CLASSES", "").split(",")) if name}
    ids = {key.removeprefix("CLASS_"): name for key, name in tags.items() if key.startswith("CLASS_")}
    return listed or {name: int(text) for text, name in ids.items() if text.isdecimal()}
