"""Same bytes: whatever the tiles, threads, processes and order, for both ways to join patches and for both engines."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.windows import Window as FileWindow

import geoseg
from geoseg.delineation import delineate
from geoseg.outputs import identify
from geoseg.plan import prepare
from geoseg.prediction import mapped, predict_into_store
from geoseg.recipes import RunOptions
from geoseg.results import NODATA
from geoseg.runtime.events import Events
from geoseg.runtime.runners import Cluster, Runner, Threads
from geoseg.runtime.workspace import Workspace

ENGINES = (("torch", "bf16"), ("openvino", "auto"))
PATCH, OVERLAP = 256, 128
GEOMETRY = {"crop": {"patch": PATCH}, "blend": {"patch": PATCH, "overlap": OVERLAP}}
LOCAL = [
    (1, 1, "as it comes"), (1, 4, "shuffled"), (2, 2, "shuffled"), (2, 3, "backwards"), (3, 1, "backwards"), (5, 2, "as it comes")
]  # fmt: skip
"""Cells a tile, threads, order."""


@dataclass(frozen=True)
class Ordered:
    """A runner that takes tiles in another order."""

    runner: Runner
    order: str

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], *, done: Callable[[Any], None]) -> None:
        mixed = list(items)
        if self.order == "shuffled":
            random.Random(5).shuffle(mixed)
        elif self.order == "backwards":
            mixed.reverse()
        self.runner.map(function, mixed, done=done)

    def everywhere(self, function: Callable[[], None]) -> None:
        self.runner.everywhere(function)


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """620 x 570 pixels of the sample tile and its mirror image, on a phase that no lattice line meets."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    with rasterio.open(samples / "s2_farmland.tif") as sample:
        pixels, profile, names = sample.read(), sample.profile, sample.descriptions
    wide = np.concatenate([pixels, pixels[:, :, ::-1]], axis=2)
    tall = np.concatenate([wide, wide[:, ::-1]], axis=1)[:, 170:790, 333:903]
    tall[:, 300:340, 100:330] = 0
    with rasterio.open(path, "w", **{**profile, "height": tall.shape[1], "width": tall.shape[2]}) as out:
        out.descriptions = names
        out.write(tall)
    return path


def digests(scene: Path, folder: Path, runner: Any, **options: Any) -> tuple[str, str]:
    """SHA-256 of a run: over pixels, transform, CRS and nodata, and over the features by id with all attributes."""
    plan = prepare([scene], RunOptions.checked(probabilities=True, min_area_m2=2000, **options))
    identity, workspace = identify(plan), Workspace(folder)
    workspace.begin(identity, overwrite=False, restart=False)
    store = predict_into_store(plan, workspace, identity, runner, Events())
    fields = delineate(
        store, plan.reader, wanted=[plan.field_class], class_names=plan.model.spec.class_names,
        pixel_size_m=plan.pixel_size_m, min_area_m2=plan.min_area_m2, options=plan.options, tiles=mapped(runner, Events()),
        folder=workspace.fields,
    )  # fmt: skip
    pixels = hashlib.sha256()
    for part in (store.classes(plan.grid.extent), store.probabilities(plan.grid.extent)):
        pixels.update(np.ascontiguousarray(part))
    pixels.update(repr((tuple(plan.reader.scene.transform), str(plan.reader.scene.crs), NODATA)).encode())
    frame = fields.frame().sort_values("id", ignore_index=True)
    assert len(frame) > 40
    features = hashlib.sha256(frame.drop(columns="geometry").to_json(double_precision=15).encode())
    for shape in shapely.to_wkb(frame.geometry.to_numpy()):
        features.update(shape)
    return pixels.hexdigest(), features.hexdigest()


@pytest.fixture(scope="session")
def reference(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], tuple[str, str]]:
    """The digests of one plain run for each way to join patches and engine."""
    known: dict[tuple[str, str, str], tuple[str, str]] = {}

    def of(mode: str, engine: str, precision: str) -> tuple[str, str]:
        key = (mode, engine, precision)
        if key not in known:
            folder = tmp_path_factory.mktemp("reference")
            runner = Threads(workers=2)
            known[key] = digests(scene, folder, runner, engine=engine, precision=precision, tile=4, **GEOMETRY[mode])
        return known[key]

    return of


