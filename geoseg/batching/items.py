"""Scenes of a STAC collection, item collection or item: which of an item's files are the bands that a model wants."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from geoseg.batching.rows import Row
from geoseg.errors import InputError
from geoseg.scene import band_name

if TYPE_CHECKING:
    import pystac

RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img")
NO_BANDS = {"thumbnail", "overview", "visual", "metadata"}
"""Roles of assets that are pictures or papers."""


def rows_of_stac(path: Path, *, wanted: Sequence[str], assets: Sequence[str] | None) -> list[Row]:
    """A row for each item. Raises InputError for what is no STAC, and for items without files that serve."""
    import pystac

    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("type")
        found: Iterable[pystac.Item]
        if kind == "FeatureCollection":
            found = list(pystac.ItemCollection.from_file(str(path)))
        elif kind == "Feature":
            found = [pystac.Item.from_file(str(path))]
        elif kind in ("Collection", "Catalog"):
            opened = pystac.read_file(str(path))
            found = list(opened.get_items(recursive=True)) if isinstance(opened, pystac.Catalog) else []
        else:
            raise InputError(
                f"{path} is no STAC (its type is {kind!r}); expected a Collection or a FeatureCollection of items"
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pystac.STACError) as error:
        raise InputError(
            f"{path} cannot be read as STAC ({type(error).__name__}: {error}); see to it, or give a CSV"
        ) from error
    return [_row(item, path, wanted=wanted, assets=assets) for item in found]


def _row(item: pystac.Item, path: Path, *, wanted: Sequence[str], assets: Sequence[str] | None) -> Row:
    """The item itself, which the reader of STAC items opens; its plain files where they are asked for, or say too little."""
    from geoseg.readers.products.stac import found_bands

    place = f"{path.name}, item {item.id}"
    time = None if item.datetime is None else item.datetime.isoformat()
    if assets is None and found_bands(item):
        own = item.get_self_href()
        source = str(path) if own is None else own
        mark = f"#{item.id}" if own is None else ""
        return Row(files=(f"{source}{mark}",), folder=path.parent, place=place, id=item.id, values={}, time=time)
    keys = _chosen(item, place, wanted=wanted, assets=assets)
    bands = [name for key in keys for name in _bands(key, item.assets[key])]
    known = {"bands": ",".join(bands)} if all(bands) and len(bands) >= len(keys) else {}
    files = tuple(_place(item.assets[key], path.parent) for key in keys)
    return Row(files=files, folder=path.parent, place=place, id=item.id, values=known, time=time)


def _chosen(item: pystac.Item, place: str, *, wanted: Sequence[str], assets: Sequence[str] | None) -> list[str]:
    """Keys of the assets to read: as asked, else the only image."""
    if assets is not None:
        missing = [key for key in assets if key not in item.assets]
        if missing:
            raise InputError(f"{place} has no asset {missing[0]!r}; it has {', '.join(item.assets) or 'none'}")
        return list(assets)
    images = [key for key, asset in item.assets.items() if _is_raster(asset)]
    if len(images) == 1:
        return images
    raise InputError(
        f"{place}: none of its assets ({', '.join(item.assets) or 'none'}) is known to hold {', '.join(wanted)}; "
        f"say which to read with `assets:`"
    )


def _is_raster(asset: pystac.Asset) -> bool:
    kind = (asset.media_type or "").lower()
    named = urlparse(asset.href).path.lower().endswith(RASTERS)
    return not NO_BANDS & set(asset.roles or ()) and (
        kind.startswith(("image/tiff", "image/jp2", "image/vnd.stac")) or (named and not kind.startswith("image/png"))
    )


def _bands(key: str, asset: pystac.Asset) -> list[str]:
    """Names of an asset's bands: as its metadata say (STAC 1.1, or the eo extension), else after its key."""
    told: list[dict[str, Any]] = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
    names = [one.get("eo:common_name") or one.get("common_name") or one.get("name") or "" for one in told]
    return [band_name(name) for name in names] if names else [band_name(key)]


def _place(asset: pystac.Asset, folder: Path) -> str:
    href = asset.get_absolute_href() or asset.href
    if href.startswith("file://"):
        href = unquote(urlparse(href).path)
    return href if "://" in href or href.startswith("/") else str(folder / href)
