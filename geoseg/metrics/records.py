"""What an evaluation says about its layers and its grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from odc.geo.geobox import GeoBox
from pyproj import CRS

from geoseg.metrics.layers import FieldPolygons, Layer, grid_crs


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    name: str
    kind: str
    """`vector` or `raster`."""
    crs: str | None
    field: str
    """What counts as field in it."""

    @classmethod
    def of(cls, layer: Layer) -> LayerRecord:
        kind = "vector" if isinstance(layer, FieldPolygons) else "raster"
        return cls(name=layer.name, kind=kind, crs=crs_text(layer.crs), field=layer.definition)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "crs": self.crs, "field": self.field}


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRecord:
    shape: tuple[int, int]
    """(rows, columns)."""
    pixel_size: float
    """Side of a pixel (square root of its area) in `unit`."""
    unit: str
    """Of the CRS: `metre`, `degree`, ..., or `pixel` without one."""
    crs: str | None
    source: str
    """Where the grid comes from: `truth`, `prediction`, `--pixel-size-m` or `default`."""

    @classmethod
    def of(cls, grid: GeoBox, *, source: str) -> GridRecord:
        crs = grid_crs(grid)
        rows, cols = grid.shape
        return cls(
            shape=(int(rows), int(cols)),
            pixel_size=math.sqrt(abs(grid.transform.determinant)),
            unit="pixel" if crs is None else str(crs.axis_info[0].unit_name),
            crs=crs_text(crs),
            source=source,
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows": self.shape[0],
            "columns": self.shape[1],
            "pixel_size": self.pixel_size,
            "unit": self.unit,
            "crs": self.crs,
            "source": self.source,
        }


def crs_text(crs: CRS | None) -> str | None:
    """EPSG code where there is one, else the name."""
    if crs is None:
        return None
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.name)
