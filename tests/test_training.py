"""The bundled models' networks, the training loop and the bundle writer."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import geoseg.models
from geoseg.errors import InputError, ModelError
from geoseg.models.networks import build_network
from geoseg.spec import ModelSpec
from geoseg.training.bundle import MADE_WITH, MAKINGS, NETWORK, make, mean_of, narrowed, widened, write_bundle
from geoseg.training.generate import generate_dates, generate_scene
from geoseg.training.library import ARCHIVE, read_cells
from geoseg.training.loop import Schedule, segmentation_loss, train
from geoseg.training.pool import PoolScene, PoolSource
from geoseg.training.samples import CLIP, Sample, SceneScale, turned

BUNDLED = Path(geoseg.models.__file__).parent / "bundled"
SMALL = {
    "type": "detail-unet",
    "encoder": "tu-mobilenetv3_small_100",
    "decoder_channels": [16, 16, 8, 8, 8],
    "detail_channels": 8,
}


@dataclass(frozen=True)
class BrightFields:
    """Fields are bright, background is dark: learnt in a few steps."""

    def sample(self, rng: np.random.Generator) -> Sample:
        target = np.zeros((64, 64), dtype=np.uint8)
        target[:, int(rng.integers(10, 54)) :] = 1
        noise = rng.standard_normal((3, 64, 64), dtype=np.float32)
        return Sample(pixels=(target * 2.0 - 1 + 0.1 * noise).astype(np.float32), target=target)


@pytest.mark.parametrize("name", sorted([*MAKINGS, *MADE_WITH]))
def test_bundled_weights_fit_their_network_strictly(name: str) -> None:
    weights = BUNDLED / name / "weights.safetensors"
    spec = ModelSpec.from_dict(json.loads((BUNDLED / name / "spec.json").read_text()))
    network = build_network(spec.architecture, channels=len(spec.bands), outputs=len(spec.outputs))
    state = load_file(weights)
    network.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in state.items()}, strict=True
    )
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == spec.weights_sha256
    assert weights.stat().st_size < 6_000_000
    assert (spec.scaling, spec.clip) == ("scene", CLIP)
    assert (BUNDLED / name / "card.md").is_file()
    with torch.inference_mode():
        logits = network.eval()(torch.zeros(1, len(spec.bands), 64, 96))
    assert logits.shape == (1, len(spec.outputs), 64, 96)
    assert torch.isfinite(logits).all()


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    network = build_network(SMALL, channels=3, outputs=3)
    schedule = Schedule(steps=25, batch=4, learning_rate=5e-3, averaging=0.8)
    source = BrightFields()
    sample = source.sample(np.random.default_rng(99))
    pixels, target = torch.from_numpy(sample.pixels)[None], torch.from_numpy(sample.target).long()[None]
    with torch.inference_mode():
        before = float(segmentation_loss(network.eval()(pixels), target, schedule))
    trained = train(network, source, schedule)
    with torch.inference_mode():
        after = float(segmentation_loss(trained(pixels), target, schedule))
    assert after < 0.7 * before


def test_scene_scale_forgives_gain_and_offset_of_each_band() -> None:
    pixels = np.random.default_rng(0).gamma(2, 300, (3, 80, 80)).astype(np.float32)
    other = pixels * np.array([2.0, 0.1, 7.0], dtype=np.float32)[:, None, None] + 40
    assert np.allclose(SceneScale.of(pixels).apply(pixels), SceneScale.of(other).apply(other), atol=1e-3)


def test_turning_moves_pixels_and_target_alike() -> None:
    target = np.arange(16, dtype=np.uint8).reshape(4, 4)
    for seed in range(8):
        pixels, moved = turned(target[None].astype(np.float32), target, np.random.default_rng(seed))
        assert np.array_equal(pixels[0], moved)


def test_pool_patches_are_decided_by_their_random_stream() -> None:
    scene = generate_scene(5, size=96, gsd_m=10, style="mixed")
    kept = PoolScene(
        pixels=scene.pixels, target=scene.mask(boundary_px=1.5), scale=SceneScale.of(scene.pixels.astype(np.float32))
    )
    source = PoolSource(scenes=[kept], patch=64, without_nir=0.5)
    first, again = (source.sample(np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.pixels, again.pixels)
    dropped = [bool((source.sample(np.random.default_rng(k)).pixels[3] == 0).all()) for k in range(12)]
    assert any(dropped)
    assert not all(dropped)


def test_patches_of_two_dates_lose_the_second_or_near_infrared_at_times() -> None:
    dates = generate_dates(5, size=80, gsd_m=10, style="mixed", fineness=1)
    pixels = np.concatenate([date.pixels for date in dates])
    scene = PoolScene(
        pixels=pixels, target=dates[0].mask(boundary_px=1.5), scale=SceneScale.of(pixels.astype(np.float32))
    )
    source = PoolSource(scenes=[scene], patch=64, without_nir=0.5, one_date=0.5)
    drawn = [source.sample(np.random.default_rng(k)).pixels for k in range(24)]
    seen = {tuple((pixels != 0).any(axis=(1, 2)).tolist()) for pixels in drawn}
    both, colours = (True,) * 4, (True, True, True, False)
    none = (False,) * 4
    assert seen == {both + both, both + none, colours + colours, colours + none}


def test_one_date_is_the_network_of_two_with_zeros_in_the_second() -> None:
    torch.manual_seed(0)
    wide = build_network(NETWORK, channels=8, outputs=3).eval()
    one = build_network(NETWORK, channels=4, outputs=3).eval()
    one.load_state_dict(narrowed(wide.state_dict(), channels=4))
    pixels = torch.randn(1, 4, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(one(pixels), wide(torch.cat([pixels, torch.zeros_like(pixels)], dim=1)), atol=1e-5)
    half = mean_of(wide.state_dict(), widened(one.state_dict(), channels=8))
    assert torch.equal(half["head.bias"], wide.state_dict()["head.bias"])
    wide.load_state_dict(widened(one.state_dict(), channels=8))
    with torch.inference_mode():
        assert torch.allclose(one(pixels), wide(torch.cat([pixels, torch.zeros_like(pixels)], dim=1)), atol=1e-5)


def test_bundle_writer_refuses_weights_that_halves_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be held in half precision"):
        write_bundle({"weight": torch.tensor([1e9])}, MAKINGS["fields-rgb"].spec, tmp_path)


def test_unknown_names_list_the_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no bundled model 'rice'; known: fields-rgb, fields-s2, fields-s2-2dates"):
        make("rice", data=tmp_path, out=tmp_path)
    with pytest.raises(ModelError, match=r"no network type 'sieve'; known: .*detail-unet, farseg"):
        build_network({"type": "sieve"}, channels=3, outputs=3)


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    inner = tmp_path / "data"
    inner.mkdir()
    with tarfile.open(inner / ARCHIVE, "w:gz") as tar:
        entry = tarfile.TarInfo("../../evil.txt")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(InputError, match=r"cannot be unpacked safely \(.*outside the destination"):
        read_cells(inner)
    assert not list(tmp_path.rglob("evil.txt"))
