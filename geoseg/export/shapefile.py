"""ESRI Shapefiles within the format's limits, and everything told that had to change for them.

Names have 10 characters, text has 254 bytes, there are no booleans and no times, no file may pass 2 GB.
https://www.esri.com/content/dam/esrisites/sitecore-archive/Files/Pdfs/library/whitepapers/pdfs/shapefile.pdf
"""

from __future__ import annotations

import csv
import logging
import re
import struct
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import ExportError
from geoseg.export.staging import staged
from geoseg.export.style import fields_qml
from geoseg.export.table import POLYGONS, are_polygons, cut_short, driver_failures, geometry_types, plain, write_layer

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

MAX_BYTES = 2**31 - 1
NAME_LENGTH = 10
TEXT_BYTES = 254
DIGITS = 18
"""Whole numbers with more digits do not fit a number field."""

SHORT_NAMES = {"perimeter_m": "perim_m", "touches_edge": "at_edge"}
"""Better than what cutting would give."""

LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l", "đ": "d"})
"""Letters that are not a plain one with an accent."""

SIDECARS = (".shp", ".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".qpj", ".fields.csv")
"""What belongs to a shapefile; an old one beside a new file would contradict it."""

LINES = frozenset({"LineString", "MultiLineString"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    source: str
    """Its name in the fields."""
    name: str
    """Its name in the shapefile."""
    values: Any
    """A pandas Series that the format takes."""
    note: str = ""
    """What became of the values, empty where they are as they were."""

    @property
    def changed(self) -> str:
        """One line for the user, empty where name and values are kept."""
        renamed = f"column {self.source} is called {self.name}" if self.name != self.source else ""
        if renamed and self.note:
            return f"{renamed} and {self.note}"
        return renamed or (f"column {self.source} {self.note}" if self.note else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapefile:
    name: str = "shp"
    suffix: str = ".shp"
    max_bytes: int = MAX_BYTES
    """A .shp or .dbf that would grow beyond it is split into name_1.shp, name_2.shp, ..."""
    date: str = "1970-01-01"
    """What the .dbf says about its age; fixed, so that equal fields give equal bytes."""

    def write(self, fields: gpd.GeoDataFrame, path: Path, *, layer: str = "fields") -> list[Path]:
        """Write `fields`; the layer is called like the file, `layer` is not kept.

        Changed names and values are logged as warnings and listed in `<name>.fields.csv`.
        """
        del layer
        import geopandas as gpd

        path = Path(path)
        table = plain(fields)
        _check_types(geometry_types(table), path)
        columns = fit_columns(table)
        content = gpd.GeoDataFrame(
            {column.name: column.values for column in columns}, geometry=table.geometry.to_numpy(), crs=table.crs
        )
        for column in columns:
            if column.changed:
                log.warning("shapefile %s: %s", path.name, column.changed)
        parts = list(_parts(content, columns, max_bytes=self.max_bytes))
        stems = [path.stem] if len(parts) == 1 else [f"{path.stem}_{number}" for number in range(1, len(parts) + 1)]
        if len(parts) > 1:
            log.warning("shapefile %s would pass %d bytes: written as %s", path.name, self.max_bytes, ", ".join(stems))
        old = tuple(f"{stem}{suffix}" for stem in {path.stem, *stems} for suffix in SIDECARS)
        with staged(path, *driver_failures(), companions=old) as stage:
            for stem, part in zip(stems, parts, strict=True):
                self._write_part(content.iloc[part], stage.folder / f"{stem}{path.suffix}", layer=stem)
                if are_polygons(content) and not path.with_name(f"{stem}.qml").exists():
                    (stage.folder / f"{stem}.qml").write_text(fields_qml(), encoding="utf-8")
            if any(column.changed for column in columns):
                _write_names(columns, stage.folder / f"{path.stem}.fields.csv")
        _warn_of_more(path, parts=len(parts) if len(parts) > 1 else 0)
        shapes = [path.with_name(f"{stem}{path.suffix}") for stem in stems]
        return [*shapes, *sorted(set(stage.files) - set(shapes))]

    def _write_part(self, part: gpd.GeoDataFrame, path: Path, *, layer: str) -> None:
        write_layer(
            part,
            path,
            driver="ESRI Shapefile",
            layer=layer,
            encoding="UTF-8",
            layer_options={"RESIZE": "YES", "DBF_DATE_LAST_UPDATE": self.date},
        )
        _check_sizes(path, rows=len(part))


def fit_columns(table: gpd.GeoDataFrame) -> list[Column]:
    """The attribute columns with names and values that a shapefile holds."""
    sources = [name for name in table.columns if name != table.geometry.name]
    names = short_names(sources)
    columns = []
    for source in sources:
        values, note = _fit(table[source])
        columns.append(Column(source=source, name=names[source], values=values, note=note))
    return columns


def short_names(sources: Iterable[str]) -> dict[str, str]:
    """Names of at most 10 plain characters, unique without regard to case; names that fit stay as they are."""
    sources = list(sources)
    names: dict[str, str] = {}
    taken: set[str] = set()
    for source in sources:
        if _short(source) == source and source.lower() not in taken:
            names[source] = source
            taken.add(source.lower())
    for source in sources:
        if source in names:
            continue
        wish = _short(source)
        name, number = wish, 1
        while name.lower() in taken:
            number += 1
            tail = f"_{number}"
            name = wish[: NAME_LENGTH - len(tail)] + tail
        taken.add(name.lower())
        names[source] = name
    return names


def _short(source: str) -> str:
    if source in SHORT_NAMES:
        return SHORT_NAMES[source]
    ascii_name = unicodedata.normalize("NFKD", source.translate(LETTERS)).encode("ascii", "ignore").decode()
    name = re.sub(r"[^0-9A-Za-z_]+", "_", ascii_name).strip("_")[:NAME_LENGTH]
    if not name or not name[0].isalpha():
        name = f"f_{name}"[:NAME_LENGTH].rstrip("_")
    return source if source == name else name.rstrip("_")


def _fit(values: pd.Series) -> tuple[Any, str]:
    """Values that a .dbf holds, and what became of them."""
    import pandas as pd

    kind = values.dtype.kind
    if kind == "b":
        if values.isna().any():
            return values.astype("Int32"), "holds 1 for true, 0 for false"
        return values.astype("int32"), "holds 1 for true, 0 for false"
    if kind in "iu":
        return _fit_integers(values)
    if kind == "f":
        return _fit_reals(values)
    if kind == "M":
        text = values.map(lambda value: None if pd.isna(value) else value.isoformat())
        return text.astype(object), "holds times as ISO 8601 text"
    return _fit_text(values)


def _fit_integers(values: pd.Series) -> tuple[Any, str]:
    known = values.dropna()
    largest = max((abs(int(known.min())), abs(int(known.max()))), default=0) if len(known) else 0
    if largest < 2**31:
        return values.astype("Int32" if values.isna().any() else "int32"), ""
    if largest < 10**DIGITS:
        return values.astype("Int64" if values.isna().any() else "int64"), ""
    text = values.astype(object).map(str).where(values.notna(), None)
    return text, f"holds its numbers as text: {largest} has more than {DIGITS} digits"


def _fit_reals(values: pd.Series) -> tuple[Any, str]:
    import numpy as np

    reals = values.astype("float64")
    endless = np.isinf(reals.to_numpy(na_value=np.nan))
    if endless.any():
        return reals.mask(endless), f"is empty for {int(endless.sum())} infinite values"
    return reals, ""


def _fit_text(values: pd.Series) -> tuple[Any, str]:
    text = values.astype(object).where(values.notna(), None)
    long = text.map(lambda value: value is not None and len(value.encode()) > TEXT_BYTES)
    if not long.any():
        return text, ""
    cut = text.where(~long, text.map(lambda value: value and value.encode()[:TEXT_BYTES].decode(errors="ignore")))
    return cut, f"is cut to {TEXT_BYTES} bytes in {int(long.sum())} rows"


def _check_types(types: set[str], path: Path) -> None:
    for family in (POLYGONS, LINES, frozenset({"Point"}), frozenset({"MultiPoint"})):
        if types <= family:
            return
    raise ExportError(
        f"{path.name} would hold {', '.join(sorted(types))}, but a shapefile holds one kind of geometry; "
        f"write a GeoPackage, or split the layer"
    )


def _parts(content: gpd.GeoDataFrame, columns: list[Column], *, max_bytes: int) -> Iterator[slice]:
    """Rows of each file, so that neither .shp nor .dbf passes the limit."""
    shp = _shape_bytes(content)
    row = _row_bytes(columns)
    largest = int(shp.max(initial=0)) + 100
    if largest > max_bytes:
        raise ExportError(f"one geometry takes {largest} bytes, a shapefile holds {max_bytes}; write a GeoPackage")
    rows_dbf = (max_bytes - 33 - 32 * len(columns)) // row
    if rows_dbf < 1:
        raise ExportError(f"one row takes {row} bytes, more than {max_bytes} allow; write a GeoPackage")
    start, used = 0, 100
    for index, size in enumerate(shp.tolist()):
        if used + size > max_bytes or index - start >= rows_dbf:
            yield slice(start, index)
            start, used = index, 100
        used += size
    yield slice(start, len(shp))


def _shape_bytes(content: gpd.GeoDataFrame) -> NDArray[Any]:
    """Size of each record in the .shp: header 8, type and box 36, counts 8, 4 a ring, 16 a point, with Z 32."""
    import numpy as np
    import shapely

    geometry = content.geometry.to_numpy()
    points = shapely.get_num_coordinates(geometry)
    pieces, index = shapely.get_parts(geometry, return_index=True)
    rings = np.bincount(index, weights=1 + shapely.get_num_interior_rings(pieces), minlength=len(geometry))
    point_bytes = np.where(shapely.has_z(geometry), 32, 16)
    sizes: NDArray[Any] = 84 + 4 * rings.astype(np.int64) + point_bytes * points
    return sizes


def _row_bytes(columns: list[Column]) -> int:
    """Upper bound of a row in the .dbf: GDAL writes numbers 24 wide and text 80, wider where needed."""
    return 1 + sum(max(80, TEXT_BYTES) if column.values.dtype == object else 24 for column in columns)


def _check_sizes(path: Path, *, rows: int) -> None:
    """See that each file is as long as its header says."""
    with path.open("rb") as file:
        words = struct.unpack(">i", file.read(28)[24:])[0]
    dbf = path.with_suffix(".dbf")
    with dbf.open("rb") as file:
        records, header, width = struct.unpack("<IHH", file.read(12)[4:])
    expected = {path: 2 * words, path.with_suffix(".shx"): 100 + 8 * rows, dbf: header + records * width}
    for file_path, size in expected.items():
        if file_path.stat().st_size < size or records != rows:
            raise cut_short(file_path)


def _warn_of_more(path: Path, *, parts: int) -> None:
    """Parts of an earlier, larger export are not ours to delete."""
    left = path.with_name(f"{path.stem}_{parts + 1}{path.suffix}")
    if left.exists():
        log.warning("%s lies there from before and is no part of %s; delete it if it is old", left.name, path.name)


def _write_names(columns: list[Column], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["shapefile_name", "name", "note"])
        writer.writerows([column.name, column.source, column.note] for column in columns)
