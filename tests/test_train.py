"""geoseg train: a recipe becomes a packaged model, is resumed to the same bits, and says what is wrong with it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from geoseg.cli.train import command
from geoseg.errors import GeosegError, InputError, Interrupted, ModelError, RunError
from geoseg.models import load
from geoseg.models.networks import build_network
from geoseg.models.registry import BUNDLED
from geoseg.pipeline import run
from geoseg.runtime.events import Events
from geoseg.spec import ModelSpec, bands, classes
from geoseg.teaching import train
from geoseg.training.preparation import prepare_training
from geoseg.training.recipe import TrainRecipe, checked_recipe, load_train_recipe
from geoseg.training.start import fitted, starting_point

CHILD = Path(__file__).with_name("killed_training.py")
NETWORK = {
    "type": "detail-unet",
    "encoder": "tu-mobilenetv3_small_100",
    "decoder_channels": [8, 8, 8, 8, 8],
    "detail_channels": 4,
}
SCHEDULE = {"epochs": 3, "steps": 3, "batch": 2, "threads": 1}


def entry(samples: Path, name: str, **more: Any) -> dict[str, Any]:
    return {"image": str(samples / f"{name}.tif"), "labels": str(samples / f"{name}_truth.gpkg"), **more}


def values(samples: Path, **more: Any) -> dict[str, Any]:
    """A recipe on the smallest sample tile."""
    usual = {
        "name": "tiny", "network": NETWORK, "scenes": [entry(samples, "s2_smallholder")], "patch": 64,
        "schedule": SCHEDULE, "run_patch": 320,
    }  # fmt: skip
    return usual | more


def tiny(samples: Path, **more: Any) -> TrainRecipe:
    return checked_recipe(values(samples, **more))


@pytest.fixture(scope="module")
def undisturbed(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    train(tiny(samples), out=out)
    return out


def same_model(one: Path, other: Path) -> bool:
    names = ("weights.safetensors", "spec.json", "metrics.csv")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_training_makes_a_model_that_runs(samples: Path, undisturbed: Path, tmp_path: Path) -> None:
    spec = load(undisturbed).spec
    assert spec.nominal_m == pytest.approx(10, rel=0.01)
    assert spec.class_names == ("background", "field", "boundary")
    result = run(samples / "s2_smallholder.tif", out=tmp_path / "run", model=str(undisturbed))
    assert result.record["model"]["name"] == "tiny"
    with (undisturbed / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6", "9"]
    record = json.loads((undisturbed / "training.json").read_text())
    scene = record["scenes"][0]
    assert (len(scene["image"]), len(scene["labels"]), scene["role"]) == (64, 64, "training")
    assert scene["image"][:16] in (undisturbed / "card.md").read_text()
    with Image.open(undisturbed / "curves.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    assert list((undisturbed / "tensorboard").iterdir())
    assert sorted(path.name for path in undisturbed.iterdir()) == sorted(
        ["card.md", "curves.png", "metrics.csv", "spec.json", "tensorboard", "training.json", "weights.safetensors"]
    )


@pytest.mark.parametrize(("moment", "step"), [("step", 5), pytest.param("keep", 6, marks=pytest.mark.slow)])
def test_a_killed_training_ends_with_the_weights_of_the_undisturbed_one(
    samples: Path, undisturbed: Path, tmp_path: Path, moment: str, step: int
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(values(samples)))
    done = subprocess.run(
        [sys.executable, str(CHILD), str(recipe), str(out), moment, str(step)], timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert (out / ".partial" / "state.ckpt").is_file()
    assert not (out / "spec.json").exists()
    taught = train(load_train_recipe(recipe), out=out, folder=tmp_path)
    assert same_model(out, undisturbed)
    assert taught.record["epochs"] == 3


class Signaller:
    """Sends SIGINT after a training step."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.notes: list[str] = []

    def stage_started(self, name: str, *, total: int, done: int) -> None: ...

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None:
        self.left -= units
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)

    def stage_finished(self, name: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_ctrl_c_leaves_what_the_same_command_goes_on_with(samples: Path, undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="1 of 3 epochs are kept: run the same command again") as stopped:
        train(tiny(samples), out=tmp_path / "out", events=Events((Signaller(5),)))
    assert stopped.value.exit_code == 130
    with pytest.raises(RunError, match=r"recipe.seed: 0 there, 1 now.*--restart"):
        train(tiny(samples, seed=1), out=tmp_path / "out")
    listener = Signaller(-1)
    train(tiny(samples), out=tmp_path / "out", events=Events((listener,)))
    assert "going on after epoch 1 of 3" in listener.notes
    assert same_model(tmp_path / "out", undisturbed)
    again = Signaller(-1)
    train(tiny(samples), out=tmp_path / "out", events=Events((again,)))
    assert any("nothing to do" in note for note in again.notes)


def test_workers_and_what_was_drawn_before_do_not_change_chips(samples: Path) -> None:
    made = prepare_training(tiny(samples), folder=Path())
    here, there = made.data().training, made.data().training
    for key in ((4, 1), (0, 0)):
        there[key]
    first, second = here[7, 1], there[7, 1]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(here[7, 0]["image"], first["image"])


def test_a_holdout_is_scored_by_a_run_and_never_learnt_from(samples: Path, tmp_path: Path) -> None:
    scenes = [entry(samples, "s2_farmland", validation=True), entry(samples, "s2_smallholder", holdout=True)]
    scenes.append(entry(samples, "s2_farmland", bands="red,green,blue,-"))
    with pytest.raises(InputError, match="given twice"):
        prepare_training(tiny(samples, scenes=scenes), folder=Path())
    scenes = [entry(samples, "s2_farmland"), entry(samples, "s2_smallholder", holdout=True)]
    wanted = {"from": "fields-s2", "freeze": "encoder", "network": None}
    recipe = tiny(samples, scenes=scenes, schedule=SCHEDULE | {"epochs": 1, "steps": 2}, **wanted)
    made = prepare_training(recipe, folder=Path())
    assert [len(plot.corners) > 0 for plot in made.division.plots] == [True, False]
    taught = train(recipe, out=tmp_path / "out")
    (held,) = taught.record["holdout"]
    assert held["true"] > 100
    assert held["f1"] > 0.2, "a model that was trained on such scenes does not lose that in two steps"
    trained, bundled = load_file(tmp_path / "out" / "weights.safetensors"), load("fields-s2").network().state_dict()  # type: ignore[attr-defined]
    same = {name: torch.equal(value.float(), bundled[name].half().float()) for name, value in trained.items()}
    encoder = [name for name in same if ".encoder." in name]
    assert encoder
    assert all(same[name] for name in encoder), "a frozen encoder stays as it is, its running statistics too"
    assert not same["head.weight"]


def test_patience_ends_a_training_early(samples: Path, tmp_path: Path) -> None:
    schedule = SCHEDULE | {"epochs": 9, "steps": 1, "patience": 1, "learning_rate": 1e-9}
    taught = train(tiny(samples, schedule=schedule), out=tmp_path / "out")
    assert taught.record["stopped_early"]
    assert taught.record["epochs"] < 9


def test_a_distance_is_learnt_in_place_of_boundaries(samples: Path, tmp_path: Path) -> None:
    targets = {"boundary_px": 0, "distance": True, "distance_px": 4}
    train(tiny(samples, targets=targets, schedule=SCHEDULE | {"epochs": 1, "steps": 1}), out=tmp_path / "out")
    spec = load(tmp_path / "out").spec
    assert [(one.name, one.kind) for one in spec.outputs] == [
        ("background", "class"), ("field", "class"), ("distance", "distance"),
    ]  # fmt: skip
    result = run(samples / "s2_smallholder.tif", out=tmp_path / "run", model=str(tmp_path / "out"), engine="torch")
    assert result.record["options"]["instances"] == "auto"


def test_weights_are_taken_over_by_the_names_of_bands_and_outputs() -> None:
    old = ModelSpec(name="old", title="", bands=bands(["red", "green", "nir"]), outputs=classes("background", "field"))
    new = ModelSpec(
        name="new", title="", bands=bands(["nir", "red", "swir"]), outputs=classes("background", "field", "boundary")
    )
    given = {"first": torch.rand(4, 3, 3, 3), "middle": torch.rand(5, 4, 1, 1), "head": torch.rand(2, 5, 1, 1)}
    wanted = {"first": torch.zeros(4, 3, 3, 3), "middle": torch.zeros(5, 4, 1, 1), "head": torch.zeros(3, 5, 1, 1)}
    state, fresh = fitted(wanted, given, old=old, new=new)
    assert torch.equal(state["first"][:, 0], given["first"][:, 2])
    assert torch.equal(state["first"][:, 1], given["first"][:, 0])
    assert torch.equal(state["first"][:, 2], given["first"].mean(dim=1))
    assert torch.equal(state["middle"], given["middle"])
    assert torch.equal(state["head"][:2], given["head"])
    assert not state["head"][2].any()
    assert fresh == ("first", "head")


def test_a_model_to_go_on_from_gives_bands_and_scaling(samples: Path) -> None:
    start = starting_point(tiny(samples, network=None, **{"from": "fields-rgb"}))
    network, fresh = start.network(seed=0)
    parent = load("fields-rgb").network().state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(value, parent[name]) for name, value in network.state_dict().items())
    assert (fresh, start.spec.scaling, [band.name for band in start.spec.bands]) == (
        (),
        "scene",
        ["red", "green", "blue"],
    )


