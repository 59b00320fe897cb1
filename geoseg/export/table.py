"""Attribute tables as every vector driver takes them."""

from __future__ import annotations

import errno
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import ExportError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

log = logging.getLogger(__name__)

AT_ONCE = 20_000
"""Geometries that are handled at a time where copies are made of them."""

POLYGONS = frozenset({"Polygon", "MultiPolygon"})


def plain(fields: gpd.GeoDataFrame, *, nested: bool = False) -> gpd.GeoDataFrame:
    """`fields` with text names, one geometry column and simple values; exteriors counter-clockwise.

    Lists, mappings and mixed values become JSON text, unless `nested` lets them stay. What changes is logged.
    """
    import shapely

    names = [str(name) for name in fields.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ExportError(
            f"the column names {', '.join(twice)} occur more than once; rename them so that each is unique"
        )
    table = fields.reset_index(drop=True).copy()
    table.columns = names
    active = table.geometry.name
    for name in names:
        if name == active:
            continue
        if table[name].dtype.name == "geometry":
            table[name] = table[name].to_wkt().astype(object)
            log.warning("column %s holds a second geometry; it is written as WKT text", name)
        else:
            table[name] = _simple(table[name], nested=nested)
    geometry = shapely.orient_polygons(table.geometry.to_numpy(), exterior_cw=False)
    return table.set_geometry(_series(geometry, table.crs, active))


def geometry_types(fields: gpd.GeoDataFrame) -> set[str]:
    """Names of the geometry types that occur, missing geometries left out."""
    return {str(name) for name in fields.geometry.geom_type.unique() if isinstance(name, str)}


def are_polygons(fields: gpd.GeoDataFrame) -> bool:
    """True where there are polygons and nothing else; an empty layer counts as polygons."""
    return geometry_types(fields) <= POLYGONS


def write_layer(fields: gpd.GeoDataFrame, path: Path, *, driver: str, layer: str, **options: Any) -> None:
    """Write through GDAL and see that every geometry arrived: a disk that fills at the very end is not reported."""
    import pyogrio
    import shapely

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_dataframe(
            fields,
            path,
            driver=driver,
            layer=layer,
            geometry_type="Polygon" if geometry_types(fields) == set() else None,
            **options,
        )
    if _counted(path, len(fields)) != (len(fields), int(shapely.get_num_coordinates(fields.geometry.to_numpy()).sum())):
        raise cut_short(path)


def _counted(path: Path, expected: int) -> tuple[int, int]:
    """Geometries and vertices in the first layer of a file, a part at a time."""
    import pyogrio
    import shapely

    geometries = vertices = 0
    for start in range(0, max(expected, 1), AT_ONCE):
        arrived = pyogrio.raw.read(path, layer=0, columns=[], skip_features=start, max_features=AT_ONCE)[2]
        geometries += len(arrived)
        vertices += int(shapely.get_num_coordinates(shapely.from_wkb(arrived)).sum())
    return geometries, vertices


def cut_short(path: Path) -> OSError:
    """What to raise where a file is not whole although its driver says so."""
    return OSError(errno.ENOSPC, f"{path.name} was cut short")


def driver_failures() -> tuple[type[Exception], ...]:
    """What pyogrio raises where a file cannot be written."""
    from pyogrio import errors

    return (
        errors.DataSourceError, errors.DataLayerError, errors.FeatureError, errors.GeometryError, errors.FieldError,
        errors.CRSError,
    )  # fmt: skip


def _series(geometry: Any, crs: Any, name: str) -> Any:
    import geopandas as gpd

    return gpd.GeoSeries(geometry, crs=crs, name=name)


def _simple(column: pd.Series, *, nested: bool) -> pd.Series:
    import pandas as pd

    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        column = column.astype(dtype.categories.dtype if not column.isna().any() else object)
        dtype = column.dtype
    if dtype.name.startswith("timedelta"):
        log.warning("column %s holds durations; they are written as ISO 8601 text", column.name)
        return column.map(lambda value: None if pd.isna(value) else value.isoformat()).astype(object)
    if dtype.name != "object":
        return column
    known = column.dropna()
    kinds = {type(value) for value in known}
    if kinds <= {str}:
        return column
    if nested and len(kinds) == 1:
        return column
    if kinds == {bool} and len(known) == len(column):
        return column.astype(bool)
    if kinds <= {int, float} and kinds:
        return column.astype("float64") if float in kinds or len(known) < len(column) else _integers(column)
    if not nested or not _arrow_takes(column):
        log.warning("column %s holds lists or mixed values; it is written as JSON text", column.name)
        missing = column.isna() if kinds else column.notna()
        return column.where(missing, column.map(_json)).where(~missing, None)
    return column


def _integers(column: pd.Series) -> pd.Series:
    try:
        return column.astype("int64")
    except OverflowError:
        return column.map(str).astype(object)


def _arrow_takes(column: pd.Series) -> bool:
    import pyarrow as pa

    try:
        pa.Array.from_pandas(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True


def _json(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=_json_default)


def _json_default(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
