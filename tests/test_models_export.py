"""Exported networks: ONNX, OpenVINO and torch.export say what the model says, with their spec beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from torch.nn import functional

from geoseg.cli.main import cli
from geoseg.engines import choose_engine
from geoseg.engines.openvino_engine import OpenVinoEngine
from geoseg.engines.torch_engine import TorchEngine
from geoseg.errors import EngineError, ModelError
from geoseg.exportation import SUFFIXES, export_model, pooled_by_products
from geoseg.models import load
from geoseg.models.create import NewModel, create_model
from geoseg.models.exported import ExportedModel, spec_path
from geoseg.models.mlm import check_item
from geoseg.models.networks import build_network
from geoseg.models.package import write_package
from geoseg.pipeline import segment_file
from geoseg.recipes import RunOptions
from geoseg.results import Batch, InputScaling
from geoseg.spec import Channel, ModelSpec, bands, classes

FORMATS = sorted(SUFFIXES)


def mask(scene: Path, model: str | Path, out: Path) -> NDArray[np.uint8]:
    made = segment_file(scene, out=out, options=RunOptions.checked(model=str(model), precision="fp32"))
    with rasterio.open(made) as file:
        found: NDArray[np.uint8] = file.read(1)
    return found


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> NDArray[np.uint8]:
    return mask(samples / "s2_smallholder.tif", "fields-s2", tmp_path_factory.mktemp("original") / "mask.tif")


@pytest.mark.parametrize("to", FORMATS)
def test_an_exported_file_says_what_the_model_says(
    to: str, original: NDArray[np.uint8], samples: Path, tmp_path: Path
) -> None:
    if to == "onnx":
        pytest.importorskip("onnx", reason="needs the extra `onnx`")
    path = tmp_path / f"fields{SUFFIXES[to]}"
    done = CliRunner().invoke(cli, ["models", "export", "fields-s2", "-o", str(path)], standalone_mode=False)
    assert done.exception is None, done.exception
    model, own = load(path), load("fields-s2")
    assert model.spec.bands == own.spec.bands
    assert model.fingerprint() != own.fingerprint()
    assert model.spec.weights_sha256 in done.output
    assert choose_engine(model).name == ("torch" if to == "torch-export" else "openvino")
    check_item(json.loads(spec_path(path).read_text())["mlm"])
    found = mask(samples / "s2_smallholder.tif", path, tmp_path / "mask.tif")
    assert len(np.unique(original)) == 3
    assert (found == original).mean() > 0.999


def test_a_file_for_openvino_runs_without_torch(samples: Path, tmp_path: Path) -> None:
    export_model(load("fields-s2"), tmp_path / "fields.xml", to="openvino")
    code = (
        "import sys; from geoseg.cli.main import cli\n"
        "cli(sys.argv[1:], standalone_mode=False); assert 'torch' not in sys.modules"
    )
    words = [
        "segment",
        samples / "s2_smallholder.tif",
        "-o",
        tmp_path / "mask.tif",
        "--model",
        tmp_path / "fields.xml",
        "-q",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def enlarging(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that enlarges its patches and has an output beside the classes."""
    architecture = {"type": "fcn", "encoder": "resnet18"}
    torch.manual_seed(0)
    network = build_network(architecture, channels=2, outputs=4)
    spec = ModelSpec(
        name="enlarging", title="Enlarging", bands=bands(("red", "nir")), architecture=architecture, upsample=2,
        outputs=(*classes("background", "field", "boundary"), Channel(name="edge", kind="boundary")), patch=96, halo=32,
    )  # fmt: skip
    return load(write_package(network.state_dict(), spec, tmp_path_factory.mktemp("enlarging")))


