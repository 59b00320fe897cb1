"""Test-time augmentation: turned in, turned back, averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from geopandas import GeoSeries
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely import box

import geoseg
from geoseg.engines.turned import TurnedSegmenter
from geoseg.errors import RunError
from geoseg.results import Batch
from geoseg.runtime.predict import release_memory


class Lopsided:
    """Looks to the right and down only, and sees validity: nothing that it says stays the same when the patch is turned."""

    fingerprint, degraded = "lopsided", False

    def predict(self, batch: Batch) -> NDArray[np.uint8]:
        pixels = np.where(batch.valid[:, None], batch.pixels, 0).astype(int)
        right, below = np.roll(pixels, -1, axis=3), np.roll(pixels, -2, axis=2)
        return ((pixels + 2 * right + 3 * below) % 255).astype(np.uint8)


def batch_of(rows: int, cols: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        pixels=rng.integers(0, 9999, (2, 3, rows, cols)).astype(np.uint16), valid=rng.random((2, rows, cols)) > 0.2
    )


@given(
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    turns=st.integers(0, 3),
    mirrored=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_turned_patch_gives_the_turned_prediction(
    rows: int, cols: int, turns: int, mirrored: bool, seed: int
) -> None:
    def turned(values: NDArray[Any]) -> NDArray[Any]:
        return np.rot90(values[..., ::-1] if mirrored else values, turns, axes=(-2, -1))

    batch, segmenter = batch_of(rows, cols, seed), TurnedSegmenter(Lopsided())
    found = segmenter.predict(Batch(pixels=turned(batch.pixels), valid=turned(batch.valid)))
    assert np.array_equal(found, turned(segmenter.predict(batch)))


def test_it_is_the_mean_of_eight_positions() -> None:
    batch, parts = batch_of(6, 8, seed=3), []
    for axes in ((), (2,), (3,), (2, 3)):
        for swapped in (False, True):
            pixels, valid = np.flip(batch.pixels, axes), np.flip(batch.valid, [axis - 1 for axis in axes])
            if swapped:
                pixels, valid = pixels.swapaxes(2, 3), valid.swapaxes(1, 2)
            found = Lopsided().predict(Batch(pixels=pixels, valid=valid))
            parts.append(np.flip(found.swapaxes(2, 3) if swapped else found, axes))
    expected = np.floor(np.mean(parts, axis=0) + 0.5)
    assert np.array_equal(TurnedSegmenter(Lopsided()).predict(batch), expected)
    assert len({part.tobytes() for part in parts}) == 8


def test_a_run_takes_it_and_does_not_mix_it_with_another(samples: Path, tmp_path: Path) -> None:
    with rasterio.open(samples / "s2_farmland.tif") as scene:
        west, north = scene.bounds.left, scene.bounds.top
    area = tmp_path / "area.geojson"
    GeoSeries([box(west, north - 2000, west + 2000, north)], crs=scene.crs).to_file(area)
    options = {"model": "fields-s2", "aoi": str(area), "patch": 256, "precision": "fp32"}
    plain = geoseg.run(samples / "s2_farmland.tif", out=tmp_path / "plain", probabilities=True, **options)
    turned = geoseg.run(samples / "s2_farmland.tif", out=tmp_path / "turned", probabilities=True, tta="d4", **options)
    release_memory()
    masks = []
    for result in (plain, turned):
        with rasterio.open(result.out / "probabilities.tif") as raster:
            masks.append(raster.read().astype(int))
    valid = masks[0] != 255
    assert np.array_equal(valid, masks[1] != 255)
    difference = np.abs(masks[0] - masks[1])[valid]
    assert 0.5 < difference.mean() < 40
    assert turned.record["identity"]["engine"]["tta"] == "d4"
    with pytest.raises(RunError, match="tta"):
        geoseg.run(samples / "s2_farmland.tif", out=tmp_path / "turned", **options)
