"""Attribute columns in Arrow, and streams of tables cut to any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from geoseg.errors import ExportError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pyarrow as pa


def attribute_schema(sample: gpd.GeoDataFrame) -> pa.Schema:
    """Types of the columns beside the geometry; text is `string`, also where every value is missing.

    Raises ExportError for a column that Arrow has no type for.
    """
    import pyarrow as pa

    try:
        schema = pa.Table.from_pandas(sample.drop(columns=[sample.geometry.name]), preserve_index=False).schema
    except (pa.ArrowException, OverflowError) as error:
        raise ExportError(f"a column cannot be written: {error}; turn it into text or numbers") from error
    return pa.schema([_plain_text(field) for field in schema])


def attributes(part: gpd.GeoDataFrame, fields: Iterable[pa.Field]) -> list[Any]:
    """The columns that `fields` name, as Arrow arrays of their types; times become text where a type is."""
    return [_array(part[field.name], field) for field in fields]


def _array(column: pd.Series, field: pa.Field) -> Any:
    import pyarrow as pa

    if column.dtype.kind == "M" and pa.types.is_string(field.type):
        column = column.astype("string")
    try:
        return pa.array(column, type=field.type, from_pandas=True)
    except pa.ArrowException as error:
        raise ExportError(
            f"column {field.name} does not hold {field.type} in every row: {error}; turn it into text"
        ) from error


def _plain_text(field: pa.Field) -> pa.Field:
    import pyarrow as pa

    text = pa.types.is_large_string(field.type) or pa.types.is_null(field.type)
    return field.with_type(pa.string()) if text else field


class Rows:
    """A stream of tables from which any number of rows is taken at a time."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._tables = iter(tables)
        self._rest = next(self._tables)

    def take(self, rows: int) -> pa.Table:
        """The next `rows` as one table, fewer at the end of the stream."""
        import pyarrow as pa

        taken = [self._rest.slice(0, rows)]
        self._rest = self._rest.slice(rows)
        missing = rows - len(taken[0])
        while missing > 0 and (table := next(self._tables, None)) is not None:
            taken.append(table.slice(0, missing))
            self._rest = table.slice(missing)
            missing -= len(taken[-1])
        return pa.concat_tables(taken).combine_chunks()


def regrouped(tables: Iterable[pa.Table], *, rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows`, the last one shorter: what follows does not depend on how they came."""
    stream = Rows(tables)
    while len(table := stream.take(rows)):
        yield table
