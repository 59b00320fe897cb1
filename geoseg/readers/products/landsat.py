"""Landsat Collection 2 Level 2: folders and tar archives with surface reflectance and QA_PIXEL.

reflectance = stored * 0.0000275 - 0.2, or as the metadata state. Source: Landsat 8-9 Collection 2 Level 2 Science Product
Guide, LSDS-1619; Landsat 4-7: LSDS-1618.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from xml.etree import ElementTree

from geoseg.errors import InputError
from geoseg.protocols import Reader
from geoseg.readers.places import local_path
from geoseg.readers.products.package import Package, local_name, package
from geoseg.readers.raster import RasterReader
from geoseg.readers.stack import CloudRule, Layer, StackReader
from geoseg.reading import ReadOptions, utc
from geoseg.sensors import OLI, TM

PRODUCT = re.compile(r"L([COTEM])(0[4-9])_L([12]\w{2})_\d{6}_(\d{8})_\d{8}_02_\w{2}", re.IGNORECASE)
IMAGE = re.compile(r"_SR_B(\d{1,2})\.tiff?$", re.IGNORECASE)
METADATA = ("_MTL.json", "_MTL.txt", "_MTL.xml")

SCALE, OFFSET = 2.75e-5, -0.2
CLOUDY = 0b11110
"""Of QA_PIXEL: dilated cloud, cirrus, cloud, cloud shadow."""

FILL = 1
"""QA_PIXEL where there is no image."""


def recognises(path: str) -> bool:
    """True for a folder or tar of a Landsat Collection 2 product, and for its MTL file."""
    name = PurePosixPath(path.replace("\\", "/")).name
    if PRODUCT.search(name) and name.endswith((*METADATA, ".tar", ".tar.gz", ".tgz")):
        return True
    local = local_path(path)
    if local is None or not local.is_dir():
        return False
    return any(PRODUCT.match(one.name) and one.name.endswith(METADATA) for one in local.iterdir())


def opened(path: str, options: ReadOptions) -> StackReader:
    """The product at `path`: the bands of surface reflectance, and `cloud` from QA_PIXEL. Raises InputError."""
    options.refuse("a Landsat product")
    name = PurePosixPath(path.replace("\\", "/")).name
    product = package(path[: -len(name)] or "." if name.endswith(METADATA) else path)
    if product is None:
        raise InputError(f"there is no Landsat product {path!r}; check the name")
    if name.endswith(METADATA):
        stem = name.rpartition("_MTL")[0]
        product = Package(root=product.root, names=tuple(one for one in product.names if stem in one))
    titles = sorted({match[0] for one in product.names if (match := PRODUCT.search(PurePosixPath(one).name))})
    if len(titles) != 1:
        raise InputError(
            f"{path!r} holds {len(titles)} Landsat products ({', '.join(titles[:3]) or 'none'}); give the _MTL file of one"
        )
    match = PRODUCT.match(titles[0])
    assert match is not None
    if match[3][0] == "1":
        raise InputError(f"{titles[0]} is of Level 1; geoseg reads surface reflectance: order the product of Level 2")
    names = OLI if int(match[2]) >= 8 else TM
    facts = _facts(product)
    images = sorted((int(found[1]), one) for one in product.names if (found := IMAGE.search(one)))
    if not images:
        raise InputError(f"{titles[0]} in {path!r} has no files *_SR_B*.TIF; fetch the product again")
    sources: list[Reader] = []
    layers = []
    for number, image in images:
        if str(number) not in names:
            continue
        sources.append(_raster(product, image, 0, options))
        scale, offset = options.scaling(
            _number(facts, f"REFLECTANCE_MULT_BAND_{number}", SCALE, titles[0]),
            _number(facts, f"REFLECTANCE_ADD_BAND_{number}", OFFSET, titles[0]),
        )
        layers.append(Layer(name=names[str(number)], source=len(sources) - 1, scale=scale, offset=offset, scaled=True))
    rules = []
    quality = [one for one in product.names if re.search(r"_QA_PIXEL\.tiff?$", one, re.IGNORECASE)]
    if quality:
        sources.append(_raster(product, quality[0], FILL, options))
        rules.append(CloudRule(source=len(sources) - 1, bits=CLOUDY))
    return StackReader(
        name=titles[0],
        sources=tuple(sources),
        layers=tuple(layers),
        cloud=tuple(rules),
        clouds=options.clouds,
        time=_time(facts, match[4]),
        archive=product.archive,
    )


def _raster(product: Package, name: str, nodata: int, options: ReadOptions) -> RasterReader:
    return RasterReader(
        paths=(product.raster(name),), band_names=("-",), nodata=nodata, on_read_error=options.on_read_error
    )


def _time(facts: dict[str, str], day: str) -> datetime | None:
    """When the middle of the scene was taken; the day of the product's name where the metadata do not say."""
    date, clock = facts.get("DATE_ACQUIRED"), facts.get("SCENE_CENTER_TIME", "00:00:00Z")
    clock = re.sub(r"(\.\d{6})\d+", r"\1", clock.strip('"'))
    return utc(f"{date}T{clock}") if date else utc(day)


def _number(facts: dict[str, str], key: str, default: float, title: str) -> float:
    try:
        return float(facts.get(key, default))
    except ValueError as error:
        raise InputError(f"{title} states {key} = {facts[key]!r}, which is no number; fetch it again") from error


def _facts(product: Package) -> dict[str, str]:
    """Keys and values of the metadata file, whatever its form; of the Level 2 group where a key is there twice."""
    for suffix in METADATA:
        for name in product.names:
            if not name.endswith(suffix):
                continue
            data = product.read(name)
            try:
                if suffix == "_MTL.json":
                    return dict(_flat(json.loads(data)))
                if suffix == "_MTL.xml":
                    return dict(_elements(ElementTree.fromstring(data)))
                return dict(_lines(data.decode("utf-8", "replace")))
            except (ValueError, AttributeError, ElementTree.ParseError) as error:
                raise InputError(
                    f"{name} of {product.root!r} cannot be understood: {error}; fetch the product again"
                ) from error
    return {}


def _ranked(pairs: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """(key, value) of (group, key, value); those of Level 1 first, so that others go over them."""
    return [(key, value) for group, key, value in sorted(pairs, key=lambda one: not one[0].startswith("LEVEL1"))]


def _flat(values: dict[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str, str]] = []

    def walk(group: str, inner: Any) -> None:
        for key, value in inner.items():
            if isinstance(value, dict):
                walk(key, value)
            else:
                found.append((group, key, str(value)))

    walk("", values)
    return _ranked(found)


def _elements(root: ElementTree.Element) -> list[tuple[str, str]]:
    groups = [(local_name(group), group) for group in root]
    return _ranked([(name, local_name(one), (one.text or "").strip()) for name, group in groups for one in group])


def _lines(text: str) -> list[tuple[str, str]]:
    found, group = [], ""
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "GROUP":
            group = value
        elif key and value and key != "END_GROUP":
            found.append((group, key, value.strip('"')))
    return _ranked(found)
