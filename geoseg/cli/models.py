"""geoseg models: which models there are, and what each needs."""

from __future__ import annotations

from typing import Any

import click


@click.group("models")
def command() -> None:
    """List models, or show what one needs."""


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
            "Also: torchgeo checkpoints (FILE.ckpt), folders with spec.json, named weights (--all lists them).",
            err=True,
        )


@command.command("show")
@click.argument("name")
@click.option("--weights", help="Local weight file of a named model.")
@click.option("--json", "as_json", is_flag=True, help="The ModelSpec as JSON.")
def show(name: str, weights: str | None, as_json: bool) -> None:
    """Bands, classes, resolution, licence and origin of a model."""
    from geoseg.models import load
    from geoseg.models.methods import is_method, method_options

    spec = load(name, weights=weights).spec
    if as_json:
        click.echo(spec.to_json(), nl=False)
        return
    low, high = spec.resolution_m
    rows: list[tuple[str, Any]] = [
        ("name", spec.name),
        ("title", spec.title),
        ("bands", ", ".join(band.name + (" (optional)" if band.optional else "") for band in spec.bands)),
        ("classes", ", ".join(f"{i} {name}" for i, name in enumerate(spec.class_names))),
        ("resolution", "any" if high == float("inf") else f"{low:g} to {high:g} m, made for {spec.nominal_m:g} m"),
        ("scaling", {"scene": "by the whole scene's percentiles", "fixed": f"fixed, {spec.units}"}[spec.scaling]),
        ("patch", f"{spec.patch} px, halo {spec.halo}, stride {spec.stride}"),
        ("licence", spec.licence or "not stated"),
        ("trained on", spec.trained_on or "not stated"),
    ]
    for label, value in rows:
        click.echo(f"{label:<11} {value}")
    if is_method(name):
        chosen = method_options(name)
        click.echo(f"\noptions, as in --model {spec.name}:{chosen[0][0]}={chosen[0][1]}")
        for option, default, told in chosen:
            click.echo(f"  {option:<10} {told}  [{default}]")


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
