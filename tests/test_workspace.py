"""One output directory, many ways to come back to it: nothing is mixed, nothing of anybody's is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

import geoseg
from geoseg.errors import GeosegError, InputError, ModelError, RunError
from geoseg.pipeline import segment_file, vectorize_file
from geoseg.recipes import RunOptions
from geoseg.runtime.events import Events
from geoseg.runtime.workspace import Workspace
from geoseg.spec import BandSpec, Channel, ModelSpec
from geoseg.testing.models import IdentityModel

MODEL = IdentityModel(classes=("background", "field", "boundary"), patch=64, halo=8)
PLACE = Affine(10, 0, 500_040, 0, -10, 5_000_170)


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    rows, cols = np.indices((150, 210))
    return ((rows // 12 % 2) & (cols // 15 % 2)).astype(np.uint8)


@pytest.fixture
def scene(tmp_path: Path, pixels: NDArray[np.uint8]) -> Path:
    return write(tmp_path / "scene.tif", pixels)


def write(
    path: Path, pixels: NDArray[Any], *, crs: str = "EPSG:32633", transform: Affine = PLACE, nodata: float | None = 255
) -> Path:
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "dtype": pixels.dtype,
    }
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, nodata=nodata) as file:
        file.write(pixels, 1)
        file.set_band_description(1, "red")
    return path


class StopAt:
    """Pulls the plug when a stage has come to a number of units."""

    def __init__(self, stage: str, units: int) -> None:
        self.stage, self.left = stage, units

    def stage_started(self, name: str, *, total: int, done: int) -> None: ...

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None:
        if name == self.stage:
            self.left -= 1
            if self.left == 0:
                raise GeosegError("the cable was pulled")

    def stage_finished(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...


def run(scene: Path, out: Path, **changes: Any) -> geoseg.Result:
    return geoseg.run(scene, out=out, model=MODEL, **({"min_area_m2": 0, "workers": 2} | changes))


def interrupted(scene: Path, out: Path, **changes: Any) -> None:
    with pytest.raises(GeosegError, match="cable"):
        run(scene, out, events=Events((StopAt("predict", 6),)), **changes)


def area(path: Path, west: float, east: float) -> str:
    box = shapely.box(west, 4_998_900, east, 4_999_900)
    gpd.GeoSeries([box], crs="EPSG:32633").to_file(path, driver="GPKG")
    return str(path)


def mask_of(out: Path) -> NDArray[np.uint8]:
    with rasterio.open(out / "mask.tif") as file:
        return np.asarray(file.read(1))


def test_an_edited_area_is_another_run(scene: Path, tmp_path: Path) -> None:
    aoi = area(tmp_path / "farm.gpkg", 500_100, 500_900)
    run(scene, tmp_path / "done", aoi=aoi)
    interrupted(scene, tmp_path / "open", aoi=aoi)
    area(tmp_path / "farm.gpkg", 501_200, 502_000)
    for out in ("done", "open"):
        with pytest.raises(RunError, match=r"differs from this one \(area"):
            run(scene, tmp_path / out, aoi=aoi)


def test_the_same_area_from_another_file_is_the_same_run(scene: Path, tmp_path: Path) -> None:
    run(scene, tmp_path / "out", aoi=area(tmp_path / "a.gpkg", 500_100, 500_900))
    assert run(scene, tmp_path / "out", aoi=area(tmp_path / "b.gpkg", 500_100, 500_900)).resumed


@pytest.mark.parametrize("lost", [lambda store: store, lambda store: store / "mask" / "0.1"])
def test_a_journal_without_its_data_is_not_believed(
    lost: Callable[[Path], Path], scene: Path, tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    out = tmp_path / "out"
    interrupted(scene, out)
    path = lost(Workspace(out).store)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    run(scene, out)
    np.testing.assert_array_equal(mask_of(out), pixels)


def test_tiles_of_another_engine_are_not_mixed_in(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupted(scene, out)
    for path in Workspace(out).journal.iterdir():
        path.write_text(path.read_text().replace('"engine": "numpy', '"engine": "abacus'))
    with pytest.raises(RunError, match=r"predicted by abacus.*--restart"):
        run(scene, out)
    run(scene, out, restart=True)


def test_restart_alone_does_not_replace_another_run(scene: Path, tmp_path: Path) -> None:
    run(scene, tmp_path / "out")
    with pytest.raises(RunError, match="--overwrite"):
        run(scene, tmp_path / "out", min_area_m2=5000, restart=True)
    run(scene, tmp_path / "out", restart=True)


def test_one_more_format_or_a_lost_file_is_made_again(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(scene, out)
    run(scene, out, format=("gpkg", "fgb"))
    assert (out / "fields.fgb").exists()
    (out / "preview.png").unlink()
    run(scene, out, format=("gpkg", "fgb"))
    assert (out / "preview.png").exists()


def test_what_only_polygons_depend_on_may_change_on_the_way(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(GeosegError, match="cable"):
        run(scene, out, events=Events((StopAt("regions", 1),)))
    before = {path: path.stat().st_mtime_ns for path in Workspace(out).store.rglob("*.*")}
    seen = StopAt("predict", 1)
    assert run(scene, out, min_area_m2=10, events=Events((seen,))).resumed
    assert seen.left == 1, "no tile was predicted again"
    assert before


@pytest.mark.parametrize("text", ["", "[1, 2]", "{broken"])
def test_a_broken_record_is_refused_and_can_be_replaced(text: str, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(scene, out)
    (out / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run.json cannot be read; use --overwrite"):
        run(scene, out)
    run(scene, out, overwrite=True)
    assert json.loads((out / "run.json").read_text())["counts"]["fields"] > 0


def test_replacing_a_run_leaves_nothing_of_the_old_one(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(scene, out, format=("gpkg", "shp"))
    import geoseg.runtime.workspace as workspace

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def replace(source: Path, target: Path) -> None:
        full() if Path(target).parent == out.absolute() else Path(source).rename(target)

    with monkeypatch.context() as patch:
        patch.setattr(workspace.os, "replace", replace)
        with pytest.raises(RunError, match="No space left"):
            run(scene, out, min_area_m2=10, overwrite=True)
    run(scene, out, min_area_m2=10)
    assert not list(out.glob("fields.sh*"))
    assert (out / "fields.gpkg").exists()


def test_two_runs_in_one_directory_do_not_meet(scene: Path, tmp_path: Path) -> None:
    with Workspace(tmp_path / "out").locked(), pytest.raises(RunError, match="another geoseg run is at work"):
        run(scene, tmp_path / "out")
    run(scene, tmp_path / "out")


def test_a_lazy_mask_knows_the_area_of_interest(scene: Path, tmp_path: Path) -> None:
    triangle = shapely.Polygon([(500_100, 4_999_000), (501_900, 4_999_000), (500_900, 5_000_100)])
    gpd.GeoSeries([triangle], crs="EPSG:32633").to_file(tmp_path / "aoi.gpkg")
    run(scene, tmp_path / "out", aoi=str(tmp_path / "aoi.gpkg"))
    lazy = geoseg.segment(scene, MODEL, aoi=str(tmp_path / "aoi.gpkg")).compute()
    np.testing.assert_array_equal(lazy, mask_of(tmp_path / "out"))
    assert (lazy == 255).any()


@pytest.mark.parametrize("box", ["-180,-90,180,90", "-70,-10,100,80", "14,44,16,46"])
def test_an_area_around_the_scene_is_all_of_it(
    box: str, scene: Path, tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    run(scene, tmp_path / "out", aoi=box)
    np.testing.assert_array_equal(mask_of(tmp_path / "out"), pixels)


def test_an_area_must_be_polygons(scene: Path, tmp_path: Path) -> None:
    gpd.GeoSeries([shapely.LineString([(500_100, 4_999_000), (501_900, 4_999_000)])], crs="EPSG:32633").to_file(
        tmp_path / "line.gpkg"
    )
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    for name in ("line.gpkg", "table.csv"):
        with pytest.raises(InputError, match="holds no polygons"):
            run(scene, tmp_path / "out", aoi=str(tmp_path / name))


def test_nodata_may_be_nan(tmp_path: Path) -> None:
    floats = np.full((40, 50), 1.0, np.float32)
    floats[:5] = np.nan
    path = write(tmp_path / "float.tif", floats, nodata=None)
    run(path, tmp_path / "out", nodata=float("nan"))
    assert (mask_of(tmp_path / "out")[:5] == 255).all()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["options"]["nodata"] == "nan"


@pytest.mark.parametrize(
    ("crs", "transform"), [("EPSG:4326", Affine(1, 0, 5, 0, -1, 0)), ("EPSG:32633", Affine(10, 0, 5e9, 0, -10, 5e9))]
)
def test_coordinates_that_are_no_place_are_refused(
    crs: str, transform: Affine, tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    path = write(tmp_path / "odd.tif", pixels, crs=crs, transform=transform)
    with pytest.raises(InputError, match="is no place in"):
        run(path, tmp_path / "out")


def test_wrong_classes_are_refused_before_the_work(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="it has background, field, boundary"):
        run(scene, tmp_path / "out", field_class="wheat")
    with pytest.raises(GeosegError, match="installed: components"):
        run(scene, tmp_path / "out", instances="watersheds")
    assert not (tmp_path / "out").exists()


def test_any_value_of_a_mask_can_become_polygons(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    counts = []
    for name, mask, value in (("byte", pixels * 255, 255), ("crop", pixels.astype(np.uint16) * 1001, 1001)):
        path = write(tmp_path / f"{name}.tif", mask, nodata=None)
        count, (written, *_) = vectorize_file(
            path, out=tmp_path / f"{name}.gpkg", options=RunOptions(field_class=str(value))
        )
        counts.append(count)
        assert gpd.read_file(written, layer="fields")["class"].unique().tolist() == [f"class_{value}"]
    assert counts == [counts[0]] * 2
    assert counts[0] > 10


def test_a_mask_is_a_geotiff(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"ends in .tif"):
        segment_file(scene, out=tmp_path / "mask.png")


def test_classes_come_first_among_outputs() -> None:
    outputs = (Channel(name="distance", kind="distance"), Channel(name="field"))
    with pytest.raises(ModelError, match="name the classes first"):
        ModelSpec(name="odd", title="", bands=(BandSpec(name="red"),), outputs=outputs)


def test_simplified_outlines_keep_their_distance_in_degrees(tmp_path: Path) -> None:
    rows, cols = np.indices((120, 160))
    disc = ((rows - 60) ** 2 + ((cols - 80) / 1.3) ** 2 < 45**2).astype(np.uint8)
    path = write(tmp_path / "north.tif", disc, crs="EPSG:4326", transform=Affine(0.0002, 0, 20, 0, -0.0001, 65))
    exact = run(path, tmp_path / "exact").fields.to_crs(32634)
    thin = run(path, tmp_path / "thin", simplify_m=30).fields.to_crs(32634)
    assert shapely.get_num_coordinates(thin.geometry[0]) < shapely.get_num_coordinates(exact.geometry[0]) / 2
    assert shapely.hausdorff_distance(exact.geometry[0], thin.geometry[0]) <= 30.1


def test_what_a_finished_run_left_because_it_was_killed_is_tidied_up(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(scene, out)
    (out / ".partial" / "store").mkdir(parents=True)
    (out / ".partial.0a1b2c3d.old").mkdir()
    (out / ".geoseg.lock").touch()
    assert run(scene, out).resumed
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_tiles_that_come_home_late_do_not_reach_the_run_that_was_begun_anew(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(GeosegError, match="cable"):
        run(scene, out, events=Events((StopAt("predict", 3),)))
    late = Workspace(out).journal
    with pytest.raises(GeosegError, match="cable"):
        run(scene, out, restart=True, events=Events((StopAt("predict", 3),)))
    assert Workspace(out).journal != late
    assert not late.exists()


def test_a_tile_is_traced_again_where_half_of_it_is_gone(scene: Path, tmp_path: Path) -> None:
    whole, out = run(scene, tmp_path / "whole").record["outputs"], tmp_path / "out"
    with pytest.raises(GeosegError, match="cable"):
        run(scene, out, events=Events((StopAt("outlines", 9),)))
    lost = sorted(Workspace(out).fields.glob("*/whole/*.piece"))
    assert lost
    for path in lost[::2]:
        path.unlink()
    assert run(scene, out).record["outputs"] == whole
