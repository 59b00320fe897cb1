"""Tables that commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geoseg.outputs import Result

WHAT = {
    "mask": "class ids, 255 where there is no data (COG)",
    "probabilities": "probability a class, 0..254 (COG)",
    "fields": "field polygons",
    "preview": "picture to look at",
}


def result_table(result: Result) -> None:
    """What a run wrote, and its sums."""
    from rich.console import Console
    from rich.table import Table

    console, record = Console(highlight=False), result.record
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("file", "left"), ("holds", "left"), ("size", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, entry in record["outputs"].items():
        table.add_row(str(result.out / name), WHAT.get(entry["kind"], entry["kind"]), size_text(entry["bytes"]))
    record_file = result.out / "run.json"
    table.add_row(str(record_file), "inputs, model, options, versions, timings", size_text(record_file.stat().st_size))
    console.print(table)
    console.print(summary(record))


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
