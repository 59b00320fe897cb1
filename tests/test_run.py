"""The main job, whole: files in, files out; resumed, refused, replaced; the same on threads and on a cluster."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import shapes
from scipy import ndimage

import geoseg
from geoseg.errors import GeosegError, InputError, RunError
from geoseg.pipeline import segment_file, vectorize_file
from geoseg.recipes import RunOptions
from geoseg.runtime.workspace import Workspace
from geoseg.testing.models import IdentityModel

PLACE = Affine(10, 0, 500_040, 0, -10, 5_000_170)
MODEL = IdentityModel(classes=("background", "field", "boundary"), patch=64, halo=8)


def class_scene(rows: int = 150, cols: int = 210, seed: int = 1) -> NDArray[np.uint8]:
    """Blobs of three classes with a corner that holds no data (255)."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((rows, cols)), 5)
    scene = np.digitize(smooth, [-0.01, 0.03]).astype(np.uint8)
    scene[:20, :30] = 255
    return scene


def write_scene(
    path: Path, pixels: NDArray[Any], *, crs: str | None = "EPSG:32633", transform: Affine | None = PLACE,
    nodata: float | None = 255,
) -> Path:  # fmt: skip
    stack = pixels if pixels.ndim == 3 else pixels[None]
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": len(stack),
        "height": stack.shape[1],
        "width": stack.shape[2],
    }
    if transform is not None:
        profile |= {"transform": transform}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        file = rasterio.open(path, "w", **profile, dtype=stack.dtype, crs=crs, nodata=nodata)
    with file:
        file.write(stack)
        file.descriptions = ("red", "green", "blue", "nir")[: len(stack)]
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "szene mit Ümlaut.tif", class_scene())


def rerun(scene: Path, out: Path, **changes: Any) -> geoseg.Result:
    return geoseg.run(scene, out=out, model=MODEL, **({"min_area_m2": 0, "workers": 2} | changes))


def test_a_run_writes_what_it_promises(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    formats = ("gpkg", "shp", "parquet", "fgb", "geojson")
    result = rerun(scene, out, format=formats, probabilities=True, instances="components")
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "mask.tif",
        "probabilities.tif",
        "preview.png",
        "run.json",
        *(f"fields.{name}" for name in formats),
    }
    assert not (out / ".partial").exists()

    pixels = class_scene()
    with rasterio.open(out / "mask.tif") as mask, rasterio.open(scene) as source:
        np.testing.assert_array_equal(mask.read(1), pixels)
        assert mask.crs == source.crs
        assert mask.transform == source.transform
        assert mask.nodata == 255
    with rasterio.open(out / "probabilities.tif") as stored:
        assert stored.descriptions == ("background", "field", "boundary")
        assert stored.scales[0] == pytest.approx(1 / 254)
        np.testing.assert_array_equal(stored.read(2), np.where(pixels == 255, 255, np.where(pixels == 1, 254, 0)))

    with rasterio.open(scene) as source:
        expected = [shapely.geometry.shape(g) for g, _ in shapes(pixels, mask=pixels == 1, transform=source.transform)]
    for name in ("gpkg", "parquet", "fgb", "shp"):
        path = out / f"fields.{name}"
        fields = (
            gpd.read_parquet(path)
            if name == "parquet"
            else gpd.read_file(path, **({"layer": "fields"} if name == "gpkg" else {}))
        )
        assert fields.crs == "EPSG:32633"
        assert len(fields) == len(expected) == result.record["counts"]["fields"]
        assert fields.is_valid.all()
        if name != "shp":
            assert {shapely.to_wkb(shapely.normalize(g)) for g in fields.geometry} == {
                shapely.to_wkb(shapely.normalize(g)) for g in expected
            }
    fields = gpd.read_file(out / "fields.gpkg", layer="fields")
    assert fields["class"].unique().tolist() == ["field"]
    assert (fields["confidence"] == 1.0).all()
    # UTM's scale near the central meridian is .9996: geodesic areas are larger by its square.
    np.testing.assert_allclose(fields["area_m2"], fields.area / 0.9996**2, rtol=1e-3)
    assert fields["id"].is_unique

    record = json.loads((out / "run.json").read_text())
    assert record["outputs"]["mask.tif"]["bytes"] == (out / "mask.tif").stat().st_size
    assert record["counts"]["valid_pixels"] == int((pixels != 255).sum())


def test_tile_size_and_workers_do_not_change_a_byte(scene: Path, tmp_path: Path) -> None:
    first = rerun(scene, tmp_path / "a", tile=1, workers=1, probabilities=True)
    for name, changes in (("b", {"tile": 2, "workers": 4}), ("c", {"tile": 5})):
        other = rerun(scene, tmp_path / name, probabilities=True, **changes)
        assert {n: o["sha256"] for n, o in other.record["outputs"].items() if n != "preview.png"} == {
            n: o["sha256"] for n, o in first.record["outputs"].items() if n != "preview.png"
        }


