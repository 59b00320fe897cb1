"""Sentinel-2 L1C and L2A products: SAFE folders and their zip archives.

Bands lie in JPEG 2000 files of 10, 20 and 60 m on nested grids; all are brought to the finest that is there. Stored values
are reflectance * 10,000, and since processing baseline 04.00 (January 2022) an offset is added before, which the metadata
state (RADIO_ADD_OFFSET, BOA_ADD_OFFSET: -1000). Source: Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

import numpy as np

from geoseg.errors import InputError
from geoseg.protocols import Reader
from geoseg.readers.handles import gdal_errors, open_fresh
from geoseg.readers.places import local_path
from geoseg.readers.products.outlines import OutlineReader
from geoseg.readers.products.package import Package, package, texts
from geoseg.readers.raster import RasterReader
from geoseg.readers.resample import ResampledReader
from geoseg.readers.stack import CloudRule, Layer, StackReader
from geoseg.reading import ReadOptions, utc
from geoseg.sensors import MSI

log = logging.getLogger(__name__)

METADATA = re.compile(r"(?:.*/)?MTD_MSIL(1C|2A)\.xml")
IMAGE = re.compile(r"_(B\d[\dA])(?:_(10|20|60)m)?\.(?:jp2|tiff?)$", re.IGNORECASE)
CLASSES = re.compile(r"_SCL(?:_(\d\d)m)?\.(?:jp2|tiff?)$", re.IGNORECASE)
SENSED = re.compile(r"_(\d{8}T\d{6})")

NATIVE_M = {"B02": 10, "B03": 10, "B04": 10, "B08": 10, "B01": 60, "B09": 60, "B10": 60}
"""Pixel sides of bands in metres; all others have 20."""

BAND_IDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""In the order of the metadata's band_id."""

CLOUDY = (3, 8, 9, 10)
"""Of the scene classification: cloud shadow, cloud of medium and of high probability, thin cirrus."""

QUANTIFICATION = 10_000.0
OFFSET_SINCE = (4, 0)
"""The processing baseline that brought the offset."""

OWN_BASELINE = (99, 0)
"""From here on a user's own processor says its version, which tells nothing about the offset."""

OFFSET = -1000.0
CHECKED_SIDE = 256
"""Pixels along a side of the small image that the offset is checked on."""

NEGATIVE_SHARE = 0.5
"""With an offset that is right, hardly a pixel is below zero in blue, green and red at once, not even deep water."""


def recognises(path: str) -> bool:
    """True for a SAFE folder, its MTD_MSIL*.xml, an archive of one, or a folder or archive that holds just one."""
    name = PurePosixPath(path.replace("\\", "/")).name
    if METADATA.fullmatch(name) or name.upper().endswith((".SAFE", ".SAFE.ZIP")):
        return True
    local = local_path(path)
    if local is not None and local.is_dir():
        return bool(_roots(local))
    found = package(path) if local is not None and name.lower().endswith(".zip") else None
    return found is not None and any(METADATA.fullmatch(one) for one in found.names)


def _roots(folder: Path) -> list[Path]:
    """The products that a folder is, or holds."""
    return sorted(file.parent for pattern in ("MTD_MSIL*.xml", "*/MTD_MSIL*.xml") for file in folder.glob(pattern))


