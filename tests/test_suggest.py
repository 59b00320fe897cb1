"""geoseg suggest: what it calls uncertain and different, what it writes, and one round of labelling with it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from numpy.typing import NDArray
from scipy.stats import entropy

from geoseg.cli.main import cli
from geoseg.errors import GeosegError, InputError, Interrupted
from geoseg.kernels.choice import chosen, entropy_uncertainty, margin_uncertainty, standardised
from geoseg.protocols import Reader
from geoseg.readers.array import from_array
from geoseg.recipes import RunOptions
from geoseg.runtime.events import Events
from geoseg.suggestion import Suggested, Wanted, suggest
from geoseg.suggestion.survey import Lattice
from geoseg.testing.models import IdentityModel, LocalMeanModel
from geoseg.training.preparation import prepare_training
from geoseg.training.recipe import checked_recipe

PLACE = Affine(10, 0, 500_000, 0, -10, 5_500_000)


def scene(pixels: NDArray[Any], *, crs: str = "EPSG:32633", **more: Any) -> Reader:
    return from_array(pixels, transform=PLACE, crs=crs, names=["red"], **more)


def squares(levels: list[list[int]], side: int = 32) -> NDArray[np.uint8]:
    """(1, row, col) squares of one value each; with IdentityModel it is the stored probability of a field."""
    return np.kron(np.array(levels), np.ones((side, side)))[None].astype(np.uint8)


def pick(
    reader: Any,
    out: Path,
    *,
    model: Any = None,
    options: dict[str, Any] | None = None,
    exclude: Any = (),
    **wanted: Any,
) -> Suggested:
    return suggest(
        *(reader if isinstance(reader, list) else [reader]), out=out, model=model or IdentityModel(),
        wanted=Wanted(**{"side": 32, "count": 4} | wanted), options=RunOptions(**options or {}), exclude=exclude,
    )  # fmt: skip


def places(found: Suggested, side: int = 32) -> list[tuple[int, int]]:
    return [(row // side, col // side) for row, col in zip(found.tiles.row, found.tiles.col, strict=True)]


def test_uncertainty_is_what_the_formulas_say() -> None:
    stored = np.array([[254, 127, 100, 0], [0, 127, 54, 0], [0, 0, 100, 0]], np.uint8)[:, None]
    assert margin_uncertainty(stored, largest=254).tolist() == [[0, 254, 254, 254]]
    measured = entropy_uncertainty(stored, largest=65536)[0] / 65536
    assert measured[:3] == pytest.approx(entropy(stored[:, 0, :3], base=3), abs=1e-5)
    assert measured[3] == 1


def test_choice_worked_out_by_hand() -> None:
    features = np.array([[0.0], [1.0], [4.0], [9.0]])
    uncertainty = np.array([0.9, 1.0, 0.25, 0.04])
    none = np.zeros(4, np.bool_)
    # first 1; then sqrt(u d): 0 has sqrt(.9), 2 sqrt(.75), 3 sqrt(.32); then 2 (sqrt(.75)) before 3
    assert chosen(uncertainty, features, count=4, diversity=0.5, labelled=none).tolist() == [1, 0, 2, 3]
    # k-center: farthest from 1 is 3, then from {1, 3} it is 2
    assert chosen(uncertainty, features, count=3, diversity=1.0, labelled=none).tolist() == [1, 3, 2]
    assert chosen(uncertainty, features, count=3, diversity=0.0, labelled=none).tolist() == [1, 0, 2]
    # a labelled square is a centre from the beginning, and never chosen
    given = np.array([False, False, False, True])
    assert chosen(uncertainty, features, count=9, diversity=1.0, labelled=given).tolist() == [0, 2, 1]


def test_features_of_any_unit_weigh_the_same() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(50, 2)), rng.normal(size=(50, 3))
    assert standardised([one, other]) == pytest.approx(standardised([one * 1e4 + 7, other * 1e-3]))
    assert not standardised([np.full((50, 1), 0.1)]).any()


def test_uncertain_squares_come_first_and_equal_ones_not_together(tmp_path: Path) -> None:
    levels = squares([[127, 127, 254], [0, 90, 254], [0, 0, 254]])
    plain = pick(scene(levels), tmp_path / "plain.gpkg", diversity=0.0, count=3)
    assert places(plain) == [(0, 0), (0, 1), (1, 1)]
    assert plain.tiles.uncertainty.tolist() == pytest.approx([1, 1, 1 - 74 / 254], abs=1e-6)
    both = pick(scene(levels), tmp_path / "both.gpkg", diversity=0.5, count=2)
    assert places(both) == [(0, 0), (1, 1)]  # (0, 1) is the same as (0, 0) once more


@pytest.mark.parametrize("by", ["margin", "entropy"])
def test_neither_tiles_nor_workers_decide(tmp_path: Path, by: Any) -> None:
    rng = np.random.default_rng(1)
    rough = np.kron(rng.integers(0, 255, (23, 29)), np.ones((9, 9)))[None].astype(np.uint8)
    valid = np.ones(rough.shape[1:], np.bool_)
    valid[:70, 60:110] = False
    reader = scene(rough, valid=valid)
    found = [
        pick(
            reader,
            tmp_path / f"{k}-{workers}.gpkg",
            model=LocalMeanModel(),
            by=by,
            count=12,
            side=30,
            options={"tile": k, "workers": workers},
        )
        for k, workers in ((1, 1), (2, 3), (9, 2))
    ]
    first, *others = (one.tiles.drop(columns="geometry").to_csv() for one in found)
    assert len(found[0].tiles) == 12
    assert all(other == first for other in others)
    assert (found[0].tiles.valid >= 0.5).all()
    assert found[0].candidates < np.prod(Lattice(shape=reader.scene.shape, side=30).count)
    assert (tmp_path / "1-1.gpkg").read_bytes() == (tmp_path / "9-2.gpkg").read_bytes()


def test_squares_lie_on_their_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    reader = scene(rng.integers(0, 255, (1, 100, 170)).astype(np.uint8))
    found = pick(reader, tmp_path / "tiles.gpkg", side=40, count=99)
    assert len(found.tiles) == 2 * 4
    assert sorted(set(found.tiles.row)) == [10, 50]  # what is left over lies on both sides
    for one in found.tiles.itertuples():
        x, y = PLACE @ (one.col, one.row)
        assert shapely.equals(one.geometry, shapely.box(x, y - 400, x + 400, y))
        window = reader.read(Lattice(shape=(100, 170), side=40).window((one.row - 10) // 40, (one.col - 5) // 40))
        p = window.pixels[0].clip(max=254).astype(float)
        assert one.uncertainty == pytest.approx(1 - np.abs(254 - 2 * p).mean() / 254, abs=1e-6)


def test_what_is_labelled_is_left_out_and_differed_from(tmp_path: Path) -> None:
    levels = squares([[127, 120, 60, 0]])
    first = pick(scene(levels), tmp_path / "first.gpkg", count=1)
    second = pick(scene(levels), tmp_path / "second.gpkg", count=9, exclude=[tmp_path / "first.gpkg"])
    assert places(first) == [(0, 0)]
    assert (0, 0) not in places(second)
    assert (second.candidates, second.labelled) == (3, 1)
    assert places(second)[0] == (0, 2)  # (0, 1) is more uncertain, but much like what is labelled
    elsewhere = gpd.GeoDataFrame(geometry=[shapely.box(16.0, 49.0, 16.1, 49.1)], crs="EPSG:4326")
    elsewhere.to_file(tmp_path / "elsewhere.geojson")
    again = pick(scene(levels), tmp_path / "again.gpkg", count=1, exclude=[tmp_path / "elsewhere.geojson"])
    assert places(again) == [(0, 0)]


def test_an_area_keeps_the_squares_inside(tmp_path: Path) -> None:
    area = gpd.GeoDataFrame(geometry=[shapely.box(500_000, 5_499_000, 500_660, 5_500_000)], crs="EPSG:32633")
    area.to_crs(4326).to_file(tmp_path / "area.geojson")
    found = pick(
        scene(squares([[10, 20, 127, 127]])), tmp_path / "t.gpkg", options={"aoi": str(tmp_path / "area.geojson")}
    )
    assert sorted(places(found)) == [(0, 0), (0, 1)]


def test_qgis_finds_two_layers_with_style_and_default(tmp_path: Path) -> None:
    path = tmp_path / "tiles.gpkg"
    found = pick(scene(squares([[10, 20], [127, 90]])), path)
    assert [name for name, _ in pyogrio.list_layers(path)][:2] == ["tiles", "fields"]
    tiles = gpd.read_file(path, layer="tiles")
    assert tiles.crs == "EPSG:32633"
    assert tiles.columns.tolist() == ["rank", "scene", "uncertainty", "valid", "row", "col", "geometry"]
    assert tiles["rank"].tolist() == [1, 2, 3, 4]
    assert found.files == (path,)
    drawn = gpd.GeoDataFrame({"note": ["a"]}, geometry=[tiles.geometry[0]], crs=tiles.crs)
    pyogrio.write_dataframe(drawn, path, layer="fields", append=True)  # as QGIS draws
    fields = gpd.read_file(path, layer="fields", bbox=tuple(tiles.total_bounds))  # by the spatial index
    assert fields["class"].tolist() == ["field"]
    assert fields.crs == tiles.crs
    styles = pyogrio.read_dataframe(path, layer="layer_styles")
    assert styles.f_table_name.tolist() == ["tiles", "fields"]
    with pytest.raises(GeosegError, match="exists, perhaps with labels"):
        pick(scene(squares([[10]])), path)


def test_scenes_are_ranked_together(tmp_path: Path) -> None:
    readers = [scene(squares([[10, 20]])), scene(squares([[127, 0]]))]
    found = pick(readers, tmp_path / "t.gpkg", diversity=0.0)
    assert places(found) == [(0, 0), (0, 1), (0, 0), (0, 1)]
    other = scene(squares([[127, 0]]), crs="EPSG:32634")
    with pytest.raises(InputError, match=r"33N.*34N.*once"):
        pick([readers[0], other], tmp_path / "u.gpkg")
    assert not (tmp_path / "u.gpkg").exists()


class Interrupter:
    """Ctrl-C as soon as a stage begins."""

    def stage_started(self, name: str, *, total: int, done: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None: ...

    def stage_finished(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="nothing was written") as caught:
        suggest(
            scene(squares([[10, 20]])), out=tmp_path / "t.gpkg", model=IdentityModel(), events=Events((Interrupter(),))
        )
    assert caught.value.exit_code == 130
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "0"], "--count 0 chooses nothing"),
        (["--side", "5"], "--side 5 is no side"),
        (["--diversity", "2"], "not within 0"),
        (["--min-valid", "0"], "no share"),
        (["--exclude", "absent.gpkg"], "absent.gpkg: no such file"),
        (["--aoi", "1,1,2,2"], "lies outside"),
        (["--by", "luck"], "luck"),
        (["-o", "tiles.shp"], "ends in .gpkg"),
    ],
)
def test_wrong_arguments_are_named(samples: Path, tmp_path: Path, options: list[str], message: str) -> None:
    given = ["suggest", str(samples / "s2_smallholder.tif"), "-o", str(tmp_path / "t.gpkg"), *options]
    done = CliRunner().invoke(cli, given)
    assert done.exit_code
    assert message in f"{done.output} {done.exception}"
    assert not list(tmp_path.iterdir())


def scene_without_fields(image: Path, folder: Path) -> tuple[Path, Path]:
    """The image turned over, farther east where nothing is drawn; and a file that says that a part of it was looked at."""
    path, seen = folder / "beside.tif", folder / "seen.geojson"
    with rasterio.open(image) as file:
        pixels, profile, names = file.read()[:, ::-1], file.profile, file.descriptions
    place = profile["transform"] @ Affine.translation(2 * profile["width"], 0)
    with rasterio.open(path, "w", **{**profile, "transform": place}) as file:
        file.write(pixels)
        file.descriptions = names
    corners = [place @ corner for corner in ((50, 150), (150, 50))]
    gpd.GeoDataFrame(geometry=[shapely.box(*corners[0], *corners[1])], crs=profile["crs"]).to_file(seen)
    return path, seen


def test_one_round_from_squares_to_what_is_learnt_from(samples: Path, tmp_path: Path) -> None:
    """Suggest, draw (here the truth stands for the person), prepare a training: known is what lies in the squares."""
    image, out = samples / "s2_smallholder.tif", tmp_path / "round1.gpkg"
    done = CliRunner().invoke(
        cli, ["suggest", str(image), "-o", str(out), "--side", "96", "--count", "3"], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "3 of 9 squares" in done.output
    tiles = gpd.read_file(out, layer="tiles")
    truth = gpd.read_file(samples / "s2_smallholder_truth.gpkg")
    drawn = truth[truth.intersects(tiles.union_all())][["geometry"]]
    pyogrio.write_dataframe(drawn, out, layer="fields", append=True)
    entry = {
        "image": str(image), "labels": str(out), "layer": "fields", "labelled_area": str(out), "labelled_layer": "tiles",
    }  # fmt: skip
    recipe = {"name": "few", "from": "fields-s2", "patch": 32, "scenes": [entry]}
    made = prepare_training(checked_recipe(recipe), folder=tmp_path)
    known = made.table()[0]["labelled"] * 320 * 320
    assert 0.9 * 3 * 96**2 < known <= 3 * 96**2
    empty, seen = scene_without_fields(image, tmp_path)
    other = {"image": str(empty), "labels": str(out), "layer": "fields", "labelled_area": str(seen)}
    made = prepare_training(checked_recipe({**recipe, "scenes": [entry, other]}), folder=tmp_path)
    assert [row["fields"] for row in made.table()] == [len(drawn), 0]
    assert any("no field" in note for note in made.notes)
    with pytest.raises(InputError, match="labelled_layer"):
        checked_recipe({**recipe, "scenes": [{**entry, "labelled_area": None}]})


def test_pseudo_labels_are_what_the_model_is_sure_of(samples: Path, tmp_path: Path) -> None:
    image = str(samples / "s2_smallholder.tif")

    def segment(name: str, *options: str) -> Path:
        done = CliRunner().invoke(
            cli, ["segment", image, "-o", str(tmp_path / name), "-q", *options], catch_exceptions=False
        )
        assert done.exit_code == 0
        return tmp_path / name

    sure = segment("sure.tif", "--confident", ".9")
    with rasterio.open(sure) as file:
        labels = file.read(1)
    with rasterio.open(segment("all.tif")) as file:
        mask = file.read(1)
    with rasterio.open(segment("p.tif", "--probabilities")) as file:
        best = file.read()[:3].max(axis=0)
    expected = np.where((mask != 255) & (best >= round(0.9 * 254)), mask, 255)
    assert 0.02 < (expected != 255).mean() < 0.98
    assert np.array_equal(labels, expected)
    recipe = {"name": "p", "from": "fields-s2", "patch": 32, "scenes": [{"image": image, "labels": str(sure)}]}
    made = prepare_training(checked_recipe(recipe), folder=tmp_path)
    assert made.table()[0]["labelled"] == pytest.approx((labels != 255).mean(), abs=1e-3)
    for options, message in (
        (["--confident", "2"], "no probability"),
        (["--confident", ".9", "--probabilities"], "leave one"),
    ):
        done = CliRunner().invoke(cli, ["segment", image, "-o", str(tmp_path / "x.tif"), *options])
        assert message in str(done.exception)


def test_the_recipe_for_few_labels_goes_round(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of docs/few_labels.md, on two halves of a sample tile; its truth stands for the person who draws."""
    monkeypatch.chdir(tmp_path)
    with rasterio.open(samples / "s2_farmland.tif") as file:
        for number, col in ((1, 0), (2, 256)):
            half = rasterio.windows.Window(col, 0, 256, 512)
            profile = {**file.profile, "width": 256, "transform": file.window_transform(half)}
            with rasterio.open(f"scene{number}.tif", "w", **profile) as out:
                out.write(file.read(window=half))
                out.descriptions = file.descriptions
    scenes = ["scene1.tif", "scene2.tif"]

    def command(*words: str) -> str:
        done = CliRunner().invoke(cli, [*words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    command("suggest", *scenes, "-o", "round1.gpkg", "--count", "6", "--side", "128", "-q")
    tiles = gpd.read_file("round1.gpkg", layer="tiles")
    assert set(tiles.scene) == set(scenes)
    truth = gpd.read_file(samples / "s2_farmland_truth.gpkg")
    drawn = truth[truth.intersects(tiles.union_all())][["geometry"]].explode(index_parts=False)
    pyogrio.write_dataframe(drawn, "round1.gpkg", layer="fields", append=True)
    shutil.copy(samples.parent / "pipelines" / "train_few_labels.yaml", "my_round1.yaml")
    command(
        "train", "my_round1.yaml", "-o", "models/round1", "-q", "--set", "schedule.epochs=1", "--set", "schedule.steps=2",
        "--set", "schedule.batch=2", "--set", "schedule.threads=1",
    )  # fmt: skip
    told = command(
        "suggest", *scenes, "-o", "round2.gpkg", "--count", "6", "--side", "128", "--model", "models/round1",
        "--exclude", "round1.gpkg",
    )  # fmt: skip
    assert "6 were labelled before" in told
    more = gpd.read_file("round2.gpkg", layer="tiles")
    assert not set(zip(more.scene, more.row, more.col, strict=True)) & set(
        zip(tiles.scene, tiles.row, tiles.col, strict=True)
    )
