"""Generated scenes in a training: drawn by seed alone, never scored on; and the renderer that paints them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from geoseg.cli.train import command
from geoseg.errors import GeosegError, Interrupted, ModelError, RunError
from geoseg.runtime.events import Events
from geoseg.teaching import train
from geoseg.training.preparation import prepare_training
from geoseg.training.recipe import TrainRecipe, checked_recipe, load_train_recipe
from geoseg.training.renderer import (
    RECORD,
    WEIGHTS,
    Look,
    Painter,
    Renderer,
    channels,
    colours_like,
    colours_of,
    fields_of,
    inputs_of,
    looks_of,
)
from geoseg.training.rendering import Duel, Shown, train_renderer
from geoseg.training.targets import IGNORE, class_mask

CHILD = Path(__file__).with_name("killed_training.py")
NETWORK = {
    "type": "detail-unet",
    "encoder": "tu-mobilenetv3_small_100",
    "decoder_channels": [8, 8, 8, 8, 8],
    "detail_channels": 4,
}
GENERATED = {"scenes": 2, "share": 0.5, "side_px": 96, "styles": ["midwest"]}
RENDERER = {"steps": 4, "batch": 2, "patch": 64, "width": 8}


def values(samples: Path, **more: Any) -> dict[str, Any]:
    name = "s2_smallholder"
    scene = {"image": str(samples / f"{name}.tif"), "labels": str(samples / f"{name}_truth.gpkg")}
    usual = {
        "name": "tiny", "network": NETWORK, "scenes": [scene], "patch": 64, "run_patch": 320,
        "schedule": {"epochs": 2, "steps": 3, "batch": 2, "threads": 1}, "generated": GENERATED, "renderer": RENDERER,
    }  # fmt: skip
    return usual | more


def tiny(samples: Path, **more: Any) -> TrainRecipe:
    return checked_recipe(values(samples, **more))


class Signaller:
    """Sends SIGINT after some steps of a training."""

    def __init__(self, step: int) -> None:
        self.left, self.stage = step, ""

    def stage_started(self, name: str, *, total: int, done: int) -> None:
        self.stage = name

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None:
        self.left -= units if name == "train" else 0
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)

    def stage_finished(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...


@pytest.fixture(scope="module")
def renderer(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("renderer") / "out"
    train_renderer(tiny(samples), out=out)
    return out


def test_generated_chips_follow_from_the_seed_and_leave_the_others_as_they_are(samples: Path) -> None:
    made = prepare_training(tiny(samples, generated=GENERATED | {"share": 0.3}), folder=Path())
    here, there = made.data(), made.data()
    plain = prepare_training(tiny(samples, generated=None), folder=Path()).data()
    chips = here.training.generated
    assert chips is not None
    keys = [(step, k) for step in range(10) for k in range(2)]
    assert sum(chips.takes(*key) for key in keys) == 6
    for key in keys[:8]:
        one, other, real = here.training[key], there.training[key], plain.training[key]
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert torch.equal(one["image"], real["image"]) is not chips.takes(*key)
        assert (one["mask"] != IGNORE).float().mean() > 0.5
    another = prepare_training(tiny(samples, seed=1), folder=Path())
    assert made.generated is not None
    assert another.generated is not None
    first, second = (plan.scene(0).fingerprint() for plan in (made.generated, another.generated))
    assert first == made.generated.scene(0).fingerprint()
    assert first != second


def test_generated_scenes_are_scaled_like_scenes_and_never_validated_on(samples: Path) -> None:
    made = prepare_training(tiny(samples), folder=Path())
    plain = prepare_training(tiny(samples, generated=None), folder=Path())
    data = made.data()
    assert [len(plot.validation) for plot in made.division.plots] == [len(p.validation) for p in plain.division.plots]
    assert list(data.validation.scenes.scenes) == list(made.scenes)
    assert not {one.scene.name for one in data.generated} & {one.scene.name for one in data.validation.scenes.scenes}
    one = data.generated[0]
    piece = data.training.generated.scenes.read(0, one.extent)  # type: ignore[union-attr]
    low, middle, high = np.percentile(piece.pixels, (10, 50, 90), axis=(1, 2))
    np.testing.assert_allclose(middle, 0, atol=0.01)
    np.testing.assert_allclose(high - low, 1, atol=0.01)
    assert one.scene.resolution_m() == pytest.approx(10, rel=0.01)


def test_a_killed_training_with_generated_chips_ends_with_the_same_bits(samples: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values(samples)))
    undisturbed = train(load_train_recipe(recipe), out=tmp_path / "whole", folder=tmp_path)
    done = subprocess.run(
        [sys.executable, str(CHILD), str(recipe), str(tmp_path / "out"), "step", "5"], timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL
    resumed = train(load_train_recipe(recipe), out=tmp_path / "out", folder=tmp_path)
    for name in ("weights.safetensors", "spec.json", "metrics.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    told = resumed.record["generated"]
    assert told == undisturbed.record["generated"]
    assert (told["scenes"], told["pixel_sizes_m"], len(told["sha256"])) == (2, [pytest.approx(10, rel=0.01)], 64)
    assert told["sha256"][:16] in (tmp_path / "out" / "card.md").read_text()
    with pytest.raises(RunError, match=r"recipe.generated.share: 0.5 there, 0.25 now"):
        train(tiny(samples, generated=GENERATED | {"share": 0.25}), out=tmp_path / "out")


def test_a_renderer_comes_back_as_it_was_written_and_a_changed_one_is_refused(renderer: Path, tmp_path: Path) -> None:
    opened = Renderer.open(renderer)
    assert opened.bands == ("red", "green", "blue")
    assert opened.pixel_size_m == pytest.approx(10, rel=0.01)
    mask = np.zeros((72, 60), np.uint8)
    mask[8:40, 8:50] = 1
    image = opened.render(mask, np.random.default_rng(3))
    assert image.shape == (3, 72, 60)
    opened.write(tmp_path)
    again = Renderer.open(tmp_path)
    np.testing.assert_array_equal(again.render(mask, np.random.default_rng(3)), image)
    assert again.fingerprint() == opened.fingerprint()
    assert not np.array_equal(again.render(mask, np.random.default_rng(4)), image)
    with Image.open(renderer / "preview.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    weights = bytearray((tmp_path / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(weights)
    with pytest.raises(ModelError, match=r"have SHA-256 .* the file is damaged or was replaced"):
        Renderer.open(tmp_path)
    (tmp_path / RECORD).unlink()
    with pytest.raises(ModelError, match=r"holds no renderer .*geoseg train RECIPE --renderer"):
        Renderer.open(tmp_path)


def test_an_interrupted_renderer_goes_on_to_the_same_bits(
    samples: Path, renderer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.training.rendering.KEPT_STEPS", 2)
    with pytest.raises(Interrupted):
        train_renderer(tiny(samples), out=tmp_path / "out", events=Events((Signaller(3),)))
    assert (tmp_path / "out" / ".partial" / "state.ckpt").is_file()
    train_renderer(tiny(samples), out=tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (renderer / WEIGHTS).read_bytes()
    assert Renderer.open(tmp_path / "out").fingerprint() == Renderer.open(renderer).fingerprint()


def test_a_recipe_learns_from_rendered_scenes_by_the_command(samples: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values(samples, generated=GENERATED | {"kind": "gan", "gan": "painter"})))
    made = CliRunner().invoke(command, [str(recipe), "--renderer", "-o", str(tmp_path / "painter")])
    assert made.exit_code == 0, made.output
    assert "it paints red, green, blue at 10 m" in made.output
    told = CliRunner().invoke(command, [str(recipe), "--check"])
    assert told.exit_code == 0, told.output
    assert "2 gan scenes of 96 x 96 px at 10 m (midwest) are generated: 50% of the chips" in " ".join(
        told.output.split()
    )
    taught = CliRunner().invoke(command, [str(recipe), "-o", str(tmp_path / "out"), "--set", "schedule.epochs=1"])
    assert taught.exit_code == 0, taught.output
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["generated"]["renderer"] == Renderer.open(tmp_path / "painter").fingerprint()
    assert record["identity"]["generated"]["renderer"] == record["generated"]["renderer"]


def test_a_renderer_that_saw_what_is_scored_is_refused(samples: Path, renderer: Path) -> None:
    rendered = GENERATED | {"kind": "gan", "gan": str(renderer)}
    prepare_training(tiny(samples, generated=rendered), folder=Path())
    farm = {"image": str(samples / "s2_farmland.tif"), "labels": str(samples / "s2_farmland_truth.gpkg")}
    seen = values(samples)["scenes"][0]
    for change in ({"scenes": [farm, seen | {"holdout": True}]}, {"split": {"seed": 3}}):
        with pytest.raises(GeosegError, match="the renderer learnt from parts of s2_smallholder"):
            prepare_training(tiny(samples, generated=rendered, **change), folder=Path())


def test_colours_of_a_layout_are_those_of_its_fields() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), np.uint8)
    mask[4:30, 4:60] = 1
    mask[31:60, 4:60] = 1
    mask[30, 4:60] = 2
    pixels = rng.normal(0, 0.1, (3, 64, 64)).astype(np.float32)
    pixels[:, mask == 0] -= 2
    pixels[:, 4:30, 4:60] += 1
    colours, fields, soft = colours_of(pixels, mask, np.ones(mask.shape, np.bool_))
    ids, count = fields_of(mask)
    assert count == 2
    for k in (1, 2):
        assert not np.ptp(colours[:, ids == k], axis=1).any()
        np.testing.assert_allclose(fields[k - 1], pixels[:, ids == k].mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(colours[:, mask == 0], -2, atol=0.1)
    look = looks_of([(0, fields, soft)])[0]
    new = class_mask(np.array([]), (50, 90), boundary_px=2)
    np.testing.assert_allclose(colours_like(look, new, rng), -2, atol=0.1)
    one = Look(fields=fields[:1], backdrops=look.backdrops)
    np.testing.assert_allclose(colours_like(one, mask, rng)[:, mask == 1].mean(axis=1), fields[0], atol=0.15)


def test_a_few_steps_bring_the_painter_nearer_to_the_images(samples: Path) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), np.uint8)
    mask[8:56, 8:56] = 1
    mask[8, 8:56] = mask[55, 8:56] = 2
    colours = np.zeros((3, 64, 64), np.float32)
    image = np.where(mask == 2, 1, -0.5 * (mask == 1))[None].repeat(3, axis=0).astype(np.float32)
    recipe = tiny(samples, renderer=RENDERER | {"steps": 60, "learning_rate": 2e-3, "l1": 20})
    duel = Duel(3, recipe)
    inputs = inputs_of(mask, colours, rng.standard_normal(mask.shape, dtype=np.float32))
    shown = [Shown(inputs=inputs, image=image, known=np.ones(mask.shape, bool))] * 2
    distances = [duel.step(k, shown)[0] for k in range(60)]
    assert distances[0] == pytest.approx(np.abs(image).mean(), rel=1e-3), "an untaught painter adds nothing to colours"
    assert np.mean(distances[-5:]) < 0.5 * distances[0]
    assert Painter(4, width=8)(torch.zeros(1, channels(4), 32, 40)).shape == (1, 4, 32, 40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generated": {"kind": "procedual"}}, "entry 'generated.kind'"),
        ({"generated": {"shares": 0.3}}, "entry 'generated.shares' is not known; known there: kind, scenes, share"),
        ({"generated": {"share": 1}}, "entry 'generated.share'"),
        ({"generated": {"kind": "gan"}}, "kind gan needs `gan:`, the folder of a renderer"),
        ({"generated": {"gan": "painter"}}, "which `kind: procedural` does not use"),
        ({"generated": {"kind": "gan", "gan": "nowhere"}}, "nowhere holds no renderer"),
        ({"generated": {"side_px": 32}}, "generated.side_px 32 is less than the patch of 64"),
        ({"generated": {"styles": "tundra"}}, "no style 'tundra'; known: boreal"),
        ({"bands": "red,green,blue,swir"}, "has the bands red, green, blue, nir, and the model needs swir16 too"),
        ({"renderer": {"width": 20}}, "width 20 is no multiple of 8; use 16"),
    ],
)
def test_what_is_wrong_with_generated_scenes_is_told_before_anything_runs(
    samples: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(GeosegError) as told:
        prepare_training(tiny(samples, **change), folder=Path())
    assert message in str(told.value)


def test_what_no_procedural_scene_or_renderer_has(samples: Path, renderer: Path, tmp_path: Path) -> None:
    first = values(samples)["scenes"][0]
    other = [first | {"bands": "red,green,swir,nir"}]
    with pytest.raises(
        GeosegError, match=r"procedural scenes have the bands .*needs swir16 too; mark them as optional"
    ):
        prepare_training(tiny(samples, scenes=other, bands="red,swir"), folder=Path())
    rendered = GENERATED | {"kind": "gan", "gan": str(renderer)}
    with pytest.raises(GeosegError, match="the renderer paints red, green, blue, and the model needs nir too"):
        prepare_training(tiny(samples, bands="red,nir", generated=rendered), folder=Path())
    with pytest.raises(GeosegError, match="the renderer paints pixels of 10 m, and the scenes have 20 to 20 m"):
        prepare_training(tiny(samples, resolution_m=20, patch=32, generated=rendered), folder=Path())
    with pytest.raises(GeosegError, match="a renderer learns layouts of background, field and boundary"):
        train_renderer(tiny(samples, targets={"boundary_px": 0}), out=tmp_path / "out")
