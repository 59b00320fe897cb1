"""Mask R-CNN from end to end: built for any bands, trained by a recipe, and its objects once at every seam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

import geoseg
from geoseg.errors import EngineError, InputError, ModelError
from geoseg.exportation import export_model
from geoseg.models.create import NewModel, create_model
from geoseg.models.networks import build_network
from geoseg.models.registry import load
from geoseg.teaching import train
from geoseg.training.instance_task import objects_of
from geoseg.training.recipe import checked_recipe

SMALL: dict[str, Any] = {
    "type": "mask-rcnn", "encoder": "resnet18", "anchors": (8, 16, 32, 64, 128), "width": 32, "samples": 64,
}  # fmt: skip


def test_takes_any_bands_and_classes() -> None:
    for channels, outputs in ((1, 2), (8, 4)):
        network = build_network({**SMALL, "detections": 5}, channels=channels, outputs=outputs).eval()
        with torch.inference_mode():
            found = network(torch.randn(2, channels, 64, 96))
        assert len(found) == 2
        for one in found:
            assert one["masks"].shape == (len(one["scores"]), 1, 64, 96)
            assert len(one["scores"]) <= 5
            assert ((one["labels"] > 0) & (one["labels"] < outputs)).all()


def test_objects_of_a_class_mask() -> None:
    mask = np.zeros((20, 30), np.int64)
    mask[3:17, 3:27] = 2
    mask[4:16, 4:14], mask[4:16, 16:26] = 1, 1
    mask[0, :] = 255
    masks, kinds = objects_of(mask, classes=2, reach=1)
    assert kinds.tolist() == [1, 1]
    assert not (masks.sum(axis=0) > 1).any(), "a boundary pixel belongs to one of them"
    assert masks[0, 3:17, 3:15].all()
    assert masks[1, 3:17, 15:27].all()
    none, kinds = objects_of(np.zeros((5, 5), np.int64), classes=2, reach=1)
    assert none.shape == (0, 5, 5)
    assert kinds.shape == (0,)


def place(seed: int) -> Affine:
    return Affine(10, 0, 400_000 + 10_000 * seed, 0, -10, 5_600_000)


def drawn(seed: int, shape: tuple[int, int], *, count: int) -> tuple[NDArray[np.uint16], list[shapely.Polygon]]:
    """Bright rectangles on dark ground in two bands, some side by side, and their outlines in the CRS."""
    rng = np.random.default_rng(seed)
    image = rng.normal(300, 30, (2, *shape))
    taken, polygons = np.zeros(shape, np.bool_), []
    for _ in range(40 * count):
        height, width = (int(side) for side in rng.integers(14, 34, 2))
        row, col = int(rng.integers(2, shape[0] - height - 2)), int(rng.integers(2, shape[1] - width - 2))
        if (
            len(polygons) == count
            or ndimage.binary_dilation(taken, iterations=6)[row : row + height, col : col + width].any()
        ):
            continue
        taken[row : row + height, col : col + width] = True
        image[:, row : row + height, col : col + width] += rng.uniform(900, 1500, (2, 1, 1))
        (west, north), (east, south) = place(seed) @ (col, row), place(seed) @ (col + width, row + height)
        polygons.append(shapely.box(west, south, east, north))
    return image.astype(np.uint16), polygons


def write_scene(folder: Path, name: str, seed: int, shape: tuple[int, int], *, count: int) -> list[shapely.Polygon]:
    image, polygons = drawn(seed, shape, count=count)
    with rasterio.open(
        folder / f"{name}.tif", "w", driver="GTiff", height=shape[0], width=shape[1], count=2, dtype="uint16",
        crs="EPSG:32632", transform=place(seed),
    ) as file:  # fmt: skip
        file.write(image)
        file.descriptions = ("red", "nir")
    gpd.GeoDataFrame(geometry=polygons, crs="EPSG:32632").to_file(folder / f"{name}.gpkg")
    return polygons


RECIPE: dict[str, Any] = {
    "name": "boxes",
    "network": {**SMALL, "detections": 40},
    "bands": ["red", "nir"],
    "scenes": [
        {"image": "a.tif", "labels": "a.gpkg"},
        {"image": "b.tif", "labels": "b.gpkg", "validation": True},
    ],
    "split": {"by": "scene"},
    "patch": 128,
    "run_patch": 192,
    "augment": {"rotate_deg": 0, "blur": 0, "noise": 0, "zoom": 1},
    "schedule": {"epochs": 2, "steps": 60, "batch": 4, "learning_rate": 2e-3, "averaging": 0.8},
}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mask R-CNN that has learnt to find bright rectangles."""
    folder = tmp_path_factory.mktemp("boxes")
    write_scene(folder, "a", 1, (320, 320), count=35)
    write_scene(folder, "b", 2, (256, 256), count=20)
    return train(checked_recipe(RECIPE), out=folder / "model", folder=folder).out


