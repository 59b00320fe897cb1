"""geoseg segment: scene in, mask out."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli.options import given, model_options, run_controls, scene_options


@click.command("segment")
@click.argument("scenes", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False), help="The mask, e.g. mask.tif.")
@click.option("--probabilities", is_flag=True, help="Write probabilities, one band a class, in place of class ids.")
@click.option(
    "--confident", type=float, metavar="P",
    help="Pixels whose best class is less probable are 255, unknown: pseudo-labels to train on.",
)  # fmt: skip
@scene_options
@model_options
@run_controls
def command(
    scenes: tuple[str, ...], out: str, confident: float | None, overwrite: bool, restart: bool, quiet: bool, log_json: bool,
    **_: Any,
) -> None:  # fmt: skip
    """Segment SCENE into one georeferenced raster of class ids (COG)."""
    from geoseg.cli.progress import progress
    from geoseg.pipeline import segment_file
    from geoseg.recipes import RunOptions

    options = RunOptions.checked(**given())
    with progress(quiet=quiet, log_json=log_json) as events:
        written = segment_file(
            *scenes, out=out, options=options, overwrite=overwrite, restart=restart, events=events, confident=confident
        )
    if not quiet and not log_json:
        click.echo(str(written))
