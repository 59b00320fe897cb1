"""fields-s2-2dates: two dates stacked in one file, chosen by their bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoseg.models import choose
from geoseg.pipeline import segment_file
from geoseg.readers import open_scene
from geoseg.recipes import RunOptions
from geoseg.training.generate import GeneratedScene, generate_dates
from geoseg.training.targets import FIELD

BANDS = ("red", "green", "blue", "nir", "red_2", "green_2", "blue_2", "nir_2")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GeneratedScene]:
    """Two dates of a place that is in no pool, as a file of eight named bands."""
    dates = generate_dates(77, size=256, gsd_m=10, style="loess", fineness=2)
    pixels = np.concatenate([date.pixels for date in dates])
    path = tmp_path_factory.mktemp("stack") / "both.tif"
    place = rasterio.Affine(10, 0, 400_000, 0, -10, 5_800_000)
    with rasterio.open(
        path, "w", driver="GTiff", count=8, height=256, width=256, dtype="uint16", crs="EPSG:32633", transform=place
    ) as file:
        file.write(pixels)
        file.descriptions = BANDS
    return path, dates[0]


def test_a_stack_of_two_dates_finds_its_model_and_its_fields(
    stack: tuple[Path, GeneratedScene], tmp_path: Path
) -> None:
    path, scene = stack
    model, _ = choose(open_scene([str(path)]).scene)
    assert model.spec.name == "fields-s2-2dates"
    assert tuple(band.name for band in model.spec.bands) == BANDS
    made = segment_file(path, out=tmp_path / "mask.tif", options=RunOptions.checked(precision="fp32"))
    with rasterio.open(made) as file:
        found = file.read(1) == FIELD
    fields = scene.mask(boundary_px=1.5) == FIELD
    assert (found & fields).sum() / (found | fields).sum() > 0.75


def test_a_scene_of_one_date_gets_the_model_of_one_date(samples: Path) -> None:
    model, _ = choose(open_scene([str(samples / "s2_smallholder.tif")]).scene)
    assert model.spec.name == "fields-s2"
