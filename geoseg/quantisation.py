"""`geoseg models quantize`: a packaged model with its network in 8 bits beside the weights."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geoseg.disk import replacing
from geoseg.engines.graphs import packed
from geoseg.engines.quantise import Sample, disagreement, quantise
from geoseg.errors import InputError, ModelError
from geoseg.grid import Window
from geoseg.models import check_fit, input_scaling, load
from geoseg.models.bundle import SPEC, WEIGHTS, BundleModel
from geoseg.models.quantised import GRAPH, RECORD, Quantised
from geoseg.protocols import Reader
from geoseg.readers import open_scene
from geoseg.results import InputScaling
from geoseg.runtime.predict import input_channels
from geoseg.spec import ModelSpec

SIDE = 256
"""Of a sample in pixels of a scene."""

CALIBRATION = 16
"""Samples a scene to calibrate with, at most."""

CHECKED = 64
"""Samples a scene to check with, at most."""

ENOUGH = 0.7
"""Share of a sample that must be valid."""


def quantise_model(
    name: str | Path,
    *,
    calibrate: Sequence[str | Path],
    check: Sequence[str | Path] = (),
    out: Path | None = None,
    bands: Sequence[str] | None = None,
) -> Quantised:
    """Makes `int8.graph.gz` and `int8.json` of a packaged model.

    Args:
        name: of a bundled model, or a folder with a spec.json.
        calibrate: scenes that show the network what it will see; the ranges of its activations come from them.
        check: scenes on which 8 bits are compared with float32; those of `calibrate` where none are given.
        out: a folder for a copy of the model; None writes into its own.
        bands: names of the scenes' bands, in file order.

    Raises InputError, ModelError, EngineError.
    """
    model = load(name)
    if not isinstance(model, BundleModel):
        raise ModelError(
            f"{name} is no packaged model; give a bundled model's name, or a folder with {SPEC} and {WEIGHTS}"
        )
    spec = model.spec
    if spec.instances is not None:
        raise ModelError(f"{name} finds objects one by one, and only networks that say classes compute in 8 bits")
    samples = [sample for path in calibrate for sample in samples_of(path, spec, SIDE, CALIBRATION, bands)]
    if not samples:
        raise InputError(f"no part of the scenes is valid over {SIDE} x {SIDE} pixels; give others to calibrate with")
    compared = [sample for path in check or calibrate for sample in samples_of(path, spec, SIDE, CHECKED, bands)]
    if not compared:
        raise InputError(f"no part of the scenes is valid over {SIDE} x {SIDE} pixels; give others to check with")
    folder = (out or model.folder).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)  # it says that the other file is whole
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}); choose another folder with -o"
        ) from error
    graph = quantise(model, samples)
    held = gzip.compress(packed(graph), mtime=0)
    if folder != model.folder.resolve():
        for each in sorted(model.folder.iterdir()):
            if each.is_file() and each.name not in (GRAPH, RECORD):
                shutil.copy2(each, folder / each.name)
    found = Quantised(
        path=folder / GRAPH,
        sha256=hashlib.sha256(held).hexdigest(),
        of=spec.weights_sha256,
        disagreement=round(disagreement(model, graph, compared), 5),
        checked_with=tuple(Path(path).name for path in check or calibrate),
        calibrated_with=tuple(Path(path).name for path in calibrate),
        versions={name: importlib.metadata.version(name) for name in ("openvino", "nncf")},
    )
    with replacing(folder / GRAPH) as file:
        file.write(held)
    with replacing(folder / RECORD) as file:
        file.write(found.to_json().encode())
    return found


def samples_of(
    path: str | Path, spec: ModelSpec, side: int, most: int, bands: Sequence[str] | None = None
) -> list[Sample]:
    """Patches of a scene, evenly spread, scaled as a run would scale it."""
    reader = open_scene([str(path)], bands=bands, clouds="mask")
    check_fit(reader.scene, spec, allow_resample=False)
    scaling = input_scaling(reader, spec)
    rows, cols = reader.scene.shape
    side -= side % spec.stride
    places = [(row, col) for row in range(0, rows - side + 1, side) for col in range(0, cols - side + 1, side)]
    found: list[Sample] = []
    for row, col in places[:: max(1, len(places) // most)]:
        sample = _sample(reader, scaling, Window(row, col, side, side))
        if sample.valid.mean() >= ENOUGH and len(found) < most:
            found.append(sample)
    return found


def _sample(reader: Reader, scaling: InputScaling, window: Window) -> Sample:
    block = reader.read(window, [band for band in scaling.bands if band is not None])
    pixels = np.ascontiguousarray(input_channels(block.pixels, scaling)[None], np.float32)
    return Sample(pixels=pixels, valid=np.ascontiguousarray(block.valid[None, None]), scaling=scaling)
