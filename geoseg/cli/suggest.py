"""geoseg suggest: unlabelled scenes in, squares to label out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from geoseg.cli.options import given, model_options, scene_options

if TYPE_CHECKING:
    from geoseg.suggestion import Suggested


@click.command("suggest")
@click.argument("scenes", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False), help="The GeoPackage, e.g. tiles.gpkg.")
@click.option("--count", type=int, default=20, show_default=True, help="Squares to label.")
@click.option("--side", type=int, default=256, show_default=True, help="Side of a square in pixels.")
@click.option(
    "--by", type=click.Choice(["margin", "entropy"]), default="margin", show_default=True,
    help="Uncertainty: 1 - (p1 - p2) of the two most probable classes, or the entropy of all.",
)  # fmt: skip
@click.option(
    "--diversity", type=float, default=0.5, show_default=True,
    help="0: the most uncertain squares; 1: those that differ most from each other and from what is labelled.",
)  # fmt: skip
@click.option(
    "--min-valid", type=float, default=0.5, show_default=True, help="Share of a square's pixels that must be valid."
)
@click.option(
    "--exclude", multiple=True, type=click.Path(),
    help="What is labelled already: a vector file, or the GeoPackage of an earlier round; may be repeated.",
)  # fmt: skip
@scene_options
@model_options
@click.option("--overwrite", is_flag=True, help="Replace OUT, and all that was drawn into it.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--log-json", is_flag=True, help="Progress as JSON lines on standard error.")
def command(
    scenes: tuple[str, ...], out: str, count: int, side: int, by: Any, diversity: float, min_valid: float,
    exclude: tuple[str, ...], overwrite: bool, quiet: bool, log_json: bool, **_: Any,
) -> None:  # fmt: skip
    """Suggest squares of unlabelled SCENES to label next, as a GeoPackage to draw into.

    Each SCENE is one file with all its bands. The model looks at all of them; chosen are squares where it is unsure, and which
    differ from each other. OUT has a layer `tiles` with the squares, and an empty layer `fields`: draw all fields in the
    squares there, whole ones, and name both layers in a recipe of `geoseg train` (docs/few_labels.md).

    \b
    geoseg suggest scene1.tif scene2.tif -o round1.gpkg --count 10
    geoseg suggest scene*.tif -o round2.gpkg --model models/round1 --exclude round1.gpkg
    """
    from geoseg.cli.progress import progress
    from geoseg.recipes import RunOptions
    from geoseg.suggestion import Wanted, suggest

    options = RunOptions.checked(**given())
    wanted = Wanted(count=count, side=side, by=by, diversity=diversity, min_valid=min_valid)
    with progress(quiet=quiet, log_json=log_json) as events:
        found = suggest(
            *scenes, out=out, wanted=wanted, options=options, exclude=exclude, overwrite=overwrite, events=events
        )
    if not quiet and not log_json:
        _tell(found, out)


def _tell(found: Suggested, out: str) -> None:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("rank", "scene", "uncertainty", "valid", "row", "col"):
        table.add_column(title, justify="left" if title == "scene" else "right", overflow="fold")
    for one in pd.DataFrame(found.tiles).itertuples():
        table.add_row(
            str(one.rank), str(one.scene), f"{one.uncertainty:.3f}", f"{one.valid:.0%}", str(one.row), str(one.col)
        )
    Console(highlight=False, width=None if Console().is_terminal else 120).print(table)
    click.echo(
        f"{len(found.tiles)} of {found.candidates} squares are in {out}, layer tiles"
        f"{f' ({found.labelled} were labelled before)' if found.labelled else ''}; draw their fields into its layer fields"
    )
