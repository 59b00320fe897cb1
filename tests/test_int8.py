"""Networks in 8 bits: made from scenes, taken where they are near enough and faster, kept by a run that resumes."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import geoseg
from geoseg.cli.main import cli
from geoseg.engines import choose_engine, int8
from geoseg.engines.conversion import opened
from geoseg.engines.graphs import unpacked
from geoseg.engines.openvino_engine import OpenVinoEngine
from geoseg.engines.registry import PREFERRED, FirstThatWorks
from geoseg.errors import EngineError, GeosegError, ModelError
from geoseg.models import input_scaling, load
from geoseg.models.bundle import BundleModel
from geoseg.models.quantised import GRAPH, RECORD
from geoseg.models.registry import BUNDLED, bundled_names
from geoseg.plan import prepare, settled_predictor
from geoseg.quantisation import quantise_model, samples_of
from geoseg.readers import open_scene
from geoseg.recipes import RunOptions
from geoseg.results import Batch, InputScaling
from geoseg.runtime.workspace import Workspace


@pytest.fixture
def model(tmp_path: Path) -> BundleModel:
    """A copy of a bundled model that may be damaged."""
    shutil.copytree(BUNDLED / "fields-s2", tmp_path / "model")
    found = load(tmp_path / "model")
    assert isinstance(found, BundleModel)
    return found


@pytest.mark.parametrize("name", [name for name in bundled_names() if (BUNDLED / name / RECORD).is_file()])
def test_bundled_networks_in_8_bits_are_near_those_in_32(name: str, samples: Path) -> None:
    scene = samples / {"fields-s2": "s2_farmland.tif", "fields-rgb": "rgb_farmland_1m.tif"}[name]
    own = load(name)
    scaling = input_scaling(open_scene([str(scene)]), own.spec)
    patches = samples_of(scene, own.spec, 256, 4)
    batches = [Batch(pixels=each.pixels, valid=each.valid[:, 0]) for each in patches]
    found = {}
    for precision, threads in (("fp32", None), ("int8", 1), ("int8", 2)):
        segmenter = OpenVinoEngine().build(own, scaling, precision=precision, threads=threads)
        assert ("/int8-" in segmenter.fingerprint) == (precision == "int8")
        found[precision, threads] = np.concatenate([segmenter.predict(batch) for batch in batches])
    exact, one, two = found.values()
    assert np.array_equal(one, two), "whatever the threads"
    assert 0 < (np.argmax(exact, axis=1) != np.argmax(one, axis=1)).mean() < 0.02


def test_8_bits_are_taken_where_they_are_near_and_faster(model: BundleModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for gain, precision in ((1.5, "int8"), (1.1, "auto")):
        monkeypatch.setattr(int8, "speed_gain", lambda *_, gain=gain, **__: gain)
        assert int8.settled(model).precision == precision
    record = json.loads((model.folder / RECORD).read_text())
    (model.folder / RECORD).write_text(json.dumps(record | {"disagreement": 0.011}))
    assert int8.settled(model).precision == "auto"
    assert "1.10% of pixels" in int8.settled(model).reason
    (model.folder / RECORD).write_text(json.dumps(record | {"of": "other weights"}))
    assert model.quantised() is None
    assert int8.settled(model).reason == "the model has no network in 8 bits"


def test_speeds_are_measured_once(model: BundleModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))
    first = int8.speed_gain(model)
    assert 0.2 < first < 20
    monkeypatch.setattr(int8, "_measured", lambda *_: pytest.fail("measured again"))
    assert int8.speed_gain(model) == first


def test_what_is_damaged_is_refused_by_name(model: BundleModel) -> None:
    scaling = input_scaling(open_scene([str(BUNDLED.parents[2] / "sample_tiles" / "s2_farmland.tif")]), model.spec)
    path = model.folder / GRAPH
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"int8\.graph\.gz has SHA-256 .* use --precision bf16, or make it again"):
        choose_engine(model, name="openvino").build(model, scaling, precision="int8", threads=None)
    for bad in ("{", "{}", "[]", '{"sha256": 1, "of": 2, "disagreement": "x", "checked_with": 3}'):
        (model.folder / RECORD).write_text(bad)
        with pytest.raises(ModelError, match=r"int8\.json"):
            model.quantised()
    (model.folder / RECORD).unlink()
    with pytest.raises(EngineError, match=r"has no network in 8 bits; make one with `geoseg models quantize`"):
        choose_engine(model, name="openvino").build(model, scaling, precision="int8", threads=None)
    with pytest.raises(EngineError, match=r"engine 'torch' has no precision 'int8'"):
        choose_engine(model, name="torch").build(model, scaling, precision="int8", threads=None)


def test_what_is_damaged_is_not_taken_where_the_precision_is_open(
    model: BundleModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, samples: Path
) -> None:
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))

    def short(*_: object) -> float:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(int8, "_measured", short)
        assert int8.settled(model).reason == "8 bits do not run here: no room"
    (model.folder / GRAPH).write_bytes(b"damaged")
    assert "int8.graph.gz has SHA-256" in int8.settled(model).reason
    (model.folder / RECORD).write_text("{")
    assert int8.settled(model).precision == "auto"
    result = geoseg.run(samples / "s2_smallholder.tif", out=tmp_path / "out", model=str(model.folder), precision="fp32")
    assert "int8" not in result.record


def test_a_graph_that_openvino_cannot_read_names_a_way_on(model: BundleModel) -> None:
    graph = unpacked(gzip.decompress((model.folder / GRAPH).read_bytes()))
    assert graph is not None
    from openvino import Core

    with pytest.raises(EngineError, match=r"OpenVINO .* cannot read the network .*; use --precision bf16"):
        opened((graph[0].replace(b'version="opset1"', b'version="opset99"'), graph[1]), Core())


def test_8_bits_need_a_model_that_has_them_before_anything_runs(samples: Path, tmp_path: Path) -> None:
    shutil.copytree(BUNDLED / "fields-s2", tmp_path / "model")
    (tmp_path / "model" / RECORD).unlink()
    with pytest.raises(EngineError, match="make one with `geoseg models quantize`"):
        prepare([samples / "s2_farmland.tif"], RunOptions.checked(model=str(tmp_path / "model"), precision="int8"))
    chosen = choose_engine(load("fields-s2"), precision="int8")
    assert [engine.name for engine in chosen.candidates] == ["openvino"]


def test_workers_with_gpus_keep_to_them_and_a_choice_is_kept(tmp_path: Path) -> None:
    own = load("fields-s2")
    asked: list[tuple[str, str]] = []

    class Noting:
        def __init__(self, name: str) -> None:
            self.name = name

        def build(self, *_: object, precision: str, threads: int | None) -> None:
            asked.append((self.name, precision))
            raise EngineError("no room")

    both = FirstThatWorks(name="", candidates=(Noting("torch"), Noting("openvino")), precision=PREFERRED)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="no room"):
        both.build(own, InputScaling(bands=(), gain=(), bias=(), limit=None))
    assert asked == [("torch", "auto"), ("openvino", "int8")]
    workspace = Workspace(tmp_path)
    assert [workspace.settled(lambda found=found: found) for found in ("int8", "auto")] == ["int8", "int8"]


def test_a_run_in_8_bits_says_so_and_a_run_that_resumes_stays_with_what_was(samples: Path, tmp_path: Path) -> None:
    scene = samples / "s2_smallholder.tif"
    result = geoseg.run(scene, out=tmp_path / "out", precision="int8")
    (engine,) = result.record["engines"]
    assert "/int8-" in engine
    assert 0 < result.record["int8"]["disagreement"] <= result.record["int8"]["limit_of_auto"] == 0.01
    plain = geoseg.run(scene, out=tmp_path / "plain", precision="fp32")
    assert "int8" not in plain.record

    plan = prepare([scene], RunOptions())
    assert settled_predictor(plan, before=engine).precision == PREFERRED
    assert settled_predictor(plan, before=plain.record["engines"][0]).precision == "auto"
    asked = replace(plan, predictor=replace(plan.predictor, precision="fp32"))
    assert settled_predictor(asked).precision == "fp32"


def test_quantize_makes_a_model_that_runs(samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    done = CliRunner().invoke(
        cli, ["models", "quantize", "fields-s2", "-c", str(samples / "s2_smallholder.tif"), "-o", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "differs from float32 on" in done.output
    made = load(out)
    assert isinstance(made, BundleModel)
    found = made.quantised()
    assert found is not None
    assert 0 < found.disagreement < 0.05
    assert found.calibrated_with == found.checked_with == ("s2_smallholder.tif",)
    result = geoseg.run(samples / "s2_smallholder.tif", out=tmp_path / "out", model=str(out), precision="int8")
    assert found.sha256[:8] in result.record["engines"][0]


def test_quantize_needs_a_packaged_model_and_scenes_that_show_something(tmp_path: Path, samples: Path) -> None:
    with pytest.raises(GeosegError, match=r"rgb_farmland_1m.tif|nir|resolution|m a pixel"):
        quantise_model("fields-s2", calibrate=[samples / "rgb_farmland_1m.tif"], out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