@pytest.mark.parametrize(
    ("network", "stride", "entries"),
    [
        ({"type": "pspnet"}, 8, {"encoder": "resnet34", "psp_channels": 512}),
        ({"type": "upernet", "encoder": "resnet18", "decoder_channels": 64}, 32, {"decoder_channels": 64}),
        ({"type": "unet", "decoder_channels": [32, 16, 8]}, 8, {"decoder_channels": [32, 16, 8]}),
    ],
)
def test_any_network_of_the_suite_can_be_trained(
    samples: Path, network: dict[str, Any], stride: int, entries: dict[str, Any]
) -> None:
    spec = starting_point(tiny(samples, network=network)).spec
    assert spec.stride == stride
    assert entries.items() <= spec.architecture.items()


def test_networks_say_what_they_cannot_be_built_of() -> None:
    with pytest.raises(ModelError, match=r"network 'unet' cannot be built of .*'abc'.*geoseg models show unet"):
        build_network({"type": "unet", "encoder": "resnet18", "decoder_channels": "abc"}, channels=3, outputs=2)


def test_the_model_to_go_on_from_lies_beside_the_recipe_and_is_not_overwritten(
    samples: Path, undisturbed: Path
) -> None:
    onward = tiny(samples, network=None, **{"from": undisturbed.name})
    assert starting_point(onward, folder=undisturbed.parent).parent == load(undisturbed).spec
    before = (undisturbed / "weights.safetensors").read_bytes()
    with pytest.raises(RunError, match="is the model to go on from"):
        train(onward, out=undisturbed, folder=undisturbed.parent, restart=True)
    assert (undisturbed / "weights.safetensors").read_bytes() == before


