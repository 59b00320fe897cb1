"""The batch's results as a STAC collection: OUT/catalog/collection.json, an item a scene, with relative links."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely

from geoseg.batching.summary import Outcome, footprint
from geoseg.disk import room_for

if TYPE_CHECKING:
    import pystac

CATALOG = "catalog"

KINDS = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".png": "image/png",
    ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/vnd.apache.parquet",
    ".geojson": "application/geo+json",
    ".fgb": "application/vnd.flatgeobuf",
    ".shp": "application/vnd.shp",
    ".json": "application/json",
}
"""Media types of outputs; others (parts of a Shapefile, styles) go with them and are no assets."""

ROLES = {"preview": ["thumbnail"], "record": ["metadata"]}


def write_catalog(outcomes: Sequence[Outcome], out: Path, name: str) -> None:
    """The collection of all scenes that are done, in place of an earlier one; none where no scene is."""
    import pystac

    done = [one for one in outcomes if one.status == "done" and one.record is not None]
    target = out / CATALOG
    made = out / f".{CATALOG}.{uuid.uuid4().hex[:8]}.tmp"
    with room_for(out):
        for old in out.glob(f".{CATALOG}.*.tmp"):
            shutil.rmtree(old, ignore_errors=True)
        if done:
            items = [
                item_of(one.scene.id, f"../../scenes/{one.scene.id}", one.record or {}, time=one.scene.time)
                for one in done
            ]
            collection = pystac.Collection(
                id=name,
                description=f"Results of geoseg for {len(items)} scenes",
                extent=_extent(items),
                license="other",
            )
            collection.add_items(items)
            collection.normalize_hrefs(str(target))
            collection.save(pystac.CatalogType.SELF_CONTAINED, dest_href=str(made))
        if target.exists():
            os.replace(target, old := out / f".{CATALOG}.{uuid.uuid4().hex[:8]}.tmp")
            shutil.rmtree(old, ignore_errors=True)
        if done:
            os.replace(made, target)


def item_of(name: str, folder: str, record: Mapping[str, Any], *, time: str | None = None) -> pystac.Item:
    """A minimal STAC item of a finished run.

    Args:
        name: the item's id.
        folder: of the results, as a link from the item.
        record: what run.json holds.
        time: when the image was taken, as ISO 8601; None takes the time of the run, which `created` says, too.
    """
    import pystac

    shape, finished = footprint(record), datetime.fromisoformat(record["finished"])
    item = pystac.Item(
        id=name,
        geometry=None if shape is None else shapely.geometry.mapping(shape),
        bbox=None if shape is None else list(shapely.bounds(shape)),
        datetime=_moment(time) or finished,
        properties={
            "created": finished.isoformat().replace("+00:00", "Z"),
            "geoseg:version": record["geoseg"],
            "geoseg:model": record["model"]["name"],
            "geoseg:fields": record["counts"]["fields"],
            "geoseg:area_m2": record["counts"]["area_m2"],
        },
    )
    outputs = {**record["outputs"], "run.json": {"kind": "record"}}
    for file, told in outputs.items():
        path = Path(file)
        if path.suffix in KINDS:
            key = path.stem if told["kind"] != "fields" else f"{path.stem}_{path.suffix[1:]}"
            item.add_asset(
                key,
                pystac.Asset(
                    href=f"{folder}/{file}", media_type=KINDS[path.suffix], roles=ROLES.get(told["kind"], ["data"])
                ),
            )
    return item


def _moment(text: str | None) -> datetime | None:
    try:
        moment = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _extent(items: Sequence[pystac.Item]) -> pystac.Extent:
    import pystac

    boxes = [item.bbox for item in items if item.bbox is not None] or [[-180.0, -90.0, 180.0, 90.0]]
    west, south, east, north = zip(*boxes, strict=True)
    times = [item.datetime for item in items if item.datetime is not None]
    return pystac.Extent(
        pystac.SpatialExtent([[min(west), min(south), max(east), max(north)]]),
        pystac.TemporalExtent([[min(times), max(times)]]),
    )
