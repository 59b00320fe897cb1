"""item.json: a STAC Item of what a run has written, so that catalogues find it and programs load it.

STAC 1.1 with the extensions below; docs/formats.md says what each part holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from geoseg.models.mlm import CLASSIFICATION_SCHEMA, EO_SCHEMA, FILE_SCHEMA, SCHEMA, stac_item
from geoseg.models.package import MULTIHASH_SHA256
from geoseg.protocols import Model
from geoseg.results import NODATA, PROBABILITY_MAX
from geoseg.scene import Scene, time_text, to_lonlat
from geoseg.spec import ModelSpec
from geoseg.version import VERSION

PROJECTION_SCHEMA = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
RASTER_SCHEMA = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
PROCESSING_SCHEMA = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
EXTENSIONS = [
    PROJECTION_SCHEMA, RASTER_SCHEMA, PROCESSING_SCHEMA, FILE_SCHEMA, CLASSIFICATION_SCHEMA, SCHEMA, EO_SCHEMA,
]  # fmt: skip

MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".png": "image/png",
    ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/vnd.apache.parquet",
    ".fgb": "application/vnd.flatgeobuf",
    ".geojson": "application/geo+json",
    ".shp": "application/vnd.shp",
    ".shx": "application/vnd.shx",
    ".dbf": "application/vnd.dbf",
    ".json": "application/json",
    ".csv": "text/csv",
    ".qml": "application/xml",
}
"""By suffix; others are text."""

DATA = (".tif", ".gpkg", ".parquet", ".fgb", ".geojson", ".shp", ".shx", ".dbf")
FRAMEWORKS = {"torch": "PyTorch", "openvino": "OpenVINO", "numpy": "NumPy"}
UNKNOWN_TIME = {"start_datetime": "1900-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}
"""STAC wants a time or an interval in which it lies."""

POINTS = 9
"""Along each side of a footprint: straight lines in a projection are curves in degrees."""

DECIMALS = 7
"""About a centimetre."""


def run_item(
    *,
    name: str,
    scene: Scene,
    time: datetime | None,
    pixel_size_m: float | None,
    model: Model,
    method: str,
    outputs: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The item; equal arguments give equal values in equal order.

    Args:
        name: its id.
        scene: the part of the scene that the outputs cover.
        time: when the image was taken, in UTC, if known.
        pixel_size_m: of a pixel on the ground, if known.
        model: what predicted. Its spec lies beside the item, in model.json.
        method: what made fields of classes.
        outputs: by file name the `kind`, `bytes` and `sha256` of what was written, model.json included.
    """
    spec = model.spec
    footprint = lonlat_footprint(scene)
    definition = _asset("model.json", outputs["model.json"], roles=["mlm:model", "metadata"])
    definition["mlm:artifact_type"] = "geoseg.spec"
    described = stac_item(
        spec, asset=definition,
        framework=FRAMEWORKS.get(model.runtime, model.runtime),
    )  # fmt: skip
    told = {key: value for key, value in described["properties"].items() if key.startswith("mlm:") or key == "bands"}
    resolution = {} if pixel_size_m is None else {"raster:spatial_resolution": round(pixel_size_m, 6)}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": EXTENSIONS,
        "id": name,
        **footprint,
        "properties": {
            "title": f"Segmentation of {scene.name}",
            "datetime": None if time is None else time_text(time),
            **(UNKNOWN_TIME if time is None else {}),
            **({} if pixel_size_m is None else {"gsd": round(pixel_size_m, 6)}),
            **_projection(scene),
            "processing:software": {"geoseg": VERSION},
            "processing:lineage": (
                f"{spec.title} ({spec.name}) predicted {', '.join(spec.class_names)} on {scene.name}; fields were made "
                f"of classes by {method}."
            ),
            **told,
        },
        "links": [],
        "assets": {
            **{
                _key(file): _asset(file, entry) | _bands(file, spec, resolution)
                for file, entry in outputs.items()
                if file != "model.json"
            },
            "model": described["assets"]["model"] | {"title": f"What {spec.name} is made of, without weights"},
            "run": {"href": "./run.json", "type": MEDIA_TYPES[".json"], "roles": ["metadata"]},
        },
    }