def test_conditions_select_among_the_polygons_of_geoparquet(samples: Path, tmp_path: Path) -> None:
    frame = gpd.read_file(samples / "s2_smallholder_truth.gpkg").assign(crop="none")
    frame.loc[:99, "crop"] = "rye"
    frame.to_parquet(tmp_path / "fields.pq")

    def made(where: str) -> Any:
        scene = entry(samples, "s2_smallholder", labels=str(tmp_path / "fields.pq"), where=where)
        return prepare_training(tiny(samples, scenes=[scene]), folder=Path())

    assert made("crop != 'none'").scenes[0].labels.fields == 100
    for where in ("crop <> 'none'", "kind == 3", "((("):
        with pytest.raises(InputError, match=r"`where: .* cannot be used .* the columns are id, geometry, crop"):
            made(where)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nme": "x"}, "entry 'nme' is not known; known there: name, title"),
        ({"schedule": {"epoch": 3}}, "entry 'schedule.epoch' is not known; known there: epochs"),
        ({"network": None}, "give `network:`"),
        ({"scenes": []}, "entry 'scenes'"),
        ({"patch": 100}, "patch 100 is no multiple of the network's stride 32; use 96"),
        ({"split": {"guard_px": 8}}, "guard_px 8 is less than the patch of 64"),
        ({"split": {"by": "scene"}}, "needs two scenes"),
        ({"patch": 256}, "no chip of 256 pixels to learn from is left"),
        ({"network": {"type": "unett"}}, "network.type 'unett' is not known; known:"),
        ({"network": {"type": ["unet"]}}, "network.type ['unet'] is not known; known:"),
        ({"network": {"type": "unet", "decoder": 1}}, "network 'unet' has no setting 'decoder'"),
        ({"bands": "red,nir,red?"}, "are no different names"),
        ({"loss": {"class_weights": [1, 1, -1]}}, "numbers of 0 and more are expected"),
        ({"bands": "red,swir"}, "has the bands red, green, blue, nir, and the model needs swir16 too"),
        ({"network": None, "from": "fields-s3"}, "no model 'fields-s3'"),
        ({"targets": {"classes": ["background", "field", "road", "boundary"]}}, "the class road occurs nowhere"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_told_before_anything_runs(
    samples: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(GeosegError) as told:
        prepare_training(tiny(samples, **change), folder=Path())
    assert message in str(told.value)


def test_a_diverging_training_says_so(samples: Path, tmp_path: Path) -> None:
    schedule = SCHEDULE | {"learning_rate": 1e30, "precision": "fp32"}
    with pytest.raises(ModelError, match=r"diverged in epoch 1.*schedule.learning_rate"):
        train(tiny(samples, schedule=schedule), out=tmp_path / "out")


def test_the_command_checks_changes_and_refuses(samples: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values(samples)))
    told = CliRunner().invoke(command, [str(recipe), "--check", "--set", "schedule.epochs=7", "--set", "patch=32"])
    assert told.exit_code == 0, told.output
    assert "7 epochs of 3 steps" in told.output
    assert "chips of 32 px" in told.output
    missing = CliRunner().invoke(command, [str(recipe)])
    assert isinstance(missing.exception, InputError)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "mine" / "card.md").write_text("an invitation")
    with pytest.raises(RunError, match=r"holds other files \(thesis.txt\)"):
        train(tiny(samples), out=tmp_path / "mine", restart=True)
    assert {path.name for path in (tmp_path / "mine").glob("[!.]*")} == {"thesis.txt", "card.md"}
    shutil.copytree(BUNDLED / "fields-s2", tmp_path / "other", ignore=shutil.ignore_patterns("int8*"))
    with pytest.raises(RunError, match=r"holds other files \(spec.json\)"):
        train(tiny(samples), out=tmp_path / "other")


