"""geoseg recipe: what is wrong with a recipe before anything runs."""

from __future__ import annotations

import click


@click.group("recipe")
def command() -> None:
    """Recipes: YAML files for `geoseg run`, `batch` and `train`."""


@command.command("check")
@click.argument("file", type=click.Path())
@click.option(
    "--kind", type=click.Choice(["run", "batch", "train"]), help="What it is a recipe of.  [default: by its entries]"
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def check(file: str, kind: str | None, as_json: bool) -> None:
    """Tell all that is wrong with the recipe FILE, with line numbers; exit with 1 if anything is.

    Names, values and files are looked at, and scenes as far as their headers: no pixel is read, nothing is written.
    """
    import json

    from geoseg.checking import check_recipe, problems

    report = check_recipe(file, kind=kind)
    if as_json:
        click.echo(json.dumps(problems.as_json(report), indent=2))
    else:
        for one in report.problems:
            place = f"{report.path}:{one.line}" if one.line is not None else str(report.path)
            click.echo(f"{place}: {f'{one.entry}: ' if one.entry else ''}{one.message}", err=True)
        for note in report.notes:
            click.echo(note)
        count = len(report.problems)
        kind_told = f"{report.path}{f', a recipe of `geoseg {report.kind}`' if report.kind else ''}"
        click.echo(f"{kind_told}: {f'{count} problem' + 's' * (count > 1) if count else 'nothing is in the way'}")
    click.get_current_context().exit(1 if report.problems else 0)
