"""geoseg models: which models there are, and what each needs."""

from __future__ import annotations

import click

from geoseg.cli.model_files import export, new, show, verify
from geoseg.cli.prune import prune


@click.group("models")
def command() -> None:
    """List models, show what one needs, make and check packages."""


for each in (show, new, verify, export, prune):
    command.add_command(each)


@command.command("list")
@click.option("--all", "everything", is_flag=True, help="torchgeo's named weights too (slow: imports torchgeo).")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_models(everything: bool, as_json: bool) -> None:
    """Models by name."""
    import json

    from geoseg.models import available

    found = available(torchgeo=everything)
    if as_json:
        click.echo(
            json.dumps([{"name": info.name, "title": info.title, "origin": info.source} for info in found], indent=2)
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "what", "from"):
        table.add_column(name)
    for info in found:
        table.add_row(info.name, info.title, info.source)
    Console(highlight=False).print(table)
    if not everything:
        click.echo(
            "Also: torchgeo checkpoints (FILE.ckpt), folders with spec.json, named weights (--all lists them). "
            "Networks have no weights yet: `geoseg models new` makes models of them.",
            err=True,
        )


@command.command("quantize")
@click.argument("name")
@click.option(
    "--calibrate", "-c", multiple=True, required=True, type=click.Path(), metavar="SCENE",
    help="A scene that shows what the network will see; give several.",
)  # fmt: skip
@click.option(
    "--check", multiple=True, type=click.Path(), metavar="SCENE",
    help="Scenes to compare with float32 on; those of --calibrate if none are given.",
)  # fmt: skip
@click.option("--bands", help="Names of the scenes' bands in file order, e.g. red,green,blue,nir.")
@click.option(
    "-o", "--out", type=click.Path(file_okay=False), help="A folder for a copy of the model; its own if not given."
)
def quantize(name: str, calibrate: tuple[str, ...], check: tuple[str, ...], bands: str | None, out: str | None) -> None:
    """Make a packaged model's network in 8 bits, for --precision int8."""
    from pathlib import Path

    from geoseg.engines.int8 import LARGEST_DISAGREEMENT, settled
    from geoseg.models import load
    from geoseg.quantisation import quantise_model

    made = quantise_model(
        name,
        calibrate=calibrate,
        check=check,
        bands=bands.split(",") if bands else None,
        out=Path(out) if out else None,
    )
    click.echo(f"{made.path}  {made.path.stat().st_size / 1e6:.1f} MB")
    click.echo(f"differs from float32 on {made.disagreement:.2%} of pixels ({', '.join(made.checked_with)})")
    choice = settled(load(made.path.parent))
    taken = "takes it here" if choice.precision == "int8" else "does not take it here"
    click.echo(f"--precision auto {taken} (limit {LARGEST_DISAGREEMENT:.2%}): {choice.reason}")
