"""The series as a table in long form: one row a field, date and variable; and its file, GeoParquet or CSV."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.errors import InputError, RunError
from geoseg.export.geoparquet import EDGES, Seen
from geoseg.export.staging import staged
from geoseg.monitoring.statistics import STATISTICS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

KEY = ["field_id", "date", "variable"]
NUMBERS = [*STATISTICS, "valid_fraction", "cloud_fraction", "area_m2"]
COLUMNS = [*KEY, *NUMBERS, "source"]
ROWS = 50_000
"""Rows that are written at a time."""

RECORD = "geoseg:monitor"
"""Key of the record among the metadata of a Parquet file."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    table: pd.DataFrame
    """COLUMNS, ordered by KEY; `date` is datetime64, gaps are NaN, and `source` is None where no scene shows the field."""
    shapes: Mapping[str, Any] = field(default_factory=dict)
    """Polygons by field; empty where the series comes from a CSV file."""
    crs: CRS | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    """What made it: version, options, scenes with their hashes."""


def with_new(old: Series, new: Series, *, overwrite: bool) -> Series:
    """Both series in one.

    A gap is filled by a value. A field that has values on a date keeps them, and RunError says so where the new series has
    values, too: with `overwrite` these take their place.
    """
    import pandas as pd

    _check_alike(old, new)
    before, after = _days(old.table), _days(new.table)
    both = before.merge(after, on=["field_id", "date"], suffixes=("_before", "_after"))
    clash = both[both.full_before & both.full_after]
    if len(clash) and not overwrite:
        dates = ", ".join(str(day.date()) for day in sorted(clash["date"].unique())[:5])
        raise RunError(
            f"{clash['field_id'].nunique()} fields have values on {dates} already; leave these scenes out, or replace what is "
            f"there with --overwrite"
        )
    replaced = both.loc[both.full_after, ["field_id", "date"]]
    kept_old = _without(old.table, replaced)
    kept_new = _without(new.table, both.loc[~both.full_after, ["field_id", "date"]])
    table = pd.concat([part for part in (kept_old, kept_new) if len(part)] or [kept_old], ignore_index=True)
    scenes = {json.dumps(scene, sort_keys=True): scene for part in (old, new) for scene in part.record["scenes"]}
    return Series(
        table=sorted_table(table),
        shapes={**old.shapes, **new.shapes},
        crs=new.crs,
        record={**new.record, "scenes": sorted(scenes.values(), key=lambda scene: (scene["date"], scene["name"]))},
    )


