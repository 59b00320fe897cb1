"""The batch's results as a STAC collection: OUT/catalog/collection.json, an item a scene, with relative links."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.batching.summary import Outcome
from geoseg.disk import room_for
from geoseg.errors import ExportError

if TYPE_CHECKING:
    import pystac

CATALOG = "catalog"

ITEM = "item.json"


def write_catalog(outcomes: Sequence[Outcome], out: Path, name: str, *, scenes: Path) -> None:
    """The collection of all scenes that are done, in place of an earlier one; none where no scene is.

    `scenes` is the folder below `out` that holds theirs.
    """
    import pystac

    done = [one for one in outcomes if one.status == "done" and one.record is not None]
    target = out / CATALOG
    made = out / f".{CATALOG}.{uuid.uuid4().hex[:8]}.tmp"
    with room_for(out):
        for old in out.glob(f".{CATALOG}.*.tmp"):
            shutil.rmtree(old, ignore_errors=True)
        if done:
            items = [
                item_of(one.scene.id, scenes / one.scene.id, link=f"../../{scenes.name}/{one.scene.id}") for one in done
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


def item_of(name: str, folder: Path, *, link: str) -> pystac.Item:
    """The item that a finished run has left in `folder`, under the name of its scene; `link` leads from the item to the folder.

    Raises ExportError where item.json cannot be read.
    """
    import pystac

    try:
        item = pystac.Item.from_dict(json.loads((folder / ITEM).read_bytes()))
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(f"{folder / ITEM} cannot be read: {error}; run the batch again with --overwrite") from error
    item.id = name
    for asset in item.assets.values():
        asset.href = f"{link}/{asset.href.removeprefix('./')}"
    return item


def _extent(items: Sequence[pystac.Item]) -> pystac.Extent:
    import pystac

    boxes = [item.bbox for item in items if item.bbox is not None] or [[-180.0, -90.0, 180.0, 90.0]]
    west, south, east, north = zip(*boxes, strict=True)
    times = [time for item in items for time in _interval(item)]
    return pystac.Extent(
        pystac.SpatialExtent([[min(west), min(south), max(east), max(north)]]),
        pystac.TemporalExtent([[min(times), max(times)]]),
    )


def _interval(item: pystac.Item) -> list[datetime]:
    """When the image was taken, or between which times."""
    told = item.common_metadata
    return [time for time in (item.datetime, told.start_datetime, told.end_datetime) if time is not None]
