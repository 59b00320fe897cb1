"""Hysteresis over the whole scene: equal to scikit-image on the whole array, whatever the tiles; resumed, refused."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.filters import apply_hysteresis_threshold
from skimage.measure import label

import geoseg
from geoseg.errors import InputError, ModelError
from geoseg.grid import Tile, TileGrid, Window
from geoseg.outputs import identify
from geoseg.plan import prepare
from geoseg.prediction import link_into_store, predict_into_store
from geoseg.readers.array import from_array
from geoseg.recipes import RunOptions
from geoseg.results import NODATA, PROBABILITY_MAX
from geoseg.runtime.events import Events
from geoseg.runtime.runners import Cluster, Runner, Threads
from geoseg.runtime.workspace import Workspace
from geoseg.spec import Hysteresis, ModelSpec, bands, classes
from geoseg.stitch.journal import Journal
from geoseg.stitch.linking import LabelCandidates, LinkTile, link_items
from geoseg.stitch.store import MaskStore

RULE = Hysteresis(channel=2, other=1)


@dataclass
class ArrayStore:
    """A MaskStore in memory, and the journal of who needs none."""

    grid: TileGrid
    held: NDArray[np.uint8]
    """(class, row, col)"""
    mask: NDArray[np.uint8]
    path: Path = Path()
    folder: Path = Path()

    @classmethod
    def of(cls, grid: TileGrid, second: NDArray[np.uint8]) -> ArrayStore:
        both = np.stack([np.zeros_like(second), PROBABILITY_MAX - np.minimum(second, PROBABILITY_MAX), second])
        return cls(grid, np.where(second == NODATA, np.uint8(NODATA), both), np.full(grid.shape, NODATA, np.uint8))

    def probabilities(self, window: Window) -> NDArray[np.uint8]:
        return self.held[(slice(None), *window.slices)].copy()

    def write(self, tile: Tile, mask: NDArray[np.uint8], probabilities: NDArray[np.uint8]) -> None:
        self.held[(slice(None), *tile.core.slices)] = probabilities
        self.mask[tile.core.slices] = mask

    def append(self, record: object) -> None:
        pass


def linked(stored: NDArray[np.uint8], rule: Hysteresis, *, tile: int, phase: tuple[int, int]) -> Any:
    """Probabilities and classes after the two passes over the tiles of a store that holds `stored` for a boundary."""
    grid = TileGrid(shape=stored.shape, phase=phase, patch=tile, halo=0)
    source: Any = ArrayStore.of(grid, stored)
    target: Any = ArrayStore.of(grid, np.full_like(stored, NODATA))
    rims = {each.index: LabelCandidates(source=source, rule=rule)(each.index) for each in grid}
    task = LinkTile(source=source, target=target, rule=rule, journal=target)
    for item in link_items(grid, rims, rule, [each.index for each in grid]):
        task(item)
    return target.held, target.mask


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Few values, so that thin winding components with few strong pixels are common."""
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.floats(0.3, 0.7))
    weak = np.where(rng.random(shape) < share, 150, 90)
    strong = np.where(rng.random(shape) < 0.03, 240, weak)
    return np.where(rng.random(shape) < 0.05, NODATA, strong).astype(np.uint8)


@settings(max_examples=150)
@given(stored=arrays(), tile=st.integers(1, 6), row=st.integers(0, 5), col=st.integers(0, 5), diagonal=st.booleans())
def test_linked_equals_the_whole_array(
    stored: NDArray[np.uint8], tile: int, row: int, col: int, diagonal: bool
) -> None:
    rule = replace(RULE, diagonal=diagonal)
    found, mask = linked(stored, rule, tile=tile, phase=(row % tile, col % tile))
    data = stored != NODATA
    labels = label(data & (stored >= rule.low), connectivity=2 if diagonal else 1)
    strong = np.unique(labels[data & (stored >= rule.high)])
    expected = np.isin(labels, strong)
    if not diagonal:
        values = np.where(data, stored, 0).astype(float)
        np.testing.assert_array_equal(expected, apply_hysteresis_threshold(values, rule.low - 0.5, rule.high - 0.5))
    np.testing.assert_array_equal(mask, np.where(data, 1 + expected, NODATA))
    np.testing.assert_array_equal(found[2][data] > 127, expected[data])
    same = data & ((stored < rule.low) | (stored >= rule.high))
    np.testing.assert_array_equal(found[2][same], stored[same])
    assert (found[1][data] == 254 - found[2][data]).all()
    assert not found[0][data].any()
    assert (found[:, ~data] == NODATA).all()


