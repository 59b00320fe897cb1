"""Converted networks kept between runs: the same bytes with and without, and no torch where they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from geoseg import cache
from geoseg.engines import kept
from geoseg.engines.openvino_engine import OpenVinoEngine
from geoseg.models import load
from geoseg.models.bundle import BundleModel
from geoseg.models.kept import kept_spec
from geoseg.models.registry import BUNDLED
from geoseg.results import Batch, InputScaling
from geoseg.spec import ModelSpec

SCALING = InputScaling(bands=(0, 1, 2, None), gain=(1e-3, 2e-3, 1e-3, 1.0), bias=(-1.0, -0.5, 0.0, 0.0), limit=None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache" / "networks"


def predicted(scaling: InputScaling = SCALING) -> NDArray[np.uint8]:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 3000, (1, 4, 96, 96)).astype(np.uint16)
    batch = Batch(pixels=pixels, valid=rng.random((1, 96, 96)) > 0.1)
    return OpenVinoEngine().build(load("fields-s2"), scaling, precision="auto", threads=None).predict(batch)


def test_a_kept_network_gives_the_same_bytes_also_for_another_scaling(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(SCALING, bands=(0, 1, 2, 3), gain=(5e-4,) * 4)
    first = predicted(), predicted(other)
    assert len(list(folder.iterdir())) == 1, "one network for every scaling"
    monkeypatch.setenv(cache.FOLDER, "off")
    without = predicted(), predicted(other)
    assert np.array_equal(first[0], without[0])
    assert np.array_equal(first[1], without[1])
    assert not np.array_equal(first[0], first[1])


def test_with_a_kept_network_a_run_imports_no_torch(folder: Path, tmp_path: Path, samples: Path) -> None:
    code = (
        "import sys; from geoseg.cli.main import cli\n"
        "cli(sys.argv[1:], standalone_mode=False); print('torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, "run", str(samples / "s2_smallholder.tif"), "-q", "--engine", "openvino"]
    said, masks = [], []
    for name in ("cold", "warm"):
        done = subprocess.run(
            [*words, "-o", str(tmp_path / name)], capture_output=True, text=True, check=False, env=os.environ
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.strip())
        masks.append((tmp_path / name / "mask.tif").read_bytes())
    assert said == ["True", "False"]
    assert masks[0] == masks[1]


def test_damaged_files_are_made_again(folder: Path) -> None:
    whole = predicted()
    (path,) = folder.iterdir()
    good = path.read_bytes()
    for bad in (b"", good[:5000], good[:-1], good[:200] + b"!" + good[201:], b"x" + good):
        path.write_bytes(bad)
        assert np.array_equal(predicted(), whole)
        assert kept.load_graph(path.name) is not None, "made again"


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "file"))
    assert predicted().shape == (1, 3, 96, 96)


def test_networks_used_last_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST", 3)
    for i in range(5):
        kept.save_graph(f"{i}", (b"graph", b"weights"))
        os.utime(folder / f"{i}", (1000 + i, 1000 + i))
    assert kept.load_graph("2") == (b"graph", b"weights")
    kept.save_graph("5", (b"", b""))
    assert sorted(path.name for path in folder.iterdir()) == ["2", "4", "5"]
    assert kept.load_graph("5") == (b"", b"")


def test_another_network_has_another_name(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED / "fields-s2", tmp_path / "copy")
    copy, own, other = load(tmp_path / "copy"), load("fields-s2"), load("fields-rgb")
    assert kept.graph_name(copy, batch=1) == kept.graph_name(own, batch=1)
    assert len({kept.graph_name(own, batch=1), kept.graph_name(own, batch=2), kept.graph_name(other, batch=1)}) == 3

    class Changing:
        spec, runtime = own.spec, "torch"

        def fingerprint(self) -> str:
            return "always the same"

    assert kept.graph_name(Changing(), batch=1) is None

    class Derived(BundleModel):
        """May have another network under the same fingerprint."""

    assert kept.graph_name(Derived.open(BUNDLED / "fields-s2"), batch=1) is None


def test_specs_of_torch_files_are_kept_by_content_and_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, found = load("fields-s2").spec, []

    def find() -> ModelSpec:
        found.append(1)
        return spec

    told: tuple[object, ...] = ("checkpoint", "digest", "a.ckpt")
    assert kept_spec(find, *told) == kept_spec(find, *told) == spec
    assert len(found) == 1
    assert kept_spec(find, "checkpoint", "another digest", "a.ckpt") == spec
    assert len(found) == 2
    for path in (folder.parent / "specs").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    assert kept_spec(find, *told) == spec
    monkeypatch.setenv(cache.FOLDER, "off")
    assert kept_spec(find, *told) == spec
    assert len(found) == 4
