"""FlatGeobuf: one file that maps on the web read piece by piece."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.export.staging import staged
from geoseg.export.table import driver_failures, plain, write_layer

if TYPE_CHECKING:
    import geopandas as gpd


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatGeobuf:
    name: str = "fgb"
    suffix: str = ".fgb"

    def write(self, fields: gpd.GeoDataFrame, path: Path, *, layer: str = "fields") -> list[Path]:
        """Write `fields` with a packed R-tree; the index orders them along a Hilbert curve."""
        with staged(Path(path), *driver_failures()) as stage:
            write_layer(
                plain(fields), stage.path, driver="FlatGeobuf", layer=layer, layer_options={"SPATIAL_INDEX": "YES"}
            )
        return stage.files