def test_the_shipped_recipe_fits_the_sample_tiles(samples: Path) -> None:
    path = samples.parent / "pipelines" / "train_fields.yaml"
    made = prepare_training(load_train_recipe(path), folder=path.parent)
    assert made.start.parent is not None


def test_labels_in_another_crs_or_elsewhere(samples: Path, tmp_path: Path) -> None:
    drawn = gpd.read_file(samples / "s2_smallholder_truth.gpkg")
    drawn.to_crs("EPSG:4326").to_file(tmp_path / "degrees.gpkg")
    there = prepare_training(
        tiny(samples, scenes=[entry(samples, "s2_smallholder", labels=str(tmp_path / "degrees.gpkg"))]), folder=Path()
    )
    here = prepare_training(tiny(samples), folder=Path())
    masks = [made.scenes[0].labels.mask(made.scenes[0].extent) for made in (here, there)]
    assert (masks[0] != masks[1]).mean() < 1e-3
    drawn.translate(1e6, 0).to_file(tmp_path / "elsewhere.gpkg")
    with pytest.raises(InputError, match="none of the 619 polygons"):
        prepare_training(
            tiny(samples, scenes=[entry(samples, "s2_smallholder", labels=str(tmp_path / "elsewhere.gpkg"))]),
            folder=Path(),
        )
    bow = shapely.Polygon([(0, 0), (90, 90), (90, 0), (0, 90)])
    with rasterio.open(samples / "s2_smallholder.tif") as src:
        corner = src.transform @ (100, 100)
    bent = gpd.GeoSeries([*drawn.geometry[:20], shapely.affinity.translate(bow, *corner)], crs=drawn.crs)
    bent.to_file(tmp_path / "bent.gpkg")
    made = prepare_training(
        tiny(samples, scenes=[entry(samples, "s2_smallholder", labels=str(tmp_path / "bent.gpkg"))]), folder=Path()
    )
    assert any("1 invalid polygons were repaired" in note for note in made.notes)
