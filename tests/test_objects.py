"""Models that find objects one by one: each object comes out once and whole, whatever the tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage

import geoseg
from geoseg.errors import InputError, ModelError, RunError
from geoseg.grid import Patch, TileGrid
from geoseg.pieces import Pieces
from geoseg.readers.array import from_array
from geoseg.results import Batch
from geoseg.spec import InstanceRule
from geoseg.stitch.journal import Journal
from geoseg.stitch.objects import VIEWS, CompareViews, PaintItem, PaintTile, paint_items, painted
from geoseg.stitch.store import MaskStore
from geoseg.stitch.views import Views, seen
from geoseg.testing.models import BrightObjectsModel

PLACE = Affine(10, 0, 500_000, 0, -10, 5_800_000)


def blobs(
    seed: int, shape: tuple[int, int], *, count: int, largest: int, apart: int = 1, smallest: int = 4
) -> NDArray[np.uint8]:
    """Ellipses of values of their own, `apart` pixels from each other and as many from the rim; with 0 they touch."""
    rng = np.random.default_rng(seed)
    out = np.zeros(shape, np.uint8)
    rows, cols = np.indices(shape)
    for value in range(1, count + 1):
        (row, col), (high, wide) = rng.uniform(0, shape), rng.uniform(smallest / 2, largest / 2, 2)
        inside = ((rows - row) / high) ** 2 + ((cols - col) / wide) ** 2 <= 1
        taken = (
            ndimage.binary_dilation(out > 0, np.ones((3, 3)), iterations=apart, border_value=1) if apart else out > 0
        )
        if not (inside & taken).any():
            out[inside] = 254 - value
    return out


def put_together(
    image: NDArray[Any], model: BrightObjectsModel, folder: Path, *, k: int, phase: tuple[int, int], seed: int = 0
) -> NDArray[np.int32]:
    """(row, col) numbers of objects after the three passes, in random order, over the tiles of one grid."""
    grid = TileGrid(shape=image.shape, phase=phase, patch=model.patch, halo=model.halo, k=k)
    pieces, rule = Pieces(folder), model.spec.instances
    assert rule is not None
    order = [tile.index for tile in grid]
    np.random.default_rng(seed).shuffle(order)
    for index in map(tuple, order):
        views = [Views.none()]
        for patch in grid.patches(grid.tile(index)):
            pixels = _framed(image, patch)
            valid = np.ones(pixels.shape, np.bool_)
            found = model.find(Batch(pixels=pixels[None, None], valid=valid[None]))
            views.append(seen(found[0], patch, valid, grid.scene, rule))
        pieces.save(VIEWS, index, Views.joined(views).arrays())
    compare = CompareViews(grid=grid, pieces=pieces, overlap=rule.overlap)
    agreed = {tuple(index): compare(tuple(index)) for index in order}
    out = np.zeros(image.shape, np.int32)
    for item in paint_items(grid, agreed, [tile.index for tile in grid]):
        core = grid.tile(item.index).core
        out[core.slices] = painted(core, item.numbers, pieces)[0]
    return out


def _framed(image: NDArray[Any], patch: Patch) -> NDArray[Any]:
    window, frame = patch.window, patch.frame
    grow = (
        (window.row - frame.row, frame.row_stop - window.row_stop),
        (window.col - frame.col, frame.col_stop - window.col_stop),
    )
    return np.pad(image[window.slices], grow, mode="reflect")


def same_objects(numbers: NDArray[np.int32], image: NDArray[Any]) -> None:
    """One number an object, one object a number."""
    assert ((numbers > 0) == (image > 0)).all()
    pairs = np.unique(np.stack([numbers[image > 0], image[image > 0].astype(np.int32)]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1), k=st.integers(1, 3), row=st.integers(0, 31), col=st.integers(0, 31),
    apart=st.integers(0, 1), largest=st.sampled_from([14, 60]),
)  # fmt: skip
def test_each_object_comes_out_once_and_whole(
    tmp_path_factory: pytest.TempPathFactory, seed: int, k: int, row: int, col: int, apart: int, largest: int
) -> None:
    """Small ones, which a patch sees whole, and ones that are larger than the patch of 64 pixels less its halos."""
    image = blobs(seed, (120, 150), count=30, largest=largest, apart=apart)
    model = BrightObjectsModel(patch=64, halo=16)
    folder = tmp_path_factory.mktemp("views")
    same_objects(put_together(image, model, folder, k=k, phase=(row, col), seed=seed % 7), image)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), phase=st.tuples(st.integers(0, 31), st.integers(0, 31)))
def test_views_that_differ_are_one_object(
    tmp_path_factory: pytest.TempPathFactory, seed: int, phase: tuple[int, int]
) -> None:
    image = blobs(seed, (120, 150), count=30, largest=16, apart=6, smallest=8)
    model = BrightObjectsModel(patch=64, halo=16, unsure=1)
    one, two = (put_together(image, model, tmp_path_factory.mktemp("views"), k=k, phase=phase, seed=k) for k in (1, 3))
    np.testing.assert_array_equal(one, two)
    assert len(np.unique(one)) == len(np.unique(image))
    for value in np.unique(image[image > 0]).tolist():
        assert len(np.unique(one[image == value])) == 1


def scene_file(path: Path, image: NDArray[Any]) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=image.shape[0], width=image.shape[1], count=1, dtype="uint8", crs="EPSG:32633",
        transform=PLACE,
    ) as file:  # fmt: skip
        file.write(image, 1)
        file.descriptions = ("red",)
    return path


def test_run_makes_a_polygon_an_object(tmp_path: Path) -> None:
    image = blobs(3, (300, 260), count=120, largest=30, apart=0)
    path = scene_file(tmp_path / "scene.tif", image)
    results = [
        geoseg.run(path, out=tmp_path / f"out{k}", model=BrightObjectsModel(halo=16), tile=k, workers=workers)
        for k, workers in ((1, 2), (3, 1))
    ]
    expected = {}
    for value in np.unique(image[image > 0]).tolist():
        parts = [
            shapely.geometry.shape(part)
            for part, _ in shapes(image, mask=image == value, transform=PLACE, connectivity=4)
        ]
        expected |= {part.normalize().wkt: value / 254 for part in parts}
    for result in results:
        fields = result.fields
        found = dict(zip((g.simplify(0).normalize().wkt for g in fields.geometry), fields.confidence, strict=True))
        assert found.keys() == expected.keys()
        assert all(abs(found[key] - expected[key]) < 5e-4 for key in expected)
    one, two = (result.record["outputs"] for result in results)
    assert {name: one[name]["sha256"] for name in one} == {name: two[name]["sha256"] for name in two}
    with rasterio.open(tmp_path / "out1" / "mask.tif") as mask:
        np.testing.assert_array_equal(mask.read(1) == 1, image > 0)


def test_area_of_interest_leaves_inner_objects_as_they_are(tmp_path: Path) -> None:
    image = blobs(5, (300, 300), count=150, largest=24, apart=0)
    path = scene_file(tmp_path / "scene.tif", image)
    model = BrightObjectsModel(halo=16)
    x, y = PLACE @ (70, 90)
    area = shapely.box(x, y - 1500, x + 1400, y)
    (tmp_path / "area.geojson").write_text(
        '{"type": "FeatureCollection", "crs": {"type": "name", "properties": {"name": "EPSG:32633"}}, "features": [{"type": '
        f'"Feature", "properties": {{}}, "geometry": {shapely.to_geojson(area)}}}]}}'
    )
    whole = geoseg.run(path, out=tmp_path / "whole", model=model).fields
    part = geoseg.run(path, out=tmp_path / "part", model=model, aoi=str(tmp_path / "area.geojson")).fields
    inner = {g.wkt for g in whole.geometry if area.buffer(-11).contains(g)}
    assert len(inner) > 10
    assert inner == {g.wkt for g in part.geometry if area.buffer(-11).contains(g)}


class Failing:
    """Finds objects until it has seen so many patches."""

    def __init__(self, model: BrightObjectsModel, most: int) -> None:
        self.model, self.left = model, most
        self.spec, self.runtime = model.spec, "numpy"

    def fingerprint(self) -> str:
        return self.model.fingerprint()

    def find(self, batch: Batch) -> Any:
        self.left -= len(batch.pixels)
        if self.left < 0:
            raise RunError("enough")
        return self.model.find(batch)


def test_resumes_where_it_was_left(tmp_path: Path) -> None:
    image = blobs(7, (200, 200), count=80, largest=20)
    path, model = scene_file(tmp_path / "scene.tif", image), BrightObjectsModel(halo=16)
    with pytest.raises(RunError, match="enough"):
        geoseg.run(path, out=tmp_path / "out", model=Failing(model, 20), workers=1)
    rest = Failing(model, 10_000)
    result = geoseg.run(path, out=tmp_path / "out", model=rest, workers=1)
    assert result.resumed
    assert 10_000 - rest.left == 49 - 20  # cells of 32 x 32 pixels, less those that were finished
    whole = geoseg.run(path, out=tmp_path / "whole", model=model)
    assert {n: v["sha256"] for n, v in result.record["outputs"].items()} == {
        n: v["sha256"] for n, v in whole.record["outputs"].items()
    }


def test_scores_and_invalid_pixels(tmp_path: Path) -> None:
    """Objects below the limit are left out; none reaches into pixels without data."""
    image = np.zeros((64, 64), np.uint8)
    image[5:20, 5:20], image[30:50, 30:50] = 100, 200
    reader = from_array(image[None], names=("red",), transform=PLACE, crs="EPSG:32633", nodata=255)
    fields = geoseg.run(reader, out=tmp_path / "out", model=BrightObjectsModel(score=0.5)).fields
    assert [round(value, 2) for value in fields.confidence] == [round(200 / 254, 2)]
    image[35:40, 30:60] = 255
    reader = from_array(image[None], names=("red",), transform=PLACE, crs="EPSG:32633", nodata=255)
    geoseg.run(reader, out=tmp_path / "holed", model=BrightObjectsModel(score=0.5))
    with rasterio.open(tmp_path / "holed" / "mask.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), np.where(image == 255, 255, image == 200))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"overlap": 16}, "--overlap"),
        ({"tta": "d4"}, "--tta"),
        ({"instances": "watershed"}, "--instances watershed"),
        ({"precision": "bf16"}, "float32"),
    ],
)
def test_refuses_what_only_classes_have(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    path = scene_file(tmp_path / "scene.tif", blobs(1, (64, 64), count=5, largest=20))
    with pytest.raises((InputError, geoseg.errors.EngineError), match=said):
        geoseg.run(path, out=tmp_path / "out", model=BrightObjectsModel(), **options)


def test_other_doors_say_that_they_take_no_objects(tmp_path: Path) -> None:
    from geoseg.suggestion import suggest

    path = scene_file(tmp_path / "scene.tif", blobs(1, (64, 64), count=5, largest=20))
    with pytest.raises(InputError, match="finds objects"):
        geoseg.segment(path, model=BrightObjectsModel())
    with pytest.raises(InputError, match="finds objects"):
        suggest(path, out=tmp_path / "tiles.gpkg", model=BrightObjectsModel())


def test_rule_is_checked() -> None:
    with pytest.raises(ModelError, match="between 0 and 1"):
        BrightObjectsModel(score=0.0).spec  # noqa: B018
    assert geoseg.spec.ModelSpec.from_dict(BrightObjectsModel().spec.to_dict()).instances == InstanceRule(score=0.001)


def test_lost_pieces_are_told(tmp_path: Path) -> None:
    grid = TileGrid(shape=(64, 64), phase=(0, 0), patch=64, halo=16)
    target = MaskStore(path=tmp_path / "store", grid=grid, channels=2, numbers=Pieces(tmp_path / "objects"))
    target.create()
    paint = PaintTile(grid=grid, found=Pieces(tmp_path / "found"), target=target, journal=Journal(tmp_path / "journal"))
    with pytest.raises(RunError, match="has lost tile"):
        paint(PaintItem(index=(0, 0), numbers={}))
