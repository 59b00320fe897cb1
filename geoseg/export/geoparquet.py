"""GeoParquet 1.1 with a bounding box a row, https://geoparquet.org/releases/v1.1.0/; of fields also fiboa, see `fiboa`."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import ExportError
from geoseg.export.arrow import attribute_schema, attributes, regrouped
from geoseg.export.batches import in_parts
from geoseg.export.fiboa import as_demanded, collection_metadata, collections_of, with_columns
from geoseg.export.shapes import kinds_of
from geoseg.export.staging import staged
from geoseg.protocols import DeterminedBatches

if TYPE_CHECKING:
    import geopandas as gpd
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyproj import CRS

    from geoseg.protocols import FieldBatches

EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoParquet:
    name: str = "parquet"
    suffix: str = ".parquet"
    rows_per_group: int = 20_000
    """Rows that are skipped or read together."""

    def write(self, fields: gpd.GeoDataFrame | FieldBatches, path: Path, *, layer: str = "fields") -> list[Path]:
        """Write `fields`, a row group at a time; a Parquet file has no layers, `layer` is not kept."""
        del layer
        import geopandas as gpd
        import pyarrow as pa
        from pyarrow import parquet

        parts = in_parts(fields, nested=True)
        frame = isinstance(fields, gpd.GeoDataFrame)
        told = fields.determination if not frame and isinstance(fields, DeterminedBatches) else None

        def standard(part: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
            return part if told is None else with_columns(part, told)

        collections = [told.collection] if told else collections_of(parts.sample) if frame else []
        schema = _schema(standard(parts.sample))
        if collections:
            schema = as_demanded(schema, collections=len(collections))
        seen = Seen()
        tables = (_table(standard(part), schema, seen) for part in parts)
        with (
            staged(Path(path), pa.ArrowException) as stage,
            parquet.ParquetWriter(stage.path, schema, compression="zstd", store_schema=False) as writer,
        ):
            for group in regrouped(tables, rows=self.rows_per_group):
                writer.write_table(group)
            about = {"collection": collection_metadata(schema, collections)} if collections else {}
            writer.add_key_value_metadata(_metadata(schema, {"geo": seen.metadata(parts.crs), **about}))
        return stage.files


@dataclass(slots=True, kw_only=True)
class Seen:
    """What the file's metadata say of its geometries, gathered while they are written."""

    kinds: frozenset[str] = frozenset()
    box: tuple[float, float, float, float] = (math.nan,) * 4
    """(xmin, ymin, xmax, ymax), NaN where there is no geometry."""

    def add(self, geometry: NDArray[Any], bounds: NDArray[np.float64]) -> None:
        """Count in shapely geometries and their (geometry, 4) bounds."""
        self.kinds |= kinds_of(geometry)
        low, high = np.split(np.vstack([self.box, bounds]), 2, axis=1)
        self.box = (*np.fmin.reduce(low).tolist(), *np.fmax.reduce(high).tolist())

    def metadata(self, crs: CRS | None) -> dict[str, Any]:
        """The `geo` entry."""
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self.kinds),
            "crs": None if crs is None else crs.to_json_dict(),
            "orientation": "counterclockwise",
            "edges": "planar",
            "covering": {"bbox": {edge: ["bbox", edge] for edge in EDGES}},
        }
        if not math.isnan(self.box[0]):
            column["bbox"] = list(self.box)
        return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _schema(sample: gpd.GeoDataFrame) -> pa.Schema:
    """The columns, then `geometry` as WKB and `bbox`; identifiers required, as field-boundary schemas want them."""
    import pyarrow as pa

    geometry = sample.geometry
    schema = attribute_schema(sample.drop(columns=_old_boxes(sample)))
    for name in ("geometry", "bbox"):
        if name in schema.names:
            raise ExportError(f"a column is called {name}, which GeoParquet needs itself; rename it")
    if "id" in schema.names:
        number = schema.get_field_index("id")
        schema = schema.set(number, schema.field(number).with_nullable(bool(sample["id"].isna().any())))
    box = pa.struct([pa.field(edge, pa.float64(), nullable=False) for edge in EDGES])
    missing = geometry.isna()
    schema = schema.append(pa.field("geometry", pa.binary(), nullable=bool(missing.any())))
    return schema.append(pa.field("bbox", box, nullable=bool((missing | geometry.is_empty).any())))


def _metadata(schema: pa.Schema, about: Mapping[str, Any]) -> dict[str, str]:
    """What the file says of itself, for readers of Parquet and once more in the schema that Arrow's readers restore.

    https://arrow.apache.org/docs/cpp/parquet.html#serialization-details
    """
    texts = {name: json.dumps(value) for name, value in about.items()}
    restored = schema.with_metadata(texts).serialize()
    return {**texts, "ARROW:schema": base64.b64encode(restored).decode()}


def _table(part: gpd.GeoDataFrame, schema: pa.Schema, seen: Seen) -> pa.Table:
    import pyarrow as pa
    import shapely

    geometry = part.geometry.to_numpy()
    bounds = shapely.bounds(geometry)
    seen.add(geometry, bounds)
    wkb = pa.array(shapely.to_wkb(geometry, flavor="iso"), type=pa.binary())
    boxes = _boxes(bounds, schema.field("bbox").type)
    return pa.Table.from_arrays([*attributes(part, [*schema][:-2]), wkb, boxes], schema=schema)


def _old_boxes(rows: gpd.GeoDataFrame) -> list[str]:
    """A bbox column of another GeoParquet file: made again, not kept."""
    if "bbox" not in rows.columns:
        return []
    known = rows["bbox"].dropna()
    return ["bbox"] if all(isinstance(box, dict) and set(EDGES) <= set(box) for box in known) else []


def _boxes(bounds: NDArray[np.float64], kind: pa.StructType) -> pa.StructArray:
    import pyarrow as pa

    missing = np.isnan(bounds).any(axis=1)
    return pa.StructArray.from_arrays(
        [pa.array(edge, type=pa.float64()) for edge in bounds.T],
        fields=[*kind],
        mask=pa.array(missing) if missing.any() else None,
    )
