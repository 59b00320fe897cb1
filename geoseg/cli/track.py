"""`geoseg track OLD NEW`: the ids of one date's fields carried over to another one's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from geoseg.cli.options import Decorator

if TYPE_CHECKING:
    from geoseg.tracking import Tracked


def _share(name: str, default: float, text: str) -> Decorator:
    return click.option(f"--{name}", type=float, default=default, show_default=True, metavar="SHARE", help=text)


@click.command("track", short_help="Carry the ids of fields over from one date to another.")
@click.argument("old")
@click.argument("new")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path),
    help="NEW with ids and events; the suffix says the format: tracked.gpkg, .parquet, .fgb, .shp, .geojson.",
)  # fmt: skip
@click.option("--log", type=click.Path(path_type=Path), help="The log, a CSV.  [default: beside OUT, NAME.log.csv]")
@click.option("--id", "id_column", metavar="COLUMN", help="Column of OLD with ids.  [default: id]")
@click.option("--crs", metavar="CRS", help="The CRS of a layer that does not state one, such as EPSG:32632.")
@_share("same-iou", 0.5, "A pair is the same field from this IoU on.")
@_share("moved-iou", 0.2, "Below that, and from this IoU on, it has moved.")
@_share("inside", 0.5, "So much of the smaller of two fields must lie in the other, for the two to be linked.")
@_share("part", 0.1, "So much of the larger of two fields must lie in the other; less is a scrap.")
@_share("cover", 0.5, "So much of a field must its parts cover together, for a split or a merger.")
@_share("shape", 0.7, "IoU, centroid on centroid, from which two fields that hardly overlap are one that moved.")
@click.option(
    "--reach", type=float, default=0.5, show_default=True, metavar="SIDES",
    help="How far the centroids of those may be apart, in sides of a square of the field's area.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace OUT and the log where they exist.")
@click.option("-q", "--quiet", is_flag=True, help="No table, no notes.")
def command(
    old: str, new: str, out: Path, log: Path | None, id_column: str | None, crs: str | None, overwrite: bool,
    quiet: bool, **limits: float,
) -> None:  # fmt: skip
    """Carry the ids of the fields of OLD over to NEW, and tell what became of each.

    OLD and NEW are vector files with polygons, in any CRS ('FILE|layername=NAME' picks a layer). OUT is NEW with the
    columns id, event, parents and iou in front; what NEW has under these names is called new_id and so on. A field that
    is the same or has moved keeps its id; parts of a split, merged, rearranged and new fields get ids that never were.
    The log has a row for each link between an old and a new field, and for each field that is gone.

    \b
    geoseg track fields_2021.gpkg fields_2022.gpkg -o tracked_2022.gpkg
    geoseg track tracked_2022.gpkg fields_2023.gpkg -o tracked_2023.gpkg
    """
    from geoseg.tracking import Thresholds, track
    from geoseg.tracking.files import check_free, write

    log = log or out.with_name(f"{out.stem}.log.csv")
    check_free(out, log, sources=(old, new), overwrite=overwrite)
    tracked = track(old, new, thresholds=Thresholds(**limits), id_column=id_column, crs=crs)
    write(tracked, out, log)
    if not quiet:
        for note in tracked.notes:
            click.echo(f"note: {note}", err=True)
        _tell(tracked, out, log)


def _tell(tracked: Tracked, out: Path, log: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    without = tracked.fields.crs is None
    rows = [
        (name, f"{olds:,}" if name != "new" else "", f"{news:,}" if name != "gone" else "",
         _area(old_area, without) if name != "new" else "", _area(new_area, without) if name != "gone" else "")
        for name, (olds, news, old_area, new_area) in tracked.counts.items()
    ]  # fmt: skip
    unit = "px" if without else "ha"
    header = ("event", "old", "new", f"old {unit}", f"new {unit}")
    console = Console(highlight=False)
    if console.is_terminal:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in header:
            table.add_column(title, justify="left" if title == "event" else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        for row in (header, *rows):
            click.echo("\t".join(row))
    kept = int(tracked.fields["event"].isin(["same", "moved"]).sum())
    click.echo(f"{kept:,} of {len(tracked.fields):,} fields keep their id: {out}, log: {log}")


def _area(area: float, without: bool) -> str:
    return f"{area:,.0f}" if without else f"{area / 1e4:,.1f}"
