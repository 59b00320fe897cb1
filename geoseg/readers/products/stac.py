"""STAC items and collections of items in a file, with local or remote assets.

Bands are found by their common names, scale and offset by `raster:bands` (or `bands` of STAC 1.1), clouds by assets whose
meaning is known (SCL, QA_PIXEL, Fmask, UDM2).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from geoseg.errors import InputError
from geoseg.protocols import Reader
from geoseg.readers.mosaicking import MosaicReader
from geoseg.readers.places import local_path
from geoseg.readers.products import landsat, planet, sentinel2
from geoseg.readers.raster import RasterReader
from geoseg.readers.resample import ResampledReader
from geoseg.readers.stack import CloudRule, Layer, StackReader
from geoseg.reading import ReadOptions, utc
from geoseg.scene import band_name
from geoseg.sensors import MSI, OLI, TM

if TYPE_CHECKING:
    import pystac

LARGEST = 64 * 2**20
"""Bytes of a STAC file that is read."""

RASTER = re.compile(r"\.(tiff?|jp2|vrt)$", re.IGNORECASE)
PASSED_OVER = frozenset({"thumbnail", "overview", "visual", "metadata", "tilejson"})
"""Roles of assets that are no measurements."""

NAMES = frozenset(MSI.values()) | {"green05", "yellow", "nir", "lwir", "lwir11", "lwir12", "pan"}
GENERIC = frozenset({"rededge", "swir"})
"""Common names that several bands of one sensor may have: their own names say more."""

OF_AN_ASSET = (
    "nodata",
    "scale",
    "offset",
    "raster:scale",
    "raster:offset",
    "gsd",
    "raster:spatial_resolution",
    "proj:transform",
)
"""What an asset may state for all of its bands (STAC 1.1)."""

SENSORS = (
    (r"hls\.s30|sentinel-?2|\bs2[a-d]\b|s2[a-d]_", MSI),
    (r"hls\.l30|lc0[89]_|landsat-?[89]\b|\boli\b", OLI),
    (r"lt0[45]_|le07_|landsat-?[457]\b|\betm\b|'tm'", TM),
)
"""Band numbers, by what the item says of its sensor."""

FMASK = 0b1110
"""Of HLS: cloud, beside a cloud, shadow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """One band of an asset."""

    name: str
    href: str
    band: int
    scale: float | None
    offset: float | None
    nodata: float | None
    rank: tuple[float, ...]
    """The smaller the better, where several assets hold one band."""


def recognises(path: str) -> bool:
    """True for a JSON file that says in its beginning which version of STAC it is."""
    path, _ = _parts(path)
    local = local_path(path)
    if local is None or not path.lower().endswith((".json", ".geojson")) or not local.is_file():
        return False
    with local.open("rb") as file:
        head = file.read(2**16)
    return b'"stac_version"' in head or b'"stac_extensions"' in head


def opened(path: str, options: ReadOptions) -> Reader:
    """The item in the file; items of a collection are joined like several scenes, `FILE#ID` is one of them.

    Raises InputError.
    """
    path, wanted = _parts(path)
    options.refuse("a STAC item", ("bands", "crs", "pixel_size_m"))
    local = Path(path)
    if local.stat().st_size > LARGEST:
        raise InputError(f"{path!r} is larger than 64 MB; give the items of one area")
    try:
        values = json.loads(local.read_bytes())
        kind = values.get("type")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path!r} is no well-formed STAC file ({error}); fetch it again") from error
    if kind not in ("Feature", "FeatureCollection"):
        raise InputError(
            f"{path!r} is a STAC {kind or 'file without a type'}; an item or a collection of items (FeatureCollection) is "
            f"expected: give the items that it links to"
        )
    items = values.get("features", []) if kind == "FeatureCollection" else [values]
    if not items:
        raise InputError(f"{path!r} is a collection without items; widen the search that made it")
    if wanted is not None:
        items = [item for item in items if item.get("id") == wanted]
        if len(items) != 1:
            raise InputError(f"{path!r} holds {len(items)} items {wanted!r}; check the id")
    readers = tuple(_item(item, path, options) for item in items)
    return readers[0] if len(readers) == 1 else MosaicReader(readers=readers, prefer=options.prefer)


def _parts(path: str) -> tuple[str, str | None]:
    """File and id of `FILE#ID`; the id is None where only a file is named."""
    file, mark, name = path.rpartition("#")
    if mark and name and local_path(path) is None and local_path(file) is not None:
        return file, name
    return path, None


