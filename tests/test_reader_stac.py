"""STAC items in files: bands by common name, stated scaling, catalogues that contradict themselves, remote assets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg import open_scene
from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.protocols import Reader

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
RNG = np.random.default_rng(3)
FINE = {name: RNG.integers(1000, 6000, (60, 60)).astype("uint16") for name in ("red", "green", "nir")}
COARSE = RNG.integers(1000, 6000, (30, 30)).astype("uint16")
CLASSES = RNG.integers(1, 12, (30, 30)).astype("uint8")


def write(path: Path, pixels: np.ndarray, side: float, *, left: float = 600_000) -> None:
    place = Affine(side, 0, left, 0, -side, 5_800_000)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=pixels.shape[0], width=pixels.shape[1], dtype=pixels.dtype, nodata=0,
        crs="EPSG:32632", transform=place,
    ) as file:  # fmt: skip
        file.write(pixels[None])


def asset(
    href: str, name: str | None, *, scale: float | None = 1e-4, offset: float = -0.1, **more: Any
) -> dict[str, Any]:
    values: dict[str, Any] = {"href": href, "type": COG, "roles": ["data"], **more}
    if name is not None:
        values["eo:bands"] = [{"name": "x", "common_name": name}]
    if scale is not None:
        values["raster:bands"] = [{"scale": scale, "offset": offset, "nodata": 0}]
    return values


def item(assets: dict[str, Any], name: str = "one", **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": name, "geometry": None, "links": [],
        "properties": {"datetime": "2023-06-10T10:26:09Z", **properties}, "assets": assets,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stac")
    for name, pixels in FINE.items():
        write(made / f"{name}.tif", pixels, 10)
    write(made / "swir16.tif", COARSE, 20)
    write(made / "scl.tif", CLASSES, 20)
    return made


ASSETS = {
    "thumbnail": {"href": "thumb.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
    "visual": asset("absent.tif", "red", roles=["visual"]),
    "swir": asset("./swir16.tif", "swir16"),
    "aot": asset("aot.tif", None),
    **{f"any-{name}": asset(f"./{name}.tif", name) for name in FINE},
    "scl": asset("./scl.tif", None, scale=None),
}


def physical(reader: Reader, name: str) -> np.ndarray:
    i = reader.scene.band_names.index(name)
    band = reader.scene.bands[i]
    return reader.read(Window(0, 0, *reader.scene.shape), [i]).pixels[0] * band.scale + band.offset


def opened(folder: Path, values: dict[str, Any], **options: Any) -> Reader:
    path = folder / "item.json"
    path.write_text(json.dumps(values))
    return open_scene([path], **options)


def test_bands_scaling_clouds_and_time_are_what_the_item_says(folder: Path) -> None:
    reader = opened(folder, item(ASSETS))
    assert sorted(map(str, reader.scene.band_names)) == ["cloud", "green", "nir", "red", "swir16"]
    assert np.allclose(physical(reader, "red"), FINE["red"] * 1e-4 - 0.1)
    assert physical(reader, "swir16").mean() == pytest.approx((COARSE * 1e-4 - 0.1).mean(), abs=5e-3)
    expected = np.isin(CLASSES, (3, 8, 9, 10)).repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(physical(reader, "cloud"), expected)
    assert np.array_equal(opened(folder, item(ASSETS), clouds="mask").read(Window(0, 0, 60, 60), [0]).valid, ~expected)
    assert reader.scene.time is not None
    assert reader.scene.time.isoformat() == "2023-06-10T10:26:09+00:00"


@pytest.mark.parametrize(
    ("properties", "scale", "offset"),
    [
        ({"earthsearch:boa_offset_applied": True}, 1e-4, 0.0),
        ({"earthsearch:boa_offset_applied": False}, 1e-4, -0.1),
    ],
)
def test_an_offset_that_was_applied_is_not_applied_again(
    folder: Path, properties: dict[str, Any], scale: float, offset: float
) -> None:
    reader = opened(folder, item(ASSETS, "S2B_x", **properties))
    assert np.allclose(physical(reader, "red"), FINE["red"] * scale + offset)


@pytest.mark.parametrize(("baseline", "offset"), [("02.14", 0.0), ("05.09", -0.1)])
def test_sentinel_2_without_raster_bands_goes_by_its_baseline(folder: Path, baseline: str, offset: float) -> None:
    assets = {"B04": {"href": "./red.tif", "type": COG, "eo:bands": [{"name": "B04", "common_name": "red"}]}}
    reader = opened(folder, item(assets, "S2B_x", **{"s2:processing_baseline": baseline}))
    assert np.allclose(physical(reader, "red"), FINE["red"] * 1e-4 + offset)


def test_bands_of_version_1_1_and_landsat_s_near_infrared(folder: Path) -> None:
    said = {"eo:common_name": "nir08", "raster:scale": 2.75e-5, "raster:offset": -0.2}
    reader = opened(folder, item({"nir08": {"href": "./nir.tif", "type": COG, "bands": [said]}}))
    assert reader.scene.band_names == ("nir",)
    assert np.allclose(physical(reader, "nir"), FINE["nir"] * 2.75e-5 - 0.2)


def names_and_scaling(reader: Reader) -> dict[str, tuple[float, float]]:
    return {str(band.name): (band.scale, round(band.offset, 9)) for band in reader.scene.bands}


def plain(href: str, **more: Any) -> dict[str, Any]:
    return {"href": href, "type": COG, **more}


@pytest.mark.parametrize(
    ("name", "assets", "properties", "expected"),
    [
        (  # numbers of bands mean what they mean for the sensor
            "HLS.L30.T32UPC.2023161T101000.v2.0", {"B05": plain("nir.tif"), "B06": plain("swir16.tif")}, {},
            {"nir": (1.0, 0.0), "swir16": (1.0, 0.0)},
        ),
        (
            "HLS.S30.T32UPC.2023161T101000.v2.0", {"B05": plain("nir.tif"), "B8A": plain("red.tif")}, {},
            {"rededge071": (1.0, 0.0), "nir": (1.0, 0.0)},
        ),
        ("any", {"B05": plain("nir.tif"), "red": plain("red.tif")}, {}, {"red": (1.0, 0.0)}),
        (  # STAC 1.1: stated once for all bands of an asset; the finest of several wins, whatever their order
            "S2B_x", {
                "B04_60m": plain("swir16.tif", bands=[{"name": "B04"}], gsd=60),
                "B04_10m": plain(
                    "red.tif", **{"raster:scale": 1e-4, "raster:offset": -0.1}, nodata=0, gsd=10, bands=[{"name": "B04"}]
                ),
            }, {}, {"red": (1e-4, -0.1)},
        ),
        (  # generic common names
            "S2B_x", {
                "B05": plain("nir.tif", **{"eo:bands": [{"name": "B05", "common_name": "rededge"}]}),
                "B06": plain("red.tif", **{"eo:bands": [{"name": "B06", "common_name": "rededge"}]}),
            }, {}, {"rededge071": (1.0, 0.0), "rededge075": (1.0, 0.0)},
        ),
        (  # offsets that were applied, with nothing else said
            "S2B_x", {"B04": plain("red.tif")}, {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.09"},
            {"red": (1e-4, 0.0)},
        ),
        ("S2B_x", {"B04": plain("red.tif")}, {"sentinel:boa_offset_applied": False}, {"red": (1e-4, 0.0)}),
    ],
)  # fmt: skip
def test_catalogues_that_say_little(
    folder: Path,
    name: str,
    assets: dict[str, Any],
    properties: dict[str, Any],
    expected: dict[str, tuple[float, float]],
) -> None:
    assert names_and_scaling(opened(folder, item(assets, name, **properties))) == expected


def test_items_of_a_collection_are_joined(folder: Path) -> None:
    write(folder / "east.tif", FINE["red"], 10, left=600_300)
    values = {
        "type": "FeatureCollection", "features": [
            item({"red": asset("./red.tif", "red")}, "west"), item({"red": asset("./east.tif", "red")}, "east"),
        ],
    }  # fmt: skip
    reader = opened(folder, values)
    assert reader.scene.shape == (60, 90)
    assert np.allclose(physical(reader, "red")[:, :60], FINE["red"] * 1e-4 - 0.1)
    assert np.allclose(physical(reader, "red")[:, 60:], FINE["red"][:, 30:] * 1e-4 - 0.1)
    east = open_scene([f"{folder / 'item.json'}#east"])
    assert east.scene.name == "east"
    assert np.allclose(physical(east, "red"), FINE["red"] * 1e-4 - 0.1)
    with pytest.raises(InputError, match="holds 0 items 'south'"):
        open_scene([f"{folder / 'item.json'}#south"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "Collection", "stac_version": "1.0.0"}, "is a STAC Collection; an item"),
        ({"type": "FeatureCollection", "stac_version": "1.0.0", "features": []}, "without items"),
        (item({"a": asset("./aot.tif", None)}), "no asset with a band of a known common name; its assets are a"),
        (item({"a": asset("./gone.tif", "red")}), "gone.tif"),
        (item({"a": {**asset("./red.tif", "red"), "raster:bands": [{"scale": "x"}]}}), "states scale 'x'"),
        ({"type": "Feature", "stac_version": "1.0.0"}, "not valid"),
    ],
)
def test_what_is_wrong_with_an_item_is_told(folder: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(folder, values)


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).parent / "flaky_server.py"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


def test_assets_of_a_server_that_fails_at_times(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "4")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")
    assets = {name: asset(f"{server}/{name}.tif", name) for name in FINE}
    reader = opened(folder, item(assets))
    for name in FINE:
        assert np.allclose(physical(reader, name), FINE[name] * 1e-4 - 0.1)
    with pytest.raises(InputError, match="absent"):
        opened(folder, item({"red": asset(f"{server}/absent.tif", "red")}))
