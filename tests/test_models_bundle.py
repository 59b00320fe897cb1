"""Bundles: what is written is what comes back, and damage is noticed."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geoseg.errors import ModelError
from geoseg.models import load
from geoseg.models.bundle import BundleModel
from geoseg.models.networks import build_network
from geoseg.spec import ModelSpec, bands, classes

ARCHITECTURE = {"type": "unet", "encoder": "resnet18", "decoder_channels": [16, 16, 8, 8, 8]}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(ARCHITECTURE, channels=3, outputs=2).eval()


@pytest.fixture
def folder(tmp_path: Path, network: torch.nn.Module) -> Path:
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    spec = ModelSpec(
        name="tiny",
        title="A tiny U-Net",
        bands=bands(("red", "green", "blue")),
        outputs=classes("background", "field"),
        architecture=ARCHITECTURE,
        weights_sha256=hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest(),
    )
    (tmp_path / "spec.json").write_text(spec.to_json())
    return tmp_path


def test_bundle_gives_back_network_in_float32(folder: Path, network: torch.nn.Module) -> None:
    model = load(folder)
    loaded = model.network()  # type: ignore[attr-defined]
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), network(x), atol=0.02, rtol=0.02)  # weights were rounded to half


def test_bundle_travels_as_a_recipe(folder: Path) -> None:
    model = load(folder)
    again = pickle.loads(pickle.dumps(model))
    assert again == model
    assert len(pickle.dumps(model)) < 4000
    assert again.fingerprint() == model.fingerprint()


def test_fingerprint_depends_on_spec_and_weights_not_on_path(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = BundleModel.open(folder)
    elsewhere = tmp_path_factory.mktemp("copy") / "bundle"
    folder.rename(elsewhere)
    assert BundleModel.open(elsewhere).fingerprint() == model.fingerprint()
    assert replace(model, spec=replace(model.spec, clip=4.0)).fingerprint() != model.fingerprint()


def test_changed_weights_are_refused(folder: Path) -> None:
    model = BundleModel.open(folder)
    with (folder / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(ModelError, match=r"SHA-256 .* expected .* fetch the model again"):
        model.network()


def test_incomplete_bundles_say_what_is_missing(folder: Path) -> None:
    (folder / "weights.safetensors").rename(folder / "away")
    with pytest.raises(ModelError, match=r"has no weights\.safetensors"):
        load(folder)
    (folder / "spec.json").write_text("[1]")
    with pytest.raises(ModelError, match="expected an object"):
        load(folder)
    (folder / "spec.json").unlink()
    with pytest.raises(ModelError, match=r"cannot read .*spec\.json"):
        load(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    record = json.loads((folder / "spec.json").read_text())
    record["outputs"].append({"name": "boundary"})
    (folder / "spec.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"do not fit its network: .* 2 of another shape"):
        load(folder).network()  # type: ignore[attr-defined]
