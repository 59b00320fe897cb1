"""Tables that commands print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from geoseg.batching import BatchResult
    from geoseg.outputs import Result

# Parts of a shapefile and styles: they go with the file of the same name.
BESIDE = (".shx", ".dbf", ".prj", ".cpg", ".csv", ".qml")

WHAT = {
    "mask": "class ids, 255 where there is no data (COG)",
    "probabilities": "probability a class, 0..254 (COG)",
    "fields": "field polygons",
    "preview": "picture to look at",
    "item": "STAC item of all of it",
    "model": "what the model is",
}


def result_table(result: Result) -> None:
    """What a run wrote, and its sums."""
    from rich.console import Console
    from rich.table import Table

    console, record = Console(highlight=False), result.record
    rows = [
        (str(result.out / name), WHAT.get(entry["kind"], entry["kind"]), size_text(entry["bytes"]))
        for name, entry in record["outputs"].items()
        if Path(name).suffix not in BESIDE
    ]
    record_file = result.out / "run.json"
    rows.append((str(record_file), "inputs, model, options, versions, timings", size_text(record_file.stat().st_size)))
    if not console.is_terminal:
        for row in rows:
            print("\t".join(row))
        print(summary(record))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", overflow="fold")
    table.add_column("holds")
    table.add_column("size", justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(summary(record))


MOST_ROWS = 40
"""Scenes that a terminal shows; of more only those that failed."""


def batch_table(result: BatchResult) -> None:
    """What became of each scene of a batch, and the sums."""
    from rich.console import Console

    from geoseg.batching.summary import rows_of

    told = rows_of(result.outcomes)
    shown = told if len(told) <= MOST_ROWS or not Console().is_terminal else [r for r in told if r["status"] != "done"]
    rows_table(
        ("scene", "", "fields", "ha", "s", "reason"),
        [
            (
                row["id"], row["status"], *(("", "") if row["fields"] is None else (
                    f"{row['fields']:,}", f"{row['area_m2'] / 1e4:,.1f}")), f"{row['seconds']:.1f}", row["reason"],
            )
            for row in shown
        ],
        right=(2, 3, 4),
    )  # fmt: skip
    done = [row for row in told if row["status"] == "done"]
    failed = result.counts["failed"]
    hectares = sum(row["area_m2"] or 0 for row in done) / 1e4
    print(
        f"{len(done)} of {len(told)} scenes done: {sum(row['fields'] or 0 for row in done):,} fields, {hectares:,.1f} ha, "
        f"in {sum(row['seconds'] for row in done):,.1f} s of runs; see {result.out / 'summary.parquet'} and "
        f"{result.out / 'catalog' / 'collection.json'}"
    )
    if failed:
        print(f"{failed} failed, see {result.out / 'failed.csv'}; mend them and run again with --retry-failed")


def rows_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A table on a terminal, tabs in a pipe."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        for row in rows:
            print("\t".join(row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def summary(record: Mapping[str, Any]) -> str:
    """One sentence on what was found, and how long it took."""
    counts, seconds = record["counts"], record["seconds"]
    rows, cols = record["scene"]["shape"]
    hectares = counts["area_m2"] / 1e4
    return (
        f"{counts['fields']:,} fields, {hectares:,.1f} ha, from {cols:,} x {rows:,} pixels "
        f"with {record['model']['name']} in {seconds['all']:.1f} s"
    )


def size_text(size: int) -> str:
    """Bytes as people read them."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
