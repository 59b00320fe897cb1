"""Methods without labels: scene-wide values equal to scikit-image's, tiled equal to whole, no edges at nodata, clear errors."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import canny
from skimage.filters import threshold_multiotsu, threshold_otsu

from geoseg.errors import ModelError
from geoseg.grid import TileGrid, Window
from geoseg.kernels.otsu import multi_otsu, otsu
from geoseg.models import input_scaling, load
from geoseg.models.methods import METHODS, filters, histogram
from geoseg.models.methods.cut import least_cut
from geoseg.models.methods.histogram import Even, Floating, Lattice
from geoseg.pipeline import segment_file
from geoseg.readers import open_scene
from geoseg.readers.array import from_array
from geoseg.recipes import RunOptions
from geoseg.results import NODATA
from geoseg.runtime.predict import Predictor, predict_core

LOCAL = [name for name in METHODS if name != "graph-cut"]


def whole_of(reader: Any, model: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels of the model's bands and validity of a whole scene."""
    names = [band.name for band in model.spec.bands]
    block = reader.read(Window(0, 0, *reader.scene.shape), [reader.scene.band_names.index(name) for name in names])
    return block.pixels, block.valid


@pytest.fixture(scope="session")
def satellite(samples: Path) -> Any:
    return open_scene([str(samples / "s2_farmland.tif")])


@pytest.fixture(scope="session")
def aerial(samples: Path) -> Any:
    return open_scene([str(samples / "rgb_farmland_1m.tif")])


# Values over the whole scene


@pytest.mark.parametrize("name", ["red", "nir"])
def test_otsu_of_a_band_is_that_of_the_whole_scene(satellite: Any, name: str) -> None:
    model: Any = load(f"otsu:index={name}").settled(satellite)  # type: ignore[attr-defined]
    pixels, valid = whole_of(satellite, model)
    image = pixels[0][valid] * model.image.bands.gain[0] + model.image.bands.offset[0]
    stored = threshold_otsu(pixels[0][valid])
    assert model.threshold == stored * model.image.bands.gain[0] + model.image.bands.offset[0]
    np.testing.assert_allclose(
        model.means, [image[image <= model.threshold].mean(), image[image > model.threshold].mean()]
    )
    field = model.one(pixels, valid)[1] > 127
    np.testing.assert_array_equal(field[valid], (pixels[0] > stored)[valid])


@pytest.mark.parametrize("index", ["ndvi", "ndwi", "luminance"])
def test_otsu_of_an_index_is_that_of_the_whole_scene(satellite: Any, index: str) -> None:
    model: Any = load(f"otsu:index={index}").settled(satellite)  # type: ignore[attr-defined]
    pixels, valid = whole_of(satellite, model)
    values = model.image.values(pixels, valid)[valid]
    codes = model.image.binning.codes(values)
    lowest = codes.min()
    expected = threshold_otsu(hist=(np.bincount(codes - lowest), np.arange(codes.max() - lowest + 1.0)))
    step = model.image.binning.upper(1) - model.image.binning.upper(0)
    # scikit-image adds up in float32: of bins beside each other it may take the other one.
    assert abs(model.threshold - model.image.binning.upper(int(lowest + expected))) < 2.5 * step
    spread = values.max() - values.min()
    assert abs(model.threshold - threshold_otsu(values, nbins=4096)) < spread / 1000


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("name", ["red", "green"])
def test_multi_otsu_is_that_of_the_whole_scene(aerial: Any, name: str, classes: int) -> None:
    model: Any = load(f"multi-otsu:index={name},classes={classes}").settled(aerial)  # type: ignore[attr-defined]
    pixels, valid = whole_of(aerial, model)
    expected = threshold_multiotsu(pixels[0][valid], classes=classes)
    assert model.thresholds == tuple(expected)
    ids = model.one(pixels, valid).argmax(axis=0)
    np.testing.assert_array_equal(ids[valid], 1 + np.digitize(pixels[0][valid], expected, right=True))


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=11), classes=st.integers(2, 4))
def test_thresholds_divide_best(counts: list[int], classes: int) -> None:
    weights, values = np.array(counts), np.arange(len(counts)) * 1.5 - 4

    def between(cuts: tuple[int, ...]) -> float:
        edges = [-1, *cuts, len(counts) - 1]
        parts = [slice(a + 1, b + 1) for a, b in itertools.pairwise(edges)]
        return sum((weights[p] * values[p]).sum() ** 2 / max(weights[p].sum(), 1) for p in parts)

    filled = np.flatnonzero(weights)
    found = multi_otsu(weights, values, classes)
    assert found == sorted(set(found))
    if len(filled) < classes:
        assert found == list(filled[:-1])
        return
    best = max(between(cuts) for cuts in itertools.combinations(range(len(counts) - 1), classes - 1))
    assert between(tuple(found)) == pytest.approx(best)
    if classes == 2:
        assert between((otsu(weights, values),)) == pytest.approx(best)


