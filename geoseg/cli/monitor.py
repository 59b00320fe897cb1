"""geoseg monitor: fields and scenes of many dates in, a series by field and date out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from geoseg.cli.options import given, scene_options

if TYPE_CHECKING:
    from geoseg.monitoring import Monitored


@click.command("monitor")
@click.argument("fields")
@click.argument("scenes", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(), help="The series: .parquet (GeoParquet) or .csv.")
@click.option("--recipe", help="Options from a YAML file or a shipped recipe; the command line wins.")
@click.option("--append", is_flag=True, help="Add the dates of SCENES to the series in OUT.")
@click.option("--overwrite", is_flag=True, help="Replace OUT; with --append, replace values of dates that it has.")
@click.option("--variables", help="Bands and indices to measure, e.g. ndvi,evi,red.  [default: all there are]")
@click.option(
    "--pixels", type=click.Choice(["coverage", "centres"]), default="coverage", show_default=True,
    help="Pixels count by the share that lies in the field, or wholly where their centre does.",
)  # fmt: skip
@click.option("--dates", help="Dates of SCENES in their order, e.g. 2023-04-01,2023-05-01.")
@click.option("--date-pattern", help="Regular expression with the groups year, month, day, for the scenes' paths.")
@click.option("--id-column", help="Column with the ids of fields.  [default: id, else the rows' numbers]")
@click.option("--index", default="ndvi", show_default=True, help="Variable of seasons, anomalies and pictures.")
@click.option(
    "--min-valid", type=float, default=0.5, show_default=True, help="Share of a field that must be valid for these."
)
@click.option(
    "--smoothing", type=float, default=300.0, show_default=True, help="Lambda of the Whittaker smoother, for days."
)
@click.option(
    "--season-share", type=float, default=0.2, show_default=True,
    help="Share of the amplitude at which a season starts and ends.",
)  # fmt: skip
@click.option(
    "--season-start", default="01-01", show_default=True, help="Month and day on which seasons' curves begin."
)
@click.option("--min-amplitude", type=float, default=0.1, show_default=True, help="Flatter curves have no season.")
@click.option("--min-dates", type=int, default=5, show_default=True, help="Dates that a season's curve needs.")
@click.option(
    "--past-days", type=int, default=15, show_default=True,
    help="How far from the same day of the year earlier years are looked at.",
)  # fmt: skip
@click.option("--neighbours", type=int, default=8, show_default=True, help="Nearest fields to compare with.")
@click.option("--radius-m", type=float, default=5000.0, show_default=True, help="No neighbour is farther away.")
@click.option(
    "--plots", type=click.Path(file_okay=False), help="Folder for a picture a field and a map of each date in SCENES."
)
@click.option("--field", "plot_ids", multiple=True, help="Id of a field to plot; may be repeated.")
@click.option("--plot-fields", type=int, default=20, show_default=True, help="Fields to plot where none is named.")
@scene_options
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--log-json", is_flag=True, help="Progress as JSON lines on standard error.")
def command(
    fields: str, scenes: tuple[str, ...], out: str, recipe: str | None, append: bool, overwrite: bool, plots: str | None,
    plot_ids: tuple[str, ...], quiet: bool, log_json: bool, **_: Any,
) -> None:  # fmt: skip
    """Measure FIELDS in SCENES of one date or more: a row a field, date and variable.

    FIELDS is a vector file; each of SCENES is one file or product folder with all its bands, whose date is its own or stands in
    its name. Clouds and nodata do not count (a band named `cloud` says where clouds are), and what is not seen stays a gap.
    Beside OUT lie the seasons and the anomalies of --index (docs/monitoring.md).

    \b
    geoseg monitor fields.gpkg 2023/*.tif -o series.parquet --plots plots
    geoseg monitor fields.gpkg this_week_20230601.tif -o series.parquet --append
    """
    from geoseg.cli.progress import progress
    from geoseg.monitoring import MonitorOptions, monitor

    values = MonitorOptions.of_recipe(recipe) if recipe else {}
    own = {name: value for name, value in given().items() if name in MonitorOptions.model_fields}
    options = MonitorOptions.checked(**(values | own))
    with progress(quiet=quiet, log_json=log_json) as events:
        found = monitor(
            fields, *scenes, out=out, options=options, append=append, overwrite=overwrite, plots=plots, plot_ids=plot_ids,
            events=events,
        )  # fmt: skip
    if not quiet and not log_json:
        _tell(found, options.index)


def _tell(found: Monitored, index: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    titles = ("date", "fields", "seen", "cloud", f"{index}: median", "p10", "p90", "source")
    for title in titles:
        table.add_column(title, justify="left" if title in ("date", "source") else "right", overflow="fold")
    rows = found.series.table
    shown = rows[rows["variable"] == (index if found.curves is not None else rows["variable"].iloc[0])]
    some = [day for day in sorted(shown["date"].unique()) if day.date() in found.dates]
    for day in some:
        here = shown[shown["date"] == day]
        seen = here[here["valid_fraction"] > 0]
        cloud = here["cloud_fraction"].mean()
        low, middle, high = (seen["median"].quantile(share) for share in (0.1, 0.5, 0.9))
        sources = here["source"].dropna().unique()
        table.add_row(
            f"{day:%Y-%m-%d}", f"{len(here):,}", f"{len(seen):,}", "-" if cloud != cloud else f"{cloud:.0%}",
            *(("-", "-", "-") if not len(seen) else (f"{middle:.3f}", f"{low:.3f}", f"{high:.3f}")),
            f"{sources[0] if len(sources) else '-'}{f' and {len(sources) - 1} more' if len(sources) > 1 else ''}",
        )  # fmt: skip
    Console(highlight=False, width=None if Console().is_terminal else 120).print(table)
    dates = rows["date"].nunique()
    variables = ", ".join(dict.fromkeys(rows["variable"]))
    click.echo(
        f"{found.files[0]}: {rows['field_id'].nunique():,} fields on {dates:,} date{'s' if dates != 1 else ''}, "
        f"{len(rows):,} rows ({variables})"
    )
    _tell_curves(found, index)


def _tell_curves(found: Monitored, index: str) -> None:
    if found.curves is not None:
        every = [season for seasons in found.curves.seasons.values() for season in seasons]
        peaks = sum(season.peak is not None for season in every)
        click.echo(f"{peaks:,} season{'s' if peaks != 1 else ''} of {index} with a peak")
    beside = [path for path in found.files[1:] if path.suffix != ".png"]
    pictures = len([path for path in found.files if path.suffix == ".png"])
    if beside:
        click.echo(f"beside it: {', '.join(path.name for path in beside)}")
    if pictures:
        click.echo(f"{pictures} picture{'s' if pictures != 1 else ''} in {found.files[-1].parent}")