@pytest.fixture
def scene() -> Any:
    """A reader: 300 x 260 pixels with lines, faint but for a short part, and a hole without data."""
    rng = np.random.default_rng(3)
    pixels = rng.normal(100, 1, (300, 260))
    for i in range(30, 280, 40):
        pixels[i:, :] += 12
        pixels[i:, 100:108] += 40
    pixels[120:150, 50:90] = 0
    stored = np.clip(pixels, 0, 255).round().astype(np.uint8)[None]
    return from_array(
        stored, names=["gray"], nodata=0, transform=Affine(1, 0, 500_013, 0, -1, 5_000_037), crs="EPSG:32633"
    )


OPTIONS = {"model": "canny:index=gray", "patch": 96, "workers": 2}


def store_of(scene: Any, folder: Path, runner: Runner | None = None) -> tuple[Any, Workspace, MaskStore]:
    plan = prepare([scene], RunOptions.checked(**OPTIONS))
    identity, workspace = identify(plan), Workspace(folder)
    workspace.begin(identity, overwrite=False, restart=False)
    runner = runner or Threads(workers=2)
    store = predict_into_store(plan, workspace, identity, runner, Events())
    return plan, workspace, link_into_store(plan, store, workspace, runner, Events())


def test_linking_goes_on_where_it_ended(scene: Any, tmp_path: Path) -> None:
    plan, workspace, store = store_of(scene, tmp_path)
    whole = store.probabilities(plan.grid.extent)
    weak = MaskStore(path=workspace.store, grid=plan.grid, channels=3).probabilities(plan.grid.extent)[2]
    lowered = (weak >= RULE.low) & (weak < RULE.high) & (whole[2] < RULE.low)
    raised = (weak >= RULE.low) & (weak < RULE.high) & (whole[2] >= RULE.high)
    assert lowered.any()
    assert raised.any()
    lost = list(plan.grid)[3:7]
    stamps = {}
    for tile in plan.grid:
        for path in store.chunk_files(tile):
            if tile in lost:
                path.unlink()
            else:
                stamps[path] = path.stat().st_mtime_ns
    _, _, again = store_of(scene, tmp_path)
    np.testing.assert_array_equal(again.probabilities(plan.grid.extent), whole)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    for path in (workspace.linked / "journal").iterdir():  # a chunk without its line may be half a chunk
        path.write_text("")
    again.chunk_files(lost[0])[0].write_bytes(b"half")
    _, _, third = store_of(scene, tmp_path)
    np.testing.assert_array_equal(third.probabilities(plan.grid.extent), whole)


KILLED = """
import os, signal, sys
import geoseg
from geoseg.runtime.events import Events

class Killer:
    linked = 0
    def stage_started(self, name, **_): pass
    def stage_finished(self, name): pass
    def note(self, text): pass
    def stage_advanced(self, name, **_):
        self.linked += name == "link"
        if self.linked == 4:
            os.kill(os.getpid(), signal.SIGKILL)

geoseg.run(sys.argv[1], out=sys.argv[2], 
    model="canny:index=gray", bands=("gray",), patch=96, workers=2, events=Events((Killer(),)))
"""