def opened(path: str, options: ReadOptions) -> StackReader:
    """The product at `path`: every band that is there, on the finest grid of them, with reflectance as scale and offset.

    Raises InputError where the product is not whole, holds several granules, or contradicts itself.
    """
    options.refuse("a Sentinel-2 product")
    name = PurePosixPath(path.replace("\\", "/")).name
    root = path[: -len(name)] or "." if METADATA.fullmatch(name) else path
    roots = _roots(Path(root)) if Path(root).is_dir() else []
    if len(roots) > 1:
        raise InputError(f"{path!r} holds {len(roots)} Sentinel-2 products; give one of them, or take them one by one")
    product = package(str(roots[0]) if roots else root)
    if product is None:
        raise InputError(f"there is no Sentinel-2 product {path!r}; check the name")
    found = _facts(product, given=options.offset is not None)
    images = _images(product)
    side = min(size for _, size in images.values())
    offsets = found.offsets
    if options.offset is None and any(offsets.values()) and _already_applied(product, images, offsets, options):
        log.warning(
            "%s: its metadata state an offset of %g, but without it already most pixels would be below zero in blue, green "
            "and red; the offset has been applied before, and is not applied again",
            product.title, min(offsets.values()),
        )  # fmt: skip
        offsets = {}
    sources: list[Reader] = []
    layers = []
    for band, (image, size) in images.items():
        common = MSI[band[1:].lower().lstrip("0")]
        sources.append(_on(_raster(product, image, options), size=size, side=side))
        scale, offset = options.scaling(1 / found.quantification, offsets.get(band, 0.0) / found.quantification)
        layers.append(Layer(name=common, source=len(sources) - 1, scale=scale, offset=offset, scaled=True))
    rules = _clouds(product, options, side=side, sources=sources)
    return StackReader(
        name=product.title,
        sources=tuple(sources),
        layers=tuple(layers),
        cloud=rules,
        clouds=options.clouds,
        time=found.time,
        archive=product.archive,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What the product's metadata state."""

    quantification: float
    offsets: Mapping[str, float]
    """By band (`B04`), in stored units."""
    time: datetime | None


def _facts(product: Package, *, given: bool) -> _Facts:
    metadata = [name for name in product.names if METADATA.fullmatch(name)]
    if len(metadata) > 1:
        raise InputError(
            f"{product.root!r} holds {len(metadata)} Sentinel-2 products; give one of them, or take them one by one"
        )
    if not metadata:
        raise InputError(f"{product.root!r} has no MTD_MSIL1C.xml or MTD_MSIL2A.xml; fetch the product again")
    root = product.xml(metadata[0])
    level = "BOA" if "L2A" in metadata[0] else "RADIO"
    try:
        quantities = texts(root, "BOA_QUANTIFICATION_VALUE") or texts(root, "QUANTIFICATION_VALUE")
        quantification = float(quantities[0]) if quantities else QUANTIFICATION
        baseline = tuple(int(part) for part in (texts(root, "PROCESSING_BASELINE") or ["0.0"])[0].split("."))
        stated = {
            BAND_IDS[int(element.get("band_id", ""))]: float(element.text or "")
            for element in root.iter()
            if str(element.tag).endswith(f"{level}_ADD_OFFSET")
        }
    except (ValueError, IndexError) as error:
        raise InputError(f"{metadata[0]} of {product.root!r} cannot be understood: {error}; fetch it again") from error
    if not (quantification > 0):
        raise InputError(
            f"{metadata[0]} of {product.root!r} states a quantification of {quantification}; fetch it again"
        )
    if not stated and OFFSET_SINCE <= baseline < OWN_BASELINE:
        stated = dict.fromkeys(BAND_IDS, OFFSET)
    if not stated and baseline >= OWN_BASELINE and not given:
        log.warning(
            "%s is of a processor of its own (baseline %s) and states no offset: none is applied; if reflectances are .1 too "
            "high, say --offset -0.1", product.title, ".".join(map(str, baseline)),
        )  # fmt: skip
    if baseline < OFFSET_SINCE and any(stated.values()) and not given:
        raise InputError(
            f"{product.title} states offsets, which processing baseline {'.'.join(map(str, baseline))} does not have; give "
            f"the right ones with --offset, in reflectance"
        )
    times = texts(root, "DATATAKE_SENSING_START") or texts(root, "PRODUCT_START_TIME")
    named = SENSED.search(product.title)
    return _Facts(
        quantification=quantification, offsets=stated, time=utc(times[0] if times else named[1] if named else "")
    )


def _images(product: Package) -> dict[str, tuple[str, int]]:
    """(file, pixel side in metres) by band, in the order of BAND_IDS; of each band the finest file."""
    granules = sorted({one.group(1) for name in product.names if (one := re.search(r"(?:^|/)(GRANULE/[^/]+)/", name))})
    if len(granules) > 1:
        raise InputError(
            f"{product.title} holds {len(granules)} granules, as products did before 2017; give the image files of one"
        )
    found: dict[str, tuple[str, int]] = {}
    for name in product.names:
        match = IMAGE.search(name)
        if match is None or "/IMG_DATA/" not in f"/{name}":
            continue
        band = match[1].upper()
        size = int(match[2] or NATIVE_M.get(band, 20))
        if band in BAND_IDS and (band not in found or size < found[band][1]):
            found[band] = (name, size)
    if not found:
        raise InputError(f"{product.root!r} has no images of bands in GRANULE/*/IMG_DATA; unpack or fetch it whole")
    return {band: found[band] for band in BAND_IDS if band in found}


def _raster(product: Package, name: str, options: ReadOptions) -> RasterReader:
    return RasterReader(paths=(product.raster(name),), band_names=("-",), nodata=0, on_read_error=options.on_read_error)


def _on(reader: Reader, *, size: int, side: int) -> Reader:
    return reader if size == side else ResampledReader(source=reader, pixel_size_m=side)


def _clouds(product: Package, options: ReadOptions, *, side: int, sources: list[Reader]) -> tuple[CloudRule, ...]:
    """The rules of the product's own cloud mask, whose layers are added to `sources`."""
    classified = {int(m[1] or 20): name for name in product.names if (m := CLASSES.search(name))}
    if classified:
        size = min(classified)
        layer: Reader = RasterReader(
            paths=(product.raster(classified[size]),), band_names=("-",), nodata=0, on_read_error=options.on_read_error
        )
        if size != side:
            layer = ResampledReader(source=layer, pixel_size_m=side, method="nearest")
        sources.append(layer)
        return (CloudRule(source=len(sources) - 1, values=CLOUDY),)
    raster = [name for name in product.names if name.endswith("MSK_CLASSI_B00.jp2")]
    if raster:  # level 1C since baseline 04.00: opaque clouds, cirrus, snow
        layer = RasterReader(paths=(product.raster(raster[0]),), nodata=-1, on_read_error=options.on_read_error)
        sources.append(ResampledReader(source=layer, pixel_size_m=side, method="nearest"))
        return tuple(CloudRule(source=len(sources) - 1, band=band, values=(1,)) for band in (0, 1))
    drawn = [name for name in product.names if name.endswith("MSK_CLOUDS_B00.gml")]
    if drawn:
        like = next(source for source in sources if source.scene.transform.a == side).scene
        sources.append(OutlineReader.from_gml(product.xml(drawn[0]), like=like, title=drawn[0]))
        return (CloudRule(source=len(sources) - 1, values=(1,)),)
    return ()


def _already_applied(
    product: Package, images: Mapping[str, tuple[str, int]], offsets: Mapping[str, float], options: ReadOptions
) -> bool:
    """Whether the pixels contradict the offset: most of a small image of the product would be below zero in all visible bands."""
    below, seen = None, None
    for band in ("B02", "B03", "B04"):
        if band not in images:
            continue
        path = product.raster(images[band][0])
        try:
            with gdal_errors(path, "check the offset of"):
                raster, _ = open_fresh(path)
                with raster:
                    rows, cols = (min(CHECKED_SIDE, size) for size in raster.shape)
                    small = raster.read(1, out_shape=(rows, cols))
        except InputError:
            if options.on_read_error == "mask":
                continue
            raise
        negative = small < -offsets.get(band, 0.0)
        below = negative if below is None or below.shape != negative.shape else below & negative
        seen = small != 0 if seen is None or seen.shape != small.shape else seen & (small != 0)
    if below is None or seen is None or not seen.any():
        return False
    return bool(np.mean(below[seen]) > NEGATIVE_SHARE)