@pytest.mark.slow
def test_objects_across_a_seam_come_out_once(taught: Path, tmp_path: Path) -> None:
    """Every rectangle is one polygon, wherever the seams of patches and tiles lie, and those do not decide anything."""
    polygons = write_scene(tmp_path, "scene", 9, (420, 380), count=60)
    results = [geoseg.run(tmp_path / "scene.tif", out=tmp_path / f"out{k}", model=str(taught), tile=k) for k in (1, 2)]
    one, two = (result.record["outputs"] for result in results)
    assert {name: one[name]["sha256"] for name in one} == {name: two[name]["sha256"] for name in two}
    fields = results[0].fields
    tree = shapely.STRtree(fields.geometry.values)
    once = 0
    for polygon in polygons:
        found = [
            shape
            for shape in fields.geometry.values[tree.query(polygon)]
            if shape.intersection(polygon).area > 0.1 * min(shape.area, polygon.area)
        ]
        assert len(found) <= 1, "no rectangle is found twice or in parts"
        once += bool(found) and found[0].intersection(polygon).area > 0.5 * found[0].union(polygon).area
    cell = 10 * (192 - 2 * 32)  # m; the lattice begins at the origin of the CRS
    spans = [(p.bounds[axis], p.bounds[axis + 2] - 1) for p in polygons for axis in (0, 1)]
    across = sum(low // cell != high // cell for low, high in spans)
    assert across >= 8
    assert once >= 0.9 * len(polygons)
    assert results[0].record["reproducible"]


@pytest.mark.slow
def test_learns_on_from_itself_and_refuses_what_has_no_sense(taught: Path, tmp_path: Path) -> None:
    write_scene(tmp_path, "a", 1, (192, 192), count=10)
    write_scene(tmp_path, "b", 2, (192, 192), count=10)
    recipe = {key: value for key, value in RECIPE.items() if key != "network"} | {
        "from": str(taught), "schedule": {**RECIPE["schedule"], "epochs": 1, "steps": 1},
    }  # fmt: skip
    again = train(checked_recipe(recipe), out=tmp_path / "again", folder=tmp_path)
    assert load(again.out).spec.instances == load(taught).spec.instances
    for changes, said in (
        ({"targets": {"distance": True}}, "no distance"),
        ({"targets": {"boundary_px": 0}}, "one object"),
        ({"schedule": {"precision": "bf16"}}, "fp32"),
    ):
        with pytest.raises(InputError, match=said):
            train(checked_recipe(recipe | changes), out=tmp_path / "no", folder=tmp_path)
    with pytest.raises(ModelError, match="finds objects"):
        export_model(load(taught), tmp_path / "model.onnx", to="onnx")
    with pytest.raises(EngineError, match="openvino"):
        geoseg.run(tmp_path / "a.tif", out=tmp_path / "out", model=str(taught), engine="openvino")


def test_a_new_one_says_that_it_has_learnt_nothing(tmp_path: Path) -> None:
    new = NewModel(
        name="m",
        network="mask-rcnn",
        encoder="resnet18",
        bands=("red",),
        classes=("background", "field"),
        patch=128,
        halo=32,
    )
    model = create_model(new, tmp_path / "m")
    assert model.spec.instances is not None
    assert not model.traceable
    assert "learnt nothing" in (tmp_path / "m" / "card.md").read_text()
