"""geoseg models prune: fewer channels, and a training after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command("prune")
@click.argument("name", metavar="MODEL")
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False), help="Folder that becomes the package.")
@click.option("--share", required=True, type=float, help="What to take away, above 0 and below 1, e.g. 0.3.")
@click.option(
    "--of", type=click.Choice(["multiply-adds", "channels"]), default="multiply-adds", show_default=True,
    help="What the share is of.",
)  # fmt: skip
@click.option(
    "--ranking", type=click.Choice(["global", "layer"]), default="global", show_default=True,
    help="Channels of all layers against each other, or the same share of each layer.",
)  # fmt: skip
@click.option(
    "--importance", type=click.Choice(["l2", "l1", "batch-norm"]), default="l2", show_default=True,
    help="The least important go: by the norm of their weights, or by the scale of batch normalisation.",
)  # fmt: skip
@click.option("--round-to", type=int, default=8, show_default=True, help="Channels that stay are a multiple of it.")
@click.option(
    "--scene", "scenes", multiple=True, type=click.Path(), metavar="SCENE",
    help="A scene to compare the classes of both networks on; give several.",
)  # fmt: skip
@click.option("--bands", help="Names of the scenes' bands in file order, e.g. red,green,blue,nir.")
@click.option(
    "--recipe", type=click.Path(), metavar="RECIPE",
    help="Train what is left as this YAML file of `geoseg train` says; its `from:` or `network:` does not count.",
)  # fmt: skip
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change an entry of the recipe.")
@click.option("--overwrite", is_flag=True, help="Replace a model in the folder; with --recipe, begin anew.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--log-json", is_flag=True, help="Progress as JSON lines on standard error.")
def prune(
    name: str,
    out: str,
    scenes: tuple[str, ...],
    bands: str | None,
    recipe: str | None,
    changes: tuple[str, ...],
    overwrite: bool,
    quiet: bool,
    log_json: bool,
    **options: Any,
) -> None:
    """Take whole channels out of a packaged model's network, so that it is smaller and faster.

    What is left has to be trained again: with --recipe at once, or by `geoseg train` with `from: FOLDER`.

    \b
    geoseg models prune fields-rgb -o small --share 0.3 --scene field.tif
    geoseg models prune fields-rgb -o small --share 0.3 --recipe my_fields.yaml
    geoseg models quantize small --calibrate field.tif
    """
    import json

    from geoseg.cli.progress import progress
    from geoseg.errors import InputError
    from geoseg.models.pruned import PruneOptions

    wanted, folder = PruneOptions(**options), Path(out)
    settings: dict[str, Any] = {"scenes": scenes, "bands": bands.split(",") if bands else None}
    if recipe is None:
        if changes:
            raise InputError("--set changes a recipe, and none is given; give --recipe RECIPE.yaml")
        from geoseg.pruning import prune_model

        _tell(out, prune_model(name, out=folder, options=wanted, overwrite=overwrite, **settings).record)
        click.echo(f"Train it before you use it: `from: {out}` in a recipe of geoseg train, or --recipe here.")
        return
    from geoseg.slimming import prune_and_train
    from geoseg.training.recipe import TrainRecipe, load_train_recipe

    def going_on(parent: Path) -> TrainRecipe:
        return load_train_recipe(recipe, [*changes, "network=null", f"from={json.dumps(str(parent))}"])

    with progress(quiet=quiet, log_json=log_json) as events:
        slim = prune_and_train(
            name, out=folder, options=wanted, recipe=going_on, folder=Path(recipe).absolute().parent, restart=overwrite,
            events=events, **settings,
        )  # fmt: skip
    _tell(out, slim.pruning)
    before, after = (slim.pruning["scores"][when] for when in ("before", "after"))
    for one, other, last in zip(before, after, slim.training["holdout"], strict=True):
        f1, iou = (
            ", ".join("-" if each[score] is None else f"{each[score]:.3f}" for each in (one, other, last))
            for score in ("f1", "pixel_iou")
        )
        click.echo(f"{one['scene']} (held out) before, pruned, trained: object F1@.5 {f1}; pixel IoU {iou}")


def _tell(out: str, record: Mapping[str, Any]) -> None:
    from geoseg.models.pruned import Size

    before, after = (Size(**record[when]) for when in ("before", "after"))
    for what, one, other in (
        ("parameters", before.parameters, after.parameters),
        ("multiply-adds a pixel", before.multiply_adds, after.multiply_adds),
        ("channels", before.channels, after.channels),
        ("bytes of weights", before.weights_bytes, after.weights_bytes),
    ):
        click.echo(f"{what:<22}{one:>12,} -> {other:>12,}  {other / one - 1:+.0%}")
    if before.mpx_per_s and after.mpx_per_s:
        gain = after.mpx_per_s / before.mpx_per_s
        click.echo(
            f"{'Mpx/s':<22}{before.mpx_per_s:>12.1f} -> {after.mpx_per_s:>12.1f}  {gain:.2f} times ({record['engine']})"
        )
    else:
        click.echo(f"speed {record['engine']}")
    if record["agreement"] is not None:
        click.echo(f"{record['agreement']:.1%} of pixels keep their class untrained ({', '.join(record['scenes'])})")
    click.echo(f"the model is in {out} (card.md, pruning.json)")
