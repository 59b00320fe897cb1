"""Methods without labels: models that need no training. See docs/methods.md."""

from __future__ import annotations

import importlib
from typing import Any

from geoseg.models.methods.options import described, with_options
from geoseg.protocols import SceneModel

METHODS = {
    "threshold": "thresholds:Threshold",
    "otsu": "thresholds:Otsu",
    "multi-otsu": "thresholds:MultiOtsu",
    "sobel": "edges:Sobel",
    "canny": "edges:Canny",
    "gradient": "edges:Gradient",
    "region-growing": "growing:RegionGrowing",
    "graph-cut": "cut:GraphCut",
}
"""Module and class by name: SciPy is imported when one is asked for."""


def is_method(text: str) -> bool:
    """Whether a name is that of a method, with options or without."""
    return text.partition(":")[0] in METHODS


def method(text: str) -> SceneModel:
    """The method behind `NAME` or `NAME:option=value,...`; ModelError for options that it does not have."""
    name, _, rest = text.partition(":")
    made: SceneModel = with_options(name, _kind(name), rest)
    return made


def method_options(text: str) -> list[tuple[str, str, str]]:
    """Name, default and meaning of each option of a method."""
    return described(_kind(text.partition(":")[0]))


def _kind(name: str) -> Any:
    module, _, kind = METHODS[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), kind)
