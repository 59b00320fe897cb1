"""FieldFile: field polygons on disk in Arrow's file format, written once, read a part at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyproj import CRS

from geoseg.disk import flush, replacing, room_for
from geoseg.errors import RunError
from geoseg.results import Determination

if TYPE_CHECKING:
    import geopandas as gpd
    import pyarrow as pa

NAME = "fields.arrow"
GEOMETRY = "geometry"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldFile:
    """Implements DeterminedBatches."""

    path: Path
    crs: CRS | None
    count: int
    area_m2: float
    """Sum over all fields; those whose area cannot be measured count as 0."""
    determination: Determination | None = None
    """Not kept on disk: it is known where the file is read."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[gpd.GeoDataFrame]:
        import pyarrow as pa

        try:
            with pa.OSFile(str(self.path), "rb") as file:
                reader = pa.ipc.open_file(file)
                for number in range(reader.num_record_batches):
                    yield _frame(reader.get_batch(number), self.crs)
        except pa.ArrowException as error:
            raise RunError(
                f"{self.path} is damaged ({error}); delete {self.path.parent} and run the same command again"
            ) from error

    def frame(self) -> gpd.GeoDataFrame:
        """All fields at once, in memory."""
        import geopandas as gpd
        import pandas as pd

        return gpd.GeoDataFrame(pd.concat(list(self), ignore_index=True), crs=self.crs)


def open_field_file(folder: Path, crs: CRS | None) -> FieldFile | None:
    """The file that write_field_file() left in a folder; None if it has not come to its end."""
    try:
        told = json.loads(_summary(folder).read_text(encoding="utf-8"))
        if (folder / NAME).stat().st_size != told["bytes"]:
            return None
        return FieldFile(path=folder / NAME, crs=crs, count=told["count"], area_m2=told["area_m2"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def write_field_file(folder: Path, parts: Iterable[gpd.GeoDataFrame], crs: CRS | None) -> FieldFile:
    """Writes parts, of which there is at least one, to `folder`; on disk and whole when this returns."""
    import numpy as np
    import pyarrow as pa

    path, count, area, queue = folder / NAME, 0, 0.0, iter(parts)
    first = next(queue)
    with room_for(path):
        folder.mkdir(parents=True, exist_ok=True)
        _summary(folder).unlink(missing_ok=True)
        file = path.open("wb")
    try:
        with room_for(path):
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            writer = pa.ipc.new_file(file, _batch(first).schema, options=options)
        # What making the parts raises is not about this file.
        for part in chain([first], queue):
            with room_for(path):
                writer.write_batch(_batch(part))
            count += len(part)
            area += float(np.nansum(part["area_m2"]))
        with room_for(path):
            writer.close()
            file.flush()
    finally:
        with room_for(path):
            file.close()
    with room_for(path):
        flush(path)
        with replacing(_summary(folder)) as told:
            told.write(json.dumps({"count": count, "area_m2": area, "bytes": path.stat().st_size}).encode())
    return FieldFile(path=path, crs=crs, count=count, area_m2=area)


def _summary(folder: Path) -> Path:
    return folder / "fields.json"


def _batch(part: gpd.GeoDataFrame) -> pa.RecordBatch:
    import pyarrow as pa

    names = [str(name) for name in part.columns if name != part.geometry.name]
    arrays = [
        pa.array(part[name].to_numpy(), type=pa.string() if part[name].dtype == object else None) for name in names
    ]
    arrays.append(pa.array(part.geometry.to_wkb().to_numpy(), type=pa.binary()))
    return pa.RecordBatch.from_arrays(arrays, names=[*names, GEOMETRY])


def _frame(batch: pa.RecordBatch, crs: CRS | None) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import shapely

    columns: dict[str, Any] = {
        name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names if name != GEOMETRY
    }
    shapes = shapely.from_wkb(batch.column(GEOMETRY).to_numpy(zero_copy_only=False))
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=crs)
