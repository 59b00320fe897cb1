"""Whether a network in 8 bits is taken where the user leaves the precision open."""

from __future__ import annotations

import importlib.metadata
import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from geoseg import cache
from geoseg.engines.conversion import bound, network_graph, opened, openvino_core
from geoseg.engines.hardware import core_count, cpu_label
from geoseg.engines.openvino_engine import (
    CompiledNetwork,
    OpenVinoEngine,
    openvino_precision,
    quantised_graph,
    settings,
)
from geoseg.errors import EngineError, ModelError
from geoseg.protocols import Model, int8_network
from geoseg.results import InputScaling

LARGEST_DISAGREEMENT = 0.01
"""Share of pixels whose class may differ from float32 where `--precision auto` takes 8 bits."""

LEAST_GAIN = 1.15
"""How many times as fast as bfloat16 8 bits must be on this machine for `--precision auto` to take them."""

SIDE = 512
"""Of the patch with which speeds are compared, in pixels."""

ROUNDS = 5

KIND = "speeds"
"""The folder in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What `--precision auto` comes to."""

    precision: str
    """`int8`, or `auto` for what the engine takes."""
    reason: str


def settled(model: Model, *, patch: int = SIDE) -> Choice:
    """Whether 8 bits are taken where the user leaves the precision open: near enough to float32, and faster here.

    `patch` is the side of the run's patches: no larger one is tried. What is damaged or does not run here is not taken.
    """
    try:
        found = int8_network(model)
        if found is None:
            return Choice(precision="auto", reason="the model has no network in 8 bits")
        if found.disagreement > LARGEST_DISAGREEMENT:
            return Choice(
                precision="auto",
                reason=f"8 bits differ on {found.disagreement:.2%} of pixels, more than {LARGEST_DISAGREEMENT:.2%}",
            )
        gain = speed_gain(model, side=min(SIDE, patch))
    except (EngineError, ModelError, MemoryError) as error:
        return Choice(precision="auto", reason=f"8 bits do not run here: {error}")
    reason = (
        f"8 bits are {gain:.2f} times as fast as 16 here, and differ on {found.disagreement:.2%} of pixels from float32"
    )
    return Choice(precision="int8" if gain >= LEAST_GAIN else "auto", reason=reason)


def speed_gain(model: Model, *, side: int = SIDE) -> float:
    """How many times as fast 8 bits are as what `auto` takes without them, on this machine; measured once.

    `side` is that of the patch, in pixels of a scene.
    """
    found = int8_network(model)
    version = importlib.metadata.version("openvino")
    name = cache.cache_name(found.sha256 if found else "", version, cpu_label(), core_count(), side)
    with suppress(ValueError):
        if held := cache.load(KIND, name):
            return float(held)
    gain = round(_measured(model, side), 2)
    cache.save(KIND, name, str(gain).encode())
    return gain


def _measured(model: Model, side: int) -> float:
    graph, _digest = quantised_graph(model)
    spec, core = model.spec, openvino_core()
    side = max(spec.stride, side // spec.upsample - side // spec.upsample % spec.stride)
    count = len(spec.bands)
    pixels, valid = np.zeros((1, count, side, side), np.float32), np.ones((1, 1, side, side), np.bool_)
    plain = InputScaling(bands=tuple(range(count)), gain=(1.0,) * count, bias=(0.0,) * count, limit=spec.clip)
    networks: list[CompiledNetwork] = []
    times: tuple[list[float], list[float]] = ([], [])
    usual = network_graph(model, plain, batch=OpenVinoEngine().batch)
    for each, precision in ((usual, openvino_precision("auto", core)), (graph, "int8")):
        ready = bound(opened(each, core), plain)
        networks.append(CompiledNetwork(ready, core=core, config=settings(precision, core), patch=side))
        networks[-1].forward(pixels, valid)
    for _ in range(ROUNDS):
        for network, taken in zip(networks, times, strict=True):
            begun = time.perf_counter()
            network.forward(pixels, valid)
            taken.append(time.perf_counter() - begun)
    return float(min(times[0]) / min(times[1]))