def test_scaling_and_quantisation_around_a_file_are_those_of_torch(enlarging: Any, tmp_path: Path) -> None:
    file = export_model(enlarging, tmp_path / "m.xml", to="openvino")
    scaling = InputScaling(bands=(0, None), gain=(2e-3, 0.0), bias=(-1.0, 0.0), limit=1.5)
    rng = np.random.default_rng(1)
    batch = Batch(pixels=rng.integers(0, 3000, (1, 2, 64, 96)).astype(np.uint16), valid=rng.random((1, 64, 96)) > 0.2)
    options: dict[str, Any] = {"precision": "fp32", "threads": None}
    by_torch = TorchEngine(device="cpu").build(enlarging, scaling, **options).predict(batch).astype(int)
    by_file = OpenVinoEngine().build(file, scaling, **options).predict(batch).astype(int)
    assert by_file.shape == (1, 4, 64, 96)
    assert np.abs(by_file - by_torch).max() <= 1
    assert by_torch.std() > 5


def test_pyramid_pooling_is_exported_to_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the extra `onnx`")
    new = NewModel(
        name="psp", network="pspnet", encoder="resnet18", bands=("red",), classes=("a", "b"), patch=128, halo=32
    )
    made = export_model(create_model(new, tmp_path / "model"), tmp_path / "psp.onnx", to="onnx")
    assert made.path.is_file()
    x = torch.randn(1, 2, 7, 11)
    for size in ((3, 6), 5, 1):
        torch.testing.assert_close(pooled_by_products(x, size), functional.adaptive_avg_pool2d(x, size))


def test_files_that_are_not_what_their_spec_says_are_refused(enlarging: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    export_model(enlarging, path, to="openvino")
    sidecar = spec_path(path)
    record = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**record, "bands": record["bands"][:1], "weights_sha256": ""}))
    engine = OpenVinoEngine()
    with pytest.raises(EngineError, match=r"has an input of shape .* expected \(batch, 1, rows, columns\)"):
        engine.build(
            load(path), InputScaling(bands=(0,), gain=(1.0,), bias=(0.0,), limit=None), precision="fp32", threads=None
        )
    sidecar.write_text(json.dumps(record))
    model = load(path)
    with path.with_suffix(".bin").open("ab") as file:
        file.write(b"!")
    with pytest.raises(ModelError, match=r"changed while it was in use"):
        model.graph()  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"m\.xml\.spec\.json speaks of .* was replaced"):
        load(path)
    sidecar.unlink()
    with pytest.raises(ModelError, match=r"put m\.xml\.spec\.json beside it"):
        load(path)


def test_what_cannot_be_exported_is_said(enlarging: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"does not end in \.onnx, as files of onnx do; name it m\.onnx"):
        export_model(enlarging, tmp_path / "m.pt", to="onnx")
    (tmp_path / "m.pt2").write_bytes(b"nothing")
    (tmp_path / "m.pt2.spec.json").write_text(enlarging.spec.to_json().replace(enlarging.spec.weights_sha256, ""))
    with pytest.raises(ModelError, match="is no network of torch to export"):
        export_model(load(tmp_path / "m.pt2"), tmp_path / "m.onnx", to="onnx")
    with pytest.raises(ModelError, match="cannot be read by torch"):
        load(tmp_path / "m.pt2").network()  # type: ignore[attr-defined]
    export_model(enlarging, tmp_path / "m.xml", to="openvino")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"m.xml", "m.bin", "m.xml.spec.json"} < before.keys()
    monkeypatch.setattr("geoseg.exportation.agreement", lambda *_: 0.5)
    with pytest.raises(
        ModelError, match=r"would say something else than the network .* on 50\.0% of pixels and was not kept"
    ):
        export_model(enlarging, tmp_path / "m.xml", to="openvino")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, "an earlier export stays"


def test_an_exported_model_travels_as_a_recipe(enlarging: Any, tmp_path: Path) -> None:
    import pickle

    made = export_model(enlarging, tmp_path / "m.pt2", to="torch-export")
    again = pickle.loads(pickle.dumps(made))
    assert isinstance(again, ExportedModel)
    assert again == made
    assert again.fingerprint() == load(tmp_path / "m.pt2").fingerprint()
