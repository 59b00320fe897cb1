"""FlatGeobuf: one file that maps on the web read piece by piece."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.export.batches import in_parts
from geoseg.export.drivers import driver_failures, write_layer
from geoseg.export.staging import staged

if TYPE_CHECKING:
    import geopandas as gpd

    from geoseg.protocols import FieldBatches


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatGeobuf:
    name: str = "fgb"
    suffix: str = ".fgb"

    def write(self, fields: gpd.GeoDataFrame | FieldBatches, path: Path, *, layer: str = "fields") -> list[Path]:
        """Write `fields` with a packed R-tree; the index orders them along a Hilbert curve.

        GDAL keeps the box and the place of every field in memory until the end, about 75 bytes each.
        """
        with staged(Path(path), *driver_failures()) as stage:
            options = {"SPATIAL_INDEX": "YES"}
            write_layer(in_parts(fields), stage.path, driver="FlatGeobuf", layer=layer, layer_options=options)
        return stage.files
