"""The files behind a VRT: which of them cannot be opened, and what of the mosaic they would fill.

GDAL says it once: where another VRT is open in the process, it remembers the failure and fills the gap with zeros from
then on (3.10, measured). So files are looked for beforehand.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from xml.etree import ElementTree

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.readers.handles import gdal_errors, open_fresh
from geoseg.readers.places import local_path, may_be_remote

DEEPEST = 31
"""Mosaics one within the other that GDAL reads; deeper ones it takes for a recursion (3.10, measured)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A part of a mosaic whose file cannot be opened."""

    band: int
    """The band's number in the mosaic, from 1; 0 for all bands."""
    window: Window
    """In native pixels."""
    reason: str


def mosaic_gaps(path: str, shape: tuple[int, int]) -> tuple[Gap, ...]:
    """The gaps of a VRT of native `shape`. Files that are not local, and VRTs that are not in a file, count as whole.

    Raises InputError where the VRT is no XML.
    """
    return _gaps(path, shape, {}, depth=1)


def _gaps(path: str, shape: tuple[int, int], known: dict[str, str | None], *, depth: int) -> tuple[Gap, ...]:
    """`known` tells the files met so far, see _key(), and their faults; `depth` counts the mosaics down to this one.

    A mosaic within itself counts as whole: one band may be made of another, and where it is made of itself GDAL says so.
    """
    local = local_path(path)
    if local is None:
        return ()
    try:
        root = ElementTree.fromstring(local.read_bytes().strip())
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        raise InputError(
            f"{path!r} is a VRT that is no well-formed XML ({error}), so that the files it needs cannot be looked for; "
            f"build it again with `gdalbuildvrt`"
        ) from error
    known[_key(path)] = None
    parts = [
        (number, part) for number, band in enumerate(root.findall("VRTRasterBand"), start=1) for part in band.iter()
    ]
    parts += [(0, part) for mask in root.findall("MaskBand") for part in mask.iter()]
    found = []
    for number, part in parts:
        file = part.find("SourceFilename")
        if file is None or not file.text:
            continue
        name = str(local.parent / file.text) if file.get("relativeToVRT") == "1" else file.text
        key = _key(name)
        if key not in known:
            known[key] = _fault(name, known, depth=depth)
        fault = known[key]
        if fault is not None:
            found.append(Gap(band=number, window=_place(part.find("DstRect"), shape), reason=fault))
    return tuple(found)


def _key(name: str) -> str:
    """One for all spellings of a local file."""
    return name if local_path(name) is None else os.path.realpath(name)


def _fault(name: str, known: dict[str, str | None], *, depth: int) -> str | None:
    """Why a file of a mosaic at `depth` cannot be opened, None where it can, or where only GDAL can judge."""
    if local_path(name) is None:
        return None if may_be_remote(name) else f"there is no file {name!r}; put it there, or build the mosaic again"
    try:
        with gdal_errors(name, "open"):
            dataset, _ = open_fresh(name)
            with dataset:
                if dataset.driver != "VRT":
                    return None
                if depth >= DEEPEST:
                    return (
                        f"{name!r} is a VRT within {depth} others, one in the other, and GDAL reads no more than {DEEPEST}; "
                        f"build one of the image files themselves with `gdalbuildvrt`"
                    )
                inner = _gaps(name, dataset.shape, known, depth=depth + 1)
    except InputError as error:
        return str(error)
    return inner[0].reason if inner else None


def _place(rect: ElementTree.Element | None, shape: tuple[int, int]) -> Window:
    """The pixels of a destination rectangle; all where it is not stated."""
    whole = Window(0, 0, *shape)
    if rect is None:
        return whole
    try:
        col, row, width, height = (float(rect.attrib[side]) for side in ("xOff", "yOff", "xSize", "ySize"))
        top, left = math.floor(row), math.floor(col)
        return Window(top, left, math.ceil(row + height) - top, math.ceil(col + width) - left) & whole
    except (KeyError, ValueError, OverflowError):
        return whole
