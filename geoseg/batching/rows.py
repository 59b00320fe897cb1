"""Tables of scenes as they are written: CSV, GeoParquet, STAC, lists and patterns become rows, before any scene is opened."""

from __future__ import annotations

import csv
import glob
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geoseg.errors import InputError

NAMED = ("scene", "id", "datetime")
"""Entries of a row that are no options."""

SEPARATOR = ";"
"""Between the files of one scene."""

RESERVED = re.compile(r'[\x00-\x1f/\\:*?"<>|]')
"""What no name of a folder may hold on some system; GDAL opens nothing under a `"`."""


TableProblem = tuple[str, int | None]
"""What is wrong, and the number of the entry in the list under `scenes:`, from 0, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One scene as a table tells it."""

    files: tuple[str, ...]
    """As written, relative to the table's folder."""
    folder: Path
    place: str
    """Where it stands, for messages."""
    entry: int | None = None
    """Its number in the list under `scenes:`, from 0, where there is one."""
    id: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """All else: options of its own, and what is none of our business."""
    time: str | None = None
    """When the image was taken, as ISO 8601, where the table knows."""


def read_rows(
    scenes: str | Sequence[str | Mapping[str, Any]],
    folder: Path,
    *,
    wanted: Sequence[str],
    assets: Sequence[str] | None = None,
) -> tuple[list[Row], list[TableProblem]]:
    """The rows of a table, or of a list whose entries are files, patterns or rows themselves; and what is wrong with it.

    Args:
        scenes: what stands under `scenes:`.
        folder: that relative names are relative to.
        wanted: bands by which files are chosen where a STAC item has one a band.
        assets: keys of STAC assets to take in their place.
    """
    listed = not isinstance(scenes, str)
    rows: list[Row] = []
    problems: list[TableProblem] = []
    for number, entry in enumerate([scenes] if isinstance(scenes, str) else scenes):
        place = f"scenes, entry {number + 1}" if listed else "scenes"
        try:
            found = (
                _of_name(entry, folder, place, wanted=wanted, assets=assets)
                if isinstance(entry, str)
                else [_of_values(entry, folder, place)]
            )
        except InputError as error:
            problems.append((str(error), number if listed else None))
            continue
        rows += [replace(row, entry=number) for row in found] if listed else found
    if not rows and not problems:
        problems.append(("the table of scenes is empty; expected a line for each scene", None))
    return rows, problems


def _of_name(name: str, folder: Path, place: str, *, wanted: Sequence[str], assets: Sequence[str] | None) -> list[Row]:
    path = folder / name
    suffix = path.suffix.lower()
    if SEPARATOR not in name and not path.exists() and glob.has_magic(name):
        return _matching(name, folder, place)
    if suffix in (".csv", ".tsv", ".parquet", ".geoparquet", ".json", ".geojson"):
        if not path.is_file():
            raise InputError(f"{place}: no file {str(path)!r}; expected a table of scenes")
        if suffix in (".csv", ".tsv"):
            return _csv(path)
        if suffix in (".parquet", ".geoparquet"):
            return _parquet(path)
        from geoseg.batching.items import rows_of_stac

        return rows_of_stac(path, wanted=wanted, assets=assets)
    return [_of_values({"scene": name}, folder, place)]


def _matching(pattern: str, folder: Path, place: str) -> list[Row]:
    """A row for each file; its id is the part of its path that the pattern leaves open."""
    found = sorted(glob.glob(str(folder / pattern), recursive=True))  # noqa: PTH207 - patterns may begin with / or ..
    found = [name for name in found if not Path(name).name.startswith(".")]
    if not found:
        raise InputError(f"{place}: no file matches {str(folder / pattern)!r}; correct the pattern")
    fixed = folder
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed = fixed / part
    return [
        Row(files=(name,), folder=folder, place=f"{place}, {name}", id=_plain_id(_relative(Path(name), fixed)))
        for name in found
    ]


def _relative(path: Path, fixed: Path) -> str:
    return "_".join(path.relative_to(fixed).with_suffix("").parts)


def _csv(path: Path) -> list[Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}); expected CSV in UTF-8") from error
    lines = text.splitlines()
    head = lines[0] if lines else ""
    delimiter = next((mark for mark in ",\t;" if mark in head), ",")  # spreadsheets of some countries write `;`
    try:
        table = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is no CSV ({error}); see to its quotes") from error
    columns = [name.strip() for name in table[0]] if table else []
    _check_columns(columns, path)
    rows = []
    for number, cells in enumerate(table[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(columns):
            raise InputError(
                f"{path}, line {number}: {len(cells)} cells under {len(columns)} columns; quote what holds a comma"
            )
        rows.append(_of_values(dict(zip(columns, cells, strict=False)), path.parent, f"{path.name}, line {number}"))
    return rows


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} is no GeoParquet file ({error}); expected a table with a column `scene`") from error
    _check_columns(table.column_names, path)
    useful = [name for name, kind in zip(table.column_names, table.schema.types, strict=True) if not _binary(kind)]
    return [
        _of_values(values, path.parent, f"{path.name}, row {number}")
        for number, values in enumerate(table.select(useful).to_pylist(), start=1)
    ]


def _binary(kind: Any) -> bool:
    """Geometries: of no use here."""
    import pyarrow

    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) or pyarrow.types.is_nested(kind))


def _check_columns(columns: Sequence[str], path: Path) -> None:
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise InputError(f"{path} has the column {twice[0]!r} twice; rename one")
    if "scene" not in columns:
        raise InputError(
            f"{path} has no column `scene` (it has {', '.join(columns) or 'none'}); expected one with the path of each scene"
        )


def _of_values(entry: Any, folder: Path, place: str) -> Row:
    if not isinstance(entry, dict):
        raise InputError(f"{place}: {entry!r} is no scene; expected a path, or `scene:` with options of its own")
    values = {str(name): _cell(value) for name, value in entry.items()}
    values = {name: value for name, value in values.items() if value is not None}
    scene = values.get("scene")
    if scene is None:
        raise InputError(f"{place}: no `scene` is given; expected the path of a raster")
    parts = scene.split(SEPARATOR) if isinstance(scene, str) else scene if isinstance(scene, list) else [scene]
    files = tuple(str(part).strip() for part in parts)
    if not files or not all(files):
        raise InputError(
            f"{place}: `scene` {scene!r} names an empty path; expected one file, or files with {SEPARATOR!r} between"
        )
    given, time = values.get("id"), values.get("datetime")
    return Row(
        files=files, folder=folder, place=place,
        id=None if given is None else str(given),
        time=None if time is None else time.isoformat() if hasattr(time, "isoformat") else str(time),
        values={name: value for name, value in values.items() if name not in NAMED},
    )  # fmt: skip


def _cell(value: Any) -> Any:
    """None for what is empty."""
    if isinstance(value, str):
        return value.strip() or None
    return None if isinstance(value, float) and value != value else value


def _plain_id(name: str) -> str:
    return RESERVED.sub("_", name).strip(" .") or "scene"


def scene_id(row: Row) -> str:
    """The name of the scene's folder: as given, else after its first file. Raises InputError."""
    if row.id is None:
        name = row.files[0].rstrip("/").rpartition("/")[2]
        return _plain_id(Path(name).stem)
    if RESERVED.search(row.id) or row.id != row.id.strip(" .") or not row.id or len(row.id) > 200:
        raise InputError(
            f"{row.place}: the id {row.id!r} cannot be the name of a folder; use letters, digits, '-', '_' and '.' within"
        )
    return row.id
