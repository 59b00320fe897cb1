"""A GeoPackage to label in: the squares that are suggested, and an empty layer to draw fields into."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.export.drivers import driver_failures
from geoseg.export.geopackage import LAYER_STYLES, GeoPackage, refuse_open
from geoseg.export.staging import staged
from geoseg.export.style import fields_qml

if TYPE_CHECKING:
    import geopandas as gpd

TILES, FIELDS = "tiles", "fields"
"""Names of the layers."""

LAST_CHANGE = GeoPackage().last_change

COLUMNS = "fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom POLYGON, class TEXT DEFAULT 'field', note TEXT"
"""Of the layer of fields; QGIS fills in the default of what is drawn."""


def write_tiles(tiles: gpd.GeoDataFrame, path: Path) -> list[Path]:
    """Write squares as layer `tiles`, and an empty polygon layer `fields` in their CRS, both with a style for QGIS.

    Raises ExportError where the file cannot be written.
    """
    import geopandas as gpd
    import pandas as pd

    refuse_open(path)
    empty = pd.DataFrame({"class": pd.Series(dtype=str), "note": pd.Series(dtype=str)})
    fields = gpd.GeoDataFrame(empty, geometry=gpd.GeoSeries([], crs=tiles.crs), crs=tiles.crs)
    with staged(path, *driver_failures(), sqlite3.Error) as stage:
        for layer, frame in ((TILES, tiles), (FIELDS, fields)):
            _write(frame, stage.path, layer=layer)
        with closing(sqlite3.connect(stage.path)) as database, database:
            _with_defaults(database)
            database.execute(LAYER_STYLES)
            database.execute(
                "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change, srs_id) "
                "VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?, 0)",
                (LAST_CHANGE,),
            )
            square = fields_qml(fill=(0, 0, 0, 0), outline=(230, 80, 0, 255), width_mm=0.8)
            for layer, style in ((TILES, square), (FIELDS, fields_qml())):
                database.execute(
                    "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, "
                    "styleName, styleQML, styleSLD, useAsDefault, description, owner, update_time) "
                    "VALUES ('', '', ?, 'geom', ?, ?, '', 1, '', '', ?)",
                    (layer, layer, style, LAST_CHANGE),
                )
            database.execute("UPDATE gpkg_contents SET last_change = ?", (LAST_CHANGE,))
    return stage.files


def _write(frame: gpd.GeoDataFrame, path: Path, *, layer: str) -> None:
    import warnings

    import pyogrio

    options: dict[str, Any] = {"geometry_type": "Polygon", "layer_options": {"GEOMETRY_NAME": "geom", "FID": "fid"}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_dataframe(frame, path, layer=layer, driver="GPKG", **options)


def _with_defaults(database: sqlite3.Connection) -> None:
    """The empty layer anew, since GDAL's writer here gives no column a default; its triggers and index stay."""
    triggers = database.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? ORDER BY name", (FIELDS,)
    ).fetchall()
    database.execute(f"DROP TABLE {FIELDS}")
    database.execute(f"CREATE TABLE {FIELDS} ({COLUMNS})")
    for (sql,) in triggers:
        database.execute(sql)