def sorted_table(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of KEY."""
    return table[COLUMNS].sort_values(KEY, kind="stable", ignore_index=True)


def _check_alike(old: Series, new: Series) -> None:
    """RunError where the two cannot be one series."""
    ways = [part.record["options"]["pixels"] for part in (old, new)]
    if ways[0] != ways[1]:
        raise RunError(
            f"the series was measured with --pixels {ways[0]}, and now --pixels {ways[1]} is asked for; choose the same, or "
            f"another -o"
        )
    if not old.shapes:
        return
    if old.crs != new.crs:
        raise RunError(
            f"the fields of the series are in {_name(old.crs)}, those given now in {_name(new.crs)}; give the same fields, or "
            f"choose another -o"
        )
    common = [name for name in new.shapes if name in old.shapes]
    pairs = [np.array([part.shapes[name] for name in common], dtype=object) for part in (old, new)]
    if common and not (same := shapely.equals_identical(*pairs)).all():
        name = common[int(np.argmin(same))]
        raise RunError(
            f"{int((~same).sum())} fields, among them {name!r}, have another outline than in the series; an id must stay with "
            f"its field: give the same fields, or choose another -o"
        )


def _days(table: pd.DataFrame) -> pd.DataFrame:
    """A row a field and date, `full` where it has values."""
    full = table["valid_fraction"] > 0
    return table.assign(full=full).groupby(["field_id", "date"], as_index=False, sort=False)["full"].any()


def _without(table: pd.DataFrame, days: pd.DataFrame) -> pd.DataFrame:
    marked = table[["field_id", "date"]].merge(days.assign(gone=True), on=["field_id", "date"], how="left")
    return table[marked["gone"].isna().to_numpy()]


def _name(crs: CRS | None) -> str:
    return "no CRS" if crs is None else str(crs.name)


def read_series(path: Path) -> Series:
    """A series that `write_series` wrote. Raises InputError for any other file."""
    import pyarrow as pa

    try:
        return _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    except (ValueError, KeyError, OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is no series of geoseg monitor ({type(error).__name__}: {' '.join(str(error).split())}); choose another -o"
        ) from error


def _read_parquet(path: Path) -> Series:
    import pandas as pd
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        record = json.loads(file.metadata.metadata[RECORD.encode()])
        geo = json.loads(file.metadata.metadata[b"geo"])
        crs = geo["columns"]["geometry"]["crs"]
        shapes: dict[str, Any] = {}
        parts = []
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, columns=[*COLUMNS, "geometry"]).to_pandas()
            first = rows.drop_duplicates("field_id")
            for name, wkb in zip(first["field_id"], first["geometry"], strict=True):
                shapes.setdefault(name, shapely.from_wkb(wkb))
            parts.append(rows[COLUMNS])
    return Series(
        table=_typed(pd.concat(parts, ignore_index=True)), shapes=shapes, record=record,
        crs=None if crs is None else CRS.from_json_dict(crs),
    )  # fmt: skip


def _read_csv(path: Path) -> Series:
    import pyarrow as pa
    from pyarrow import csv

    kinds = dict.fromkeys(COLUMNS, pa.string()) | dict.fromkeys(NUMBERS, pa.float64()) | {"date": pa.date32()}
    empty = csv.ConvertOptions(
        column_types=kinds, include_columns=COLUMNS, null_values=[""], strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )  # fmt: skip
    table = csv.read_csv(
        path, convert_options=empty, parse_options=csv.ParseOptions(newlines_in_values=True)
    ).to_pandas()
    return Series(table=_typed(table), record=json.loads(record_path(path).read_text(encoding="utf-8")))


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    out = table.astype(dict.fromkeys(NUMBERS, "float64"))
    out["date"] = pd.to_datetime(out["date"]).astype("datetime64[s]")
    for name in ("field_id", "variable", "source"):
        out[name] = out[name].astype(object).where(out[name].notna(), None)
    return out


def record_path(path: Path) -> Path:
    """Where the record of a CSV series lies."""
    return path.with_name(f"{path.stem}.json")


def beside(path: Path, what: str) -> Path:
    """Where a table that is made from a series lies: series.parquet -> series.seasons.parquet."""
    suffix = ".csv" if path.suffix.lower() == ".csv" else ".parquet"
    return path.with_name(f"{path.stem}.{what}{suffix}")


def write_series(series: Series, path: Path, tables: Mapping[str, pd.DataFrame]) -> list[Path]:
    """Writes a series and the tables that go with it, by name; every file is whole or as it was, the series comes last."""
    import pyarrow as pa

    companions = tuple(beside(path, what).name for what in ("seasons", "anomalies"))
    with staged(path, pa.ArrowException, companions=companions) as stage:
        for what, table in tables.items():
            _write_table(table, stage.folder / beside(path, what).name)
        if path.suffix.lower() == ".csv":
            text = json.dumps(series.record, indent=2, ensure_ascii=False) + "\n"
            (stage.folder / record_path(path).name).write_text(text, encoding="utf-8")
            _write_table(series.table, stage.path)
        else:
            _write_geoparquet(series, stage.path)
    return stage.files


def _write_table(table: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        days = table.select_dtypes("datetime").columns
        table.assign(**{day: table[day].dt.strftime("%Y-%m-%d") for day in days}).to_csv(path, index=False)
        return
    from pyarrow import parquet

    parquet.write_table(_arrow(table), path, compression="zstd")


def _arrow(table: pd.DataFrame) -> pa.Table:
    """Dates as date32, text as string, NaN as null."""
    import pyarrow as pa

    kinds = {"M": pa.date32(), "f": pa.float64(), "i": pa.int64(), "b": pa.bool_()}
    columns = {
        str(name): pa.array(column, type=kinds.get(column.dtype.kind, pa.string()), from_pandas=True)
        for name, column in table.items()
    }
    return pa.table(columns)


def _write_geoparquet(series: Series, path: Path) -> None:
    """GeoParquet 1.1; a field's outline stands in each of its rows, which Parquet keeps once a row group."""
    import pyarrow as pa
    from pyarrow import parquet

    names = np.array(list(series.shapes), dtype=object)
    shapes = np.array([series.shapes[name] for name in names], dtype=object)
    place = {name: i for i, name in enumerate(names)}
    wkb, bounds = shapely.to_wkb(shapes, flavor="iso"), shapely.bounds(shapes)
    seen = Seen()
    seen.add(shapes, bounds)
    box = pa.struct([pa.field(edge, pa.float64(), nullable=False) for edge in EDGES])
    schema = _arrow(series.table.head(0)).schema
    schema = schema.append(pa.field("geometry", pa.binary(), nullable=False)).append(
        pa.field("bbox", box, nullable=False)
    )
    with parquet.ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
        for begin in range(0, len(series.table), ROWS):
            part = series.table.iloc[begin : begin + ROWS]
            here = np.array([place[name] for name in part["field_id"]], dtype=np.int64)
            writer.write_table(_with_shapes(part, wkb[here], bounds[here], schema))
        geo = json.dumps(seen.metadata(series.crs))
        restored = schema.with_metadata({"geo": geo}).serialize()
        writer.add_key_value_metadata(
            {"geo": geo, "ARROW:schema": base64.b64encode(restored).decode(), RECORD: json.dumps(series.record)}
        )


def _with_shapes(
    part: pd.DataFrame, wkb: NDArray[np.object_], bounds: NDArray[np.float64], schema: pa.Schema
) -> pa.Table:
    import pyarrow as pa

    table = _arrow(part)
    boxes = pa.StructArray.from_arrays(
        [pa.array(edge, type=pa.float64()) for edge in bounds.T], fields=[*schema.field("bbox").type]
    )
    return pa.Table.from_arrays([*table.columns, pa.array(wkb, type=pa.binary()), boxes], schema=schema)