def test_a_run_that_is_killed_while_it_links_resumes(scene: Any, tmp_path: Path) -> None:
    path, out = tmp_path / "scene.tif", tmp_path / "out"
    with rasterio.open(
        path, "w", driver="GTiff", width=260, height=300, count=1, dtype="uint8", nodata=0, crs="EPSG:32633",
        transform=scene.scene.transform,
    ) as file:  # fmt: skip
        file.write(scene.pixels)
        file.descriptions = ("gray",)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), str(out)], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    linked = Workspace(out).linked
    finished = Journal(linked / "journal").finished()
    assert 4 <= len(finished) < len(TileGrid(shape=(300, 260), phase=(0, 0), patch=96, halo=9))
    relinked: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        call = LinkTile.__call__
        patch.setattr(LinkTile, "__call__", lambda task, item: (relinked.append(item.index), call(task, item))[1])
        resumed = geoseg.run(path, out=out, bands=("gray",), **OPTIONS)
    assert resumed.resumed
    assert not finished & set(relinked)
    whole = geoseg.run(path, out=tmp_path / "whole", bands=("gray",), **OPTIONS)
    assert {name: told["sha256"] for name, told in resumed.record["outputs"].items()} == {
        name: told["sha256"] for name, told in whole.record["outputs"].items()
    }


def test_a_run_that_lost_predictions_links_anew(scene: Any, tmp_path: Path) -> None:
    plan, workspace, store = store_of(scene, tmp_path)
    whole = store.probabilities(plan.grid.extent)
    for path in MaskStore(path=workspace.store, grid=plan.grid, channels=3).chunk_files(list(plan.grid)[4]):
        path.unlink()
    for tile in plan.grid:  # what was linked before is not believed any more
        store.write(tile, np.zeros(tile.core.shape, np.uint8), np.zeros((3, *tile.core.shape), np.uint8))
    _, _, again = store_of(scene, tmp_path)
    np.testing.assert_array_equal(again.probabilities(plan.grid.extent), whole)


def test_a_run_reports_linked_classes_everywhere(scene: Any, tmp_path: Path) -> None:
    plan, _, store = store_of(scene, tmp_path / "store")
    result = geoseg.run(scene, out=tmp_path / "out", probabilities=True, **OPTIONS)
    with rasterio.open(result.out / "probabilities.tif") as raster:
        np.testing.assert_array_equal(raster.read(), store.probabilities(plan.grid.extent))
    with rasterio.open(result.out / "mask.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), store.classes(plan.grid.extent))
    assert result.record["method"] == plan.model.record()
    assert {"predict", "link"} <= result.record["seconds"].keys()


def test_processes_link_as_threads_do(scene: Any, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    plan, _, store = store_of(scene, tmp_path / "threads")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as workers,
        Client(workers, set_as_default=False) as client,
    ):
        _, _, other = store_of(scene, tmp_path / "processes", runner=Cluster(client=client))
    np.testing.assert_array_equal(other.probabilities(plan.grid.extent), store.probabilities(plan.grid.extent))


def test_what_cannot_link_says_so(scene: Any) -> None:
    with pytest.raises(InputError, match="canny links weak pixels over the whole scene"):
        geoseg.segment(scene, **OPTIONS)
    with pytest.raises(InputError, match="leave --overlap out"):
        prepare([scene], RunOptions.checked(**OPTIONS, overlap=16))
    for rule, message in (
        (Hysteresis(channel=1, other=2), "two of its classes are expected"),
        (Hysteresis(channel=3, other=1), "two of its classes are expected"),
        (Hysteresis(channel=1, other=0, low=100), "128 to 254 are expected"),
    ):
        with pytest.raises(ModelError, match=message):
            ModelSpec(name="x", title="x", bands=bands(("red",)), outputs=classes("a", "field", "c"), hysteresis=rule)


def test_hysteresis_survives_json() -> None:
    spec = ModelSpec(name="x", title="x", bands=bands(("red",)), outputs=classes("a", "field", "line"), hysteresis=RULE)
    assert ModelSpec.from_dict(spec.to_dict()) == spec
    plain = ModelSpec(name="x", title="x", bands=bands(("red",)), outputs=classes("a", "field"))
    assert "hysteresis" not in plain.to_dict()
    assert ModelSpec.from_dict(plain.to_dict()) == plain
