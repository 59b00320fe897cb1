"""Models by name, and the one that suits a scene."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from affine import Affine
from pyproj import CRS

from geoseg.errors import ModelError
from geoseg.models import available, choose, load, registry
from geoseg.plugins import plugins
from geoseg.scene import Band, Scene
from geoseg.spec import BandSpec, ModelSpec, bands, classes
from geoseg.testing.models import IdentityModel


def scene_of(*names: str | None, pixel: float = 1.0, crs: int | None = 32633) -> Scene:
    return Scene(
        shape=(100, 100),
        transform=Affine(pixel, 0, 500000, 0, -pixel, 5000000),
        crs=None if crs is None else CRS.from_epsg(crs),
        bands=tuple(Band(name=name, dtype="uint8") for name in names),
        name="scene.tif",
    )


@pytest.fixture
def two_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An aerial and a satellite model; their weights are never read here."""
    nir = BandSpec(name="nir", optional=True)
    specs: dict[str, dict[str, Any]] = {
        "aerial": {"bands": bands(("red", "green", "blue")), "resolution_m": (0.4, 2.5), "nominal_m": 1.0},
        "satellite": {"bands": (*bands(("red", "green", "blue")), nir), "resolution_m": (2.0, 20.0), "nominal_m": 10.0},
    }
    for name, values in specs.items():
        spec = ModelSpec(name=name, title=name, outputs=classes("background", "field"), weights_sha256="0", **values)
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.json").write_text(spec.to_json())
        (tmp_path / name / "weights.safetensors").write_bytes(b"")
    monkeypatch.setattr(registry, "BUNDLED", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        (scene_of("red", "green", "blue"), "aerial"),
        (scene_of("red", "green", "blue", "nir", pixel=10), "satellite"),
        (scene_of("blue", "green", "red", pixel=10), "satellite"),
        (scene_of("red", "green", "blue", pixel=2.2), "aerial"),
        (scene_of("red", "green", "blue", "nir", crs=None), "satellite"),
        (scene_of("red", "green", "blue", crs=None), "aerial"),
    ],
)
def test_the_nearest_model_is_chosen(two_bundles: Path, scene: Scene, expected: str) -> None:
    model, reason = choose(scene)
    assert model.spec.name == expected
    assert expected in reason
    assert "\n" not in reason


def test_no_fitting_model_says_why_for_each(two_bundles: Path) -> None:
    with pytest.raises(ModelError) as info:
        choose(scene_of(None, None, None))
    text = str(info.value)
    assert "aerial: scene.tif has 3 bands without names" in text
    assert "satellite: " in text
    assert "--bands red,green,blue" in text
    with pytest.raises(ModelError, match=r"pass --resample to work at 10 m"):
        choose(scene_of("red", "green", "blue", pixel=30))


def test_unknown_names_list_the_known(two_bundles: Path) -> None:
    with pytest.raises(ModelError, match=r"no model 'arial'; installed: 'aerial', 'satellite'"):
        load("arial")
    with pytest.raises(ModelError, match=r"no model file or folder runs/best\.ckpt; check the path"):
        load("runs/best.ckpt")
    with pytest.raises(ModelError, match=r"--weights goes with torchgeo's named weights"):
        load("aerial", weights="x.pth")
    with pytest.raises(ModelError, match="is not a model file"):
        load(two_bundles / "aerial" / "spec.json")


def test_broken_bundle_stays_listed(two_bundles: Path) -> None:
    (two_bundles / "aerial" / "spec.json").write_text("{}")
    broken, sound = (info for info in available() if info.source == "bundled")
    assert broken.name == "aerial"
    assert broken.problem is not None
    assert "incomplete" in broken.title
    assert sound.problem is None


class EntryPoint:
    """What plugins() hands out, for an object in this module."""

    def __init__(self, found: Any) -> None:
        self.value = "package:thing"
        self.found = found

    def load(self) -> Any:
        return self.found


def test_models_of_packages_open_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    known: Any = {"mine": EntryPoint(IdentityModel), "ready": EntryPoint(IdentityModel()), "odd": EntryPoint(dict)}
    monkeypatch.setattr("geoseg.plugins.plugins", lambda group: known)
    monkeypatch.setattr(registry, "plugins", lambda group: known)
    assert load("mine") == load("ready") == IdentityModel()
    with pytest.raises(ModelError, match="is a dict without"):
        load("odd")
    assert {i.name: i.problem is None for i in available() if i.source == "plugin"} == {
        "mine": True, "ready": True, "odd": False,
    }  # fmt: skip


def test_bundled_models_open() -> None:
    for name in registry.bundled_names():
        model = load(name)
        assert model.spec.name == name
        assert name not in plugins("models")
        model.network()  # type: ignore[attr-defined]


def test_listing_models_imports_no_torch() -> None:
    code = (
        "import sys, geoseg.models as m, geoseg.engines as e; m.available(); e.engines(); "
        "sys.exit(bool({'torch', 'torchgeo', 'openvino'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
