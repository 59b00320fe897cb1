"""The suite of networks: each takes any bands and classes, and OpenVINO and torch say the same of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import SHARED
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import nn

from geoseg.errors import ModelError
from geoseg.models.catalogue import NETWORKS
from geoseg.models.networks import BUILDERS, build_network
from geoseg.models.networks.segnet import pooled, unpooled
from geoseg.models.package import write_package
from geoseg.pipeline import segment_file
from geoseg.recipes import RunOptions
from geoseg.spec import InstanceRule, ModelSpec, bands, classes

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"encoder": "resnet18", "decoder_channels": (16, 16, 8, 8, 8)},
    "detail-unet": {"encoder": "tu-mobilenetv3_small_100", "decoder_channels": (16, 16, 8, 8, 8)},
    "fcn": {"encoder": "resnet18"},
    "segnet": {"widths": (8, 8, 16, 16), "depths": (1, 1, 2, 2)},
    "deeplabv3+": {"encoder": "resnet18", "decoder_channels": 32},
    "pspnet": {"encoder": "resnet18", "psp_channels": 32},
    "hrnet": {"encoder": "tu-hrnet_w18_small"},
    "upernet": {"encoder": "resnet18", "decoder_channels": 32},
    "segformer": {"encoder": "mit_b0", "decoder_channels": 32},
    "farseg": {"encoder": "resnet18"},
    "mask-rcnn": {"encoder": "tu-mobilenetv3_small_100", "detections": 20, "width": 32},
}
EVERY = sorted(name for name, kind in NETWORKS.items() if not kind.instances)
QUICK = ("fcn", "pspnet", "segnet", "segformer")
"""Of those that are run on both engines; the others convert for longer."""


def small(name: str) -> dict[str, Any]:
    return NETWORKS[name].architecture(**SMALL[name])


def awake(network: nn.Module, pixels: NDArray[Any]) -> nn.Module:
    """A random network whose layers are scaled by what they see, and whose classes all occur."""
    x = torch.from_numpy(pixels.astype(np.float32))[None]
    x = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)
    pair = torch.cat([x, x.flip(3)])
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # type: ignore[assignment]  # the plain mean over what it sees
                module.reset_running_stats()
        network.train()(pair)
        last = [module for module in network.eval().modules() if isinstance(module, nn.Conv2d)][-1]
        logits = network(pair)
        if last.bias is not None and last.out_channels == logits.shape[1]:
            last.bias -= logits.mean((0, 2, 3))
    return network


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """A piece of a sample tile, no multiple of any patch."""
    return piece(samples / "s2_farmland.tif", tmp_path_factory.mktemp("tile") / "tile.tif", Window(40, 30, 300, 210))


def piece(source: Path, path: Path, window: Window) -> Path:
    with rasterio.open(source) as file:
        pixels = file.read(window=window)
        profile = {**file.profile, "width": window.width, "height": window.height, "driver": "GTiff"}
        names, profile["transform"] = file.descriptions, file.window_transform(window)
    for key in ("blockxsize", "blockysize", "tiled"):
        profile.pop(key, None)
    with rasterio.open(path, "w", **profile) as out:
        out.write(pixels)
        out.descriptions = names
    return path


def package(name: str, folder: Path, scene: Path) -> Path:
    torch.manual_seed(0)
    with rasterio.open(scene) as file:
        pixels = file.read(window=Window(0, 0, 128, 128))
    spec = ModelSpec(
        name=f"random-{name}", title=name, bands=bands(("red", "green", "blue", "nir")), architecture=small(name),
        outputs=classes("background", "field", "boundary"), scaling="scene", clip=4.0,
        stride=NETWORKS[name].stride, patch=128, halo=32, nominal_m=10.0,
        instances=InstanceRule(score=0.2) if NETWORKS[name].instances else None,
    )  # fmt: skip
    network = build_network(spec.architecture, channels=4, outputs=3)
    if spec.instances is None:
        network = awake(network, pixels)
    return write_package(network.state_dict(), spec, folder)


def mask(scene: Path, model: Path, out: Path, **options: Any) -> NDArray[np.uint8]:
    made = segment_file(scene, out=out, options=RunOptions.checked(model=str(model), precision="fp32", **options))
    with rasterio.open(made) as file:
        found: NDArray[np.uint8] = file.read(1)
    return found


@pytest.mark.parametrize("name", EVERY)
def test_a_network_takes_any_number_of_bands_and_classes(name: str) -> None:
    for channels, outputs in ((1, 5), (4, 2), (8, 5)):
        network = build_network(small(name), channels=channels, outputs=outputs).eval()
        with torch.inference_mode():
            for rows, cols in ((64, 64), (64, 96)):
                logits = network(torch.randn(1, channels, rows, cols))
                assert logits.shape == (1, outputs, rows, cols)
                assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in EVERY if n not in QUICK)])
def test_openvino_and_torch_say_the_same(name: str, tile: Path, tmp_path: Path) -> None:
    folder = package(name, tmp_path / name, tile)
    by_torch = mask(tile, folder, tmp_path / "torch.tif", engine="torch")
    by_openvino = mask(tile, folder, tmp_path / "openvino.tif", engine="openvino")
    assert len(np.unique(by_torch)) > 1, "there is something to disagree on"
    assert (by_torch == by_openvino).mean() >= 0.99


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_each_runs_on_a_sample_tile_and_a_real_scene(name: str, tile: Path, real: Path | None, tmp_path: Path) -> None:
    """The real scene is taken where there is one; test_a_real_scene_goes_through says when there is none."""
    folder = package(name, tmp_path / name, tile)
    for number, scene in enumerate(filter(None, (tile, real))):
        options = {"bands": "red,green,blue,nir", "scale": 1e-4} if scene == real else {}
        found = mask(scene, folder, tmp_path / f"{number}.tif", engine="torch", **options)
        with rasterio.open(scene) as file:
            assert found.shape == file.shape
        assert len(np.unique(found)) > 1, "a network that is awake tells things apart"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A piece of a Sentinel-2 scene near Magdeburg; None where the third-party data is absent."""
    source = next((path for path in sorted((SHARED / "s2-magdeburg").rglob("*.tif"))), None)
    return source and piece(source, tmp_path_factory.mktemp("real") / "real.tif", Window(200, 300, 200, 160))