@given(
    values=st.lists(st.floats(-1000, 1000, width=32), min_size=2, max_size=20),
    binning=st.sampled_from([Even(low=-1000, high=1000), Floating(), Lattice(lowest=-1000, count=2001, gain=1.0)]),
)
def test_bins_are_in_order_and_end_where_they_say(values: list[float], binning: Any) -> None:
    some = np.sort(np.array(values, np.float64))
    if isinstance(binning, Lattice):
        some = np.rint(some)
    codes = binning.codes(some)
    assert (np.diff(codes) >= 0).all()
    assert codes.min() >= 0
    assert codes.max() < binning.count
    for value, code in zip(some, codes, strict=True):
        assert value <= binning.upper(int(code)) + 1e-9
        assert code == 0 or value > binning.upper(int(code) - 1) - 1e-9


def test_scene_values_do_not_depend_on_windows(satellite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*METHODS, "otsu:index=red", "canny:index=nir,sigma=2", "region-growing:bands=red+nir,radius=1"]
    before = [load(name).settled(satellite) for name in names]  # type: ignore[attr-defined]
    monkeypatch.setattr(histogram, "SIDE", 97)
    after = [load(name).settled(satellite) for name in names]  # type: ignore[attr-defined]
    assert before == after
    assert [model.fingerprint() for model in before] == [model.fingerprint() for model in after]
    assert len({model.fingerprint() for model in before}) == len(names)


# Tiles


