"""What geoseg relies on in a model, as checks that a plugin's own tests can call.

from geoseg.testing.contracts import check_model

def test_model_keeps_the_contract():
    check_model(MyModel())
"""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.engines import choose_engine, engines
from geoseg.errors import GeosegError
from geoseg.protocols import Model, Segmenter
from geoseg.results import PROBABILITY_MAX, Batch, InputScaling
from geoseg.spec import ModelSpec

RECIPE_BYTES = 1 << 20
"""A model travels to every worker: larger ones carry their weights with them."""

AGREEMENT = 0.98
"""Share of pixels that must get the same class from every engine."""


class ContractError(GeosegError, AssertionError):
    """A model that does not keep what geoseg relies on; the message says what, and why it matters."""


def check_model(model: Any, *, stored: tuple[float, float] = (0.0, 255.0), seed: int = 0) -> None:
    """ContractError where a model breaks its contract; otherwise nothing.

    Args:
        model: what an entry point of `geoseg.models` gives.
        stored: range of the stored values that the model is tried with.
        seed: of these values.
    """
    check_recipe(model)
    spec: ModelSpec = model.spec
    built = {name: _built(model, name) for name in _able(model)}
    if not built:
        raise ContractError(
            f"no engine here runs {spec.name!r} (runtime {model.runtime!r}); known: {', '.join(engines())}; "
            f"use runtime `torch`, `openvino` or `numpy`, or bring an engine"
        )
    rng = np.random.default_rng(seed)
    side = max(spec.stride, min(spec.patch, 128 - 128 % spec.stride))
    shapes = {(side, side), (side, min(spec.patch, side + spec.stride)), (spec.stride * 2, side)}
    for rows, cols in sorted(shapes):
        batch = _batch(rng, len(spec.bands), rows, cols, stored)
        found = {name: check_prediction(segmenter, batch, spec, name) for name, segmenter in built.items()}
        _check_engines(found, spec)
    if spec.reach == "local":
        for segmenter in built.values():
            _check_reach(segmenter, spec, rng, stored)


def check_recipe(model: Any) -> None:
    """ContractError unless a model has spec, runtime and fingerprint, and travels as a small recipe."""
    if not isinstance(model, Model):
        lacking = [name for name in ("spec", "runtime", "fingerprint") if not hasattr(model, name)]
        raise ContractError(
            f"a {type(model).__name__} is no model: it lacks {', '.join(lacking)} (see geoseg.protocols.Model)"
        )
    if not isinstance(model.spec, ModelSpec):
        raise ContractError(f"spec is a {type(model.spec).__name__}, expected a geoseg.ModelSpec")
    if ModelSpec.from_dict(model.spec.to_dict()) != model.spec:
        raise ContractError("spec changes when it is written down and read again")
    if (
        not isinstance(model.fingerprint(), str)
        or not model.fingerprint()
        or model.fingerprint() != model.fingerprint()
    ):
        raise ContractError("fingerprint() must be a text that stays the same: runs are resumed by it")
    try:
        held = pickle.dumps(model)
        again = pickle.loads(held)
    except Exception as error:  # pickle raises whatever a class does
        raise ContractError(
            f"the model cannot be pickled ({error}); workers get it so: keep paths and options, no handles"
        ) from error
    if len(held) > RECIPE_BYTES:
        raise ContractError(
            f"the pickled model has {len(held):,} bytes, expected at most {RECIPE_BYTES:,}: load weights when they are used"
        )
    if again.fingerprint() != model.fingerprint() or again.spec != model.spec:
        raise ContractError("a model that was pickled has another fingerprint or spec: workers would refuse it")


