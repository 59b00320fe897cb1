"""Attribute tables as every vector driver takes them."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from geoseg.errors import ExportError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

log = logging.getLogger(__name__)


def plain(fields: gpd.GeoDataFrame, *, nested: bool = False) -> gpd.GeoDataFrame:
    """`fields` with text names, one geometry column and simple values; exteriors counter-clockwise.

    Lists, mappings and mixed values become JSON text, unless `nested` lets them stay. What changes is logged.
    """
    check_names(fields)
    table = fields.reset_index(drop=True).copy()
    table.columns = [str(name) for name in fields.columns]
    active = table.geometry.name
    for name in table.columns:
        if name == active:
            continue
        if table[name].dtype.name == "geometry":
            table[name] = table[name].to_wkt().astype(object)
            log.warning("column %s holds a second geometry; it is written as WKT text", name)
        else:
            table[name] = _simple(table[name], nested=nested)
    return counter_clockwise(table)


def check_names(fields: gpd.GeoDataFrame) -> None:
    """ExportError where two columns have one name."""
    names = [str(name) for name in fields.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ExportError(
            f"the column names {', '.join(twice)} occur more than once; rename them so that each is unique"
        )


def counter_clockwise(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """`table` with the exteriors of its polygons counter-clockwise, holes clockwise."""
    import geopandas as gpd
    import shapely

    oriented = shapely.orient_polygons(table.geometry.to_numpy(), exterior_cw=False)
    return table.set_geometry(gpd.GeoSeries(oriented, crs=table.crs, name=table.geometry.name))


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
