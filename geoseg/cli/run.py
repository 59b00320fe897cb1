"""geoseg run: scene in, mask and field polygons out."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli.options import field_options, given, model_options, run_controls, scene_options, time_option


@click.command("run")
@click.argument("scenes", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(), help="Directory for the results.")
@click.option("--recipe", help="Options from a YAML file or a shipped recipe; the command line wins.")
@click.option("--format", help="Vector formats: gpkg,shp,parquet,fgb,geojson.  [default: gpkg]")
@click.option("--probabilities", is_flag=True, help="Write probabilities.tif too.")
@scene_options
@time_option
@model_options
@field_options
@run_controls
def command(
    scenes: tuple[str, ...], out: str, recipe: str | None, overwrite: bool, restart: bool,
    quiet: bool, log_json: bool, **_: Any,
) -> None:  # fmt: skip
    """Segment SCENE and write mask, field polygons, preview and record into OUT.

    SCENE is one raster, or several single-band rasters on one grid. The same command again resumes.

    \b
    geoseg run scene.tif -o out
    geoseg run B04.jp2 B03.jp2 B02.jp2 B08.jp2 -o out --format gpkg,shp
    geoseg run scene.tif -o out --recipe sentinel2_fields --aoi farm.geojson
    """
    from geoseg.cli.progress import progress
    from geoseg.pipeline import run
    from geoseg.recipes import RunOptions, load_recipe

    values = load_recipe(recipe) if recipe else {}
    options = RunOptions.checked(**(values | given()))
    with progress(quiet=quiet, log_json=log_json) as events:
        result = run(*scenes, out=out, options=options, overwrite=overwrite, restart=restart, events=events)
    if not quiet and not log_json:
        from geoseg.cli.tables import result_table

        result_table(result)
