"""GeoParquet 1.1 with a bounding box a row; https://geoparquet.org/releases/v1.1.0/."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import ExportError
from geoseg.export.staging import staged
from geoseg.export.table import geometry_types, plain

if TYPE_CHECKING:
    import geopandas as gpd
    import pyarrow as pa

EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoParquet:
    name: str = "parquet"
    suffix: str = ".parquet"
    rows_per_group: int = 20_000
    """Rows that are skipped or read together."""

    def write(self, fields: gpd.GeoDataFrame, path: Path, *, layer: str = "fields") -> list[Path]:
        """Write `fields`; a Parquet file has no layers, `layer` is not kept."""
        del layer
        import pyarrow as pa
        from pyarrow import parquet

        table = self.table(fields)
        with staged(Path(path), pa.ArrowException) as stage:
            parquet.write_table(
                table,
                stage.path,
                compression="zstd",
                row_group_size=self.rows_per_group,
            )
        return stage.files

    def table(self, fields: gpd.GeoDataFrame) -> pa.Table:
        """The Arrow table that is written: columns, `geometry` as WKB, `bbox`, and the `geo` metadata."""
        import pyarrow as pa

        rows = plain(fields, nested=True)
        geometry = rows.geometry
        columns = rows.drop(columns=[geometry.name, *_old_boxes(rows)])
        try:
            table = pa.Table.from_pandas(columns, preserve_index=False)
        except pa.ArrowException as error:
            raise ExportError(
                f"a column cannot be written as Parquet: {error}; turn it into text or numbers"
            ) from error
        for name in ("geometry", "bbox"):
            if name in table.column_names:
                raise ExportError(f"a column is called {name}, which GeoParquet needs itself; rename it")
        schema = pa.schema([_field(field, table.column(field.name)) for field in table.schema])
        table = table.cast(schema)
        wkb = pa.array(geometry.to_wkb(), type=pa.binary())
        table = table.append_column(pa.field("geometry", pa.binary(), nullable=wkb.null_count > 0), wkb)
        boxes = _boxes(geometry.bounds.to_numpy())
        table = table.append_column(pa.field("bbox", boxes.type, nullable=boxes.null_count > 0), boxes)
        return table.replace_schema_metadata({"geo": json.dumps(_geo(rows))})


def _old_boxes(rows: gpd.GeoDataFrame) -> list[str]:
    """A bbox column of another GeoParquet file: made again, not kept."""
    if "bbox" not in rows.columns:
        return []
    known = rows["bbox"].dropna()
    return ["bbox"] if all(isinstance(box, dict) and set(EDGES) <= set(box) for box in known) else []


def _field(field: pa.Field, column: pa.ChunkedArray) -> pa.Field:
    """Text as plain strings; identifiers required, as field-boundary schemas want them."""
    import pyarrow as pa

    if pa.types.is_large_string(field.type) or pa.types.is_null(field.type):
        field = field.with_type(pa.string())
    return field.with_nullable(field.name != "id" or column.null_count > 0)


def _boxes(bounds: Any) -> pa.StructArray:
    import numpy as np
    import pyarrow as pa

    missing = np.isnan(bounds).any(axis=1)
    return pa.StructArray.from_arrays(
        [pa.array(bounds[:, i], type=pa.float64()) for i in range(4)],
        fields=[pa.field(edge, pa.float64(), nullable=False) for edge in EDGES],
        mask=pa.array(missing) if missing.any() else None,
    )


def _geo(rows: gpd.GeoDataFrame) -> dict[str, Any]:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(geometry_types(rows)),
        "crs": None if rows.crs is None else rows.crs.to_json_dict(),
        "orientation": "counterclockwise",
        "edges": "planar",
        "covering": {"bbox": {edge: ["bbox", edge] for edge in EDGES}},
    }
    bounds = [float(edge) for edge in rows.total_bounds]
    if all(edge == edge for edge in bounds):  # NaN where there is no geometry: then the entry is left out
        column["bbox"] = bounds
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
