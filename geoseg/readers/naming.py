"""Band names where nobody gave them: descriptions, colours, file names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePath

from geoseg.scene import BAND_ALIASES, band_name

_GENERIC = re.compile(r"(band|layer|channel|gr[ae]y)?[\s_#-]*\d*")
"""Descriptions that programs write where they know nothing: `Band 1`, `Layer_1`."""

_SENSOR_BAND = re.compile(r"b\d{1,2}a?")
_COLOURS = ("red", "green", "blue", "nir", "coastal", "rededge", "swir", "pan")


def described_name(description: str | None, colour: str) -> str | None:
    """The name a file gives a band by its description, else by its colour interpretation."""
    text = (description or "").strip()
    if text and not _GENERIC.fullmatch(text.lower()):
        return band_name(text)
    return colour if colour in _COLOURS else None


def file_band_name(path: str) -> str | None:
    """The band that a file name speaks of: `s2_l3a_20210715_nir.tif` -> nir, `LC08_..._SR_B4.TIF` -> red.

    Names come last in file names, so the last match wins; single letters count only where nothing else is said.
    """
    tokens = [token for token in re.split(r"[^0-9a-z]+", PurePath(path).stem.lower()) if token]
    pairs = [f"{first}_{second}" for first, second in pairwise(tokens)]
    words = {name for name in BAND_ALIASES if len(name) > 1} | set(BAND_ALIASES.values()) | set(_COLOURS)
    for candidates in (pairs, tokens):
        for candidate in reversed(candidates):
            if candidate in words or (candidates is tokens and _SENSOR_BAND.fullmatch(candidate)):
                return band_name(candidate)
    return next((band_name(token) for token in reversed(tokens) if token in BAND_ALIASES), None)


def scene_name(paths: Sequence[str]) -> str:
    """What messages call the scene."""
    first = PurePath(paths[0]).name or paths[0]
    return first if len(paths) == 1 else f"{first} and {len(paths) - 1} more"
