"""Converted networks, kept between runs in the user's cache folder: converting takes torch and seconds, reading neither."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from geoseg.disk import replacing
from geoseg.engines.graphs import Graph, packed, unpacked
from geoseg.protocols import Model
from geoseg.version import VERSION

FOLDER = "GEOSEG_CACHE"
"""Environment variable with the folder of the cache; `off` keeps nothing."""

MOST = 24
"""Networks that are kept: those used last."""

LIBRARIES = ("openvino", "torch", "torchgeo", "segmentation-models-pytorch", "timm")
"""What decides how a network is built and converted."""

log = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """Where converted networks are kept; None where the user wants none."""
    chosen = os.environ.get(FOLDER, "").strip()
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("geoseg", appauthor=False)


def graph_name(model: Model, **settings: object) -> str | None:
    """The name under which a network is kept; None where its fingerprint does not say all of it (see TorchModel)."""
    if not getattr(model, "content_addressed", False):
        return None
    versions = [f"{name} {_version(name)}" for name in LIBRARIES]
    told = [VERSION, _source_digest(), model.fingerprint(), *versions, repr(sorted(settings.items()))]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def load_graph(name: str) -> Graph | None:
    """What was kept; None where there is nothing, or nothing whole."""
    folder = cache_folder()
    if folder is None:
        return None
    path = _path(folder, name)
    try:
        held = path.read_bytes()
    except OSError:
        return None
    graph = unpacked(held)
    if graph is None:
        log.info("%s is damaged; the network is converted again", path)
        return None
    with suppress(OSError):
        os.utime(path)  # used last: see MOST
    return graph


def save_graph(name: str, graph: Graph) -> None:
    """Keeps a network; a folder that cannot be written is no error."""
    folder = cache_folder()
    if folder is None:
        return
    path = _path(folder, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(packed(graph))
        used = sorted(path.parent.glob("*.graph"), key=lambda each: each.stat().st_mtime, reverse=True)
        for old in used[MOST:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.info("%s cannot be written (%s); the next run converts the network again", path, error.strerror or error)


def _path(folder: Path, name: str) -> Path:
    return folder / "networks" / f"{name[:40]}.graph"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@cache
def _source_digest() -> str:
    """Of the code that builds networks and converts them: another one may convert otherwise under the same version."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted([*here.glob("*.py"), *(here.parent / "models").glob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()
