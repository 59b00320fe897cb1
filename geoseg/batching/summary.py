"""What a batch came to, a row a scene: summary.csv, summary.parquet with footprints, and failed.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.batching.journal import Entry
from geoseg.batching.recipe import BatchScene
from geoseg.disk import replacing, room_for
from geoseg.runtime.workspace import read_json
from geoseg.scene import to_lonlat

COLUMNS = ("id", "status", "reason", "fields", "area_m2", "seconds", "model", "scene", "folder")
SIDE = 8
"""Points along each side of a footprint: straight lines of a projection are curves in degrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    scene: BatchScene
    status: Literal["done", "failed", "waiting"]
    reason: str = ""
    error: str = ""
    """Type of the error."""
    seconds: float = 0.0
    """Of the try that ended it; a run that was resumed counts from there."""
    record: Mapping[str, Any] | None = None
    """What run.json holds, of scenes that are done."""

    @property
    def footprint(self) -> Any:
        """The scene's outline in EPSG:4326, a shapely Polygon; None where it is not known."""
        return None if self.record is None else footprint(self.record)


def outcome_of(scene: BatchScene, entry: Entry | None, scenes: Path | None) -> Outcome:
    """What the journal and the scene's record say; records are not read where `scenes` is None."""
    if entry is None or entry.status == "begun":
        return Outcome(scene=scene, status="waiting")
    if entry.status == "failed":
        return Outcome(scene=scene, status="failed", reason=entry.reason, error=entry.error, seconds=entry.seconds)
    record = None if scenes is None else read_json(scenes / scene.id / "run.json") or None
    seconds = entry.seconds if record is None else float(record.get("seconds", {}).get("all", entry.seconds))
    return Outcome(scene=scene, status="done", seconds=seconds, record=record)


def footprint(record: Mapping[str, Any]) -> Any:
    """The outline of a run's scene in EPSG:4326; None where it has no CRS, or reaches where degrees end."""
    scene = record["scene"]
    if scene["crs"] is None:
        return None
    rows, cols = scene["shape"]
    ring = shapely.get_coordinates(shapely.segmentize(shapely.box(0, 0, cols, rows), max(rows, cols) / SIDE))
    x, y = Affine(*scene["transform"]) @ (ring[:, 0], ring[:, 1])
    lon, lat = to_lonlat(x, y, CRS.from_user_input(scene["crs"]))
    points: NDArray[np.float64] = np.round(np.stack([lon, lat], axis=1), 7)
    if not np.isfinite(points).all() or np.ptp(points[:, 0]) > 180:
        return None
    return shapely.orient_polygons(shapely.Polygon(points))


def rows_of(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The summary as values, by COLUMNS."""
    return [
        {
            "id": outcome.scene.id,
            "status": outcome.status,
            "reason": outcome.reason,
            "fields": _count(outcome, "fields"),
            "area_m2": _count(outcome, "area_m2"),
            "seconds": round(outcome.seconds, 3),
            "model": None if outcome.record is None else outcome.record["model"]["name"],
            "scene": ";".join(outcome.scene.files),
            "folder": f"scenes/{outcome.scene.id}" if outcome.status == "done" else None,
        }
        for outcome in outcomes
    ]


def _count(outcome: Outcome, name: str) -> Any:
    return None if outcome.record is None else outcome.record["counts"][name]


def write_summary(outcomes: Sequence[Outcome], out: Path) -> None:
    """summary.csv, and summary.parquet: GeoParquet with the scenes' footprints in EPSG:4326."""
    import geopandas as gpd
    import pandas as pd

    rows = rows_of(outcomes)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["fields"] = frame["fields"].astype("Int64")
    frame["area_m2"] = frame["area_m2"].astype("float64")
    shapes = [outcome.footprint for outcome in outcomes]
    held = io.BytesIO()
    gpd.GeoDataFrame(frame, geometry=shapes, crs="EPSG:4326").to_parquet(held)
    with room_for(out):
        _write_csv(out / "summary.csv", COLUMNS, rows)
        with replacing(out / "summary.parquet") as file:
            file.write(held.getvalue())


def write_failed(outcomes: Sequence[Outcome], out: Path) -> None:
    """failed.csv, with the reason of each scene that failed; it goes where none did."""
    rows = [
        {"id": one.scene.id, "error": one.error, "reason": one.reason, "scene": ";".join(one.scene.files)}
        for one in outcomes
        if one.status == "failed"
    ]
    path = out / "failed.csv"
    with room_for(out):
        if rows:
            _write_csv(path, ("id", "error", "reason", "scene"), rows)
        else:
            path.unlink(missing_ok=True)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode())
