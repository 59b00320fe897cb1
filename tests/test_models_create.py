"""Models of one's own: packages of every network, stacks of dates, pretrained encoders fitted to other bands."""

from __future__ import annotations

import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import timm
import torch
from click.testing import CliRunner
from torch import nn

from geoseg.cli.main import cli
from geoseg.engines import choose_engine
from geoseg.errors import GeosegError, ModelError
from geoseg.models import available, load
from geoseg.models.bundle import BundleModel
from geoseg.models.create import NewModel, create_model
from geoseg.models.networks import build_network
from geoseg.models.pretrained import ENCODERS, find_weights, load_encoder, member_bands
from geoseg.models.weights import read_safetensors

MOCO = "ResNet18_Weights.SENTINEL2_ALL_MOCO"
NEW = NewModel(
    name="mine", network="fcn", encoder="resnet18", bands=("red", "green", "blue", "nir"),
    classes=("background", "field"), patch=128, halo=32,
)  # fmt: skip


def models(*words: str | Path) -> str:
    done = CliRunner().invoke(cli, ["models", *map(str, words)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.fixture(scope="module")
def moco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 of 13 bands as torchgeo stores it, with random weights."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(timm.create_model("resnet18", in_chans=13).state_dict(), path)
    return path


@pytest.mark.parametrize("dates", [2, 4])
def test_a_new_model_of_several_dates_runs(dates: int, samples: Path, tmp_path: Path) -> None:
    said = models(
        "new", "stack", "-o", tmp_path / "model", "--network", "segnet", "--dates", dates, "--patch", "128", "--halo", "32",
        "--bands", "red,nir", "--classes", "water,crop,road", "--resolution", "7,15",
    )  # fmt: skip
    assert "has learnt nothing yet" in said
    spec = load(tmp_path / "model").spec
    assert [band.name for band in spec.bands[:4]] == ["red", "nir", "red_2", "nir_2"]
    assert len(spec.bands) == 2 * dates
    assert (spec.field_class, spec.nominal_m) == ("crop", pytest.approx(10.247))
    with rasterio.open(samples / "s2_farmland.tif") as file:
        pixels, profile = file.read([1, 4], window=((0, 130), (0, 100))), file.profile
    for key in ("blockxsize", "blockysize", "tiled", "photometric"):
        profile.pop(key, None)
    with rasterio.open(
        tmp_path / "scene.tif", "w", **{**profile, "count": 2 * dates, "width": 100, "height": 130}
    ) as out:
        out.write(np.tile(pixels, (dates, 1, 1)))
    words = ["segment", tmp_path / "scene.tif", "-o", tmp_path / "mask.tif", "--model", tmp_path / "model", "-q",
             "--bands", ",".join(["red,nir"] * dates), "--engine", "torch"]  # fmt: skip
    done = CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False)
    assert done.exception is None, done.exception
    with rasterio.open(tmp_path / "mask.tif") as file:
        assert set(np.unique(file.read(1))) <= {0, 1, 2}


def test_the_seed_decides_random_weights(tmp_path: Path) -> None:
    states = [
        read_safetensors(create_model(replace(NEW, seed=seed), tmp_path / str(n)).folder / "weights.safetensors")
        for n, seed in enumerate((0, 0, 1))
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["scores.0.weight"], states[2]["scores.0.weight"])


def test_named_weights_from_a_file_enter_the_encoder_by_band(moco: Path, tmp_path: Path) -> None:
    bands = (*NEW.bands, "thermal")
    new = replace(NEW, encoder=None, bands=bands, dates=2, weights=MOCO, weights_file=moco)
    model = create_model(new, tmp_path / "model")
    assert model.spec.architecture["encoder"] == "resnet18"
    assert "SSL4EO-S12" in model.spec.trained_on
    kept, source = model.network().encoder.state_dict(), torch.load(moco)
    for key in kept:
        if not key.startswith("conv1"):
            torch.testing.assert_close(kept[key], source[key], atol=1e-3, rtol=1e-3)
    stem = source["conv1.weight"]
    expected = torch.stack([*(stem[:, i] for i in (3, 2, 1, 7)), stem.mean(1)] * 2, dim=1) * 13 / 10
    torch.testing.assert_close(kept["conv1.weight"], expected, atol=1e-3, rtol=1e-3)
    card = (tmp_path / "model" / "card.md").read_text()
    assert (
        "red, green, blue, nir, red_2, green_2, blue_2, nir_2 by name and thermal, thermal_2 from the mean, times 13/10"
        in card
    )


@pytest.mark.slow
def test_weights_of_satlas_enter_a_swin_encoder_which_torch_runs(tmp_path: Path) -> None:
    import torchvision.models

    torch.manual_seed(2)
    whole = torchvision.models.swin_v2_t(weights=None).state_dict()
    kept = {key: value for key, value in whole.items() if key.startswith("features")}
    torch.save(kept, tmp_path / "swin.pth")
    new = replace(NEW, network="unet", encoder=None, weights="Swin_V2_T_Weights.SENTINEL2_MI_RGB_SATLAS",
                  weights_file=tmp_path / "swin.pth")  # fmt: skip
    model = create_model(new, tmp_path / "model")
    assert model.spec.architecture["encoder"] == "tv-swin_v2_t"
    found = model.network().encoder.features
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        own = torchvision.models.swin_v2_t(weights=None).eval()
        own.load_state_dict(whole)
        features = model.network().encoder.features[1:](own.features[0](x))
        torch.testing.assert_close(features, own.features(x), atol=0.05, rtol=0.05)  # halves
    assert found[0][0].weight.shape[1] == 4
    assert choose_engine(model).name == "torch"


@pytest.mark.parametrize("start", ["", "module.encoder_q.", "model.encoder.", "backbone."])
def test_weights_are_found_behind_what_trainers_put_before_their_names(start: str, moco: Path, tmp_path: Path) -> None:
    state = {start + key: value for key, value in torch.load(moco).items()}
    torch.save({"state_dict": {**state, "projector.weight": torch.zeros(3)}, "epoch": 3}, tmp_path / "run.ckpt")
    for encoder in ("resnet18", "tu-resnet18"):
        network = build_network({"type": "fcn", "encoder": encoder}, channels=13, outputs=2)
        fitted = load_encoder(network, find_weights(str(tmp_path / "run.ckpt")), [f"b{i}" for i in range(13)])
        assert "taken as it is" in fitted.first_layer
        assert torch.equal(_first(network).weight, torch.load(moco)["conv1.weight"])


def _first(network: nn.Module) -> nn.Conv2d:
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


def test_weights_of_another_encoder_are_refused(moco: Path, tmp_path: Path) -> None:
    for encoder in ("resnet34", "resnet50", "mit_b0"):
        with pytest.raises(
            ModelError, match=r"do not fit this encoder: .*they fit resnet18: choose that with --encoder"
        ):
            create_model(replace(NEW, encoder=encoder, weights=MOCO, weights_file=moco), tmp_path / "model")
    with pytest.raises(ModelError, match="has an encoder of its own, for which there are no weights"):
        create_model(replace(NEW, network="segnet", encoder=None, weights=MOCO, weights_file=moco), tmp_path / "model")


def test_names_of_weights_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"torchgeo has no ResNet18_Weights\.SENTINEL2_MOCO; it has SENTINEL2_"):
        find_weights("ResNet18_Weights.SENTINEL2_MOCO")
    with pytest.raises(ModelError, match=r"is a whole model and no encoder; run it as it is: --model Unet_Weights"):
        find_weights("Unet_Weights.SENTINEL2_2CLASS_FTW")
    with pytest.raises(
        ModelError, match=r"no network here takes weights of CROMABase_Weights; known: ResNet18_Weights"
    ):
        find_weights("CROMABase_Weights.CROMA_VIT")
    with pytest.raises(ModelError, match="there is no weight file 'best'"):
        find_weights("best")

    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ModelError, match=r"could not be downloaded \(no route to host\); .* pass --weights-file FILE"):
        find_weights(MOCO)


