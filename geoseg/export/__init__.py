"""Results as files that other programs open: field polygons, masks, probabilities, a picture to look at.

    exporter_for("fields.gpkg").write(fields, Path("fields.gpkg"))

Heavy libraries are imported when a file is written.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import ExportError
from geoseg.plugins import PluginError, load_plugin, plugins

if TYPE_CHECKING:
    from geoseg.protocols import Exporter

__all__ = ["exporter_for", "exporter_names", "exporters"]

log = logging.getLogger(__name__)

BUILT_IN = {
    "fgb": "geoseg.export.flatgeobuf:FlatGeobuf",
    "geojson": "geoseg.export.geojson:GeoJSON",
    "gpkg": "geoseg.export.geopackage:GeoPackage",
    "parquet": "geoseg.export.geoparquet:GeoParquet",
    "shp": "geoseg.export.shapefile:Shapefile",
}
"""Known also where the package is used without being installed; entry points of the same name come first."""

ALIASES = {"geoparquet": "parquet"}


def exporter_names() -> list[str]:
    """Names of all vector formats; nothing is imported."""
    return sorted({*BUILT_IN, *plugins("exporters")})


def exporters() -> dict[str, Exporter]:
    """All vector exporters by name; one that cannot be imported is left out with a warning."""
    found = {}
    for name in exporter_names():
        try:
            found[name] = _load(name)
        except PluginError as error:
            log.warning("%s", error)
    return found


def exporter_for(name_or_path: str | Path) -> Exporter:
    """The exporter called `gpkg`, or the one for `fields.gpkg`; ExportError lists the known ones."""
    text = str(name_or_path)
    wanted = (Path(text).suffix or text).removeprefix(".").lower()
    wanted = ALIASES.get(wanted, wanted)
    if wanted in exporter_names():
        return _load(wanted)
    for exporter in exporters().values():
        if exporter.suffix.removeprefix(".").lower() == wanted:
            return exporter
    raise ExportError(f"no vector format {wanted!r} (from {text}); known: {', '.join(exporter_names())}")


def _load(name: str) -> Exporter:
    factory: Any
    if name in plugins("exporters"):
        factory = load_plugin("exporters", name)
    else:
        factory = _built_in(BUILT_IN[name])
    exporter: Exporter = factory()
    return exporter


def _built_in(path: str) -> Any:
    from importlib import import_module

    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)
