"""geoseg: large satellite and drone rasters into georeferenced masks and crop-field polygons.

    import geoseg
    result = geoseg.run("scene.tif", out="fields-2026")         # files, as the command line writes them
    mask = geoseg.segment("scene.tif", "fields-s2")             # lazy xarray.DataArray on Dask

The names below are imported when first used, so that `import geoseg` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from geoseg.version import VERSION as __version__

_HOME = {
    "GeosegError": "geoseg.errors",
    "ModelSpec": "geoseg.spec",
    "Result": "geoseg.outputs",
    "RunOptions": "geoseg.recipes",
    "Scene": "geoseg.scene",
    "TileGrid": "geoseg.grid",
    "Window": "geoseg.grid",
    "delineate": "geoseg.delineation",
    "evaluate": "geoseg.metrics",
    "open_scene": "geoseg.readers",
    "run": "geoseg.pipeline",
    "segment": "geoseg.lazy",
}

__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from geoseg.delineation import delineate as delineate
    from geoseg.errors import GeosegError as GeosegError
    from geoseg.grid import TileGrid as TileGrid
    from geoseg.grid import Window as Window
    from geoseg.lazy import segment as segment
    from geoseg.metrics import evaluate as evaluate
    from geoseg.outputs import Result as Result
    from geoseg.pipeline import run as run
    from geoseg.readers import open_scene as open_scene
    from geoseg.recipes import RunOptions as RunOptions
    from geoseg.scene import Scene as Scene
    from geoseg.spec import ModelSpec as ModelSpec


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'geoseg' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
