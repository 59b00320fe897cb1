"""Batches: 30 scenes of which 3 are broken, killed once; what is refused, what is resumed, what is left behind."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from scipy import ndimage

import geoseg
from geoseg.batching import BatchResult, load_batch, run_batch
from geoseg.batching.batch import JOURNAL, plan_batch
from geoseg.batching.journal import BatchJournal, Entry
from geoseg.cli.main import main
from geoseg.errors import GeosegError, InputError, Interrupted, RunError
from geoseg.export import preview
from geoseg.runtime.events import Events
from geoseg.runtime.workspace import Workspace
from geoseg.stitch.journal import Journal

SEED = 20261123
CHILD = Path(__file__).with_name("killed_batch.py")
METHOD = "otsu:index=ndvi"
SIDE = 100


def scene(path: Path, seed: int, *, bands: tuple[str, ...] = ("red", "green", "blue", "nir")) -> Path:
    """Smooth patches of green and bare land at 10 m; the header comes first in the file, and pixels are not compressed."""
    rng = np.random.default_rng(seed)
    green = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 6) > 0
    pixels = {name: np.where(green, 500, 1500) for name in ("red", "green", "blue")} | {
        "nir": np.where(green, 3500, 1800)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=SIDE, width=SIDE, dtype="uint16", crs="EPSG:32633",
        transform=Affine(10, 0, 500_000 + 2000 * seed, 0, -10, 5_000_000),
    ) as file:  # fmt: skip
        file.write(np.stack([pixels[name] + rng.integers(0, 100, (SIDE, SIDE)) for name in bands]).astype(np.uint16))
        file.descriptions = bands
    return path


def pipeline(folder: Path, scenes: Any, **options: Any) -> Path:
    path = folder / "batch.yaml"  # JSON is YAML
    path.write_text(json.dumps({"scenes": scenes, "options": {"model": METHOD, **options}, "out": "out"}))
    return path


def child(pipeline: Path, log: Path, *until: Any) -> int:
    return subprocess.run(
        [sys.executable, str(CHILD), str(pipeline), str(log), *map(str, until)], timeout=300, check=False
    ).returncode


def told(log: Path, key: str) -> list[Any]:
    return [line for line in map(json.loads, log.read_text().splitlines()) if key in line]


def outputs(folder: Path) -> dict[str, str]:
    return {name: one["sha256"] for name, one in json.loads((folder / "run.json").read_text())["outputs"].items()}


def statuses(result: BatchResult) -> dict[str, str]:
    return {one.scene.id: one.status for one in result.outcomes}


def began(out: Path) -> list[str]:
    lines = map(json.loads, (out / JOURNAL).read_text().splitlines())
    return [line["scene"] for line in lines if line["status"] == "begun"]


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Previews take most of the time of small runs."""
    monkeypatch.setattr(preview, "write_preview", partial(preview.write_preview, size=300))


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 scenes in a table; one is cut off in its pixels, one is no raster, one lacks a band."""
    folder = tmp_path_factory.mktemp("thirty")
    rows = []
    for number in range(30):
        path = scene(
            folder / "tiles" / f"s{number:02}.tif",
            number,
            bands=("red", "green", "blue", "nir")[: 2 if number == 20 else 4],
        )
        rows.append({"scene": f"tiles/{path.name}", "id": f"field-{number:02}"})
    cut = folder / "tiles/s04.tif"
    os.truncate(cut, cut.stat().st_size // 2)
    (folder / "tiles/s11.tif").write_text("no raster at all")
    with (folder / "scenes.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["id", "scene"])
        table.writeheader()
        table.writerows(rows)
    return folder


def test_thirty_scenes_three_broken_killed_once(thirty: Path, tmp_path: Path) -> None:
    """27 results, 3 reasons, nothing done twice; then one is mended and tried again."""
    file, out = pipeline(thirty, "scenes.csv", format="parquet"), thirty / "out"
    at = random.Random(SEED).randint(800, 2400)
    assert child(file, tmp_path / "first", "call", at) == -signal.SIGKILL
    before = BatchJournal(out / JOURNAL).last()
    done = {name for name, entry in before.items() if entry.status == "done"}
    (killed,) = [name for name, entry in before.items() if entry.status == "begun"]
    assert 3 < len(done) < 24, "it was to be killed on its way"
    tiles = Journal(Workspace(out / "scenes" / killed).journal).finished()

    assert child(file, tmp_path / "second") == 3, "some failed"
    after = BatchJournal(out / JOURNAL).last()
    worked = [line["scene"] for line in told(tmp_path / "second", "tile")]
    assert not done & set(worked), "scenes that were done are left alone"
    assert not {name for name, entry in before.items() if entry.status == "failed"} & set(worked)
    again = {tuple(line["tile"]) for line in told(tmp_path / "second", "tile") if line["scene"] == killed}
    assert not again & tiles, "tiles that were finished are not predicted again"
    published = [line["published"] for name in ("first", "second") for line in told(tmp_path / name, "published")]
    assert len(published) == len(set(published)) == 27

    good, bad = (
        {n for n, e in after.items() if e.status == "done"},
        {n for n, e in after.items() if e.status == "failed"},
    )
    assert len(good) == 27
    assert bad == {"field-04", "field-11", "field-20"}
    reasons = {row["id"]: row["reason"] for row in csv.DictReader((out / "failed.csv").read_text().splitlines())}
    assert "s04.tif" in reasons["field-04"]
    assert "is no raster" in reasons["field-11"]
    assert "needs nir, and the bands of s20.tif are: red, green" in reasons["field-20"]
    number = int(killed[-2:])
    alone = geoseg.run(thirty / f"tiles/s{number:02}.tif", out=tmp_path / "alone", model=METHOD, format="parquet")
    assert outputs(out / "scenes" / killed) == outputs(alone.out), "a scene that was killed is as any other"

    _check_summary(out, good, bad)
    _check_catalog(out, good)

    shutil.copy(thirty / "tiles/s05.tif", thirty / "tiles/s04.tif")
    result = run_batch(load_batch(file), retry_failed=True)
    assert began(out)[-3:] == ["field-04", "field-11", "field-20"], "only what failed is tried again"
    assert result.counts == {"done": 28, "failed": 2}
    mended, same = outputs(out / "scenes/field-04"), outputs(out / "scenes/field-05")
    assert {name for name in same if mended[name] != same[name]} == {
        "preview.png", "item.json", "fields.parquet",
    }, "which name the scene"  # fmt: skip
    assert len(list(csv.DictReader((out / "failed.csv").read_text().splitlines()))) == 2


def _check_summary(out: Path, good: set[str], bad: set[str]) -> None:
    table = gpd.read_parquet(out / "summary.parquet").set_index("id")
    assert len(table) == 30
    assert table.crs.to_epsg() == 4326
    assert set(table.index[table.status == "done"]) == good
    assert table.reason[sorted(bad)].str.len().min() > 20
    assert table.geometry[sorted(bad)].isna().all()
    for name in sorted(good)[:3]:
        record = json.loads((out / "scenes" / name / "run.json").read_text())
        with rasterio.open(out / "scenes" / name / "mask.tif") as mask:
            box = rasterio.warp.transform_bounds(mask.crs, "EPSG:4326", *mask.bounds)
        assert table.geometry[name].bounds == pytest.approx(box, abs=1e-6)
        assert table.fields[name] == record["counts"]["fields"] > 0
        assert table.area_m2[name] == pytest.approx(record["counts"]["area_m2"])
    with (out / "summary.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == list(table.index)


def _check_catalog(out: Path, good: set[str]) -> None:
    collection = pystac.Collection.from_file(str(out / "catalog/collection.json"))
    collection.validate()
    items = list(collection.get_items())
    for item in items:  # what the extensions demand of items: test_standards.py
        item.stac_extensions = []
        item.validate()
    assert {item.id for item in items} == good
    west, south, east, north = collection.extent.spatial.bboxes[0]
    for item in items:
        assert west <= item.bbox[0] < item.bbox[2] <= east
        assert south <= item.bbox[1] < item.bbox[3] <= north
        assert item.properties["mlm:name"]
        assert {"mask", "fields-parquet", "preview", "run"} <= item.assets.keys()
        for asset in item.assets.values():
            assert not Path(asset.href).is_absolute()
            assert Path(asset.get_absolute_href()).is_file()


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for number in range(2):
        scene(tmp_path / f"s{number}.tif", number)
    return tmp_path


def code(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["geoseg", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_exit_codes_and_what_is_told(
    two: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = pipeline(two, ["s0.tif", "gone.tif"], format="parquet"), two / "out"
    assert code(monkeypatch, "batch", file, "--dry-run") == 0
    assert "2 of 2 scenes would run" in capsys.readouterr().out
    assert not out.exists()
    assert code(monkeypatch, "batch", file) == 3
    said = capsys.readouterr()
    assert "s0\tdone" in said.out
    assert "gone failed: no file" in said.err
    assert "1 of 2 scenes done" in said.out
    assert code(monkeypatch, "batch", file, "--dry-run") == 0
    assert "failed before" in capsys.readouterr().out
    assert code(monkeypatch, "batch", pipeline(two, ["gone.tif"]), "-o", two / "none") == 4
    assert code(monkeypatch, "batch", pipeline(two, ["s0.tif"], format="parquet")) == 0, "and nothing was to be done"
    assert not (out / "failed.csv").exists()
    assert began(out) == ["s0", "gone"]
    capsys.readouterr()
    for wrong, says in (
        ({"model": "fields-s3"}, "no model 'fields-s3'"),
        ({"engine": "warp"}, "no engine 'warp'"),
        ({"instances": "rings"}, "no vectorizer 'rings'"),
        ({"formt": "gpkg"}, "'--formt' is not known"),
    ):
        assert code(monkeypatch, "batch", pipeline(two, ["s0.tif"], **wrong), "-o", two / "never") == 1
        assert says in capsys.readouterr().err
    assert not (two / "never").exists(), "what fails for all ends before it begins"


def test_changes_are_refused_with_the_difference_and_overwritten_alone(two: Path) -> None:
    out = two / "out"
    first = run_batch(load_batch(pipeline(two, "s*.tif", format="parquet")))
    assert statuses(first) == {"s0": "done", "s1": "done"}
    changed = load_batch(pipeline(two, "s*.tif", format="parquet", min_area_m2=3000))
    with pytest.raises(RunError, match=r"min_area_m2: null there, 3000\.0 now.*--overwrite"):
        run_batch(changed)
    rows = [{"scene": "s0.tif"}, {"scene": "s1.tif", "min_area_m2": 3000}]
    assert statuses(run_batch(load_batch(pipeline(two, rows, format="parquet")), overwrite=True)) == statuses(first)
    assert began(out) == ["s0", "s1", "s1"], "only the scene that has changed"
    options = json.loads((out / "scenes/s1/run.json").read_text())["options"]
    assert options["min_area_m2"] == 3000

    batch = load_batch(pipeline(two, rows, format="parquet"))
    os.utime(two / "s0.tif", (1, 1))  # another time, the same content
    before = (out / "scenes/s0/run.json").stat().st_mtime_ns
    run_batch(batch)
    assert began(out)[3:] == ["s0"]
    assert (out / "scenes/s0/run.json").stat().st_mtime_ns == before, "it was looked at, not done"
    scene(two / "s0.tif", 9)
    result = run_batch(batch)
    assert statuses(result) == {"s0": "failed", "s1": "done"}
    assert "s0 holds a finished run that differs from this one" in result.outcomes[0].reason
    assert run_batch(batch, retry_failed=True, overwrite=True).exit_code == 0


def test_a_full_disk_and_a_signal_are_no_fault_of_a_scene(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, out = load_batch(pipeline(two, "s*.tif", format="parquet")), two / "out"
    flush, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"No space left.*run the same command again"):
            run_batch(batch)
    assert {name: entry.status for name, entry in BatchJournal(out / JOURNAL).last().items()} == {"s0": "begun"}

    class CtrlC:
        def stage_started(self, name: str, *, total: int, done: int) -> None:
            if name == "predict":
                os.kill(os.getpid(), signal.SIGINT)

        def stage_advanced(self, name: str, *, units: int, pixels: int) -> None: ...
        def stage_finished(self, name: str) -> None: ...
        def note(self, text: str) -> None: ...

    with pytest.raises(Interrupted, match="0 of 2 scenes") as stopped:
        run_batch(batch, inside=Events((CtrlC(),)))
    assert stopped.value.exit_code == 130

    class Late(CtrlC):
        """When the run itself looks for signals no more."""

        def stage_started(self, name: str, *, total: int, done: int) -> None: ...
        def stage_finished(self, name: str) -> None:
            if name == "export":
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="1 of 2 scenes"):
        run_batch(batch, inside=Events((Late(),)))
    assert statuses(run_batch(batch)) == {"s0": "done", "s1": "done"}
    assert not list(out.glob(".*")), "nothing is left behind"


def test_an_error_that_nobody_foresaw_is_the_scenes_own(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import geoseg.batching.batch as module

    def broken(*scenes: str, **given: Any) -> Any:
        raise ZeroDivisionError("of a library")

    with monkeypatch.context() as patch:
        patch.setattr(module, "run", broken)
        result = run_batch(load_batch(pipeline(two, "s*.tif")))
    assert {one.reason for one in result.outcomes} == {"unexpected ZeroDivisionError: of a library"}
    assert result.exit_code == 4
    assert not (two / "out/catalog").exists()


def test_one_batch_a_folder_and_no_strangers(two: Path) -> None:
    batch = load_batch(pipeline(two, "s*.tif"))
    with Workspace(two / "out").locked(), pytest.raises(RunError, match="another geoseg run is at work"):
        run_batch(batch)
    (two / "theirs").mkdir()
    (two / "theirs/thesis.docx").touch()
    with pytest.raises(RunError, match=r"holds other files and no batch \(thesis.docx\)"):
        run_batch(batch, out=two / "theirs")


def test_the_journal_outlives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    journal = BatchJournal(tmp_path / "batch.jsonl")
    journal.append(Entry(scene="a", status="done", settings={"x": 1}))
    whole = journal.path.read_bytes()
    for length in range(len(whole) + 1):
        journal.path.write_bytes(whole + whole[:length])
        journal.append(Entry(scene="b", status="failed", settings={}, reason="no\nraster"))
        last = journal.last()
        assert (last["a"].status, last["b"].reason) == ("done", "no\nraster")


def test_the_shipped_recipe_runs_as_it_stands(samples: Path, tmp_path: Path) -> None:
    result = run_batch(load_batch(samples.parent / "pipelines/batch_scenes.yaml"), out=tmp_path)
    assert statuses(result) == {"s2_farmland": "done", "s2_smallholder": "done"}
    table = gpd.read_parquet(tmp_path / "summary.parquet")
    assert table.fields.min() > 100
    assert set(table.model) == {"fields-s2"}
    assert {"fields.gpkg", "fields.parquet", "mask.tif"} <= {
        path.name for path in (tmp_path / "scenes/s2_farmland").iterdir()
    }


def test_a_batch_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    for text, says in (
        ("scenes: [", "is not YAML"),
        ("- a", "holds no entries"),
        ("out: x", "'scenes' is missing"),
        ("scenes: a.tif\nmodel: otsu", "'model' is not known.*under `options:`"),
        ("scenes: none.csv", "no file"),
        ("scenes: '*.tif'", "no file matches"),
    ):
        (tmp_path / "b.yaml").write_text(text)
        with pytest.raises(InputError, match=says):
            load_batch(tmp_path / "b.yaml")
    (tmp_path / "b.yaml").write_text("scenes: a.tif")
    with pytest.raises(GeosegError, match="where are the results to go"):
        run_batch(load_batch(tmp_path / "b.yaml"))
    assert plan_batch(load_batch(tmp_path / "b.yaml"), tmp_path / "out")[0].todo == "run"
