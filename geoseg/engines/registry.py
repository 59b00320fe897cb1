"""Engines by name, and the choice of one for a model."""

from __future__ import annotations

import ctypes
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from geoseg.engines.numpy_engine import NumpyEngine
from geoseg.engines.openvino_engine import OpenVinoEngine, quantised_graph
from geoseg.engines.torch_engine import TorchEngine
from geoseg.errors import EngineError
from geoseg.plugins import load_plugin, plugins
from geoseg.protocols import Engine, Model, Segmenter
from geoseg.results import InputScaling

PREFERRED = "auto, int8 if openvino"
"""A precision for Engine.build() through FirstThatWorks: 8 bits where OpenVINO runs the model, else what the engine takes."""

PRECISIONS = ("auto", "fp32", "bf16", "int8", PREFERRED)

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class FirstThatWorks:
    """Engines in order of preference: the first that can take the model does."""

    name: str
    """Of the first candidate."""
    candidates: tuple[Engine, ...]
    precision: str = "auto"
    """Used where build() is asked for "auto"."""

    def available(self) -> str | None:
        reasons = [engine.available() for engine in self.candidates]
        return None if None in reasons else "; ".join(filter(None, reasons))

    def supports(self, model: Model) -> bool:
        return any(engine.supports(model) for engine in self.candidates)

    def build(
        self, model: Model, scaling: InputScaling, *, precision: str = "auto", threads: int | None = None
    ) -> Segmenter:
        wanted = self.precision if precision == "auto" else precision
        for engine, fallback in zip(self.candidates, [*self.candidates[1:], None], strict=True):
            try:
                own = wanted
                if wanted == PREFERRED:
                    own = "int8" if engine.name == "openvino" else "auto"
                return engine.build(model, scaling, precision=own, threads=threads)
            except EngineError as error:
                if fallback is None:
                    raise
                log.warning("%s; going on with %s", error, fallback.name)
        raise AssertionError("unreachable")


def engines() -> dict[str, Engine]:
    """All engines by name, built-in ones first. A broken plugin is left out with a warning."""
    found: dict[str, Engine] = {engine.name: engine for engine in _builtin()}
    for name in plugins("engines"):
        if name in found:
            continue
        try:
            loaded = load_plugin("engines", name)
            found[name] = loaded() if isinstance(loaded, type) else loaded
        except Exception as error:  # a stranger's constructor may raise anything
            log.warning("engine %r is left out: %s", name, error)
    return found


def choose_engine(
    model: Model, *, name: str = "auto", precision: str = "auto", like: str | None = None, streams: int = 1
) -> FirstThatWorks:
    """The engine for a model: by name, or the fastest that can run here.

    `like` is the fingerprint of an earlier try, whose batch is kept where the engine would measure one; `streams` is how
    many threads predict at a time, for engines that do not put their patches together.

    `auto` prefers torch on CUDA, then OpenVINO, then torch on whatever there is; where OpenVINO cannot convert a
    model, the built segmenter is torch's. Raises EngineError; unknown names list the known ones.
    """
    if precision not in PRECISIONS:
        raise EngineError(f"no precision {precision!r}; known: {', '.join(PRECISIONS[:-1])}")
    known = engines() | {"openvino": OpenVinoEngine(streams=streams)}
    if like is not None:
        known["torch"] = TorchEngine(like=like)
    if name != "auto":
        if name not in known:
            raise EngineError(f"no engine {name!r}; known: auto, {', '.join(known)}")
        engine = known[name]
        if reason := engine.available():
            raise EngineError(f"engine {name!r} cannot run here: {reason}")
        if not engine.supports(model):
            able = [other for other, candidate in known.items() if candidate.supports(model)]
            raise EngineError(
                f"engine {name!r} cannot run the model {model.spec.name!r}, which needs {model.runtime!r}; "
                f"use {' or '.join(able) or 'a package that brings an engine for it'}"
            )
        return FirstThatWorks(name=name, candidates=(engine,), precision=precision)
    if precision == "int8":  # nothing else runs such networks
        quantised_graph(model)
        return choose_engine(model, name="openvino", precision=precision, like=like, streams=streams)
    able_engines = [engine for engine in _preferred(known) if engine.supports(model)]
    candidates = tuple(engine for engine in able_engines if engine.available() is None)
    if not candidates:
        reasons = [f"{engine.name}: {engine.available()}" for engine in able_engines]
        raise EngineError(
            f"no engine runs the model {model.spec.name!r}, which needs {model.runtime!r}: "
            f"{'; '.join(reasons) or 'known are ' + ', '.join(known)}"
        )
    return FirstThatWorks(name=candidates[0].name, candidates=candidates, precision=precision)


def _preferred(known: dict[str, Engine]) -> list[Engine]:
    order = ("torch", "openvino", "numpy") if has_cuda() else ("openvino", "torch", "numpy")
    return [known[name] for name in order if name in known] + [e for name, e in known.items() if name not in order]


def has_cuda() -> bool:
    """Whether torch finds a GPU; where there is no driver for one, torch is not imported to ask."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        if not Path("/dev/kfd").exists():  # AMD's, which torch calls cuda, too
            return False
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _builtin() -> tuple[Engine, ...]:
    return TorchEngine(), OpenVinoEngine(), NumpyEngine()
