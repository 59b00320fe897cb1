"""Entry points by name, read on demand. Built-in parts enter through the same door as strangers'."""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from geoseg.errors import GeosegError

GROUPS = ("readers", "models", "engines", "vectorizers", "exporters", "commands")

log = logging.getLogger(__name__)


class PluginError(GeosegError):
    """A plugin that is unknown or cannot be imported."""


@cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """Entry points of `geoseg.<group>` by name, sorted; nothing is imported."""
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=f"geoseg.{group}"), key=lambda p: (p.name, p.value)):
        if point.name in found and found[point.name].value != point.value:
            log.warning(
                "two packages offer %s %r (%s and %s); the first is used",
                group, point.name, found[point.name].value, point.value,
            )  # fmt: skip
            continue
        found[point.name] = point
    return found


def load_plugin(group: str, name: str) -> Any:
    """The object behind an entry point; PluginError names what is installed, or what broke."""
    known = plugins(group)
    if name not in known:
        raise PluginError(f"no {group.removesuffix('s')} {name!r}; installed: {', '.join(known) or 'none'}")
    try:
        return known[name].load()
    except Exception as error:  # a stranger's module may raise anything at import
        raise PluginError(
            f"{group.removesuffix('s')} {name!r} ({known[name].value}) cannot be imported: {error}; "
            f"reinstall or remove the package that brings it"
        ) from error