def test_a_real_scene_goes_through(shared: Path, tmp_path: Path) -> None:
    name = "segformer"
    source = next((path for path in sorted((shared / "s2-magdeburg").rglob("*.tif"))), None)
    if source is None:
        pytest.skip("the shared data have no Magdeburg scene")
    scene = piece(source, tmp_path / "scene.tif", Window(200, 300, 260, 200))
    folder = package(name, tmp_path / name, scene)
    options: dict[str, Any] = {"bands": "red,green,blue,nir", "scale": 1e-4}
    by_torch = mask(scene, folder, tmp_path / "torch.tif", engine="torch", **options)
    by_openvino = mask(scene, folder, tmp_path / "openvino.tif", engine="openvino", **options)
    assert (by_torch == by_openvino).mean() >= 0.99


def test_unpooling_by_places_is_torchs_unpooling_by_indices() -> None:
    torch.manual_seed(3)
    features = torch.relu(torch.randn(2, 5, 12, 8)).round(decimals=0)  # many equal maxima
    most, place = pooled(features)
    expected, indices = nn.MaxPool2d(2, return_indices=True)(features)
    assert torch.equal(most, expected)
    other = torch.randn_like(most)
    assert torch.equal(unpooled(other, place), nn.MaxUnpool2d(2)(other, indices))


def test_every_network_has_one_name_and_a_builder() -> None:
    assert set(NETWORKS) == set(BUILDERS) == set(SMALL)
    for name, kind in NETWORKS.items():
        assert kind.name == name
        assert kind.title
        assert 512 % kind.stride == 0


def test_what_a_network_cannot_do_is_said() -> None:
    with pytest.raises(ModelError, match=r"no network type 'unett'; known: unet, "):
        build_network({"type": "unett"}, channels=3, outputs=2)
    with pytest.raises(ModelError, match=r"no encoder 'resnet19'; nearest: resnet1"):
        build_network({**small("fcn"), "encoder": "resnet19"}, channels=3, outputs=2)
    with pytest.raises(ModelError, match=r"no encoder 'tu-hrnet_w19'; nearest: tu-hrnet_w"):
        build_network({"type": "hrnet", "encoder": "tu-hrnet_w19"}, channels=3, outputs=2)
    with pytest.raises(ModelError, match=r"'hrnet' cannot take the encoder 'resnet18'; it takes tu-hrnet_\*"):
        NETWORKS["hrnet"].architecture("resnet18")
    with pytest.raises(ModelError, match=r"'segnet' has an encoder of its own"):
        NETWORKS["segnet"].architecture("resnet18")
    with pytest.raises(ModelError, match=r"'pspnet' has no setting 'widths'; it has psp_channels"):
        NETWORKS["pspnet"].architecture(widths=3)
    with pytest.raises(ModelError, match=r"'deeplabv3\+' cannot take the encoder 'vgg11' \('VGG' models"):
        build_network({**small("deeplabv3+"), "encoder": "vgg11"}, channels=3, outputs=2)
    with pytest.raises(ModelError, match=r"needs the setting 'decoder_channels'"):
        build_network({"type": "upernet", "encoder": "resnet18"}, channels=3, outputs=2)
    spec = ModelSpec(name="m", title="m", bands=bands(("red",)), outputs=classes("background", "field"))
    with pytest.raises(ModelError, match=r"must be multiples of the stride 32"):
        replace(spec, patch=100)
