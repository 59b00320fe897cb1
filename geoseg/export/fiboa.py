"""Field boundaries as fiboa 0.3 has them, an extension of Vecorel 0.1: the columns it names, and what a file says of them.

https://github.com/fiboa/specification, https://github.com/vecorel/specification. Validate with `fiboa validate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.results import Determination

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pyarrow as pa

SCHEMAS = ("https://fiboa.org/specification/v0.3.0/schema.yaml", "https://vecorel.org/specification/v0.1.0/schema.yaml")
SDL = "https://vecorel.org/sdl/v0.2.0/schema.json"
"""The language of the schema of a file's own columns."""

REQUIRED = ("id", "collection", "geometry")
MEASURES = {"metrics:area": ("area_m2", 1e9), "metrics:perimeter": ("perimeter_m", 1.25e9)}
"""Its columns, ours, and the largest value that it allows; the smallest is above 0."""

TYPES = {
    "string": "string", "bool": "boolean", "float": "float", "double": "double", "binary": "binary", "date32[day]": "date",
    "timestamp[ms, tz=UTC]": "date-time",
    **{name: name for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")},
}  # fmt: skip
"""Arrow's types in the words of Vecorel; columns of others are not described."""


def arrow_types() -> dict[str, pa.DataType]:
    """The types of the columns that the standard names, beside geometry and bbox."""
    import pyarrow as pa

    return {
        "id": pa.string(),
        "collection": pa.string(),
        **dict.fromkeys(MEASURES, pa.float32()),
        "determination:datetime": pa.timestamp("ms", tz="UTC"),
        "determination:method": pa.string(),
    }


def with_columns(part: gpd.GeoDataFrame, told: Determination) -> gpd.GeoDataFrame:
    """`part` with the columns of the standard after its own, which keep their names."""
    import pandas as pd

    columns: dict[str, Any] = {"collection": told.collection}
    for name, (own, largest) in MEASURES.items():
        if own in part.columns:
            columns[name] = _allowed(part[own], largest)
    if told.time is not None:
        columns["determination:datetime"] = pd.Timestamp(told.time).as_unit("ms")
    return part.assign(**columns, **{"determination:method": told.method})


def collections_of(fields: gpd.GeoDataFrame) -> list[str]:
    """The names of the collections in a table that has the columns of the standard already; empty if it has not."""
    needed = ["id", "collection", "determination:method"]
    if not {*needed} <= {*fields.columns} or fields.geometry.name != "geometry":
        return []
    whole = not fields[needed[:2]].isna().any(axis=None) and not fields.geometry.isna().any()
    return sorted({str(name) for name in fields["collection"]}) if whole else []


def as_demanded(schema: pa.Schema, *, collections: int) -> pa.Schema:
    """The types that the standard has for its columns. It demands of optional ones that they may be empty, and of all in a file
    of several collections."""
    types = arrow_types()
    for number, field in enumerate(schema):
        demanded = field.name in REQUIRED and collections == 1
        if field.name in (*types, "geometry", "bbox"):
            schema = schema.set(number, field.with_type(types.get(field.name, field.type)).with_nullable(not demanded))
    return schema


def collection_metadata(schema: pa.Schema, collections: Sequence[str]) -> Mapping[str, Any]:
    """The `collection` entry of a file: which schemas its columns follow, and one for those that are its own."""
    known = {*arrow_types(), "geometry", "bbox"}
    own = {
        field.name: {"type": TYPES[str(field.type)]}
        for field in schema
        if field.name not in known and str(field.type) in TYPES
    }
    return {
        "schemas": {name: list(SCHEMAS) for name in collections},
        "schemas:custom": {"$schema": SDL, "required": [], "collection": {}, "properties": own},
    }


def _allowed(column: pd.Series, largest: float) -> Any:
    """Single precision; empty where the standard does not allow the value."""
    values = column.to_numpy(np.float32, na_value=np.nan)
    return np.where((values > 0) & (values <= largest), values, np.float32("nan"))
