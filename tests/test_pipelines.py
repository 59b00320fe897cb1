"""Every recipe of a run in `pipelines/`, end to end on a product as it is delivered, made from a sample tile."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from scipy.ndimage import zoom

from geoseg.cli.main import cli
from geoseg.testing.products import make_landsat, make_planet, make_safe

ORDER = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def farmland() -> np.ndarray:
    """(4, 240, 240) reflectance at 10 m in ORDER."""
    with rasterio.open(Path(__file__).parent.parent / "sample_tiles" / "s2_farmland.tif") as file:
        by_name = dict(zip(file.descriptions, file.read(), strict=True))
    return np.stack([by_name[name][:240, :240] for name in ORDER]).astype(np.float64) * 1e-4


def run_recipe(name: str, scene: Path, out: Path) -> None:
    done = CliRunner().invoke(cli, ["run", str(scene), "-o", str(out), "--recipe", name, "-q"])
    assert done.exit_code == 0, f"{done.output} {done.exception}"


def clouded_and_found(out: Path, left: slice) -> int:
    """Number of fields of a run whose mask has no data just where the clouds are: in those columns."""
    import geopandas as gpd

    with rasterio.open(out / "mask.tif") as file:
        nodata = file.read(1) == 255
    assert nodata[:, left].all()
    assert nodata[:, left.stop + 1 :].mean() < 0.01
    fields = gpd.read_file(out / "fields.gpkg", layer="fields")
    assert len(gpd.read_parquet(out / "fields.parquet")) == len(fields)
    return len(fields)


def test_sentinel2_fields(farmland: np.ndarray, tmp_path: Path) -> None:
    bands = dict(zip(("B02", "B03", "B04", "B08"), farmland, strict=True))
    classes = np.full((120, 120), 4, "uint8")
    classes[:, :20] = 9
    run_recipe("sentinel2_fields", make_safe(tmp_path, bands, classes=classes), tmp_path / "out")
    assert clouded_and_found(tmp_path / "out", slice(0, 40)) > 20
    assert (tmp_path / "out" / "probabilities.tif").exists()


def test_landsat_fields(farmland: np.ndarray, tmp_path: Path) -> None:
    coarse = farmland.reshape(4, 80, 3, 80, 3).mean(axis=(2, 4))
    quality = np.full((80, 80), 21824, "uint16")
    quality[:, :10] = 22280
    scene = make_landsat(tmp_path, dict(zip((2, 3, 4, 5), coarse, strict=True)), quality=quality, tarred=True)
    shutil.rmtree(next(path for path in tmp_path.iterdir() if path.is_dir()))
    run_recipe("landsat_fields", scene, tmp_path / "out")
    assert clouded_and_found(tmp_path / "out", slice(0, 29)) > 5


def test_planet_fields(farmland: np.ndarray, tmp_path: Path) -> None:
    fine = np.stack([zoom(band[:90, :90], 10 / 3, order=1) for band in farmland])
    mask = np.zeros((8, *fine.shape[1:]), "uint8")
    mask[0], mask[5, :, :60] = 1, 1
    mask[0, :, :60] = 0
    run_recipe("planet_fields", make_planet(tmp_path, fine, mask=mask), tmp_path / "out")
    assert clouded_and_found(tmp_path / "out", slice(0, 17)) > 5


def test_drone_fields(tmp_path: Path) -> None:
    """An orthomosaic of 25 cm with an alpha band: brought to 1 m while streaming, nothing where it is transparent."""
    with rasterio.open(Path(__file__).parent.parent / "sample_tiles" / "rgb_farmland_1m.tif") as file:
        pixels, profile = file.read()[:3, :256, :256].repeat(4, axis=1).repeat(4, axis=2), file.profile
    alpha = np.full((1, 1024, 1024), 255, "uint8")
    alpha[:, :, :200] = 0
    place = profile["transform"] @ rasterio.Affine.scale(0.25)
    with rasterio.open(
        tmp_path / "ortho.tif", "w", driver="GTiff", count=4, height=1024, width=1024, dtype="uint8", crs=profile["crs"],
        transform=place, photometric="RGB", ALPHA="YES",
    ) as file:  # fmt: skip
        file.write(np.concatenate([pixels.astype("uint8"), alpha]))
    run_recipe("drone_fields", tmp_path / "ortho.tif", tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "mask.tif") as file:
        assert file.res == (1, 1)
        nodata = file.read(1) == 255
    assert nodata[:, :50].all()
    assert not nodata[:, 51:].any()
    import geopandas as gpd

    fields = gpd.read_file(tmp_path / "out" / "fields.gpkg", layer="fields")
    assert len(fields) >= 1
    assert fields.area_m2.min() >= 1500
