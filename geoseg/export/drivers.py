"""GDAL's vector drivers, fed with one Arrow stream: a bounded number of fields is held at a time."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.export.arrow import attribute_schema, attributes, regrouped
from geoseg.export.batches import AT_ONCE, AlikeBatches, FrameBatches
from geoseg.export.shapes import kinds_of, layer_kind, promoted

if TYPE_CHECKING:
    import geopandas as gpd
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyproj import CRS

READ_AT_ONCE = 5_000
"""Geometries in a batch where they are counted in the file; GDAL reads several batches ahead."""


@dataclass(slots=True, kw_only=True)
class Written:
    """What went into a layer, summed up while it is written."""

    kinds: frozenset[str] = frozenset()
    """Kinds of geometry that the layer was made for."""
    rows: int = 0
    shapes: int = 0
    """Geometries that are neither missing nor empty."""
    vertices: int = 0


class _OtherKindError(Exception):
    """A geometry that the layer's kind does not cover."""

    def __init__(self, kinds: frozenset[str]) -> None:
        super().__init__(f"{', '.join(sorted(kinds))}")
        self.kinds = kinds


def write_layer(fields: FrameBatches | AlikeBatches, path: Path, *, driver: str, layer: str, **options: Any) -> Written:
    """Write `fields` as the one layer of `path`, in their order.

    The layer's kind of geometry is that of the sample; where a later part brings another one, writing begins again
    with a kind that covers both. What an iteration over `fields` raises comes out as it is.
    """
    sample = fields.sample
    schema = gdal_schema(sample)
    kinds = kinds_of(sample.geometry.to_numpy())
    while True:
        written = Written(kinds=kinds)
        tables = (
            gdal_table(attributes(part, [*schema][:-1]), part.geometry.to_numpy(), schema, written) for part in fields
        )
        try:
            write_stream(
                regrouped(tables, rows=AT_ONCE), schema, path, kind=layer_kind(kinds), crs=fields.crs, driver=driver,
                layer=layer, **options,
            )  # fmt: skip
        except _OtherKindError as error:
            path.unlink(missing_ok=True)
            kinds |= error.kinds
        else:
            check_arrived(path, written)
            return written


def gdal_schema(sample: gpd.GeoDataFrame) -> pa.Schema:
    """Types as GDAL takes them, the geometry last."""
    import pandas as pd
    import pyarrow as pa

    schema = attribute_schema(sample)
    for index, field in enumerate(schema):
        dtype = sample[field.name].dtype
        if pa.types.is_uint64(field.type) and (sample[field.name] < 2**63).all():
            schema = schema.set(index, field.with_type(pa.int64()))
        elif isinstance(dtype, pd.DatetimeTZDtype) and str(dtype.tz) != "UTC":
            # GDAL knows offsets, not zones, and one column may have several of them, as in summer and winter.
            schema = schema.set(index, pa.field(field.name, pa.string(), metadata={"GDAL:OGR:type": "DateTime"}))
    return schema.append(pa.field(sample.geometry.name, pa.binary()))


def write_stream(
    tables: Iterable[pa.Table], schema: pa.Schema, path: Path, *, kind: str, crs: CRS | None, **options: Any
) -> None:
    """Write tables with WKB in the last column of `schema` through pyogrio; `options` are those of write_arrow."""
    import pyarrow as pa
    import pyogrio

    failed: list[BaseException] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for table in tables:
                yield from table.to_batches()
        except BaseException as error:
            failed.append(error)
            raise

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(schema, batches()),
                path,
                geometry_name=schema.names[-1],
                geometry_type=kind,
                crs=_crs_text(crs),
                **options,
            )
    except Exception:
        if failed:  # the stream is C: of what was raised in it only "no more batches" arrives
            raise failed[0] from None
        raise


def check_arrived(path: Path, written: Written) -> None:
    """See that every geometry is in the file: a disk that fills at the very end is not reported."""
    import pyarrow as pa
    import pyogrio
    import shapely

    rows = vertices = 0
    with pyogrio.open_arrow(path, layer=0, columns=[], batch_size=READ_AT_ONCE, use_pyarrow=True) as (about, reader):
        name = about["geometry_name"] or "wkb_geometry"
        try:
            for batch in reader:
                geometry = shapely.from_wkb(batch.column(name).to_numpy(zero_copy_only=False))
                rows += len(geometry)
                vertices += int(shapely.get_num_coordinates(geometry).sum())
        except pa.ArrowException as error:
            raise cut_short(path) from error
    if (rows, vertices) != (written.rows, written.vertices):
        raise cut_short(path)


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


def gdal_table(columns: list[Any], geometry: NDArray[Any], schema: pa.Schema, written: Written) -> pa.Table:
    """Columns and geometries as the table that a driver takes, counted in `written`."""
    import pyarrow as pa
    import shapely

    kinds = kinds_of(geometry)
    kind = layer_kind(written.kinds)
    if layer_kind(written.kinds | kinds) != kind:
        raise _OtherKindError(kinds)
    written.rows += len(geometry)
    written.shapes += int(np.count_nonzero(~(shapely.is_missing(geometry) | shapely.is_empty(geometry))))
    written.vertices += int(shapely.get_num_coordinates(geometry).sum())
    wkb = shapely.to_wkb(promoted(geometry, kind), flavor="iso")
    return pa.Table.from_arrays([*columns, pa.array(wkb, type=pa.binary())], schema=schema)


def _crs_text(crs: CRS | None) -> str | None:
    """As GDAL takes it: a code where there is one, for the sake of axis order and names."""
    if crs is None:
        return None
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else crs.to_wkt("WKT1_GDAL")