def check_prediction(segmenter: Segmenter, batch: Batch, spec: ModelSpec, engine: str) -> NDArray[np.uint8]:
    """The prediction for a batch; ContractError where its form is wrong, or where it does not follow from the input alone."""
    count, _, rows, cols = batch.pixels.shape
    before = batch.pixels.copy(), batch.valid.copy()
    found = segmenter.predict(batch)
    expected = (count, len(spec.outputs), rows, cols)
    if found.shape != expected or found.dtype != np.uint8:
        raise ContractError(
            f"on {engine} it gives {found.dtype} {found.shape} for {rows} x {cols} pixels, expected uint8 {expected}"
        )
    if found.max() > PROBABILITY_MAX:
        raise ContractError(
            f"on {engine} it gives {found.max()}; probabilities are floor(254 p + .5), and 255 is nodata"
        )
    classes = len(spec.class_names)
    sums = found[:, :classes].sum(axis=1, dtype=int)
    if np.abs(sums - PROBABILITY_MAX).max() > classes:
        raise ContractError(
            f"on {engine} classes add up to {sums.min()} to {sums.max()}, expected about {PROBABILITY_MAX} everywhere"
        )
    if not (np.array_equal(before[0], batch.pixels, equal_nan=True) and np.array_equal(before[1], batch.valid)):
        raise ContractError(f"on {engine} it writes into its input; copy what you change")
    if not np.array_equal(segmenter.predict(batch), found):
        raise ContractError(f"on {engine} the same batch gives other bytes the second time; results must be repeatable")
    alone = Batch(pixels=batch.pixels[:1], valid=batch.valid[:1])
    if not np.array_equal(segmenter.predict(alone)[0], found[0]):
        raise ContractError(
            f"on {engine} a patch alone gives other bytes than in a batch; patches must not see each other"
        )
    return found


def _able(model: Model) -> list[str]:
    return [name for name, engine in engines().items() if engine.supports(model) and engine.available() is None]


def _built(model: Model, engine: str) -> Segmenter:
    count = len(model.spec.bands)
    gain, bias = (1 / 64,) * count, (-2.0,) * count
    scaling = InputScaling(bands=tuple(range(count)), gain=gain, bias=bias, limit=model.spec.clip)
    return choose_engine(model, name=engine, precision="auto" if model.runtime == "numpy" else "fp32").build(
        model, scaling
    )


def _batch(rng: np.random.Generator, bands: int, rows: int, cols: int, stored: tuple[float, float]) -> Batch:
    pixels = rng.uniform(*stored, (2, bands, rows, cols)).round().astype(np.float32)
    return Batch(pixels=pixels, valid=rng.random((2, rows, cols)) > 0.05)


def _check_engines(found: dict[str, NDArray[np.uint8]], spec: ModelSpec) -> None:
    classes = len(spec.class_names)
    for (one, first), (other, second) in pairwise(found.items()):
        share = float((first[:, :classes].argmax(axis=1) == second[:, :classes].argmax(axis=1)).mean())
        if share < AGREEMENT:
            raise ContractError(
                f"{one} and {other} give the same class on only {share:.1%} of pixels: the network does not survive conversion; "
                f"set `traceable = False` on the model, so that only torch runs it"
            )


def _check_reach(segmenter: Segmenter, spec: ModelSpec, rng: np.random.Generator, stored: tuple[float, float]) -> None:
    """A model of local reach says the same of a pixel whatever lies beyond its halo."""
    side, halo = spec.patch, spec.halo
    batch = _batch(rng, len(spec.bands), side, side, stored)
    other = Batch(pixels=np.float32(sum(stored)) - batch.pixels, valid=~batch.valid)
    core = slice(halo, side - halo)
    pixel = slice((side - 1) // 2, (side - 1) // 2 + 1)
    near = slice(max(0, pixel.start - halo), pixel.stop + halo)
    mixed = Batch(pixels=other.pixels.copy(), valid=other.valid.copy())
    mixed.pixels[..., near, near] = batch.pixels[..., near, near]
    mixed.valid[..., near, near] = batch.valid[..., near, near]
    if core.stop > core.start and not np.array_equal(
        segmenter.predict(batch)[..., pixel, pixel], segmenter.predict(mixed)[..., pixel, pixel]
    ):
        raise ContractError(
            f"reach is `local`, but a pixel depends on what lies more than {halo} pixels away; enlarge the halo or say `patch`"
        )