def found_bands(item: pystac.Item) -> dict[str, _Found]:
    """By common name the best asset of each band that is known."""
    assets = {key: (asset, str(asset.get_absolute_href() or asset.href)) for key, asset in item.assets.items()}
    sensor = _sensor(item.id, item.properties, [href for _, href in assets.values()])
    best: dict[str, _Found] = {}
    for key, (asset, href) in assets.items():
        for found in _bands(key, asset.to_dict(), href, item.properties, sensor):
            if found.name not in best or found.rank < best[found.name].rank:
                best[found.name] = found
    if "nir" not in best and "nir08" in best:  # Landsat's only near infrared
        best["nir"] = replace(best.pop("nir08"), name="nir")
    return best


def _item(values: Mapping[str, Any], path: str, options: ReadOptions) -> StackReader:
    import pystac

    try:
        item = pystac.Item.from_dict(dict(values), href=path, preserve_dict=True)
        assets = {key: (asset, str(asset.get_absolute_href() or asset.href)) for key, asset in item.assets.items()}
    except Exception as error:  # pystac raises what it meets
        raise InputError(f"{path!r} holds an item that is not valid ({error}); fetch it again") from error
    best = found_bands(item)
    if not best:
        raise InputError(
            f"item {item.id} of {path!r} has no asset with a band of a known common name; its assets are "
            f"{', '.join(assets) or 'none'}"
        )
    readers: dict[str, RasterReader] = {}
    for found in best.values():
        if found.href not in readers:
            nodata = found.nodata if options.nodata is None else options.nodata
            readers[found.href] = RasterReader(paths=(found.href,), nodata=nodata, on_read_error=options.on_read_error)
    side = min(_side(reader) for reader in readers.values())
    numbers = {href: i for i, href in enumerate(readers)}
    sources: list[Reader] = [_on(reader, side) for reader in readers.values()]
    layers = []
    for found in best.values():
        if found.band >= len(readers[found.href].scene.bands):
            raise InputError(
                f"item {item.id} says that {found.href!r} has {found.band + 1} bands or more, and it has "
                f"{len(readers[found.href].scene.bands)}; fetch item and assets again"
            )
        own = readers[found.href].scene.bands[found.band]
        scale, offset = options.scaling(
            own.scale if found.scale is None else found.scale, own.offset if found.offset is None else found.offset
        )
        layers.append(
            Layer(
                name=found.name, source=numbers[found.href], band=found.band, scale=scale, offset=offset,
                scaled=own.scaled or found.scale is not None or found.offset is not None or options.scale is not None,
            )
        )  # fmt: skip
    rules: tuple[CloudRule, ...] = ()
    quality = next(((href, made) for key, (_, href) in assets.items() if (made := _rules(key, href))), None)
    if quality is not None:
        reader = RasterReader(paths=(quality[0],), nodata=-1, on_read_error=options.on_read_error)
        sources.append(_on(reader, side, method="nearest"))
        rules = tuple(replace(rule, source=len(sources) - 1) for rule in quality[1])
    stated = item.properties.get("datetime") or item.properties.get("start_datetime") or ""
    return StackReader(
        name=item.id,
        sources=tuple(sources),
        layers=tuple(layers),
        cloud=rules,
        clouds=options.clouds,
        time=utc(str(stated)),
    )


def _bands(
    key: str, asset: Mapping[str, Any], href: str, properties: Mapping[str, Any], sensor: Mapping[str, str]
) -> Iterator[_Found]:
    """The bands of an asset whose common names are known."""
    media = str(asset.get("type", ""))
    roles = {str(role) for role in asset.get("roles") or ()}
    if roles & PASSED_OVER or not (
        RASTER.search(href.partition("?")[0]) or media.startswith(("image/tiff", "image/jp2"))
    ):
        return
    described = asset.get("bands") or asset.get("eo:bands") or [{}]
    measured = asset.get("raster:bands") or []
    format_rank = 2 - ("cloud-optimized" in media) - media.startswith("image/tiff")
    several = len(described) > 1
    of_all = {word: asset[word] for word in OF_AN_ASSET if word in asset}
    for number, band in enumerate(described):
        values = {**of_all, **(measured[number] if number < len(measured) else {}), **band}
        common = values.get("eo:common_name") or values.get("common_name")
        said = [common, values.get("name"), None if several else key]
        if common in GENERIC:
            said = [*said[1:], common]
        name = next((known for one in said if one and (known := _known(str(one), sensor)) is not None), None)
        if name is None:
            continue
        scale, offset, nodata = (_number(values, word, href) for word in ("scale", "offset", "nodata"))
        scale, offset = _stated(properties, href, scale, offset, sentinel2_=sensor is MSI)
        # One file with all bands is the second choice where the bands have files of their own.
        rank = (float(several), _size(key, values), float(format_rank))
        yield _Found(name=name, href=href, band=number, scale=scale, offset=offset, nodata=nodata, rank=rank)


