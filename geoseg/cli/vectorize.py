"""geoseg vectorize: class mask or probabilities in, field polygons out."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli.options import field_options, given, time_option


@click.command("vectorize")
@click.argument("source", type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(), help="Vector file; its suffix says the format.")
@field_options
@click.option("--classes", help="Names of the classes by id, e.g. background,field,boundary.")
@click.option("--crs", help="CRS of a raster that does not say its own.")
@click.option("--nodata", type=float, help="Stored value that means no data, in place of the file's own.")
@click.option("--pixel-size-m", type=float, help="Pixel size in metres of a raster without a CRS.")
@time_option
@click.option("--tile", type=int, help="Side of a tile in pixels; never decides the result.")
@click.option("--workers", type=int, help="Tiles under way at a time.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--log-json", is_flag=True, help="Progress as JSON lines on standard error.")
def command(
    source: str, out: str, classes: str | None, tile: int | None, overwrite: bool, quiet: bool,
    log_json: bool, **_: Any,
) -> None:  # fmt: skip
    """Turn a class mask, or a raster with one probability band a class, into polygons without seams."""
    from geoseg.cli.progress import progress
    from geoseg.pipeline import vectorize_file
    from geoseg.recipes import RunOptions

    values = {name: value for name, value in given().items() if name not in ("classes", "tile")}
    names = tuple(classes.split(",")) if classes else None
    with progress(quiet=quiet, log_json=log_json) as events:
        count, written = vectorize_file(
            source, out=out, options=RunOptions.checked(**values), classes=names, tile=tile, overwrite=overwrite,
            events=events,
        )  # fmt: skip
    if not quiet and not log_json:
        click.echo(f"{count:,} polygons in {', '.join(str(path) for path in written)}")
