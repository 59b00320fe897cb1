"""geoseg recipe check: all that is wrong at once, each with its line; and nothing wrong with what is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner

from geoseg.checking import Report, check_recipe
from geoseg.cli.recipe import command
from geoseg.errors import InputError


def scene(path: Path, *names: str) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", count=len(names), height=64, width=64, dtype="uint16", crs="EPSG:32633",
        transform=Affine(10, 0, 500_000, 0, -10, 5_000_000),
    ) as file:  # fmt: skip
        file.write(np.ones((len(names), 64, 64), np.uint16))
        file.descriptions = names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scene(tmp_path / "good.tif", "red", "green", "blue", "nir")
    scene(tmp_path / "grey.tif", "grey")
    (tmp_path / "text.tif").write_text("no raster")
    return tmp_path


def check(folder: Path, text: str) -> Report:
    (folder / "r.yaml").write_text(text)
    return check_recipe(folder / "r.yaml")


def assert_told(report: Report, *wanted: tuple[int, str, str]) -> None:
    """Every problem once, at its line: (line, entry, part of the message)."""
    assert [(one.line, one.entry) for one in report.problems] == [(line, entry) for line, entry, _ in wanted]
    for problem, (_, _, part) in zip(report.problems, wanted, strict=True):
        assert part in problem.message


def test_a_batch_is_told_everything_at_once(folder: Path) -> None:
    report = check(folder, """\
optoins: {model: fields-s2}
recipe: sentinel_fields
options:
  modle: fields-s2
  model: fields-s3
  format: gpkg,dwg
  instances: watershde
  engine: warp
  min_area_m2: -5
  crs: EPSG:9999999
  aoi: none.geojson
  max_memory: much
scenes:
  - good.tif
  - text.tif
  - {scene: good.tif, id: good}
  - {scene: good.tif, id: g2, probabilites: true}
  - none*.tif
out: o
out: p
""")  # fmt: skip
    assert report.kind == "batch"
    assert_told(
        report,
        (1, "optoins", "did you mean 'options'?"),
        (2, "recipe", "no recipe"),
        (4, "options.modle", "did you mean 'model'?"),
        (5, "options.model", "did you mean 'fields-s2'"),
        (6, "options.format", "no format 'dwg'; known: gpkg"),
        (7, "options.instances", "installed: components, watershed"),
        (8, "options.engine", "known: auto"),
        (9, "options.min_area_m2", "greater than or equal to 0"),
        (10, "options.crs", "no CRS 'EPSG:9999999'"),
        (11, "options.aoi", "no file"),
        (12, "options.max_memory", "much"),
        (15, "scenes.1", "is no raster"),
        (16, "scenes.2", "would go into 'good', as those of scenes, entry 1"),
        (17, "scenes.3", "did you mean 'probabilities'?"),
        (18, "scenes.4", "no file matches"),
        (20, "out", "stands here and in line 19"),
    )


def test_scenes_that_do_not_fit_the_model(folder: Path) -> None:
    (folder / "s.csv").write_text("scene,id\ngood.tif,a\ngrey.tif,b\ngone.tif,c\n")
    report = check(folder, "options: {model: fields-s2}\nscenes: s.csv\nout: o\n")
    assert_told(
        report,
        (2, "scenes", "scene b (s.csv, line 3): model 'fields-s2' does not fit: grey.tif has 1 band without names"),
        (2, "scenes", "scene c (s.csv, line 4): no file"),
    )
    assert "1 of 3 scenes open and fit" in report.notes
    report = check(folder, "options: {model: fields-rgb, patch: 100}\nscenes: good.tif\n")
    assert_told(report, (1, "options.patch", "must be multiples"), (2, "scenes", "model is meant for"))
    assert not (folder / "o").exists()


def test_a_training_is_told_everything_at_once(folder: Path) -> None:
    report = check(folder, """\
name: my fields
from: fields-s3
scenes:
  - image: good.tif
    labels: gone.gpkg
  - image: text.tif
    labls: x.gpkg
  - image: grey.tif
    labels: good.tif
schedule: {epochs: many, stepps: 4}
""")  # fmt: skip
    assert report.kind == "train"
    assert_told(
        report,
        (1, "name", "should match"),
        (2, "from", "did you mean 'fields-s2'"),
        (5, "scenes.0.labels", "no file"),
        (6, "scenes.1", "'labels' is missing"),
        (7, "scenes.1.labls", "did you mean 'labels'?"),
        (10, "schedule.stepps", "did you mean 'steps'?"),
        (10, "schedule.epochs", "valid integer"),
    )
    report = check(folder, "name: mine\nfrom: fields-s2\nscenes:\n  - {image: grey.tif, labels: good.tif}\n")
    assert_told(report, (4, "scenes.0.image", "red, green, blue is needed too"))


def test_a_run_and_what_is_no_yaml(folder: Path) -> None:
    assert_told(
        check(folder, "model: fields-s2\nprecison: int8\nfield_class: wheat\n"),
        (2, "precison", "did you mean 'precision'?"),
        (3, "field_class", "has no class 'wheat'"),
    )
    assert_told(check(folder, "model: a\n format: [gpkg\n"), (2, "", "no YAML"))
    assert_told(check(folder, "- a\n- b\n"), (1, "", "holds no entries"))
    with pytest.raises(InputError, match="cannot be read"):
        check_recipe(folder / "none.yaml")


@pytest.mark.parametrize("name", ["sentinel2_fields", "drone_fields", "train_fields", "batch_scenes"])
def test_shipped_recipes_are_right(name: str, samples: Path) -> None:
    report = check_recipe(samples.parent / f"pipelines/{name}.yaml")
    assert not report.problems
    assert report.kind == {"train_fields": "train", "batch_scenes": "batch"}.get(name, "run")


def test_the_command_exits_with_1_and_speaks_json(folder: Path) -> None:
    (folder / "r.yaml").write_text("modle: fields-s2\n")
    done = CliRunner().invoke(command, ["check", str(folder / "r.yaml")])
    assert done.exit_code == 1
    assert f"{folder / 'r.yaml'}:1: modle: unknown entry 'modle'" in done.stderr
    assert "1 problem" in done.stdout
    done = CliRunner().invoke(command, ["check", str(folder / "r.yaml"), "--json"])
    told = json.loads(done.stdout)
    assert (done.exit_code, told["ok"], told["kind"], told["problems"][0]["line"]) == (1, False, "run", 1)
    assert CliRunner().invoke(command, ["check", "sentinel2_fields"]).exit_code == 0
