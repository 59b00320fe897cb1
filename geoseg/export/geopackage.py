"""GeoPackage that QGIS opens with its style; equal fields give equal bytes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.errors import ExportError
from geoseg.export.batches import in_parts
from geoseg.export.drivers import driver_failures, write_layer
from geoseg.export.shapes import are_polygons
from geoseg.export.staging import staged
from geoseg.export.style import fields_qml

if TYPE_CHECKING:
    import geopandas as gpd

    from geoseg.protocols import FieldBatches

# The table that QGIS looks for; columns as QGIS itself makes them.
LAYER_STYLES = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
  styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30),
  ui TEXT(30), update_time DATETIME
)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoPackage:
    name: str = "gpkg"
    suffix: str = ".gpkg"
    last_change: str = "1970-01-01T00:00:00.000Z"
    """What the file says about its age (UTC); fixed, so that equal fields give equal bytes."""

    def write(self, fields: gpd.GeoDataFrame | FieldBatches, path: Path, *, layer: str = "fields") -> list[Path]:
        """Write `fields` as one layer with a spatial index; polygons get a default style."""
        from pyogrio import set_gdal_config_options

        path = Path(path)
        refuse_open(path)
        # With a thread of its own the index waits in memory, up to 100 MB; without, it takes no longer (measured).
        set_gdal_config_options({"OGR_GPKG_ALLOW_THREADED_RTREE": "NO"})
        parts = in_parts(fields)
        sample = parts.sample
        geometry = _free_name("geom", sample)
        with staged(path, *driver_failures(), sqlite3.Error) as stage:
            written = write_layer(
                parts,
                stage.path,
                driver="GPKG",
                layer=layer,
                dataset_options={"VERSION": "1.2"},
                layer_options={
                    "SPATIAL_INDEX": "YES", "GEOMETRY_NAME": geometry, "FID": _free_name("fid", sample),
                },
            )  # fmt: skip
            with closing(sqlite3.connect(stage.path)) as database, database:
                _check_index(database, f"rtree_{layer}_{geometry}", rows=written.shapes)
                if are_polygons(written.kinds):
                    self._add_style(database, layer=layer, geometry=geometry)
                database.execute("UPDATE gpkg_contents SET last_change = ?", (self.last_change,))
        return stage.files

    def _add_style(self, database: sqlite3.Connection, *, layer: str, geometry: str) -> None:
        database.execute(LAYER_STYLES)
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change, srs_id) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?, 0)",
            (self.last_change,),
        )
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner, update_time) "
            "VALUES ('', '', ?, ?, 'fields', ?, '', 1, 'field outlines', '', ?)",
            (layer, geometry, fields_qml(), self.last_change),
        )


def refuse_open(path: Path) -> None:
    """A log beside the file belongs to the old content: SQLite would play it into the new one."""
    for suffix in ("-wal", "-journal"):
        log = path.with_name(path.name + suffix)
        if log.exists():
            raise ExportError(f"{path} is open in another program ({log.name} exists); close it there first")


def _check_index(database: sqlite3.Connection, index: str, *, rows: int) -> None:
    """GDAL builds the spatial index while it closes the file, and does not report when that fails."""
    quoted = index.replace('"', '""')
    (found,) = database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()
    if found != rows:
        raise sqlite3.OperationalError(f"{found} of {rows} geometries are in the spatial index")


def _free_name(name: str, table: gpd.GeoDataFrame) -> str:
    """`name`, or with a number where a column has it already."""
    taken = {str(column).lower() for column in table.columns if column != table.geometry.name}
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