@pytest.mark.parametrize(("k", "threads", "order"), LOCAL)
@pytest.mark.parametrize("mode", GEOMETRY)
@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_tiles_threads_and_order_change_no_byte(
    scene: Path, tmp_path: Path, reference: Callable[[str, str, str], tuple[str, str]],
    mode: str, engine: str, precision: str, k: int, threads: int, order: str,
) -> None:  # fmt: skip
    runner = Ordered(Threads(workers=threads), order)
    options = {"engine": engine, "precision": precision, "tile": k, **GEOMETRY[mode]}
    assert digests(scene, tmp_path, runner, **options) == reference(mode, engine, precision)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
        ) as workers,
        Client(workers, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("mode", GEOMETRY)
@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_processes_change_no_byte(
    scene: Path, tmp_path: Path, reference: Callable[[str, str, str], tuple[str, str]], cluster: Any,
    mode: str, engine: str, precision: str, k: int,
) -> None:  # fmt: skip
    options = {"engine": engine, "precision": precision, "tile": k, **GEOMETRY[mode]}
    assert digests(scene, tmp_path, Cluster(client=cluster), **options) == reference(mode, engine, precision)


def test_the_ways_to_join_patches_differ(reference: Callable[[str, str, str], tuple[str, str]]) -> None:
    assert reference("crop", "openvino", "auto") != reference("blend", "openvino", "auto")


@pytest.mark.parametrize("mode", GEOMETRY)
def test_an_area_has_the_pixels_and_the_inner_fields_of_the_whole(scene: Path, tmp_path: Path, mode: str) -> None:
    with rasterio.open(scene) as raster:
        left, bottom, right, top = raster.bounds
    corners = np.array([[0.2, 0.3], [0.9, 0.1], [0.8, 0.85], [0.45, 0.95]])
    area = shapely.Polygon(corners * [right - left, top - bottom] + [left, bottom])
    drawn = gpd.GeoSeries([area], crs="EPSG:32633")
    drawn.to_file(tmp_path / "area.gpkg")
    options: dict[str, Any] = {"probabilities": True, "engine": "openvino", "min_area_m2": 0, **GEOMETRY[mode]}
    whole = geoseg.run(scene, out=tmp_path / "whole", **options)
    part = geoseg.run(scene, out=tmp_path / "part", aoi=str(tmp_path / "area.gpkg"), tile=2, **options)
    for name in ("mask.tif", "probabilities.tif"):
        with rasterio.open(whole.out / name) as a, rasterio.open(part.out / name) as b:
            place = a.window(*b.bounds)
            window = FileWindow(round(place.col_off), round(place.row_off), b.width, b.height)
            expected, found = a.read(window=window), b.read()
        inside = found[0] != NODATA
        assert inside.mean() > 0.4
        np.testing.assert_array_equal(found[:, inside], expected[:, inside])
    # What lies inside the area, with the pixel beyond its outline, is not touched by the cut.
    everything = whole.fields.set_index("id")
    inner = everything[everything.geometry.buffer(15).within(area)]
    assert len(inner) > 10
    found_fields = part.fields.set_index("id").loc[inner.index]
    assert json.loads(found_fields.to_json()) == json.loads(inner.to_json())


def test_equal_input_gives_equal_files(scene: Path, tmp_path: Path) -> None:
    formats = ("gpkg", "shp", "parquet", "fgb", "geojson")
    options: dict[str, Any] = {"format": formats, "probabilities": True, "engine": "openvino", "patch": PATCH}
    hashes = []
    for name, changes in (("a", {"tile": 1, "workers": 1}), ("b", {"tile": 4, "workers": 3})):
        outputs = geoseg.run(scene, out=tmp_path / name, **options, **changes).record["outputs"]
        hashes.append({file: told["sha256"] for file, told in outputs.items()})
    assert hashes[0] == hashes[1]
    assert {"mask.tif", "probabilities.tif", "fields.gpkg", "preview.png"} < set(hashes[0])
