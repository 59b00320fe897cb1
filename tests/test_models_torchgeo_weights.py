"""torchgeo's named weights: from a local file, and clear words where the hub is out of reach."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

from geoseg.errors import ModelError
from geoseg.models import available, load
from geoseg.models.architectures import build_torchgeo_network
from geoseg.models.torchgeo_weights import named_spec, named_specs

NAME = "Unet_Weights.SENTINEL2_3CLASS_FTW"


@pytest.fixture(scope="module", autouse=True)
def _quiet_import() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchgeo's own imports
        import torchgeo.models  # noqa: F401


def test_named_weights_open_from_a_local_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_torchgeo_network(named_specs()[NAME].architecture).eval()
    torch.save(network.state_dict(), tmp_path / "local.pth")
    model = load(NAME, weights=tmp_path / "local.pth")
    assert [band.name for band in model.spec.bands][4:] == ["red_2", "green_2", "blue_2", "nir_2"]
    assert {band.std for band in model.spec.bands} == {0.3}
    assert (model.spec.units, model.spec.upsample, model.spec.nominal_m) == ("reflectance", 2, 10.0)
    x = torch.randn(1, 8, 64, 64)
    with torch.inference_mode():
        assert torch.equal(pickle.loads(pickle.dumps(model)).network()(x), network(x))


def test_all_members_of_the_installed_torchgeo_are_described() -> None:
    from torchgeo.models import Unet_Weights

    members: Any = Unet_Weights
    assert set(named_specs()) == {f"Unet_Weights.{member.name}" for member in members}
    assert {info.name for info in available(torchgeo=True) if info.source == "torchgeo"} == set(named_specs())
    assert named_specs()[NAME].class_names == ("background", "field", "boundary")


def test_unknown_member_lists_the_known() -> None:
    with pytest.raises(ModelError, match=r"no weights 'Unet_Weights\.X'; it offers .*SENTINEL2_3CLASS_FTW"):
        load("Unet_Weights.X")


def test_unknown_data_set_is_refused() -> None:
    meta = {"dataset": "Mars", "in_chans": 2, "num_classes": 2, "model": "U-Net", "encoder": "resnet18"}
    with pytest.raises(ModelError, match=r"'Mars', of which this version does not know bands"):
        named_spec("Unet_Weights.MARS", meta)


def test_unreachable_hub_asks_for_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        ModelError, match=r"could not be downloaded \(Name or service not known\).*--weights FILE"
    ) as info:
        load(NAME)
    assert "://" not in str(info.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"encoder.x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="tensors are missing, 1 unknown"):
        load(NAME, weights=tmp_path / "other.pth").network()  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="cannot read the weights"):
        load(NAME, weights=tmp_path / "absent.pth")
