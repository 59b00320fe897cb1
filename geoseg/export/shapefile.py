"""ESRI Shapefiles within the format's limits, and everything told that had to change for them.

Names have 10 characters, text has 254 bytes, there are no booleans and no times, no file may pass 2 GB.
https://www.esri.com/content/dam/esrisites/sitecore-archive/Files/Pdfs/library/whitepapers/pdfs/shapefile.pdf
"""

from __future__ import annotations

import csv
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import ExportError
from geoseg.export.arrow import Rows
from geoseg.export.batches import AT_ONCE, in_parts
from geoseg.export.dbf import Column, columns_of
from geoseg.export.drivers import (
    Written,
    check_arrived,
    cut_short,
    driver_failures,
    gdal_table,
    write_stream,
)
from geoseg.export.shapes import POLYGONS, are_polygons, flat, kinds_of, layer_kind
from geoseg.export.staging import staged
from geoseg.export.style import fields_qml

if TYPE_CHECKING:
    import geopandas as gpd
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyproj import CRS

    from geoseg.protocols import FieldBatches

log = logging.getLogger(__name__)

MAX_BYTES = 2**31 - 1

SIDECARS = (".shp", ".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".qpj", ".fields.csv")
"""What belongs to a shapefile; an old one beside a new file would contradict it."""

LINES = frozenset({"LineString", "MultiLineString"})

GEOMETRY = "the geometry"
"""What the stream to GDAL calls it: no column of a .dbf has such a name."""

HEADER = 100
"""Bytes before the first record of a .shp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapefile:
    name: str = "shp"
    suffix: str = ".shp"
    max_bytes: int = MAX_BYTES
    """A .shp or .dbf that would grow beyond it is split into name_1.shp, name_2.shp, ..."""
    date: str = "1970-01-01"
    """What the .dbf says about its age; fixed, so that equal fields give equal bytes."""

    def write(self, fields: gpd.GeoDataFrame | FieldBatches, path: Path, *, layer: str = "fields") -> list[Path]:
        """Write `fields`; the layer is called like the file, `layer` is not kept.

        The fields are gone through twice: first to see what has to change and how many files it takes. Changed names
        and values are logged as warnings and listed in `<name>.fields.csv`.
        """
        del layer
        import pyarrow as pa

        path = Path(path)
        parts = in_parts(fields)
        columns = columns_of(parts.sample)
        split = Split(
            max_bytes=self.max_bytes, row_bytes=1 + sum(column.width for column in columns), columns=len(columns)
        )
        for part in parts:
            split.add(part.geometry.to_numpy())
            for column in columns:
                column.see(part[column.source])
        _check_kinds(split.kinds, path)
        stems = _told(path, columns, split)
        old = tuple(f"{stem}{suffix}" for stem in {path.stem, *stems} for suffix in SIDECARS)
        schema = pa.schema([*(column.field for column in columns), pa.field(GEOMETRY, pa.binary())])
        with staged(path, *driver_failures(), companions=old) as stage:
            rows = Rows(
                gdal_table(
                    [column.fit(part[column.source]) for column in columns],
                    part.geometry.to_numpy(), schema, Written(kinds=split.kinds),
                )
                for part in parts
            )  # fmt: skip
            for stem, written in zip(stems, split.files, strict=True):
                file = stage.folder / f"{stem}{path.suffix}"
                self._write_file(
                    _pieces(rows, written.rows), schema, file, written, kind=layer_kind(split.kinds), crs=parts.crs
                )
                if are_polygons(split.kinds) and not path.with_name(f"{stem}.qml").exists():
                    (stage.folder / f"{stem}.qml").write_text(fields_qml(), encoding="utf-8")
            if any(column.changed for column in columns):
                _write_names(columns, stage.folder / f"{path.stem}.fields.csv")
        _warn_of_more(path, parts=len(stems) if len(stems) > 1 else 0)
        shapes = [path.with_name(f"{stem}{path.suffix}") for stem in stems]
        return [*shapes, *sorted(set(stage.files) - set(shapes))]

    def _write_file(
        self,
        tables: Iterator[pa.Table],
        schema: pa.Schema,
        path: Path,
        expected: Written,
        *,
        kind: str,
        crs: CRS | None,
    ) -> None:
        write_stream(
            tables,
            schema,
            path,
            kind=kind,
            crs=crs,
            driver="ESRI Shapefile",
            layer=path.stem,
            encoding="UTF-8",
            layer_options={"RESIZE": "YES", "DBF_DATE_LAST_UPDATE": self.date},
        )
        check_arrived(path, expected)
        _check_sizes(path, rows=expected.rows)


@dataclass(slots=True, kw_only=True)
class Split:
    """Which fields go into which file, so that neither .shp nor .dbf passes the limit."""

    max_bytes: int
    row_bytes: int
    """Upper bound of a row in the .dbf."""
    columns: int
    kinds: frozenset[str] = frozenset()
    files: list[Written] = field(default_factory=list)
    """What each file will hold."""
    used: int = 0
    """Bytes in the .shp of the last file."""

    def __post_init__(self) -> None:
        if self.rows_at_most < 1:
            raise ExportError(
                f"one row takes {self.row_bytes} bytes, more than {self.max_bytes} allow; write a GeoPackage"
            )
        self._begin()

    @property
    def rows_at_most(self) -> int:
        """Rows that a .dbf holds."""
        return (self.max_bytes - 33 - 32 * self.columns) // self.row_bytes

    def add(self, geometry: NDArray[Any]) -> None:
        """Give the next fields their places."""
        import shapely

        self.kinds |= kinds_of(geometry)
        sizes = record_bytes(geometry)
        largest = int(sizes.max(initial=0)) + HEADER
        if largest > self.max_bytes:
            raise ExportError(
                f"one geometry takes {largest} bytes, a shapefile holds {self.max_bytes}; write a GeoPackage"
            )
        points = shapely.get_num_coordinates(geometry)
        while len(sizes):
            file = self.files[-1]
            total = np.cumsum(sizes)
            fit = int(np.searchsorted(total, self.max_bytes - self.used, side="right"))
            fit = min(fit, self.rows_at_most - file.rows)
            if fit:
                file.rows += fit
                file.vertices += int(points[:fit].sum())
                self.used += int(total[fit - 1])
            sizes, points = sizes[fit:], points[fit:]
            if len(sizes):
                self._begin()

    def _begin(self) -> None:
        self.files.append(Written())
        self.used = HEADER


def record_bytes(geometry: NDArray[Any]) -> NDArray[np.int64]:
    """Size of each record in the .shp: header 8, type and box 36, counts 8, 4 a ring, 16 a point, with Z 32."""
    import shapely

    points = shapely.get_num_coordinates(geometry)
    pieces, index = shapely.get_parts(geometry, return_index=True)
    rings = np.bincount(index, weights=1 + shapely.get_num_interior_rings(pieces), minlength=len(geometry))
    point_bytes = np.where(shapely.has_z(geometry), 32, 16)
    sizes: NDArray[np.int64] = 84 + 4 * rings.astype(np.int64) + point_bytes * points
    return sizes


def _pieces(rows: Rows, count: int) -> Iterator[pa.Table]:
    """The next `count` rows, some at a time."""
    for start in range(0, count, AT_ONCE):
        yield rows.take(min(AT_ONCE, count - start))


def _check_kinds(kinds: frozenset[str], path: Path) -> None:
    names = flat(kinds)
    for family in (POLYGONS, LINES, frozenset({"Point"}), frozenset({"MultiPoint"})):
        if names <= family:
            return
    raise ExportError(
        f"{path.name} would hold {', '.join(sorted(names))}, but a shapefile holds one kind of geometry; "
        f"write a GeoPackage, or split the layer"
    )


def _told(path: Path, columns: list[Column], split: Split) -> list[str]:
    """Names of the files without suffix, after telling what is not as it was."""
    for column in columns:
        if column.changed:
            log.warning("shapefile %s: %s", path.name, column.changed)
    if len(split.files) == 1:
        return [path.stem]
    stems = [f"{path.stem}_{number}" for number in range(1, len(split.files) + 1)]
    log.warning("shapefile %s would pass %d bytes: written as %s", path.name, split.max_bytes, ", ".join(stems))
    return stems


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