@st.composite
def scenes(draw: st.DrawFn) -> Any:
    """A small scene with structure, noise and holes, somewhere on the lattice."""
    rows, cols = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    blocks = rng.integers(20, 220, (3, rows // 9 + 1, cols // 11 + 1)).repeat(9, 1).repeat(11, 2)[:, :rows, :cols]
    pixels = np.clip(blocks + rng.normal(0, 4, (3, rows, cols)), 1, 255).astype(np.uint8)
    holes = ndimage.binary_dilation(rng.random((rows, cols)) < 0.002, iterations=4)
    pixels[:, holes] = 0
    transform = Affine(1, 0, draw(st.integers(0, 99)), 0, -1, draw(st.integers(0, 99)))
    return from_array(pixels, names=["red", "green", "nir"], nodata=0, transform=transform, crs="EPSG:32633")


@settings(max_examples=15)
@pytest.mark.parametrize(
    "name", [*LOCAL, "gradient:sigma=0", "region-growing:radius=1,sigma=0", "canny:index=red,sigma=0"]
)
@given(data=st.data(), reader=scenes())
def test_tiled_equals_whole(name: str, data: st.DataObject, reader: Any) -> None:
    model: Any = load(name).settled(reader)  # type: ignore[attr-defined]
    pixels, valid = whole_of(reader, model)
    expected = np.where(valid, model.one(pixels, valid), NODATA)
    halo, (rows, cols) = model.spec.halo, valid.shape
    region = None
    if data.draw(st.booleans()):
        row, col = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
        region = Window(row, col, data.draw(st.integers(1, rows - row)), data.draw(st.integers(1, cols - col)))
    grid = TileGrid.fit(
        reader.scene,
        model.spec,
        patch=2 * halo + data.draw(st.integers(1, 40)),
        k=data.draw(st.integers(1, 3)),
        region=region,
    )
    predictor = Predictor(model=model, scaling=input_scaling(reader, model.spec), engine="numpy", precision="auto")
    for tile in grid:
        made = predict_core(reader, predictor, grid, tile)
        np.testing.assert_array_equal(made.probabilities, expected[(slice(None), *tile.core.slices)])


def test_graph_cut_is_the_same_for_any_tiles(satellite: Any) -> None:
    model: Any = load("graph-cut").settled(satellite)  # type: ignore[attr-defined]
    predictor = Predictor(model=model, scaling=input_scaling(satellite, model.spec), engine="numpy", precision="auto")
    made = []
    for k, region in ((1, None), (2, None), (1, Window(37, 101, 190, 210))):
        grid = TileGrid.fit(satellite.scene, model.spec, patch=256, k=k, region=region)
        out = np.full((2, *satellite.scene.shape), NODATA, np.uint8)
        for tile in grid:
            out[(slice(None), *tile.core.slices)] = predict_core(satellite, predictor, grid, tile).probabilities
        made.append(out[(slice(None), *Window(37, 101, 190, 210).slices)])
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


# Edges


@pytest.mark.parametrize("sigma", [0.8, 1.4, 3.0])
def test_canny_is_that_of_scikit_image_away_from_the_frame(satellite: Any, tmp_path: Path, sigma: float) -> None:
    name = f"canny:index=nir,sigma={sigma}"
    model: Any = load(name).settled(satellite)  # type: ignore[attr-defined]
    pixels, valid = whole_of(satellite, model)
    assert not valid.all()
    image = model.image.values(pixels, valid)
    expected = canny(image, sigma=sigma, low_threshold=model.low, high_threshold=model.high, mask=valid)
    options = RunOptions(model=name, patch=128)
    segment_file(satellite_path(satellite), out=tmp_path / "mask.tif", options=options)
    with rasterio.open(tmp_path / "mask.tif") as raster:
        found = raster.read(1)
    rim = filters.gaussian_reach(sigma) + 2
    inner = np.s_[rim:-rim, rim:-rim]
    np.testing.assert_array_equal(found[inner], np.where(valid, 1 + expected, NODATA)[inner])
    assert expected[inner].sum() > 5000


def satellite_path(reader: Any) -> str:
    return str(Path(__file__).parent.parent / "sample_tiles" / reader.scene.name)


@pytest.mark.parametrize("name", ["sobel", "canny", "gradient", "region-growing"])
def test_nodata_and_frame_make_no_edges(name: str) -> None:
    pixels = np.full((3, 60, 50), 120, np.uint8)
    pixels[1] = 80
    pixels[:, 20:30, 10:40] = 0
    pixels[:, 41, 5] = 0
    reader = from_array(
        pixels, names=["red", "green", "nir"], nodata=0, crs="EPSG:32633", transform=Affine.scale(1, -1)
    )
    model: Any = load(name).settled(reader)  # type: ignore[attr-defined]
    pixels, valid = whole_of(reader, model)
    field = model.one(pixels, valid)[model.spec.class_id("field")]
    assert (field[valid] == 254).all()


def test_edges_lie_where_values_change() -> None:
    pixels = np.full((1, 40, 40), 50, np.uint8)
    pixels[:, :, 20:] = 90
    reader = from_array(pixels, names=["gray"], crs="EPSG:32633", transform=Affine.scale(1, -1))
    for name in ("sobel", "canny", "gradient"):
        model: Any = load(name).settled(reader)  # type: ignore[attr-defined]
        boundary = model.one(*whole_of(reader, model))[2] > 127
        assert boundary[:, 19:21].any(axis=1).all()
        assert not boundary[:, :17].any()
        assert not boundary[:, 23:].any()
    growing: Any = load("region-growing:seeds=0.5,grown=0.6").settled(reader)  # type: ignore[attr-defined]
    field = growing.one(*whole_of(reader, growing))[1] > 127
    assert not field[:, 19:21].any()
    assert field[:, :12].all()
    assert field[:, 28:].all()


def test_a_gradient_of_several_bands_sees_what_one_does_not() -> None:
    pixels = np.full((3, 30, 60), 100, np.uint8)
    pixels[0, :, 20:] = 140  # in red only
    pixels[2, :, 40:] = 160  # in nir only
    reader = from_array(pixels, names=["red", "green", "nir"], crs="EPSG:32633", transform=Affine.scale(1, -1))
    model: Any = load("gradient").settled(reader)  # type: ignore[attr-defined]
    boundary = model.one(*whole_of(reader, model))[2] > 127
    assert boundary[:, [19, 20, 39, 40]].all()
    one_band: Any = load("gradient:bands=red").settled(reader)  # type: ignore[attr-defined]
    length, _ = one_band.gradient(*whole_of(reader, one_band))
    down, right = filters.sobel(
        filters.smoothed(one_band.stack.values(*whole_of(reader, one_band))[0], np.ones((30, 60), bool), 1.0)
    )
    np.testing.assert_allclose(length, np.hypot(down, right), atol=1e-9)


# Graph cut


@settings(max_examples=40)
@given(data=st.data(), count=st.integers(1, 8))
def test_the_cut_is_the_least(data: st.DataObject, count: int) -> None:
    costs = np.array(data.draw(st.lists(st.tuples(*[st.integers(0, 20)] * 2), min_size=count, max_size=count)), float)
    every = list(itertools.combinations(range(count), 2))
    pairs = np.array(data.draw(st.lists(st.sampled_from(every), unique=True)) if every else [], np.int64).reshape(-1, 2)
    weights = np.array(data.draw(st.lists(st.integers(0, 9), min_size=len(pairs), max_size=len(pairs))), float)

    def cost(chosen: NDArray[np.bool_]) -> float:
        parted = chosen[pairs[:, 0]] != chosen[pairs[:, 1]]
        return float(np.where(chosen, costs[:, 1], costs[:, 0]).sum() + weights[parted].sum())

    least = min(cost(np.array(chosen)) for chosen in itertools.product([False, True], repeat=count))
    assert cost(least_cut(costs, pairs, weights)) == pytest.approx(least)


def test_graph_cut_is_smoother_than_its_threshold(satellite: Any) -> None:
    cut: Any = load("graph-cut").settled(satellite)  # type: ignore[attr-defined]
    plain: Any = load("otsu").settled(satellite)  # type: ignore[attr-defined]
    pixels, valid = (part[..., :200, :200] for part in whole_of(satellite, cut))
    fields = [model.one(pixels, valid)[1] > 127 for model in (cut, plain)]
    assert (fields[0] == fields[1]).mean() > 0.75
    sides = [(one[1:] != one[:-1]).sum() + (one[:, 1:] != one[:, :-1]).sum() for one in fields]
    assert sides[0] < 0.8 * sides[1]


def test_graph_cut_names_the_missing_package(satellite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ModelError, match=r"pip install 'geoseg\[methods\]'"):
        load("graph-cut").settled(satellite)  # type: ignore[attr-defined]


def test_scenes_without_data_or_contrast_are_no_error(tmp_path: Path) -> None:
    for value in (0, 7):
        pixels = np.full((3, 40, 40), value, np.uint8)
        reader = from_array(
            pixels, names=["red", "green", "nir"], nodata=0, crs="EPSG:32633", transform=Affine.scale(1, -1)
        )
        for name in METHODS:
            model: Any = load(name).settled(reader)  # type: ignore[attr-defined]
            made = model.one(*whole_of(reader, model))
            assert made.shape == (len(model.spec.outputs), 40, 40)
            json.dumps(model.record(), allow_nan=False)
