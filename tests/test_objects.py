"""Models that find objects one by one: each object comes out once and whole, whatever the tiles."""

from __future__ import annotations

from dataclasses import replace
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
from geoseg.errors import EngineError, InputError, ModelError, RunError
from geoseg.grid import Patch, TileGrid, Window
from geoseg.pieces import Pieces
from geoseg.readers.array import from_array
from geoseg.results import Batch, Objects
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
        ({"precision": "bf16"}, "--precision bf16"),
        ({"smooth": True}, "--smooth"),
    ],
)
def test_refuses_what_only_classes_have(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    path = scene_file(tmp_path / "scene.tif", blobs(1, (64, 64), count=5, largest=20))
    with pytest.raises(InputError, match=said):
        geoseg.run(path, out=tmp_path / "out", model=BrightObjectsModel(), **options)


def test_other_doors_say_that_they_take_no_objects(tmp_path: Path) -> None:
    from geoseg.suggestion import suggest

    path = scene_file(tmp_path / "scene.tif", blobs(1, (64, 64), count=5, largest=20))
    with pytest.raises(InputError, match="finds objects"):
        geoseg.segment(path, model=BrightObjectsModel())
    with pytest.raises(InputError, match="finds objects"):
        suggest(path, out=tmp_path / "tiles.gpkg", model=BrightObjectsModel())


class Drawn:
    """Finds rectangles (row, col, height, width, class, score) as far as they lie in a patch."""

    def __init__(self, rectangles: list[tuple[int, int, int, int, int, int]]) -> None:
        self.rectangles = rectangles

    def views(self, patch: Patch, scene: Window, rule: InstanceRule) -> Views:
        masks, kinds, scores = [], [], []
        for row, col, height, width, kind, score in self.rectangles:
            place = Window(row, col, height, width) & patch.window
            if place:
                mask = np.zeros(patch.frame.shape, np.bool_)
                mask[place.within(patch.frame).slices] = True
                masks.append(mask)
                kinds.append(kind)
                scores.append(score / 254)
        found = Objects.of(np.array(kinds), np.array(scores), np.stack(masks)) if masks else Objects.of(
            np.empty(0), np.empty(0), np.empty((0, *patch.frame.shape), np.bool_)
        )  # fmt: skip
        return seen(found, patch, np.ones(patch.frame.shape, np.bool_), scene, rule)


def drawn_together(
    rectangles: list[tuple[int, int, int, int, int, int]], grid: TileGrid, folder: Path
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """(row, col) numbers and classes of objects."""
    pieces, rule, model = Pieces(folder), InstanceRule(), Drawn(rectangles)
    for tile in grid:
        every = [Views.none(), *(model.views(patch, grid.scene, rule) for patch in grid.patches(tile))]
        pieces.save(VIEWS, tile.index, Views.joined(every).arrays())
    compare = CompareViews(grid=grid, pieces=pieces, overlap=rule.overlap)
    agreed = {tile.index: compare(tile.index) for tile in grid}
    numbers, kinds = np.zeros(grid.shape, np.int32), np.zeros(grid.shape, np.uint8)
    for item in paint_items(grid, agreed, [tile.index for tile in grid]):
        core = grid.tile(item.index).core.slices
        numbers[core], kinds[core], _ = painted(grid.tile(item.index).core, item.numbers, pieces)
    return numbers, kinds


@pytest.mark.parametrize("edge", [*range(120, 200, 7), 190, 192, 194])
def test_what_spills_over_or_lies_inside_is_another_object(tmp_path: Path, edge: int) -> None:
    """Two fields larger than a patch that overlap by 2 pixels stay two, and one that holds a small object stays whole."""
    fields = [(10, 10, 360, edge - 8, 1, 200), (10, edge, 360, 374 - edge, 1, 220), (100, edge // 2, 12, 12, 2, 250)]
    made = []
    for k in (1, 2):
        grid = TileGrid(shape=(384, 384), phase=(0, 0), patch=128, halo=32, k=k)
        made.append(drawn_together(fields, grid, tmp_path / str(k)))
    (numbers, kinds), (again, others) = made
    np.testing.assert_array_equal(numbers, again)
    np.testing.assert_array_equal(kinds, others)
    left, right = numbers[50, 20], numbers[50, 360]
    assert left != right
    assert (numbers[10:370, edge + 2 : 374] == right).all()
    small = np.s_[100:112, edge // 2 : edge // 2 + 12]
    assert (kinds[small] == 2).all()
    rest = numbers[10:370, 10:edge].copy()
    rest[90:102, edge // 2 - 10 : edge // 2 + 2] = left
    assert (rest == left).all()


def test_parts_of_two_classes_do_not_depend_on_tiles(tmp_path: Path) -> None:
    """A field larger than a patch that patches are not of one mind about."""
    found = []
    for k in (1, 2, 3):
        grid = TileGrid(shape=(256, 256), phase=(0, 0), patch=64, halo=16, k=k)
        fields = [(4, 4, 240, 240, 1, 200), (100, 100, 150, 150, 2, 200)]
        found.append(drawn_together(fields, grid, tmp_path / str(k)))
    for numbers, kinds in found[1:]:
        np.testing.assert_array_equal(numbers, found[0][0])
        np.testing.assert_array_equal(kinds, found[0][1])


def test_patches_with_one_window_are_compared(tmp_path: Path) -> None:
    """In a scene smaller than a patch all cells see all of it: of two that agree one is left."""
    grid = TileGrid(shape=(30, 30), phase=(0, 15), patch=60, halo=15)
    numbers, _ = drawn_together([(5, 2, 20, 11, 1, 250), (5, 3, 20, 13, 1, 200)], grid, tmp_path)
    assert np.unique(numbers).tolist() == [0, 1]


class Wrong(BrightObjectsModel):
    """Finds a class that nobody named."""

    def find(self, batch: Batch) -> list[Objects]:
        return [replace(each, kind=np.full(len(each), 7, np.uint8)) for each in super().find(batch)]


def test_a_class_that_nobody_named_is_told(tmp_path: Path) -> None:
    path = scene_file(tmp_path / "scene.tif", blobs(1, (64, 64), count=5, largest=20))
    with pytest.raises(EngineError, match="finds classes 7 to 7, and its spec names 1 to 1"):
        geoseg.run(path, out=tmp_path / "out", model=Wrong())


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
