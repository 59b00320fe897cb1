"""Converted networks, kept between runs: converting takes torch and seconds, reading neither."""

from __future__ import annotations

import importlib.metadata
import logging

from geoseg import cache
from geoseg.engines.graphs import Graph, packed, unpacked
from geoseg.protocols import Model

KIND = "networks"
"""The folder in the cache."""

LIBRARIES = ("openvino", "torch", "torchgeo", "segmentation-models-pytorch", "timm")
"""What decides how a network is built and converted."""

log = logging.getLogger(__name__)


def graph_name(model: Model, **settings: object) -> str | None:
    """The name under which a network is kept; None where its fingerprint does not say all of it (see TorchModel)."""
    if not vars(type(model)).get("content_addressed"):  # not inherited: who derives from a model may change its network
        return None
    versions = [f"{name} {_version(name)}" for name in LIBRARIES]
    return cache.cache_name(model.fingerprint(), *versions, sorted(settings.items()))


def load_graph(name: str) -> Graph | None:
    """What was kept; None where there is nothing, or nothing whole."""
    held = cache.load(KIND, name)
    graph = None if held is None else unpacked(held)
    if held is not None and graph is None:
        log.info("a kept network is damaged; it is converted again")
    return graph


def save_graph(name: str, graph: Graph) -> None:
    """Keeps a network."""
    cache.save(KIND, name, packed(graph))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"
