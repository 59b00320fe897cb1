"""Packages: what is written down of a model is true, other tools can read it, and damage is noticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from geoseg.cli.main import cli
from geoseg.errors import ModelError
from geoseg.models import load
from geoseg.models.mlm import check_item, mlm_properties, stac_item
from geoseg.models.package import count_parameters, read_item, verify_package, write_package
from geoseg.models.registry import BUNDLED, bundled_names
from geoseg.spec import ModelSpec, bands, classes
from geoseg.testing.models import IdentityModel

FINGERPRINTS = {
    "fields-rgb": "5011874712fde6422b8f47a91b280ec8b866849471604b4f47dbf8b971068a22",
    "fields-s2": "bafd6915511a0e6acc0d95398714a023d77cfc33c1e14902f4afb323183e4f72",
    "fields-s2-2dates": "2b797558f033486eb3f4efbe3e1672725c08f732ad32d321f020188ddb9485fb",
}
"""Runs are known by them: neither metadata nor cards may change them."""

IN_8_BITS = {"fields-rgb", "fields-s2"}
"""fields-s2-2dates would differ on more than 1 % of pixels."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED / "fields-s2", tmp_path / "copy"))


def models(*words: str | Path) -> str:
    done = CliRunner().invoke(cli, ["models", *map(str, words)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def test_fingerprints_of_bundled_models_stay() -> None:
    assert set(FINGERPRINTS) == set(bundled_names())
    assert {name: load(name).fingerprint() for name in FINGERPRINTS} == FINGERPRINTS


@pytest.mark.parametrize("name", sorted(FINGERPRINTS))
def test_bundled_packages_say_what_is_true(name: str) -> None:
    folder, model = BUNDLED / name, load(name)
    files = {each.name: each for each in verify_package(folder)}
    in_8_bits = {"int8.graph.gz"} if name in IN_8_BITS else set()
    assert set(files) == {"weights.safetensors"} | in_8_bits
    item = read_item(folder)
    assert item is not None
    told, asset = item["properties"], item["assets"]["model"]
    network = model.network()  # type: ignore[attr-defined]
    assert told["mlm:total_parameters"] == sum(each.numel() for each in network.parameters())
    assert told["mlm:total_parameters"] == count_parameters(folder / "weights.safetensors")
    assert told["mlm:input"][0]["bands"] == [band.name for band in model.spec.bands]
    assert [c["name"] for c in told["mlm:output"][0]["classification:classes"]] == list(model.spec.class_names)
    assert asset["file:size"] == files["weights.safetensors"].size
    assert asset["file:checksum"] == "1220" + files["weights.safetensors"].sha256
    assert (folder / asset["href"]).is_file()
    assert model.spec.title in (folder / "card.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # stac-model's, of pydantic
def test_other_tools_read_the_metadata() -> None:
    schema = pytest.importorskip("stac_model.schema", reason="needs stac-model, of the extra `dev`")
    import pystac

    fixed = ModelSpec(
        name="fixed", title="Fixed", bands=bands(("red", "red_2"), mean=0.1, std=0.3), units="reflectance",
        outputs=classes("background", "field"), architecture={"type": "fcn", "encoder": "resnet18"},
    )  # fmt: skip
    items = [read_item(BUNDLED / "fields-s2"), stac_item(fixed, asset={"href": "./x", "type": "a/b"})]
    for item in items:
        assert item is not None
        told = schema.MLModelProperties(**item["properties"])
        kept = json.loads(told.model_dump_json(by_alias=True))
        assert kept["mlm:name"] == item["id"]
        assert kept["mlm:output"][0]["classification:classes"][1]["name"] == "field"
        assert len(kept["mlm:input"][0]["bands"]) == kept["mlm:input"][0]["input"]["shape"][1]
        again = pystac.Item.from_dict(item)
        assert again.assets["model"].has_role("mlm:model")
        check_item(again.to_dict(include_self_link=False))
    scaling = items[1]["properties"]["mlm:input"][0]["value_scaling"]  # type: ignore[index]
    assert scaling == [{"type": "z-score", "mean": 0.1, "stddev": 0.3}] * 2


def test_metadata_without_what_mlm_requires_are_refused() -> None:
    item: dict[str, Any] = stac_item(load("fields-s2").spec, asset={"href": "./x"})
    check_item(item)
    del item["properties"]["mlm:tasks"]
    with pytest.raises(ModelError, match="lack mlm:tasks"):
        check_item(item)
    properties = mlm_properties(load("fields-s2").spec, parameters=None)
    with pytest.raises(ModelError, match="no asset with the role mlm:model"):
        check_item({**item, "properties": properties, "assets": {}})


def test_a_package_holds_what_was_written(tmp_path: Path) -> None:
    layer = torch.nn.Conv2d(1, 2, 3)
    spec = ModelSpec(name="one", title="One layer", bands=bands(("red",)), outputs=classes("background", "field"))
    write_package(layer.state_dict(), spec, tmp_path, card="# one\n\nA card of its own.\n")
    assert {path.name for path in tmp_path.iterdir()} == {"weights.safetensors", "spec.json", "card.md"}
    assert count_parameters(tmp_path / "weights.safetensors") == 20
    assert (tmp_path / "card.md").read_text() == "# one\n\nA card of its own.\n"
    json.loads((tmp_path / "spec.json").read_text(), parse_constant=pytest.fail)
    assert load(tmp_path).spec.resolution_m == (0, float("inf"))
    shown = json.loads(models("show", tmp_path, "--json"), parse_constant=pytest.fail)
    assert ModelSpec.from_dict(shown) == load(tmp_path).spec


def test_a_package_written_anew_keeps_nothing_of_the_old_weights(copy: Path) -> None:
    layer = torch.nn.Conv2d(4, 3, 3)
    write_package(layer.state_dict(), load(copy).spec, copy)
    assert [each.name for each in verify_package(copy)] == ["weights.safetensors"]
    (copy / "card.md").write_bytes(b"\xff")
    with pytest.raises(ModelError, match=r"card\.md cannot be read"):
        models("show", copy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patch": "abc"}, "patch is 'abc', expected a whole number"),
        ({"weights_sha256": 5}, "weights_sha256 is 5, expected a text"),
        ({"architecture": "unet"}, "architecture is 'unet', expected an object"),
        ({"upsample": 0}, "upsample is 0, expected 1 or more"),
    ],
)
def test_a_spec_with_a_wrong_entry_names_it(copy: Path, change: dict[str, Any], says: str) -> None:
    record = json.loads((copy / "spec.json").read_text())
    (copy / "spec.json").write_text(json.dumps(record | change))
    with pytest.raises(ModelError, match=says):
        load(copy)


def test_damage_is_found_and_named(copy: Path) -> None:
    assert "ok" in models("verify", copy)
    record = json.loads((copy / "spec.json").read_text())
    record["mlm"]["assets"]["model"]["file:checksum"] = "1220" + "0" * 64
    (copy / "spec.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="name another hash than weights_sha256"):
        models("verify", copy)
    with (copy / "int8.graph.gz").open("ab") as file:
        file.write(b"!")
    with pytest.raises(ModelError, match=r"int8\.graph\.gz of model 'fields-s2' has SHA-256 .* expected"):
        models("verify", copy)
    with (copy / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    for words in (("verify", copy), ("show", copy)):
        with pytest.raises(ModelError, match=r"weights\.safetensors of model 'fields-s2' has SHA-256 .* was replaced"):
            models(*words)


def test_show_prints_spec_files_and_card(monkeypatch: pytest.MonkeyPatch) -> None:
    said = models("show", "fields-s2")
    assert "1,672,131" in said
    assert f"sha256 {load('fields-s2').spec.weights_sha256} (verified)" in said
    assert FINGERPRINTS["fields-s2"] in said
    assert said.endswith((BUNDLED / "fields-s2" / "card.md").read_text(encoding="utf-8"))
    assert "## Training data" not in models("show", "fields-s2", "--no-card")
    assert ModelSpec.from_dict(json.loads(models("show", "fields-s2", "--json"))) == load("fields-s2").spec
    assert json.loads(models("show", "fields-s2", "--stac"))["properties"]["mlm:name"] == "fields-s2"


def test_models_without_a_package_show_and_have_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg.models.load", lambda name, **_: IdentityModel())
    assert "identity" in models("show", "identity")
    check_item(json.loads(models("show", "identity", "--stac")))
    with pytest.raises(ModelError, match="identity is no package"):
        models("verify", "identity")
