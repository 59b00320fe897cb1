"""Requirements of public standards, said in our own words where no installed package ships the schema itself.

Each schema here states what the tests check and no more: it is neither the published schema nor a copy of a part of it. What a
package does ship is taken from there: STAC's core schemas from pystac, that of PROJJSON from pyproj, the metadata of models from
stac-model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyproj

from geoseg.export.fiboa import SCHEMAS, SDL
from geoseg.models.mlm import CLASSIFICATION_SCHEMA, EO_SCHEMA, FILE_SCHEMA, SCHEMA
from geoseg.stac import PROCESSING_SCHEMA, PROJECTION_SCHEMA, RASTER_SCHEMA

DRAFT = "http://json-schema.org/draft-07/schema#"
FIBOA, VECOREL = SCHEMAS
GEOPARQUET = "https://geoparquet.org/releases/v1.1.0/schema.json"

Schema = dict[str, Any]


def an(kind: str, *needed: str, **parts: Schema) -> Schema:
    """An object (or whatever `kind` is) with these properties."""
    return {"type": kind, "required": list(needed), "properties": parts}


def named(*needed: str, **parts: Schema) -> Schema:
    """An object whose properties have a colon in their names, written `__` here."""
    return an(
        "object", *[name.replace("__", ":") for name in needed], **{k.replace("__", ":"): v for k, v in parts.items()}
    )


def listed(items: Schema, least: int = 1, most: int | None = None) -> Schema:
    return {"type": "array", "items": items, "minItems": least} | ({} if most is None else {"maxItems": most})


TEXT: Schema = {"type": "string", "minLength": 1}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer", "minimum": 1}
BAND = listed(an("object", "name", name=TEXT))


def of_item(
    uri: str, *, properties: Schema | None = None, assets: Schema | None = None, some_asset: Schema | None = None
) -> Schema:
    """A schema of an extension: the item names it; its properties, each of its assets and one at least are as said."""
    every = {} if assets is None else {"additionalProperties": assets}
    some = {} if some_asset is None else {"not": {"additionalProperties": {"not": some_asset}}}
    named_there = {"contains": {"const": uri}}
    parts = {"stac_extensions": named_there, "properties": properties or {}, "assets": {**every, **some}}
    return {"$schema": DRAFT, "$id": uri, **an("object", "stac_extensions", "properties", "assets", **parts)}


MODEL_ASSET = {"properties": {"roles": {"contains": {"const": "mlm:model"}}}, "required": ["roles"]}

EXTENSIONS: dict[str, Schema] = {
    PROJECTION_SCHEMA: of_item(
        PROJECTION_SCHEMA,
        properties=named(
            "proj__code", "proj__shape", "proj__transform",
            proj__code={"type": ["string", "null"], "pattern": "^[A-Z]+:[A-Za-z0-9]+$"},
            proj__shape=listed(WHOLE, 2, 2),
            proj__transform=listed(NUMBER, 6, 6),
            proj__wkt2={"type": "string", "pattern": "^[A-Z]+\\["},
        ),
    ),
    RASTER_SCHEMA: of_item(
        RASTER_SCHEMA,
        assets=an("object", bands=listed(named(
            raster__sampling={"enum": ["area", "point"]}, raster__spatial_resolution=NUMBER | {"exclusiveMinimum": 0},
            raster__scale=NUMBER, raster__offset=NUMBER,
        ))),
    ),
    PROCESSING_SCHEMA: of_item(
        PROCESSING_SCHEMA,
        properties=named(
            "processing__software", "processing__lineage", processing__lineage=TEXT,
            processing__software={"type": "object", "minProperties": 1, "additionalProperties": TEXT},
        ),
    ),
    FILE_SCHEMA: of_item(
        FILE_SCHEMA, assets=named(file__size={"type": "integer", "minimum": 0}, file__checksum={"pattern": "^1220[0-9a-f]{64}$"})
    ),
    CLASSIFICATION_SCHEMA: of_item(
        CLASSIFICATION_SCHEMA,
        assets=named(classification__classes=listed(
            an("object", "value", "name", value={"type": "integer"}, name={"type": "string", "pattern": "^[0-9A-Za-z_-]+$"})
        )),
    ),
    EO_SCHEMA: of_item(EO_SCHEMA, assets=an("object", bands=listed(named(eo__common_name=TEXT)))),
    SCHEMA: of_item(
        SCHEMA,
        properties=named(
            "mlm__name", "mlm__architecture", "mlm__tasks", "mlm__input", "mlm__output", "bands",
            mlm__name=TEXT, mlm__architecture=TEXT, mlm__tasks=listed(TEXT), mlm__input=listed({"type": "object"}),
            mlm__output=listed({"type": "object"}), bands=BAND,
        ),
        # Just those that are the model say of which kind.
        assets={
            "if": MODEL_ASSET,
            "then": {"required": ["mlm:artifact_type"]},
            "else": {"not": {"required": ["mlm:artifact_type"]}},
        },
        some_asset=MODEL_ASSET,
    ),
}  # fmt: skip
"""STAC's extensions by the address of their schema."""


def geoparquet() -> Schema:
    """What GeoParquet 1.1 wants of the `geo` entry, with pyproj's schema for the CRS."""
    projjson = json.loads((Path(pyproj.datadir.get_data_dir()) / "projjson.schema.json").read_text(encoding="utf-8"))
    column = an(
        "object", "encoding", "geometry_types",
        encoding={"const": "WKB"}, geometry_types={"type": "array", "items": {"pattern": "^(Multi)?Polygon$"}},
        crs={"anyOf": [{"type": "null"}, projjson]}, bbox=listed(NUMBER, 4, 4), orientation={"const": "counterclockwise"},
        edges={"enum": ["planar", "spherical"]},
        covering=an("object", "bbox", bbox=an("object", "xmin", "ymin", "xmax", "ymax")),
    )  # fmt: skip
    columns = {"type": "object", "minProperties": 1, "additionalProperties": column}
    about = an(
        "object",
        "version",
        "primary_column",
        "columns",
        version={"const": "1.1.0"},
        primary_column=TEXT,
        columns=columns,
    )
    return {"$schema": DRAFT, **about}


FIELD_SCHEMAS: dict[str, Schema] = {
    VECOREL: {
        "$schema": SDL,
        "required": ["schemas", "id", "collection", "geometry"],
        "collection": {"schemas": True},
        "properties": {
            "schemas": {"type": "object"},
            "id": TEXT,
            "collection": TEXT,
            "geometry": {"type": "geometry"},
            "bbox": {"type": "bounding-box"},
        },
    },
    FIBOA: {
        "$schema": SDL,
        "properties": {
            "metrics:area": {"type": "float", "exclusiveMinimum": 0, "maximum": 1e9},
            "metrics:perimeter": {"type": "float", "exclusiveMinimum": 0, "maximum": 1.25e9},
            "determination:datetime": {"type": "date-time"},
            "determination:method": {
                "type": "string",
                "enum": ["manual", "driven", "surveyed", "auto-operation", "auto-imagery", "unknown"],
            },
        },
    },
}
"""In Vecorel's schema language, by address."""
