"""`geoseg models prune`: a packaged model with fewer channels, and what that saves and costs."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.disk import replacing
from geoseg.engines.hardware import core_count
from geoseg.engines.quantise import Sample
from geoseg.engines.registry import choose_engine
from geoseg.errors import EngineError, InputError, ModelError
from geoseg.models import load
from geoseg.models.bundle import SPEC, WEIGHTS, BundleModel
from geoseg.models.create import NAME
from geoseg.models.package import count_state, usual_card, write_package
from geoseg.models.pruned import RECORD, PruneOptions, Size, record_of, section
from geoseg.protocols import Segmenter
from geoseg.quantisation import samples_of
from geoseg.results import Batch, InputScaling
from geoseg.spec import json_text

if TYPE_CHECKING:
    from torch import nn

SIDE = 256
"""Of the samples that classes are compared on, in pixels of a scene."""

COMPARED = 32
"""Samples a scene, at most."""

PATCH = 512
"""Side of the patches that speed is measured with, at most."""

ROUNDS = 7


TRAINED = ("training.json", "curves.png", "metrics.csv")
"""What a training leaves beside a package: it would tell of weights that are gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedModel:
    model: BundleModel
    record: Mapping[str, Any]
    """What `pruning.json` holds."""


def prune_model(
    name: str | Path,
    *,
    out: Path,
    options: PruneOptions,
    scenes: Sequence[str | Path] = (),
    bands: Sequence[str] | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> PrunedModel:
    """Writes a package of a packaged model's network with fewer channels into `out`.

    Args:
        name: of a bundled model, or a folder with a spec.json.
        out: folder that becomes the package.
        options: what is taken away.
        scenes: on which the classes of both networks are compared.
        bands: names of the scenes' bands, in file order.
        title: the new model's name; that of the folder if None.
        overwrite: replace a model in the folder.

    Raises InputError, ModelError, EngineError.
    """
    from geoseg.models.networks.prune import pruned

    model = packaged(name)
    if out.resolve() == model.folder.resolve():
        raise ModelError(f"{out} is the model to prune, which would be replaced; choose another folder with -o")
    if (out / SPEC).exists() and not overwrite:
        raise ModelError(f"{out} already holds a model; choose another folder, or pass --overwrite")
    spec = model.spec
    samples = [(Path(path).name, samples_of(path, spec, SIDE, COMPARED, bands)) for path in scenes]
    if empty := [scene for scene, found in samples if not found]:
        raise InputError(f"no part of {empty[0]} is valid over {SIDE} x {SIDE} pixels; give another --scene")
    network = model.network()
    slim = pruned(network, options, bands=len(spec.bands), outputs=len(spec.outputs), stride=spec.stride)
    own = title or (out.name if NAME.fullmatch(out.name) else f"{spec.name}-pruned")
    spec = replace(spec, name=own, architecture=architecture_of(model, slim), weights_sha256="")
    for stale in TRAINED:  # of a model that was here before
        (out / stale).unlink(missing_ok=True)
    write_package(slim.state_dict(), spec, out)
    made = BundleModel.open(out)
    check_rebuilt(made, slim)
    speeds, engine = compared_speeds(model, made)
    record = record_of(
        size_of(model, network, speeds[0]), size_of(made, slim, speeds[1]),
        **{"from": model.spec.name, "fingerprint": model.fingerprint(), "options": asdict(options)},
        engine=engine, threads=core_count(), patch=_patch(model),
        scenes=[scene for scene, _ in samples],
        agreement=agreement(model, made, [each for _, found in samples for each in found]) if samples else None,
        versions={each: importlib.metadata.version(each) for each in ("torch", "torch-pruning")},
    )  # fmt: skip
    write_record(made, record)
    return PrunedModel(model=made, record=record)


def packaged(name: str | Path) -> BundleModel:
    """A model that can be pruned. Raises ModelError."""
    model = load(name)
    if not isinstance(model, BundleModel):
        raise ModelError(
            f"{name} is no packaged model; only those can be pruned: give a bundled model's name, or a folder with {SPEC} and "
            f"{WEIGHTS}"
        )
    if model.spec.instances is not None:
        raise ModelError(f"{name} finds objects one by one, and only networks that say classes are pruned")
    return model


def architecture_of(model: BundleModel, slim: nn.Module) -> dict[str, Any]:
    """The architecture record of a pruned network; a model that was pruned before is compared with the network unpruned."""
    from geoseg.models.networks import build_network
    from geoseg.models.networks.narrow import widths

    record = {name: value for name, value in model.spec.architecture.items() if name != "pruned"}
    usual = build_network(record, channels=len(model.spec.bands), outputs=len(model.spec.outputs))
    return {**record, "pruned": widths(slim, than=usual)}


def check_rebuilt(made: BundleModel, slim: nn.Module) -> None:
    """ModelError unless the package holds a network that says what the pruned one said, but for half precision."""
    import torch

    side = made.spec.stride * max(3, 96 // made.spec.stride)
    noise = torch.randn(1, len(made.spec.bands), side, side, generator=torch.Generator().manual_seed(1))
    again = made.network()
    slim.load_state_dict(again.state_dict())
    with torch.inference_mode():
        if not torch.equal(again(noise), slim.eval()(noise)):
            raise ModelError(
                f"the pruned network of {made.spec.name!r} is not the same when it is built again; {made.folder} must not be "
                f"used: prune another network"
            )


def size_of(model: BundleModel, network: nn.Module, speed: float | None) -> Size:
    """What a model's network takes."""
    import torch

    from geoseg.models.networks.prune import measured

    side = model.spec.stride * max(1, 128 // model.spec.stride)
    pixels = torch.zeros(1, len(model.spec.bands), side, side)
    return Size(
        parameters=count_state(network.state_dict()),
        multiply_adds=measured(network, pixels, "multiply-adds") // side**2,
        channels=measured(network, pixels, "channels"),
        weights_bytes=(model.folder / WEIGHTS).stat().st_size,
        mpx_per_s=speed,
    )


def compared_speeds(*models: BundleModel) -> tuple[list[float | None], str]:
    """Mpx/s of each model's network in the precision of `auto` without 8 bits, the fastest of rounds that take turns; and the
    engine's fingerprint. An engine that cannot run a model says so instead."""
    first = models[0]
    bands, side = len(first.spec.bands), _patch(first)
    plain = InputScaling(bands=tuple(range(bands)), gain=(0.02,) * bands, bias=(-2.5,) * bands, limit=first.spec.clip)
    noise = np.random.default_rng(0).integers(0, 256, (1, bands, side, side), np.uint8)
    batch = Batch(pixels=noise, valid=np.ones((1, side, side), np.bool_))
    try:
        segmenters = [choose_engine(model).build(model, plain, precision="auto", threads=None) for model in models]
        for each in segmenters:
            each.predict(batch)
    except EngineError as error:
        return [None] * len(models), f"not measured ({error})"
    times: list[list[float]] = [[] for _ in models]
    for _ in range(ROUNDS):
        for each, taken in zip(segmenters, times, strict=True):
            begun = time.perf_counter()
            each.predict(batch)
            taken.append(time.perf_counter() - begun)
    return [round(side**2 / min(taken) / 1e6, 2) for taken in times], segmenters[0].fingerprint


def agreement(one: BundleModel, other: BundleModel, samples: Sequence[Sample]) -> float:
    """Share of valid pixels that two models give the same class in float32."""
    classes, same, total = len(one.spec.class_names), 0, 0
    built: dict[InputScaling, list[Segmenter]] = {}
    for sample in samples:
        if sample.scaling not in built:
            built[sample.scaling] = [
                choose_engine(model).build(model, sample.scaling, precision="fp32", threads=None)
                for model in (one, other)
            ]
        batch = Batch(pixels=sample.pixels, valid=sample.valid[:, 0])
        first, second = (each.predict(batch)[0, :classes].argmax(axis=0) for each in built[sample.scaling])
        valid = sample.valid[0, 0]
        same += int(((first == second) & valid).sum())
        total += int(valid.sum())
    return round(same / max(1, total), 5)


def write_record(made: BundleModel, record: Mapping[str, Any]) -> None:
    """Writes pruning.json, and the card with its section."""
    from geoseg.models.package import CARD, count_parameters

    card = usual_card(made.spec, count_parameters(made.folder / WEIGHTS), more=section(record))
    try:
        for name, text in ((CARD, card), (RECORD, json_text(record))):
            with replacing(made.folder / name) as file:
                file.write(text.encode())
    except OSError as error:
        raise ModelError(
            f"{made.folder} cannot be written ({error.strerror or error}); choose another folder"
        ) from error


def _patch(model: BundleModel) -> int:
    side = min(PATCH, model.spec.patch)
    return max(model.spec.stride, side - side % model.spec.stride)
