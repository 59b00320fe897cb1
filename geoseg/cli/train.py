"""geoseg train: rasters and polygons in, a packaged model out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geoseg.training.preparation import Preparation
    from geoseg.training.recipe import TrainRecipe


@click.command("train")
@click.argument("recipe", type=click.Path())
@click.option("-o", "--out", type=click.Path(), help="Folder for the packaged model.  [default: `out:` of the recipe]")
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change an entry, e.g. --set schedule.epochs=10."
)
@click.option("--check", is_flag=True, help="Open everything and tell what would be learnt from; train nothing.")
@click.option("--restart", is_flag=True, help="Begin anew instead of resuming, and replace another training in OUT.")
@click.option(
    "--renderer", is_flag=True,
    help="Train no model but a renderer of such scenes, for `generated: {kind: gan}`, see docs/few_labels.md.",
)  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--log-json", is_flag=True, help="Progress as JSON lines on standard error.")
def command(
    recipe: str, out: str | None, changes: tuple[str, ...], check: bool, restart: bool, renderer: bool, quiet: bool,
    log_json: bool,
) -> None:  # fmt: skip
    """Train a model as the YAML file RECIPE says, on your own rasters and polygons.

    The same command again resumes where a training was stopped or killed. The package in OUT is a model for
    `geoseg run --model OUT`. pipelines/train_fields.yaml is a recipe to copy.

    \b
    geoseg train my_fields.yaml --check
    geoseg train my_fields.yaml -o models/my-fields
    geoseg train my_fields.yaml -o models/quick --set schedule.epochs=5 --set from=fields-s2
    geoseg train my_fields.yaml --renderer -o my-renderer
    """
    from geoseg.cli.progress import progress
    from geoseg.errors import InputError
    from geoseg.training.recipe import load_train_recipe

    wanted = load_train_recipe(recipe, changes)
    folder = Path(recipe).absolute().parent
    if renderer:  # which may be the one that the recipe draws from
        wanted = wanted.model_copy(update={"generated": None})
    if check:
        from geoseg.training.preparation import prepare_training

        _tell(prepare_training(wanted, folder=folder))
        return
    if renderer:
        _render(wanted, out=out, folder=folder, restart=restart, quiet=quiet, log_json=log_json)
        return
    target = out or wanted.out
    if target is None:
        raise InputError("where is the model to go? Give -o FOLDER, or `out:` in the recipe")
    from geoseg.teaching import train

    with progress(quiet=quiet, log_json=log_json) as events:
        taught = train(wanted, out=target, folder=folder, restart=restart, events=events)
    if not quiet and not log_json:
        _summary(taught.out, taught.record)


def _render(wanted: TrainRecipe, *, out: str | None, folder: Path, restart: bool, quiet: bool, log_json: bool) -> None:
    from geoseg.cli.progress import progress
    from geoseg.errors import InputError
    from geoseg.training.rendering import train_renderer
    from geoseg.training.rendering_preview import PREVIEW

    if out is None:
        raise InputError("where is the renderer to go? Give -o FOLDER (`out:` of the recipe is the model's)")
    with progress(quiet=quiet, log_json=log_json) as events:
        made = train_renderer(wanted, out=out, folder=folder, restart=restart, events=events)
    if not quiet and not log_json:
        here = os.path.relpath(out, folder)  # recipes are read so
        click.echo(
            f"the renderer is in {out}: look at {PREVIEW}, then use it: `generated: {{kind: gan, gan: {here}}}` in the recipe "
            f"(it paints {', '.join(made.bands)} at {made.pixel_size_m:.3g} m)"
        )


def _tell(made: Preparation) -> None:
    """What a training would do."""
    from rich.console import Console
    from rich.table import Table

    columns = {
        "scene": "scene", "role": "used for", "size": "pixels", "resolution_m": "m", "fields": "fields",
        "labelled": "labelled", "chip_places": "chip places", "validation_chips": "validation chips",
    }  # fmt: skip
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns.values():
        table.add_column(title, justify="left" if title in ("scene", "used for") else "right", overflow="fold")
    for entry in made.table():
        rows, cols = entry["size"]
        cells = entry | {"size": f"{cols} x {rows}", "labelled": f"{entry['labelled']:.0%}"}
        table.add_row(*("-" if cells[name] is None else str(cells[name]) for name in columns))
    console = Console(highlight=False, width=None if Console().is_terminal else 140)
    console.print(table)
    pixels = made.class_pixels
    shares = ", ".join(
        f"{name} {share:.1%}" for name, share in zip(made.start.spec.class_names, pixels / pixels.sum(), strict=True)
    )
    console.print(f"classes: {shares}")
    for note in made.notes:
        console.print(note)
    schedule = made.recipe.schedule
    origin = f"from {made.start.parent.name}" if made.start.parent is not None else "from random weights"
    console.print(
        f"{schedule.epochs} epochs of {schedule.steps} steps of {schedule.batch} chips, {origin}: nothing is in the way"
    )


def _summary(out: Path, record: Mapping[str, Any]) -> None:
    kept = record["kept"]
    click.echo(
        f"{record['recipe']['name']}: epoch {kept['epoch']:g} of {record['epochs']}, "
        f"mean IoU {kept['val_miou']:.3f} on validation"
    )
    for one in record["holdout"]:
        f1, iou = (f"{one[name]:.3f}" if one[name] is not None else "-" for name in ("f1", "pixel_iou"))
        click.echo(f"{one['scene']} (held out): object F1@.5 {f1}, pixel IoU {iou}")
    click.echo(
        f"the model is in {out} (card.md, curves.png, metrics.csv); try it: geoseg run SCENE --model {out} -o OUT"
    )
