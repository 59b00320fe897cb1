"""Fields a part at a time, with columns that every driver takes: memory follows the part, not the layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geoseg.errors import ExportError
from geoseg.export.table import check_names, counter_clockwise, plain

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from pyproj import CRS

    from geoseg.protocols import FieldBatches

AT_ONCE = 20_000
"""Fields that are handled at a time where copies are made of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameBatches:
    """A table in memory, cut into parts."""

    frame: gpd.GeoDataFrame
    rows: int = AT_ONCE
    """Fields in a part."""

    @property
    def crs(self) -> CRS | None:
        crs: CRS | None = self.frame.crs
        return crs

    @property
    def sample(self) -> gpd.GeoDataFrame:
        """What decides the columns' types: all of it."""
        return self.frame

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[gpd.GeoDataFrame]:
        for start in range(0, max(len(self.frame), 1), self.rows):
            yield self.frame.iloc[start : start + self.rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlikeBatches:
    """Batches whose parts are seen to have the columns of the first; exteriors counter-clockwise."""

    batches: FieldBatches

    @property
    def crs(self) -> CRS | None:
        return self.batches.crs

    @property
    def sample(self) -> gpd.GeoDataFrame:
        """What decides the columns' types: the first part."""
        first = next(iter(self), None)
        if first is None:
            raise ExportError("the fields come in no part at all, expected one or more; give an empty one")
        return first

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[gpd.GeoDataFrame]:
        expected: list[str] | None = None
        for number, part in enumerate(self.batches, start=1):
            found = _columns(part, number)
            expected = expected or found
            if found != expected:
                differ = sorted({*found} ^ {*expected}) or ["their order"]
                raise ExportError(
                    f"part {number} of the fields differs from the first in {', '.join(differ)}; "
                    f"give every part the same columns"
                )
            if part.crs != self.crs:
                raise ExportError(f"part {number} is in {part.crs}, expected {self.crs} as for all; reproject it")
            _check_complete(part, number)
            yield counter_clockwise(part.reset_index(drop=True))


def in_parts(fields: gpd.GeoDataFrame | FieldBatches, *, nested: bool = False) -> FrameBatches | AlikeBatches:
    """`fields` as parts with simple columns.

    Types are decided once: on a whole frame (see `plain`; lists and mappings stay where `nested`), on the first of
    several batches. Iteration raises ExportError where a part of those differs, or holds more than text, numbers,
    booleans and times.
    """
    import geopandas as gpd

    if isinstance(fields, gpd.GeoDataFrame):
        return FrameBatches(frame=plain(fields, nested=nested))
    return AlikeBatches(batches=fields)


def _columns(part: gpd.GeoDataFrame, number: int) -> list[str]:
    """Each column as `name (type)`, the geometry's too."""
    check_names(part)
    return [
        f"{name} (geometry)" if name == part.geometry.name else f"{name} ({_type(part[name], number)})"
        for name in part.columns
    ]


def _type(column: pd.Series, number: int) -> str:
    import pandas as pd

    if column.dtype.kind in "biufM":
        return str(column.dtype)
    held = pd.api.types.infer_dtype(column, skipna=True)
    if held in ("string", "empty"):
        return "text"
    raise ExportError(
        f"column {column.name} holds {held} values in part {number} of the fields; "
        f"batches hold text, numbers, booleans or times: turn it into text"
    )


def _check_complete(part: gpd.GeoDataFrame, number: int) -> None:
    """A schema that is fixed by the first part cannot allow for values that a later one lacks."""
    lacking = int((part.geometry.isna() | part.geometry.is_empty).sum())
    if lacking:
        raise ExportError(f"{lacking} fields in part {number} have no geometry, expected polygons; leave them out")
    if "id" in part.columns and part["id"].isna().any():
        raise ExportError(f"fields in part {number} have no id, expected one each; number them")
