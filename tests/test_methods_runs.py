"""Methods without labels as a user meets them: whole runs, real imagery, options, messages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from skimage.filters import threshold_otsu

import geoseg
from geoseg.cli.models import command
from geoseg.errors import InputError, ModelError
from geoseg.models import available, load
from geoseg.models.methods import METHODS
from geoseg.pipeline import segment_file
from geoseg.readers import open_scene
from geoseg.readers.array import from_array
from geoseg.recipes import RunOptions
from geoseg.results import NODATA


@pytest.fixture(scope="session")
def aerial(samples: Path) -> Any:
    return open_scene([str(samples / "rgb_farmland_1m.tif")])


# As a user meets them


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("tile", ["s2_farmland.tif", "rgb_farmland_1m.tif"])
def test_bare_names_work(samples: Path, tmp_path: Path, name: str, tile: str) -> None:
    with rasterio.open(samples / tile) as sample:
        pixels, profile, names = sample.read(window=((200, 440), (150, 390))), sample.profile, sample.descriptions
    with rasterio.open(tmp_path / "crop.tif", "w", **{**profile, "height": 240, "width": 240}) as out:
        out.descriptions = names
        out.write(pixels)
    segment_file(tmp_path / "crop.tif", out=tmp_path / "mask.tif", options=RunOptions(model=name))
    with rasterio.open(tmp_path / "mask.tif") as raster:
        found = raster.read(1)
    spec = load(name).spec
    field = found == spec.class_id(spec.field_class)
    assert 0 < field.sum() < field.size
    assert set(np.unique(found)) <= {*range(len(spec.outputs)), NODATA}


def test_a_run_writes_what_it_settled(samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    geoseg.run(samples / "s2_smallholder.tif", out=out, model="otsu:index=ndvi")
    record = json.loads((out / "run.json").read_text())
    assert record["method"]["index"] == "ndvi"
    reader = open_scene([str(samples / "s2_smallholder.tif")])
    model: Any = load("otsu").settled(reader)  # type: ignore[attr-defined]
    assert record["method"]["threshold"] == model.threshold
    assert record["identity"]["model"]["fingerprint"] == replace(model, index="ndvi").fingerprint()
    assert record["counts"]["fields"] > 20


def test_lazy_blocks_are_those_of_a_file(samples: Path, tmp_path: Path) -> None:
    lazy = geoseg.segment(samples / "s2_smallholder.tif", model="otsu", patch=100)
    segment_file(samples / "s2_smallholder.tif", out=tmp_path / "mask.tif", options=RunOptions(model="otsu"))
    with rasterio.open(tmp_path / "mask.tif") as raster:
        np.testing.assert_array_equal(lazy.to_numpy(), raster.read(1))


def test_real_imagery(shared: Path, tmp_path: Path) -> None:
    source = shared / "s2-magdeburg" / "stack_rgbn_20210515.tif"
    with rasterio.open(source) as raster:
        pixels, profile = raster.read(window=((300, 620), (300, 620))), raster.profile
    with rasterio.open(tmp_path / "crop.tif", "w", **{**profile, "height": 320, "width": 320}) as out:
        out.write(pixels)
    reader = open_scene([str(tmp_path / "crop.tif")], bands=("red", "green", "blue", "nir"))
    model: Any = load("otsu:index=nir").settled(reader)  # type: ignore[attr-defined]
    assert model.threshold == threshold_otsu(pixels[3][(pixels != -10000).all(axis=0)])
    for name in ("otsu", "canny", "gradient", "region-growing"):
        options = RunOptions(model=name, bands=("red", "green", "blue", "nir"), patch=200)
        segment_file(tmp_path / "crop.tif", out=tmp_path / f"{name}.tif", options=options)
        with rasterio.open(tmp_path / f"{name}.tif") as raster:
            found = raster.read(1)
        assert 0.1 < (found == load(name).spec.class_id("field")).mean() < 0.98


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "canny:sigm=2",
            r"canny has no option 'sigm'; its options, with their defaults, are index=auto, sigma=1.4, low=auto",
        ),
        ("canny:sigma", "canny: the option 'sigma' needs a value, as in canny:sigma=1.4"),
        ("canny:sigma=wide", "canny: sigma=wide is not a number"),
        ("canny:sigma=nan", "canny: sigma=nan is not a number"),
        ("canny:sigma=80", "canny: sigma=80 is no sigma; expected 0 to 25"),
        ("canny:sigma=1,sigma=2", "the option 'sigma' is given twice"),
        ("canny:low=5,high=2", "canny: low=5.0 and high=2.0; expected numbers above 0, the smaller one as `low`"),
        ("sobel:high=-1", "sobel: .*above 0"),
        ("multi-otsu:classes=2.5", "multi-otsu: classes=2.5 is not a whole number"),
        ("multi-otsu:classes=3,field=4", "multi-otsu: field=4 is no class of 3"),
        ("threshold:above=0.5,below=0.2", "nothing is above 0.5 and below 0.2"),
        ("otsu:field=right", "expected above or below"),
        ("region-growing:seed=2,limit=1", "a seed is more homogeneous"),
        ("ostu:index=ndvi", "no model 'ostu:index=ndvi'; installed: .*'otsu'"),
    ],
)
def test_wrong_options_are_told(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(name)


def test_bands_that_are_missing_are_told(aerial: Any) -> None:
    with pytest.raises(
        ModelError, match=r"otsu:index=ndvi needs nir, and the bands of .* are: red, green, blue; .*--bands"
    ):
        load("otsu:index=ndvi").settled(aerial)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"gradient:bands=red\+swir needs swir"):
        load("gradient:bands=red+swir").settled(aerial)  # type: ignore[attr-defined]


def test_methods_are_listed_and_shown() -> None:
    found = {info.name: info for info in available()}
    assert all(found[name].source == "method" and found[name].problem is None for name in METHODS)
    shown = CliRunner().invoke(command, ["show", "canny"], catch_exceptions=False).output
    assert "--model canny:" in shown
    for option in ("index", "sigma", "low", "high", "weak", "strong"):
        assert f"\n  {option} " in shown


def test_a_stopped_pass_ends() -> None:
    reader = from_array(np.ones((1, 5, 5), np.uint8), names=["gray"], crs="EPSG:32633", transform=Affine.scale(1, -1))

    def stop() -> None:
        raise InputError("stopped")

    with pytest.raises(InputError, match="stopped"):
        load("otsu").settled(reader, stop)  # type: ignore[attr-defined]
