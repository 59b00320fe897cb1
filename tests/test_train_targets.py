"""Targets of a training: what polygons, masks and numbers become, what is unknown, and that losses leave that out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
import torch.nn.functional as F
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.readers import open_scene
from geoseg.training.augmentation import Augmentation
from geoseg.training.labels import Labels, PolygonLabels, open_labels
from geoseg.training.losses import SegmentationLoss, class_weights
from geoseg.training.recipe import Augment, Loss, SceneEntry, Targets
from geoseg.training.targets import edge_distance, instance_mask

SHAPE = (90, 120)
TRANSFORM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
PARCELS = [
    shapely.box(10, 10, 50, 40),
    shapely.box(50, 10, 80, 40),  # touches the first
    shapely.Polygon([(20, 50), (70, 60), (60, 85), (15, 80)]),
    shapely.box(95, 5, 130, 70),  # reaches beyond the scene
]


def drawn(**more: Any) -> PolygonLabels:
    usual: dict[str, Any] = {"parcels": np.array(PARCELS, object), "shape": SHAPE, "targets": Targets(distance=True)}
    return PolygonLabels(**(usual | more))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """An image, and the parcels as polygons, class mask and field numbers."""
    ids = rasterio.features.rasterize([(p, i + 1) for i, p in enumerate(PARCELS)], out_shape=SHAPE, dtype="uint8")
    for name, values in (
        ("image", np.arange(ids.size).reshape(SHAPE) % 251),
        ("ids", ids),
        ("mask", np.where(ids, 7, 3)),
    ):
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", count=1, height=SHAPE[0], width=SHAPE[1], dtype="uint8",
            crs="EPSG:32633", transform=TRANSFORM,
        ) as file:  # fmt: skip
            file.write(values.astype(np.uint8), 1)
    placed = shapely.transform(PARCELS, lambda xy: np.stack(TRANSFORM @ (xy[:, 0], xy[:, 1]), axis=1))
    gpd.GeoSeries(placed, crs="EPSG:32633").to_file(tmp_path / "fields.gpkg")
    return tmp_path


def opened(files: Path, labels: str, targets: Targets | None = None, **more: Any) -> Labels:
    entry = SceneEntry(image="image.tif", labels=labels, **more)
    scene = open_scene([str(files / "image.tif")]).scene
    return open_labels(entry, scene, targets or Targets(), folder=files, pixel_size_m=None)


@settings(max_examples=25)
@given(
    row=st.integers(0, 80), col=st.integers(0, 110), height=st.integers(1, 60), width=st.integers(1, 60),
    partial=st.booleans(), area=st.booleans(), width_px=st.sampled_from([0.0, 1.0, 2.0, 3.5]),
)  # fmt: skip
def test_a_window_of_labels_is_the_crop_of_the_whole(
    row: int, col: int, height: int, width: int, partial: bool, area: bool, width_px: float
) -> None:
    labels = drawn(
        buffer_px=4.0 if partial else None, area=shapely.box(5, 5, 66, 70) if area else None,
        targets=Targets(boundary_px=width_px, distance=True, distance_px=6),
    )  # fmt: skip
    scene = Window(0, 0, *SHAPE)
    window = Window(row, col, height, width) & scene
    np.testing.assert_array_equal(labels.mask(window), labels.mask(scene)[window.slices])
    np.testing.assert_allclose(labels.distance(window), labels.distance(scene)[window.slices])


def test_touching_fields_keep_a_boundary_and_the_frame_is_unknown() -> None:
    mask = drawn().mask(Window(0, 0, *SHAPE))
    regions, count = ndimage.label(mask == 1)
    assert count == 4
    assert regions[25, 30] != regions[25, 65]
    assert (mask[25, 49:51] == 2).all()
    assert (mask[:5] == 255).all()
    assert (mask[:, -5:] == 255).all()
    assert mask[60, 113] == 1, "a field goes on to where the frame makes it unknown"


def test_unknown_are_partial_surroundings_and_what_lies_outside_the_labelled_area() -> None:
    whole = drawn().mask(Window(0, 0, *SHAPE))
    partial = drawn(buffer_px=3.0).mask(Window(0, 0, *SHAPE))
    far = shapely.distance(shapely.union_all(PARCELS), _centres()) > 3 + 1 + 1.5
    near = shapely.distance(shapely.union_all(PARCELS), _centres()) < 3
    assert (partial[far] == 255).all()
    np.testing.assert_array_equal(partial[near], whole[near])
    bounded = drawn(area=shapely.box(20, 20, 60, 60)).mask(Window(0, 0, *SHAPE))
    assert (bounded[20:60, 20:60] == whole[20:60, 20:60]).all()
    assert (bounded != 255).sum() == 40 * 40


def _centres() -> NDArray[Any]:
    rows, cols = np.indices(SHAPE) + 0.5
    return shapely.points(cols, rows)


def test_distances_are_those_to_the_nearest_pixel_of_another_number() -> None:
    ids = np.zeros((30, 40), int)
    ids[3:20, 4:18], ids[3:20, 18:33], ids[22:30, 0:40] = 1, 2, 3
    found = edge_distance(ids, saturation_px=5)
    for value in (1, 2, 3):
        inside, others = np.argwhere(ids == value), np.argwhere(ids != value)
        nearest, _ = cKDTree(others).query(inside)
        # An edge runs half a pixel before the first pixel of another number; corners are rounded differently.
        expected = np.minimum((nearest - 0.5) / 5, 1)
        assert np.abs(found[ids == value] - expected).max() <= 0.1
        straight = nearest == nearest.round()
        np.testing.assert_allclose(found[ids == value][straight], expected[straight], atol=0.06)
    assert not found[ids == 0].any()
    near = instance_mask(ids, boundary_px=1)
    assert (near[5:18, 17:19] == 2).all()
    assert (near[5:18, 16] == 1).all()


def test_rasters_of_classes_and_of_numbers(files: Path) -> None:
    scene = Window(0, 0, *SHAPE)
    plain = opened(files, "mask.tif", values={"background": 3, "field": 7}).mask(scene)
    with rasterio.open(files / "ids.tif") as file:
        ids = file.read(1)
    np.testing.assert_array_equal(plain, ids > 0)
    assert (opened(files, "mask.tif", values={"field": 7}).mask(scene) == 255).sum() == (ids == 0).sum()
    numbers = opened(files, "ids.tif", instances=True).mask(scene)
    polygons = opened(files, "fields.gpkg").mask(scene)
    known = polygons != 255
    assert (numbers[known] == polygons[known]).mean() > 0.97, "lines at an angle may differ by a pixel"
    assert ndimage.label(numbers == 1)[1] == 4
    parts = [Window(0, 0, 90, 33), Window(0, 33, 90, 87)]
    labels = opened(files, "ids.tif", instances=True)
    np.testing.assert_array_equal(np.hstack([labels.mask(part) for part in parts]), numbers)
    with rasterio.open(files / "ids.tif", "r+") as file:
        file.transform = TRANSFORM @ Affine.translation(0.5, 0)
    with pytest.raises(InputError, match="lie on another grid"):
        opened(files, "ids.tif")
    with pytest.raises(InputError, match=r"no such file; paths are relative to the recipe's folder"):
        opened(files, "gone.gpkg")


def test_pixel_coordinates_go_with_scenes_without_a_crs(files: Path) -> None:
    with rasterio.open(files / "image.tif") as file:
        Image.fromarray(file.read(1)).save(files / "bare.png")
    gpd.GeoSeries(PARCELS, crs="EPSG:4326").to_file(files / "pixels.geojson")  # what GeoJSON always claims
    scene = open_scene([str(files / "bare.png")]).scene
    entry = SceneEntry(image="bare.png", labels="pixels.geojson")
    found = open_labels(entry, scene, Targets(), folder=files, pixel_size_m=None)
    np.testing.assert_array_equal(found.mask(Window(0, 0, *SHAPE)), drawn().mask(Window(0, 0, *SHAPE)))


@pytest.mark.parametrize("kind", ["cross-entropy", "focal", "dice", "tversky"])
def test_unknown_pixels_have_no_part_in_a_loss(kind: str) -> None:
    weights = dict.fromkeys(("cross-entropy", "focal", "dice", "tversky"), 0.0) | {kind: 1.0}
    loss = SegmentationLoss(Loss.model_validate(weights), class_weights=torch.tensor([1.0, 2.0, 3.0]))
    mask = torch.randint(0, 3, (2, 8, 8), generator=torch.manual_seed(0))
    mask[:, :3] = 255
    logits = torch.randn(2, 4, 8, 8, requires_grad=True)
    distance = torch.rand(2, 8, 8)
    loss(logits, mask, distance).backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, :3].any()
    assert logits.grad[:, :3, 3:].any()
    assert logits.grad[:, 3, 3:].any()
    assert loss(logits, torch.full_like(mask, 255)).item() == 0


def test_losses_agree_with_what_they_generalise() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0])
    mask = torch.randint(0, 3, (2, 8, 8))
    logits = torch.randn(2, 3, 8, 8)
    only_focal = Loss.model_validate({"cross-entropy": 0, "dice": 0, "focal": 1, "focal_gamma": 0})
    focal = SegmentationLoss(only_focal, class_weights=weights)
    assert torch.allclose(focal(logits, mask), F.cross_entropy(logits, mask, weight=weights), atol=1e-5)
    even = {"cross-entropy": 0, "dice": 0, "tversky": 1, "tversky_alpha": 0.5, "tversky_beta": 0.5}
    tversky = SegmentationLoss(Loss.model_validate(even), class_weights=weights)
    dice = SegmentationLoss(Loss.model_validate({"cross-entropy": 0, "dice": 1}), class_weights=weights)
    assert torch.allclose(tversky(logits, mask), dice(logits, mask), atol=1e-5)
    auto = class_weights(Loss(), torch.tensor([100, 400, 0]))
    assert auto.tolist() == pytest.approx([4 / 3, 2 / 3, 0])


def test_augmentation_is_decided_by_seed_and_step_and_moves_pixels_with_their_labels() -> None:
    mask = torch.randint(0, 3, (4, 32, 32), generator=torch.manual_seed(1))
    batch = {"image": mask[:, None].float() + 1, "mask": mask, "distance": mask / 2, "step": torch.full((4,), 5)}
    quiet = Augment(brightness=0, contrast=0, blur=0, noise=0, rotate_deg=0, translate=0, zoom=1)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    moved = Augmentation(quiet, seed=0)(batch)
    assert torch.equal(before, torch.get_rng_state()), "nobody else's random numbers are used up"
    assert torch.allclose(moved["image"][:, 0], moved["mask"] + 1.0, atol=1e-3)
    assert torch.allclose(moved["distance"], moved["mask"] / 2, atol=1e-3)
    assert not torch.equal(moved["mask"], mask)
    strong = Augmentation(Augment(), seed=0)
    first, again = strong(batch), strong(batch)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = strong({**batch, "step": torch.full((4,), 6)})
    assert not torch.equal(first["image"], other["image"])
    assert (first["mask"] == 255).any(), "corners that come in from beyond are unknown"
