"""Plugins: the example of docs/plugins.md installs, is listed and runs, and the contract tests find what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from geoseg.models import load
from geoseg.models.create import NewModel, create_model
from geoseg.spec import ModelSpec, bands, classes
from geoseg.testing.contracts import ContractError, check_model
from geoseg.testing.models import IdentityModel, LocalMeanModel, PatchMeanModel, ThresholdModel

EXAMPLE = Path(__file__).parent / "example_plugin"
DOCS = Path(__file__).parent.parent / "docs" / "plugins.md"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the example is installed."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for file in EXAMPLE.glob("*.*"):
        (source / file.name).write_bytes(file.read_bytes())
    words = [
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        target,
        source,
    ]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(target)}


def geoseg(environment: dict[str, str], *words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "geoseg", *map(str, words)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_is_listed_shown_and_run(installed: dict[str, str], samples: Path, tmp_path: Path) -> None:
    listed = geoseg(installed, "models", "list")
    assert re.search(r"greenness +Green land, by NDVI alone +plugin", listed)
    assert "red, nir" in geoseg(installed, "models", "show", "greenness")
    scene = samples / "s2_smallholder.tif"
    geoseg(installed, "segment", scene, "-o", tmp_path / "mask.tif", "--model", "greenness", "-q")
    with rasterio.open(scene) as file, rasterio.open(tmp_path / "mask.tif") as made:
        red, nir = file.read([1, 4]).astype(float)
        found = made.read(1)
    valid = found != 255
    assert valid.mean() > 0.9
    share = np.clip(((nir - red) / (nir + red) - 0.2) / 0.4, 0, 1)
    green = np.floor(254 * share + 0.5) > 127  # ties go to the lowest class
    assert np.array_equal(found[valid] == 1, green[valid])


@pytest.fixture
def example() -> Iterator[Any]:
    sys.path.insert(0, str(EXAMPLE))
    try:
        from geoseg_greenness import Greenness

        yield Greenness
    finally:
        sys.path.remove(str(EXAMPLE))


def test_the_example_keeps_the_contract(example: Any) -> None:
    check_model(example(), stored=(0, 4000))


@pytest.mark.parametrize("model", [IdentityModel(), LocalMeanModel(), ThresholdModel(), PatchMeanModel()])
def test_models_of_geoseg_testing_keep_the_contract(model: Any) -> None:
    check_model(model)


def test_packages_keep_the_contract(tmp_path: Path) -> None:
    new = NewModel(
        name="new", network="fcn", encoder="resnet18", bands=("red", "nir"), classes=("a", "b"), patch=128, halo=32
    )
    create_model(new, tmp_path)
    check_model(load(tmp_path))


CALLS = count()


@dataclass(frozen=True)
class Bad(IdentityModel):
    """Says what it sees, but for one fault."""

    fault: str = ""

    @property
    def spec(self) -> ModelSpec:
        usual = IdentityModel().spec
        return ModelSpec(**{**usual.to_dict(), "bands": usual.bands, "outputs": usual.outputs, "halo": 8})

    def fingerprint(self) -> str:
        return str(id(object())) + str(np.random.default_rng().random()) if self.fault == "fingerprint" else "same"

    def __reduce__(self) -> Any:
        if self.fault == "handle":
            raise TypeError("cannot pickle a handle")
        return Bad, (), self.__getstate__()

    def __getstate__(self) -> Any:
        return {**vars(self), **({"weights": b"0" * (2 << 20)} if self.fault == "heavy" else {})}

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state)

    def predict(self, pixels: Any, valid: Any) -> Any:
        found = IdentityModel.predict(self, pixels, valid)
        if self.fault == "dtype":
            return found.astype(np.float32)
        if self.fault == "nodata":
            found[:, 1] = 255
        if self.fault == "sums":
            found[:, 0] = 0
        if self.fault == "input":
            pixels[:] = 0
        if self.fault == "chance":
            found = np.roll(found, next(CALLS), axis=2)
        if self.fault == "batch":
            found = np.where(len(found) > 1, found[:, ::-1], found)
        if self.fault == "reach":
            found = np.where(pixels[:, :1, :1, :1] > 127, found, found[:, ::-1])
        return found


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("fingerprint", r"fingerprint\(\) must be a text that stays the same"),
        ("handle", "cannot be pickled"),
        ("heavy", "load weights when they are used"),
        ("dtype", "expected uint8"),
        ("nodata", "255 is nodata"),
        ("sums", "classes add up to"),
        ("input", "writes into its input"),
        ("chance", "other bytes the second time"),
        ("batch", "a patch alone gives other bytes than in a batch"),
        ("reach", "depends on what lies more than 8 pixels away"),
    ],
)
def test_each_fault_is_found(fault: str, says: str) -> None:
    check_model(Bad())
    with pytest.raises(ContractError, match=says):
        check_model(Bad(fault=fault))
    with pytest.raises(ContractError, match="a dict is no model: it lacks spec, runtime, fingerprint"):
        check_model({})


class Branching(nn.Module):
    """Takes another way for small patches: a trace knows one way only."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 2, kernel_size=1, bias=False)
        nn.init.constant_(self.head.weight[0], 1.0)
        nn.init.constant_(self.head.weight[1], -1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(x if x.shape[-1] > 96 else -x)
        return logits


@dataclass(frozen=True)
class BranchingModel:
    traceable: bool = True

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(
            name="branching",
            title="b",
            bands=bands(("red",)),
            outputs=classes("background", "field"),
            patch=128,
            halo=32,
        )

    @property
    def runtime(self) -> str:
        return "torch"

    def fingerprint(self) -> str:
        return "branching"

    def network(self) -> nn.Module:
        return Branching().eval()


def test_a_network_that_does_not_survive_conversion_is_found() -> None:
    with pytest.raises(ContractError, match=r"torch and openvino give the same class on only .* `traceable = False`"):
        check_model(BranchingModel())
    check_model(BranchingModel(traceable=False))


def test_the_page_shows_the_example_as_it_is() -> None:
    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", text, re.DOTALL)
    for file in ("geoseg_greenness.py", "pyproject.toml"):
        assert (EXAMPLE / file).read_text(encoding="utf-8") in blocks, f"docs/plugins.md does not show {file}"
