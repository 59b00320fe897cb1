"""The road from reader to store: identity reproduces the scene, a local model tiled equals whole, threads change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.errors import Interrupted
from geoseg.grid import TileGrid, Window
from geoseg.models import input_scaling
from geoseg.protocols import Model
from geoseg.readers.array import ArrayReader, from_array
from geoseg.runtime.predict import Predictor, PredictTile, predict_core
from geoseg.runtime.runners import Threads
from geoseg.runtime.stop import Stop
from geoseg.stitch.journal import Journal, TileRecord
from geoseg.stitch.store import MaskStore
from geoseg.testing.models import IdentityModel, LocalMeanModel


def reader_of(pixels: NDArray[np.uint8], *, east: int = 0, south: int = 0) -> ArrayReader:
    return from_array(
        pixels, transform=Affine(10, 0, 10 * east, 0, -10, -10 * south), crs="EPSG:32633", names=["red"], nodata=255
    )


def predictor_of(model: Model, reader: ArrayReader) -> Predictor:
    return Predictor(model=model, scaling=input_scaling(reader, model.spec), engine="numpy", precision="auto")


def whole(model: Model, reader: ArrayReader, grid: TileGrid) -> NDArray[np.uint8]:
    out = np.zeros((len(model.spec.outputs), *reader.scene.shape), np.uint8)
    for tile in grid:
        out[(slice(None), *tile.core.slices)] = predict_core(
            reader, predictor_of(model, reader), grid, tile
        ).probabilities
    return out


scenes = st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**31))


def random_scene(shape: tuple[int, int], seed: int, *, invalid: float = 0.05) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, shape, np.uint8)
    pixels[rng.random(shape) < invalid] = 255
    return pixels


@given(scenes, st.integers(-300, 300), st.integers(-300, 300), st.integers(1, 3), st.sampled_from([1, 4, 8]))
@settings(max_examples=40)
def test_identity_model_reproduces_the_scene(
    scene: tuple[int, int, int], east: int, south: int, k: int, stride: int
) -> None:
    pixels = random_scene(scene[:2], scene[2])
    reader = reader_of(pixels, east=east, south=south)
    model = IdentityModel(patch=40, halo=8, stride=stride)
    out = whole(model, reader, TileGrid.fit(reader.scene, model.spec, k=k))
    np.testing.assert_array_equal(out[1], pixels)
    np.testing.assert_array_equal(out[0], np.where(pixels == 255, 255, 254 - pixels))


@given(scenes, st.integers(-300, 300), st.integers(1, 3), st.sampled_from([24, 40, 64]))
@settings(max_examples=40)
def test_a_local_model_tiled_equals_whole(scene: tuple[int, int, int], east: int, k: int, patch: int) -> None:
    reader = reader_of(random_scene(scene[:2], scene[2]), east=east, south=-east // 2)
    big = LocalMeanModel(radius=5, patch=2048, halo=8)
    tiled = LocalMeanModel(radius=5, patch=patch, halo=8)
    at_once = TileGrid(shape=reader.scene.shape, phase=(-1000, -1000), patch=4096, halo=8)
    assert len(at_once) == 1
    expected = whole(big, reader, at_once)
    np.testing.assert_array_equal(whole(tiled, reader, TileGrid.fit(reader.scene, tiled.spec, k=k)), expected)


@given(scenes, st.data())
@settings(max_examples=30)
def test_a_region_has_the_pixels_of_the_whole(scene: tuple[int, int, int], data: st.DataObject) -> None:
    reader = reader_of(random_scene(scene[:2], scene[2]), east=37, south=5)
    model = LocalMeanModel(radius=5, patch=32, halo=8)
    row, col = data.draw(st.integers(0, scene[0] - 1)), data.draw(st.integers(0, scene[1] - 1))
    region = Window(row, col, data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))) & Window(0, 0, *scene[:2])
    expected = whole(model, reader, TileGrid.fit(reader.scene, model.spec))
    found = whole(model, reader, TileGrid.fit(reader.scene, model.spec, region=region))
    np.testing.assert_array_equal(found[(slice(None), *region.slices)], expected[(slice(None), *region.slices)])


def task_for(tmp_path: Path, *, k: int, name: str, size: int = 150) -> PredictTile:
    reader = reader_of(random_scene((size, size + 20), 3), east=13, south=40)
    model = LocalMeanModel(radius=3, patch=48, halo=8)
    grid = TileGrid.fit(reader.scene, model.spec, k=k)
    store = MaskStore(path=tmp_path / name / "store", grid=grid, channels=2)
    store.create()
    return PredictTile(
        reader=reader, predictor=predictor_of(model, reader), store=store, journal=Journal(tmp_path / name / "journal")
    )


def test_tile_size_and_threads_do_not_change_the_store(tmp_path: Path) -> None:
    found = []
    for k, workers in ((1, 1), (1, 4), (3, 2)):
        task = task_for(tmp_path, k=k, name=f"{k}-{workers}")
        records: list[TileRecord] = []
        Threads(workers=workers).map(task, [tile.index for tile in task.store.grid], done=records.append)
        assert len(records) == len(task.store.grid)
        assert task.journal.finished() == {tile.index for tile in task.store.grid}
        found.append((task.store.classes(task.store.grid.scene), task.store.probabilities(task.store.grid.scene)))
    for mask, stored in found[1:]:
        np.testing.assert_array_equal(mask, found[0][0])
        np.testing.assert_array_equal(stored, found[0][1])
    assert set(np.unique(found[0][0])) == {0, 1, 255}


def test_the_store_is_nodata_beyond_the_scene(tmp_path: Path) -> None:
    task = task_for(tmp_path, k=1, name="beyond")
    for tile in task.store.grid:
        task(tile.index)
    framed = task.store.classes(task.store.grid.scene.grown(3))
    assert (framed[:3] == 255).all()
    assert (framed[:, -3:] == 255).all()
    np.testing.assert_array_equal(framed[3:-3, 3:-3], task.store.classes(task.store.grid.scene))


def test_a_line_cut_off_by_a_kill_is_no_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for column in range(3):
        journal.append(TileRecord(index=(0, column), valid=1, patches=1, model_pixels=1))
    (file,) = journal.folder.iterdir()
    text = file.read_text()
    for cut in range(len(text)):
        file.write_text(text[:cut])
        assert len(journal.finished()) == text[:cut].count("\n")


def test_stopping_lets_running_tiles_finish_and_starts_no_more(tmp_path: Path) -> None:
    task = task_for(tmp_path, k=1, name="stopped")
    stop = Stop()
    seen: list[TileRecord] = []

    def done(record: TileRecord) -> None:
        seen.append(record)
        if len(seen) == 4:
            stop.set()

    with pytest.raises(Interrupted, match="run the same command again to resume") as caught:
        Threads(workers=2, stop=stop).map(task, [tile.index for tile in task.store.grid], done=done)
    assert caught.value.exit_code == 130
    assert 4 <= len(seen) <= 5
    assert task.journal.finished() == {record.index for record in seen}


def test_an_error_in_a_tile_names_the_tile(tmp_path: Path) -> None:
    from geoseg.errors import InputError

    task = task_for(tmp_path, k=1, name="broken")

    class Broken(ArrayReader):
        def read(self, window: Window, bands: object = None) -> object:  # type: ignore[override]
            raise InputError("block 7 cannot be decoded; copy the file again")

    reader = task.reader
    assert isinstance(reader, ArrayReader)
    broken = PredictTile(
        reader=Broken(pixels=reader.pixels, scene=reader.scene),
        predictor=task.predictor,
        store=task.store,
        journal=task.journal,
    )
    with pytest.raises(InputError, match=r"copy the file again \[tile -?\d+,-?\d+ at row"):
        Threads(workers=2).map(broken, [next(iter(task.store.grid)).index], done=lambda _: None)
    assert not task.journal.finished()