def test_the_same_run_again_has_nothing_to_do_and_another_is_refused(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rerun(scene, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert rerun(scene, out).resumed
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(RunError, match=r"vectorize.min_area_m2: 0.0 there, 5000.0 now.*--overwrite"):
        rerun(scene, out, min_area_m2=5000)
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert rerun(scene, out, min_area_m2=5000, overwrite=True).record["counts"]["fields"] < 40


def test_a_run_that_failed_halfway_resumes_with_the_same_bytes(scene: Path, tmp_path: Path) -> None:
    whole = rerun(scene, tmp_path / "whole").record
    out = tmp_path / "out"

    class Stopping:
        count = 0

        def stage_started(self, name: str, *, total: int, done: int) -> None:
            self.done = done

        def stage_advanced(self, name: str, *, units: int, pixels: int) -> None:
            Stopping.count += 1
            if Stopping.count == 5:
                raise GeosegError("the cable was pulled")

        def stage_finished(self, name: str) -> None: ...
        def note(self, text: str) -> None: ...

    from geoseg.runtime.events import Events

    listener = Stopping()
    with pytest.raises(GeosegError, match="cable"):
        rerun(scene, out, events=Events((listener,)))
    assert not list(out.glob("*.tif")), "nothing stands under a final name"
    result = rerun(scene, out, events=Events((listener,)))
    assert result.resumed
    assert {n: o["sha256"] for n, o in result.record["outputs"].items()} == {
        n: o["sha256"] for n, o in whole["outputs"].items()
    }


def test_an_unfinished_run_of_another_kind_is_refused(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".partial").mkdir(parents=True)
    (out / ".partial" / "identity.json").write_text('{"scene": "somebody else"}')
    with pytest.raises(RunError, match=r"unfinished run that differs from this one.*--restart"):
        rerun(scene, out)
    assert rerun(scene, out, restart=True).record["counts"]["fields"] > 0


def test_a_directory_with_other_files_is_refused(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("chapter 1")
    with pytest.raises(RunError, match=r"holds other files.*--overwrite"):
        rerun(scene, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "chapter 1"


def test_an_area_of_interest_has_the_pixels_and_polygons_of_the_whole(scene: Path, tmp_path: Path) -> None:
    whole = rerun(scene, tmp_path / "whole")
    aoi = tmp_path / "aoi.geojson"
    box = shapely.box(500_540, 4_999_000, 501_600, 4_999_900)
    gpd.GeoSeries([box], crs="EPSG:32633").to_crs("EPSG:4326").to_file(aoi)
    part = rerun(scene, tmp_path / "part", aoi=str(aoi))
    with rasterio.open(tmp_path / "whole" / "mask.tif") as a, rasterio.open(tmp_path / "part" / "mask.tif") as b:
        window = a.window(*b.bounds)
        expected, found = a.read(1, window=window), b.read(1)
    inside = found != 255
    assert inside[3:-3, 3:-3].all()
    np.testing.assert_array_equal(found[inside], expected[inside])
    everything = whole.fields.set_index("id")
    for _, field in part.fields[~part.fields["touches_edge"]].iterrows():
        assert everything.loc[field["id"]].geometry.equals(field.geometry)
        assert everything.loc[field["id"], "area_m2"] == field["area_m2"]


@pytest.mark.parametrize("orientation", range(8))
def test_all_axis_orientations_give_one_result(orientation: int, tmp_path: Path) -> None:
    pixels = class_scene(60, 90)
    transform = Affine(10, 0, 500_040, 0, -10, 5_000_170)
    stored, turned = pixels, transform
    if orientation & 1:
        stored, turned = stored[::-1], turned @ Affine(1, 0, 0, 0, -1, stored.shape[0])
    if orientation & 2:
        stored, turned = stored[:, ::-1], turned @ Affine(-1, 0, stored.shape[1], 0, 1, 0)
    if orientation & 4:
        stored, turned = stored.T, turned @ Affine(0, 1, 0, 1, 0, 0)
    path = write_scene(tmp_path / "scene.tif", np.ascontiguousarray(stored), transform=turned)
    rerun(path, tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "mask.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), pixels)
        assert mask.transform == transform


def test_a_scene_without_crs_lies_upright_in_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_scene(tmp_path / "scene.tif", class_scene(), crs=None, transform=None)
    result = rerun(path, tmp_path / "out", pixel_size_m=2.0)
    assert "no georeference" in caplog.text or "without" in caplog.text or "coordinates will be" in caplog.text
    fields = result.fields
    assert fields.total_bounds[1] < 0 <= fields.total_bounds[0]
    np.testing.assert_allclose(fields["area_m2"], 4 * fields.area)
    with pytest.raises(GeosegError, match="--crs"):
        rerun(path, tmp_path / "other", format=("geojson",))
    assert not (tmp_path / "other").exists()


def test_segment_and_vectorize_make_what_run_makes(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = rerun(scene, tmp_path / "out", instances="components")
    count, (written, *_) = vectorize_file(
        tmp_path / "out" / "mask.tif", out=tmp_path / "again.gpkg", options=RunOptions(min_area_m2=0), tile=50
    )
    again = gpd.read_file(written, layer="fields")
    assert count == len(again)
    assert again["id"].tolist() == result.fields["id"].tolist()
    assert again.geometry.geom_equals(result.fields.geometry).all()
    assert again["confidence"].isna().all()
    with pytest.raises(RunError, match="--overwrite"):
        vectorize_file(tmp_path / "out" / "mask.tif", out=written)
    with pytest.raises(InputError, match="background, field, boundary"):
        vectorize_file(tmp_path / "out" / "mask.tif", out=tmp_path / "x.gpkg", options=RunOptions(field_class="forest"))

    import geoseg.models

    monkeypatch.setattr(geoseg.models, "load", lambda *_, **__: MODEL)
    segment_file(scene, out=tmp_path / "mask.tif", options=RunOptions(model="identity"))
    with rasterio.open(tmp_path / "mask.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), class_scene())
    assert not list(tmp_path.glob(".mask.tif*"))


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("simplify_m", [0.0, 15.0])
def test_vectorizing_probabilities_equals_the_run(scene: Path, tmp_path: Path, smooth: bool, simplify_m: float) -> None:
    rules: dict[str, Any] = {"smooth": smooth, "simplify_m": simplify_m}
    result = rerun(scene, tmp_path / "out", probabilities=True, **rules)
    _, (written, *_) = vectorize_file(
        tmp_path / "out" / "probabilities.tif", out=tmp_path / "again.parquet",
        options=RunOptions(min_area_m2=0, **rules),
    )  # fmt: skip
    again = gpd.read_parquet(written)
    assert shapely.coverage_is_valid(again.geometry.to_numpy())
    assert again["confidence"].tolist() == result.fields["confidence"].tolist()
    assert again.geometry.geom_equals(result.fields.geometry).all()


def test_a_mask_is_lazy_until_it_is_asked_for(scene: Path) -> None:
    import rioxarray

    mask = geoseg.segment(scene, MODEL)
    assert mask.chunks is not None
    assert len(mask.chunks[0]) > 1
    assert mask.rio.crs == "EPSG:32633"
    assert mask.rio.nodata == 255
    np.testing.assert_array_equal(mask[40:60, 50:90].compute(), class_scene()[40:60, 50:90])
    np.testing.assert_array_equal(mask.compute(), class_scene())
    stored = geoseg.segment(scene, MODEL, probabilities=True)
    assert stored.dims[0] == "channel"
    assert stored.sel(channel="field").max().compute() == 255
    again = geoseg.segment(
        rioxarray.open_rasterio(scene, mask_and_scale=False), IdentityModel(classes=("a", "field"), band="red")
    )
    assert again.shape == mask.shape


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_cluster_of_processes_gives_the_same_bytes(scene: Path, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    here = rerun(scene, tmp_path / "here")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        there = rerun(scene, tmp_path / "there", client=client)
        assert len(list((tmp_path / "there").glob("*"))) == len(list((tmp_path / "here").glob("*")))
    for name in ("mask.tif", "fields.gpkg"):
        assert there.record["outputs"][name]["sha256"] == here.record["outputs"][name]["sha256"]


def test_ctrl_c_keeps_finished_tiles_and_the_same_command_resumes(tmp_path: Path) -> None:
    big = write_scene(tmp_path / "big.tif", np.tile(np.arange(1, 201, dtype=np.uint16), (3, 3000, 15)), nodata=0,
                      transform=Affine(1, 0, 500_040, 0, -1, 5_000_170))  # fmt: skip
    out = tmp_path / "out"
    command = [sys.executable, "-m", "geoseg", "run", str(big), "-o", str(out), "--patch", "256", "--engine", "torch"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not any(p.stat().st_size for p in Workspace(out).journal.glob("*")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "run the same command again to resume" in told
    assert "Traceback" not in told
    finished = sum(len(path.read_text().splitlines()) for path in Workspace(out).journal.iterdir())
    assert finished >= 1
    assert not (out / "run.json").exists()