def item_name(scene: str, digest: str) -> str:
    """A name for what a run found in a scene: another run has another."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", scene.rsplit(".", 1)[0]).strip("_") or "scene"
    return f"{plain}-{digest[:12]}"


def lonlat_footprint(scene: Scene) -> dict[str, Any]:
    """`geometry` and `bbox` of a scene in longitude and latitude; the geometry is null where it has no place on the globe.

    As RFC 7946 has it: counter-clockwise, cut in two at longitude 180, where west is more than east.
    """
    import shapely

    from geoseg.export.geojson import cut_at_antimeridian

    outline = None if scene.crs is None else _outline(scene, scene.crs)
    if outline is None:
        return {"geometry": None}
    if scene.crs is not None and (pole := _pole_inside(scene, scene.crs)):
        near = float(np.abs(outline[:, 1]).min()) * pole
        geometry = shapely.box(-180, min(near, 90 * pole), 180, max(near, 90 * pole))
    else:
        whole = np.array([shapely.Polygon(outline)])
        geometry = cut_at_antimeridian(whole, wide=scene.crs is not None and not scene.crs.is_geographic)[0]
    geometry = shapely.transform(shapely.orient_polygons(geometry), lambda points: np.round(points, DECIMALS))
    west, south, east, north = shapely.bounds(geometry).tolist()
    parts = shapely.get_parts(geometry)
    if len(parts) > 1:
        west = min(each[0] for each in shapely.bounds(parts).tolist() if each[2] == east)
        east = max(each[2] for each in shapely.bounds(parts).tolist() if each[0] == -180)
    return {"geometry": shapely.geometry.mapping(geometry), "bbox": [west, south, east, north]}


def _outline(scene: Scene, crs: CRS) -> NDArray[np.float64] | None:
    """(point, 2) longitudes and latitudes around a scene; None where one of them has none."""
    rows, cols = scene.shape
    along = np.linspace(0, 1, POINTS if not crs.is_geographic else 2)[:-1]
    row = np.concatenate([0 * along, along, 1 + 0 * along, 1 - along]) * rows
    col = np.concatenate([along, 1 + 0 * along, 1 - along, 0 * along]) * cols
    a, b, c, d, e, f = tuple(scene.transform)[:6]
    points = np.column_stack(to_lonlat(a * col + b * row + c, d * col + e * row + f, crs))
    return points if np.isfinite(points).all() else None


def _pole_inside(scene: Scene, crs: CRS) -> int:
    """1 or -1 for the pole that a projected scene holds, else 0."""
    if crs.is_geographic:
        return 0
    transformer = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    for pole in (1, -1):
        x, y = transformer.transform(0.0, 90.0 * pole)
        if not (np.isfinite(x) and np.isfinite(y)):
            continue
        col, row = ~scene.transform @ (x, y)
        if 0 < row < scene.shape[0] and 0 < col < scene.shape[1]:
            return pole
    return 0


def _projection(scene: Scene) -> dict[str, Any]:
    authority = None if scene.crs is None else scene.crs.to_authority()
    code = None if authority is None else ":".join(authority)
    return {
        "proj:code": code,
        **({"proj:wkt2": scene.crs.to_wkt()} if scene.crs is not None and code is None else {}),
        "proj:shape": list(scene.shape),
        "proj:transform": list(scene.transform)[:6],
    }


def _key(file: str) -> str:
    """The name of an asset: mask, probabilities and preview without a suffix, as readers of rasters name their bands."""
    stem, _, suffix = file.rpartition(".")
    return stem if suffix in ("tif", "png") else file.replace(".", "-")


def _asset(file: str, entry: Mapping[str, Any], *, roles: list[str] | None = None) -> dict[str, Any]:
    suffix = f".{file.rpartition('.')[2]}"
    usual = ["overview"] if entry["kind"] == "preview" else ["data"] if suffix in DATA else ["metadata"]
    return {
        "href": f"./{file}",
        "type": MEDIA_TYPES.get(suffix, "text/plain"),
        "roles": roles or usual,
        "file:size": entry["bytes"],
        "file:checksum": MULTIHASH_SHA256 + entry["sha256"],
    }


def _bands(file: str, spec: ModelSpec, resolution: Mapping[str, Any]) -> dict[str, Any]:
    """What the bands of a raster hold."""
    stored = {"data_type": "uint8", "nodata": NODATA, "raster:sampling": "area", **resolution}
    if file == "mask.tif":
        classes = [
            {"value": value, "name": re.sub(r"[^0-9A-Za-z_-]+", "_", name), "description": name}
            for value, name in enumerate(spec.class_names)
        ]
        return {"bands": [{"name": "class", **stored}], "classification:classes": classes}
    if file == "probabilities.tif":
        scaled = {**stored, "raster:scale": 1 / PROBABILITY_MAX, "raster:offset": 0}
        return {"bands": [{"name": channel.name, **scaled} for channel in spec.outputs]}
    return {}