def _size(key: str, values: Mapping[str, Any]) -> float:
    """The side of a pixel as the item says it, in whatever unit; infinite where it does not."""
    transform = values.get("proj:transform") or [None]
    named = re.search(r"_(\d+)m$", key.lower())
    stated = [
        values.get("gsd"),
        values.get("raster:spatial_resolution"),
        values.get("spatial_resolution"),
        transform[0],
    ]
    sizes = [abs(size) for size in stated if isinstance(size, int | float) and size]
    return sizes[0] if sizes else float(named[1]) if named else math.inf


def _sensor(name: str, properties: Mapping[str, Any], hrefs: Sequence[str]) -> Mapping[str, str]:
    """The table of band numbers that fits an item; empty where nothing tells the sensor."""
    told = [name, *(str(properties.get(word, "")) for word in ("platform", "constellation", "instruments")), *hrefs]
    text = " ".join(told).lower()
    for pattern, table in SENSORS:
        if re.search(pattern, text):
            return table
    return {}


def _known(name: str, sensor: Mapping[str, str]) -> str | None:
    """The common name behind a band's or an asset's; `nir08` stays apart from `nir`."""
    plain = name.strip().lower()
    if plain in NAMES:
        return plain
    number = re.fullmatch(r"(?:sr_)?b(0?\d|8a|1[0-2])(?:_\d+m)?", plain)
    if number and sensor:
        return sensor.get(number[1].lstrip("0"))
    found = band_name(plain)
    return found if found in NAMES else None


def _number(values: Mapping[str, Any], key: str, href: str) -> float | None:
    stated = values.get(f"raster:{key}", values.get(key))
    if stated is None:
        return None
    try:
        return float(stated)
    except (TypeError, ValueError) as error:
        raise InputError(f"the item states {key} {stated!r} for {href!r}, which is no number; correct it") from error


def _stated(
    properties: Mapping[str, Any], href: str, scale: float | None, offset: float | None, *, sentinel2_: bool
) -> tuple[float | None, float | None]:
    """Scale and offset where catalogues state them beside `raster:bands`, contradict it, or leave them to be known."""
    if scale is None and re.search(r"_SR_B\d", href):  # Landsat
        return landsat.SCALE, landsat.OFFSET if offset is None else offset
    if not sentinel2_:
        return scale, offset
    applied = properties.get("earthsearch:boa_offset_applied", properties.get("sentinel:boa_offset_applied"))
    said = properties.get("s2:processing_baseline", properties.get("sentinel:processing_baseline", ""))
    baseline = re.fullmatch(r"(\d+)\.(\d+)", str(said))
    if applied is True:
        return scale or 1 / sentinel2.QUANTIFICATION, 0.0
    if scale is None and (baseline or applied is not None):
        number = (int(baseline[1]), int(baseline[2])) if baseline else (0, 0)
        newer = sentinel2.OFFSET_SINCE <= number < sentinel2.OWN_BASELINE
        return 1 / sentinel2.QUANTIFICATION, sentinel2.OFFSET / sentinel2.QUANTIFICATION if newer else 0.0
    return scale, offset


def _rules(key: str, href: str) -> tuple[CloudRule, ...]:
    """What is known of a quality layer by its name."""
    name, file = key.lower(), PurePosixPath(href.partition("?")[0]).name.lower()
    if name in ("scl", "scl-jp2") or "_scl_" in file or file == "scl.tif":
        return (CloudRule(source=0, values=sentinel2.CLOUDY),)
    if name == "qa_pixel" or "_qa_pixel" in file:
        return (CloudRule(source=0, bits=landsat.CLOUDY),)
    if name == "fmask" or ".fmask." in file:
        return (CloudRule(source=0, bits=FMASK),)
    if "udm2" in name or "_udm2" in file:
        return tuple(CloudRule(source=0, band=band, values=(1,)) for band in planet.CLOUDY)
    return ()


def _side(reader: RasterReader) -> float:
    """Pixel side in units of the CRS."""
    return abs(reader.scene.transform.a)


def _on(reader: RasterReader, side: float, method: Any = "average") -> Reader:
    if _side(reader) == side:
        return reader
    if reader.scene.crs is None or not reader.scene.crs.is_projected:
        raise InputError(
            f"{reader.scene.name} has pixels of {_side(reader):g} and others of the item {side:g}, in degrees; assets of several "
            f"pixel sizes are read in projected CRSs only: bring them to one grid with `gdalwarp -tr`"
        )
    return ResampledReader(source=reader, pixel_size_m=side, method=method)
