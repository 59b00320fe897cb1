"""Methods without labels: models that need no training. See docs/methods.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geoseg.models.methods.options import described, with_options
from geoseg.models.methods.thresholds import MultiOtsu, Otsu, Threshold
from geoseg.protocols import SceneModel

METHODS: dict[str, Callable[..., SceneModel]] = {
    "threshold": Threshold,
    "otsu": Otsu,
    "multi-otsu": MultiOtsu,
}


def is_method(text: str) -> bool:
    """Whether a name is that of a method, with options or without."""
    return text.partition(":")[0] in METHODS


def method(text: str) -> SceneModel:
    """The method behind `NAME` or `NAME:option=value,...`; ModelError for options that it does not have."""
    name, _, rest = text.partition(":")
    return with_options(name, METHODS[name], rest)


def method_options(text: str) -> list[tuple[str, str, str]]:
    """Name, default and meaning of each option of a method."""
    kind: Any = METHODS[text.partition(":")[0]]
    return described(kind)
