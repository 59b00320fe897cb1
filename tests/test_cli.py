"""The command line as a stranger meets it: help at once, one clear line for each mistake, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine


def geoseg(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "geoseg", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | environment,
    )  # fmt: skip


def write(path: Path, *, bands: int = 3, dtype: str = "uint8", crs: str | None = "EPSG:32633", size: int = 64,
          pixel: float = 1.0, names: tuple[str, ...] = ()) -> Path:  # fmt: skip
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 250, (bands, size, size)).astype(dtype)
    profile = {
        "driver": "GTiff",
        "count": bands,
        "height": size,
        "width": size,
        "dtype": dtype,
        "photometric": "MINISBLACK",
    }
    with rasterio.open(
        path, "w", **profile, crs=crs, transform=Affine(pixel, 0, 500_000, 0, -pixel, 5_000_000)
    ) as file:
        file.write(pixels)
        if names:
            file.descriptions = names
    return path


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom geoseg.cli.main import main\nsys.argv = ['geoseg', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'dask', 'torchgeo', 'numpy', 'rasterio', 'geopandas', 'openvino'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("run", "segment", "vectorize", "convert", "evaluate", "models", "info"):
        assert name in done.stdout
    assert "broken" not in done.stdout


def test_importing_geoseg_imports_nothing_heavy() -> None:
    code = "import sys, geoseg; dir(geoseg); assert not {'torch', 'dask', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_command_has_help() -> None:
    for name in ("run", "segment", "vectorize", "convert", "evaluate", "models", "info"):
        done = geoseg(name, "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run",), 2, "Missing argument"),
        (("runn",), 2, "No such command"),
        (("run", "x.tif"), 2, "Missing option"),
        (("run", "nope.tif", "-o", "OUT"), 1, "no file 'nope.tif'"),
        (("run", "text.tif", "-o", "OUT"), 1, "is no raster"),
        (("run", "rgb.tif", "-o", "OUT", "--model", "unett"), 1, "installed: 'fields-rgb', 'fields-s2'"),
        (("run", "rgb.tif", "-o", "OUT", "--format", "dwg"), 1, "known: gpkg, shp, parquet, fgb, geojson"),
        (("run", "rgb.tif", "-o", "OUT", "--recipe", "nope"), 1, "drone_fields, landsat_fields, planet_fields, sentinel2_fields"),
        (("run", "rgb.tif", "-o", "OUT", "--bands", "red,green"), 1, "--bands names 2 bands"),
        (("run", "rgb.tif", "-o", "OUT", "--aoi", "10,10,11,11"), 1, "lies outside"),
        (("run", "rgb.tif", "-o", "OUT", "--aoi", "missing.geojson"), 1, "no such file"),
        (("run", "rgb.tif", "-o", "OUT", "--engine", "warp"), 1, "known: auto, torch, openvino"),
        (("run", "rgb.tif", "-o", "OUT", "--patch", "100"), 1, "multiples of the model's stride 32"),
        (("run", "rgb.tif", "-o", "OUT", "--crs", "EPSG:99999999"), 1, "EPSG:99999999"),
        (("run", "rgb.tif", "-o", "text.tif"), 1, "is a file; -o names a directory"),
        (("run", "rgb.tif", "-o", "/proc/nope"), 1, "cannot be written"),
        (("run", "unnamed.tif", "-o", "OUT"), 1, "--bands"),
        (("run", "coarse.tif", "-o", "OUT", "--model", "fields-rgb"), 1, "--resample"),
        (("run", "rgb.tif", "other.tif", "-o", "OUT"), 1, "other.tif is in EPSG:32632 and rgb.tif in EPSG:32633"),
        (("vectorize", "nope.tif", "-o", "x.gpkg"), 1, "no file 'nope.tif'"),
        (("vectorize", "rgb.tif", "-o", "x.dwg"), 1, "known: fgb, geojson, gpkg, parquet, shp"),
        (("convert", "nope.gpkg", "x.shp"), 1, "nope.gpkg"),
        (("models", "show", "unett"), 1, "installed: 'fields-rgb'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(
    arguments: tuple[str, ...], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rgb.tif", names=("red", "green", "blue"))
    write(tmp_path / "other.tif", names=("red", "green", "blue"), crs="EPSG:32632")
    write(tmp_path / "unnamed.tif")
    write(tmp_path / "coarse.tif", names=("red", "green", "blue"), pixel=30)
    (tmp_path / "text.tif").write_text("no raster at all")
    done = geoseg(*arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("geoseg: ")]
        assert len(lines) == 1, done.stderr
        assert done.stderr.splitlines()[-1] == lines[0]
    assert not [path for path in tmp_path.rglob("*") if path.name in ("mask.tif", "run.json", "x.gpkg")]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = geoseg("--debug", "run", tmp_path / "nope.tif", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_run_from_the_command_line(samples: Path, tmp_path: Path) -> None:
    done = geoseg(
        "run",
        samples / "s2_farmland.tif",
        "-o",
        tmp_path / "out",
        "--recipe",
        "sentinel2_fields",
        "--format",
        "gpkg,shp",
    )
    assert done.returncode == 0, done.stderr
    assert "mask.tif" in done.stdout
    assert "fields-s2" in done.stdout
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["options"]["probabilities"] is True, "the recipe is used"
    assert record["options"]["format"] == ["gpkg", "shp"], "the command line wins over the recipe"
    again = geoseg(
        "run",
        samples / "s2_farmland.tif",
        "-o",
        tmp_path / "out",
        "--recipe",
        "sentinel2_fields",
        "--format",
        "gpkg,shp",
    )
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    scored = geoseg("evaluate", tmp_path / "out" / "fields.gpkg", samples / "s2_farmland_truth.gpkg", "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["objects"]["f1"] > 0.3
    quiet = geoseg("info", samples / "s2_farmland.tif", "--json")
    assert json.loads(quiet.stdout)["pixel"] == pytest.approx(10, abs=0.02)


def test_every_option_of_the_command_line_has_its_name_in_the_recipe() -> None:
    from geoseg.cli.options import _OF_THE_COMMAND
    from geoseg.cli.run import command
    from geoseg.recipes import RunOptions

    options = {parameter.name for parameter in command.params} - _OF_THE_COMMAND
    assert options == set(RunOptions.model_fields)


def test_shipped_recipes_are_complete_and_read() -> None:
    from geoseg.recipes import load_recipe, recipe_names

    assert set(recipe_names()) == {"drone_fields", "landsat_fields", "planet_fields", "sentinel2_fields"}
    assert load_recipe("drone_fields")["resample"] is True
    assert load_recipe("sentinel2_fields")["model"] == "fields-s2"
