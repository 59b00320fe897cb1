"""geoseg models prune: fewer channels, written down, built again, and everything that a package can do besides."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from click.testing import CliRunner
from test_networks import EVERY, small
from torch import nn

import geoseg
from geoseg.cli.main import cli
from geoseg.errors import GeosegError, InputError, ModelError
from geoseg.exportation import export_model
from geoseg.models import load
from geoseg.models.bundle import BundleModel
from geoseg.models.catalogue import NETWORKS
from geoseg.models.create import NewModel, create_model
from geoseg.models.networks import build_network
from geoseg.models.networks.narrow import narrow, widths
from geoseg.models.package import read_card, verify_package, write_package
from geoseg.models.pruned import PruneOptions, read_pruning, section
from geoseg.pruning import prune_model
from geoseg.quantisation import quantise_model
from geoseg.spec import ModelSpec, bands, classes
from geoseg.training.recipe import checked_recipe
from geoseg.training.start import starting_point

pytest.importorskip("torch_pruning", reason="needs the extra `prune`")

from geoseg.models.networks.prune import FARTHEST, _rounded, measured, pruned

NAMES = ("red", "green", "blue", "nir")
PRUNABLE = [name for name in EVERY if name != "segformer"]


def random(name: str, seed: int = 0) -> nn.Module:
    """A network whose normalisations and biases are all different numbers, so that channels are known by them."""
    torch.manual_seed(seed)
    network = build_network(small(name), channels=4, outputs=3).eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
            elif isinstance(layer, nn.Conv2d) and layer.bias is not None:
                layer.bias.uniform_(-0.5, 0.5)
    return network


def without(network: nn.Module, name: str, **more: Any) -> nn.Module:
    options = PruneOptions(**{"share": 0.4, "round_to": 4, **more})
    return pruned(network, options, bands=4, outputs=3, stride=NETWORKS[name].stride)


@cache
def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """A network, and the same pruned. Not to be changed."""
    network = random(name)
    return network, without(network, name)


@pytest.fixture(autouse=True, scope="module")
def few_tries() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geoseg.models.networks.prune.NEAR_ENOUGH", 0.04)
        yield


def noise(rows: int = 64, cols: int = 96) -> torch.Tensor:
    return torch.randn(2, 4, rows, cols, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", PRUNABLE)
def test_a_pruned_network_is_built_again_from_its_package(name: str, tmp_path: Path) -> None:
    network, slim = copy.deepcopy(pair(name))
    lost = 1 - measured(slim, noise(), "multiply-adds") / measured(network, noise(), "multiply-adds")
    assert lost == pytest.approx(0.4, abs=FARTHEST)
    architecture = small(name) | {"pruned": widths(slim, than=network)}
    spec = ModelSpec(
        name="slim", title="", bands=bands(NAMES), outputs=classes("background", "field", "boundary"), patch=128, halo=32,
        stride=NETWORKS[name].stride, architecture=architecture,
    )  # fmt: skip
    write_package(slim.state_dict(), spec, tmp_path)
    again = BundleModel.open(tmp_path).network()
    slim.load_state_dict({key: value.half().float() for key, value in slim.state_dict().items()})
    with torch.inference_mode():
        logits = slim.eval()(noise())
        assert logits.shape == (2, 3, 64, 96)
        assert logits.std() > 0
        assert torch.equal(again(noise()), logits)


@pytest.mark.parametrize("name", ["unet", "detail-unet", "segnet", "hrnet", "fcn"])
def test_pruning_says_what_a_network_says_with_those_channels_silent(name: str) -> None:
    slim, silent = pair(name)[1], copy.deepcopy(pair(name)[0])
    kept = dict(slim.named_modules())
    gone = 0
    with torch.no_grad():
        for place, layer in silent.named_modules():
            if isinstance(layer, nn.BatchNorm2d):
                stays = torch.isin(layer.weight, kept[place].weight)
            elif isinstance(layer, nn.Conv2d) and layer.bias is not None:
                stays = torch.isin(layer.bias, kept[place].bias)
                layer.weight *= stays[:, None, None, None]
            else:
                continue
            layer.weight *= stays if layer.weight.ndim == 1 else 1
            layer.bias *= stays
            gone += int((~stays).sum())
        assert gone > 20
        torch.testing.assert_close(slim(noise()), silent(noise()), rtol=1e-4, atol=1e-4)


def test_channels_are_counted_ranked_and_rounded_as_asked() -> None:
    network = random("fcn")
    for options in (
        {"of": "channels", "share": 0.3, "importance": "l1"},
        {"ranking": "layer", "share": 0.5, "importance": "batch-norm"},
    ):
        slim = without(network, "fcn", round_to=8, **options)
        of: Any = options.get("of", "multiply-adds")
        lost = 1 - measured(slim, noise(), of) / measured(network, noise(), of)
        assert lost == pytest.approx(options["share"], abs=0.05)
        convolutions = [layer for layer in slim.modules() if isinstance(layer, nn.Conv2d)]
        assert convolutions[0].in_channels == 4, "bands stay"
        assert {layer.out_channels % 8 for layer in convolutions if layer.out_channels != 3} == {0}
    assert [_rounded(64, going, 8) for going in (0, 3, 5, 60, 64)] == [0, 0, 8, 56, 56]
    assert _rounded(4, 3, 8) == 0, "what is narrower than a step stays as it is"


def test_a_network_is_narrowed_again_and_takes_other_bands_and_classes() -> None:
    first = without(random("fcn"), "fcn", share=0.3)
    usual = build_network(small("fcn"), channels=4, outputs=3)
    second = without(first, "fcn", share=0.3)
    record = widths(second, than=usual)
    assert record["encoder.conv1"].keys() == {"out"}
    assert record["scores.0"].keys() == {"in"}
    other = build_network(small("fcn") | {"pruned": record}, channels=2, outputs=5)
    assert other(torch.zeros(1, 2, 64, 64)).shape == (1, 5, 64, 64)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent") / "whole"
    new = NewModel(
        name="whole", network="unet", encoder="tu-mobilenetv3_small_050", bands=NAMES, patch=128, halo=32,
        resolution_m=(7.0, 15.0), classes=("background", "field", "boundary"),
    )  # fmt: skip
    create_model(new, folder)
    return folder


@pytest.fixture(scope="module")
def slim(parent: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("slim") / "slim"
    done = CliRunner().invoke(
        cli,
        [
            "models",
            "prune",
            str(parent),
            "-o",
            str(out),
            "--share",
            "0.4",
            "--scene",
            str(samples / "s2_smallholder.tif"),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "of pixels keep their class untrained (s2_smallholder.tif)" in done.output
    return out


def test_a_pruned_package_says_what_was_gained(parent: Path, slim: Path) -> None:
    record = read_pruning(slim)
    assert record is not None
    before, after = record["before"], record["after"]
    assert after["multiply_adds"] / before["multiply_adds"] == pytest.approx(0.6, abs=FARTHEST)
    assert after["parameters"] < before["parameters"]
    assert after["weights_bytes"] == (slim / "weights.safetensors").stat().st_size < before["weights_bytes"]
    assert before["mpx_per_s"] > 0
    assert after["mpx_per_s"] > 0
    assert record["engine"].startswith("openvino")
    assert 0 < record["agreement"] <= 1
    whole, made = load(parent), load(slim)
    assert record["fingerprint"] == whole.fingerprint() != made.fingerprint()
    assert made.spec.name == "slim"
    assert verify_package(slim)[0].sha256 == made.spec.weights_sha256
    card = read_card(slim) or ""
    assert "## Pruned" in card
    assert f"| parameters | {before['parameters']:,} | {after['parameters']:,} |" in card
    assert f"pruned in {len(made.spec.architecture['pruned'])} layers" in card
    assert len(card) < 3000, "layers are not told one by one"


def test_a_pruned_package_runs_without_torch_pruning_and_is_quantised_and_exported(
    slim: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)  # makes `import` of it fail
    scene = samples / "s2_smallholder.tif"
    masks = []
    for engine in ("torch", "openvino"):
        out = geoseg.run(
            scene, out=tmp_path / engine, model=str(slim), engine=engine, precision="fp32", format="geojson"
        )
        with rasterio.open(out.out / "mask.tif") as file:
            masks.append(file.read(1))
    assert (masks[0] == masks[1]).mean() >= 0.99
    assert len(np.unique(masks[0])) > 1
    model = load(slim)
    made = export_model(model, tmp_path / "slim.xml", to="openvino")
    assert made.spec.architecture["of"]["pruned"] == model.spec.architecture["pruned"]
    pytest.importorskip("nncf", reason="needs the extra `quantize`")
    found = quantise_model(slim, calibrate=[scene], out=tmp_path / "int8")
    assert 0 < found.disagreement < 0.5
    assert read_pruning(tmp_path / "int8") == read_pruning(slim)
    assert [each.name for each in verify_package(tmp_path / "int8")] == ["weights.safetensors", "int8.graph.gz"]


def test_training_goes_on_from_a_pruned_package(slim: Path, samples: Path) -> None:
    entry = {"image": str(samples / "s2_smallholder.tif"), "labels": str(samples / "s2_smallholder_truth.gpkg")}
    values = {"name": "on", "from": str(slim), "scenes": [entry], "patch": 64}
    start = starting_point(checked_recipe(values))
    network, fresh = start.network(seed=0)
    assert fresh == ()
    parent = load(slim).network().state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(value, parent[name]) for name, value in network.state_dict().items())
    assert start.pruning == read_pruning(slim)
    fewer = starting_point(checked_recipe(values | {"bands": ["nir", "red"], "targets": {"boundary_px": 0}}))
    network, fresh = fewer.network(seed=0)
    assert len(fresh) > 1
    assert network.eval()(torch.zeros(1, 2, 64, 64)).shape == (1, 2, 64, 64)


def test_a_recipe_trains_what_is_left_and_the_card_tells_all(parent: Path, samples: Path, tmp_path: Path) -> None:
    def entry(name: str, **more: Any) -> dict[str, Any]:
        return {"image": str(samples / f"{name}.tif"), "labels": str(samples / f"{name}_truth.gpkg"), **more}

    recipe = tmp_path / "recipe.yaml"
    values = {
        "name": "small", "network": {"type": "unet"}, "patch": 64, "run_patch": 320,
        "scenes": [entry("s2_farmland"), entry("s2_smallholder", holdout=True)],
        "schedule": {"epochs": 1, "steps": 1, "batch": 2, "threads": 1},
    }  # fmt: skip
    recipe.write_text(yaml.safe_dump(values))
    out = tmp_path / "out"
    words = ["models", "prune", str(parent), "-o", str(out), "--share", "0.4", "--recipe", str(recipe), "-q"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "(held out) before, pruned, trained: object F1@.5" in done.output
    made, record = load(out), read_pruning(out)
    assert record is not None
    assert made.spec.name == "small"
    assert made.spec.architecture["pruned"]
    assert [one["scene"] for when in ("before", "after") for one in record["scores"][when]] == [
        "s2_smallholder.tif"
    ] * 2
    training = json.loads((out / "training.json").read_text())
    assert training["pruning"] == record
    card = read_card(out) or ""
    assert "| scene | before | pruned | pruned and trained |" in card
    assert "## Measured" in card
    assert not (out / ".pruned").exists()
    again = CliRunner().invoke(cli, [*(str(out) if word == str(parent) else word for word in words), "--overwrite"])
    assert again.exit_code != 0
    assert "is the model to prune, which would be replaced" in str(again.output) + str(again.exception)
    assert (out / "spec.json").is_file()


def test_what_cannot_be_pruned_is_said(
    parent: Path, slim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PruneOptions(share=0.4)
    for share in (0.0, 1.0, -0.3, 30.0, float("nan")):
        with pytest.raises(InputError, match="cannot be taken away; give one between 0 and 1"):
            PruneOptions(share=share)
    for wrong, said in (({"of": "bytes"}, "multiply-adds, channels"), ({"round_to": 0}, "give 1, 8 or 16")):
        with pytest.raises(InputError, match=said):
            PruneOptions(share=0.3, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"canny is no packaged model; only those can be pruned"):
        prune_model("canny", out=tmp_path / "x", options=options)
    made = export_model(load(slim), tmp_path / "slim.xml", to="openvino")
    with pytest.raises(ModelError, match=r"slim\.xml is no packaged model"):
        prune_model(made.path, out=tmp_path / "x", options=options)
    with pytest.raises(ModelError, match="is the model to prune, which would be replaced"):
        prune_model(parent, out=parent, options=options)
    with pytest.raises(ModelError, match=r"already holds a model; .* --overwrite"):
        prune_model(parent, out=slim, options=options)
    with pytest.raises(ModelError, match=r"parts \(attention\).*networks of convolutions can be"):
        without(build_network(small("segformer"), channels=4, outputs=3), "segformer")
    with pytest.raises(
        ModelError, match=r"nearest to a share of 0\.99 that can be taken away of the channels is 0\.\d+; give that"
    ):
        without(random("segnet"), "segnet", share=0.99, of="channels", round_to=8)
    done = CliRunner().invoke(
        cli, ["models", "prune", str(parent), "-o", str(tmp_path / "x"), "--share", ".3", "--set", "a=1"]
    )
    assert isinstance(done.exception, GeosegError) or "none is given" in done.output
    assert not (tmp_path / "x").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(ModelError, match=r"pip install 'geoseg\[prune\]'"):
        without(random("segnet"), "segnet")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([], "expected an object of layers"),
        ({"head.nothing": {"out": 4}}, "'head.nothing', which is no layer that can be narrower"),
        ({"scores.0": {"out": 4}}, "expected 1 to 3 channels"),
        ({"scores.0": {"in": True}}, "says in True"),
        ({"scores.0": {"in": 0}}, "expected 1 to 128 channels"),
        ({"encoder.bn1": {"in": 8}}, "expected widths of out"),
        ({"scores.0": 8}, "expected widths of out and in"),
    ],
)
def test_a_record_that_fits_no_network_is_refused(record: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        narrow(build_network(small("fcn"), channels=4, outputs=3), record)


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    assert read_pruning(tmp_path) is None
    for text in ("{", "[]", '{"schema": "geoseg-pruning-1", "before": {}, "after": {}}'):
        (tmp_path / "pruning.json").write_text(text)
        with pytest.raises(ModelError, match=r"pruning\.json cannot be read"):
            read_pruning(tmp_path)


def test_scores_stand_beside_those_of_the_same_scenes(slim: Path) -> None:
    record = read_pruning(slim) or {}

    def scored(*scenes: str, f1: float | None) -> list[dict[str, Any]]:
        return [{"scene": scene, "f1": f1, "pixel_iou": 0.5} for scene in scenes]

    record["scores"] = {"before": scored("a", "b", f1=0.75), "after": scored("a", "b", f1=None)}
    told = section(record, scored("b", "a", f1=0.625))
    assert "| a | 0.750 and 0.500 | - and 0.500 | 0.625 and 0.500 |" in told
    assert "trained |" not in section(record, scored("c", f1=0.625)), "scores of other scenes are no answer"
    assert "Held out" not in section(record | {"scores": {"before": [], "after": []}})