def test_bands_of_all_named_weights_are_known() -> None:
    import torchgeo.models

    seen = set()
    for family in ENCODERS:
        for member in getattr(torchgeo.models, family):
            found = member_bands(member.name, member.meta)
            assert found is not None, member
            assert len(found) == member.meta["in_chans"], member
            seen |= set(found)
            if member.name.startswith(("SENTINEL2_ALL", "LANDSAT")):
                assert {"red", "green", "blue", "nir"} <= set(found), member
    assert {"swir16", "swir22", "coastal", "vv", "vh"} <= seen


def test_networks_are_listed_and_say_what_they_lack() -> None:
    names = {info.name: info for info in available() if info.source == "network"}
    assert {"unet", "fcn", "segnet", "deeplabv3+", "pspnet", "hrnet", "upernet", "segformer", "farseg"} <= set(names)
    assert all("untrained" in info.title and info.problem is None for info in names.values())
    with pytest.raises(
        ModelError, match=r"'unet' is a network without weights; make a model of it with `geoseg models new"
    ):
        load("unet")
    assert "geoseg models new my-hrnet" in models("show", "hrnet")
    with pytest.raises(ModelError, match="did you mean 'segnet'"):
        load("segnett")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "a b"}, "is no name for a model"),
        ({"classes": ("field",)}, "leaves nothing to tell apart"),
        ({"bands": ("red", "red")}, "are no different names"),
        ({"dates": 0}, "stacks no image"),
        ({"resolution_m": (15, 7)}, "is no range of pixel sizes"),
        ({"std": (1, 2)}, "has 2 values for 4 bands"),
        ({"network": "fcnn"}, "no network type 'fcnn'; known: fcn"),
        ({"patch": 100}, "multiples of the stride 32"),
        ({"encoder": "tu-swin_tiny_patch4_window7_224"}, "cannot take patches of 64 x 64 pixels"),
    ],
)
def test_what_cannot_be_made_is_said(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(GeosegError, match=says):
        create_model(replace(NEW, **changes), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_is_not_replaced_unasked(tmp_path: Path) -> None:
    create_model(NEW, tmp_path)
    with pytest.raises(ModelError, match="already holds a model"):
        create_model(NEW, tmp_path)
    assert isinstance(create_model(NEW, tmp_path, overwrite=True), BundleModel)
