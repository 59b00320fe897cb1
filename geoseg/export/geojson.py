"""GeoJSON as RFC 7946 has it: degrees on WGS 84, counter-clockwise exteriors, cut at the antimeridian."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import ExportError
from geoseg.export.batches import in_parts
from geoseg.export.staging import staged

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from numpy.typing import NDArray

    from geoseg.protocols import FieldBatches


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoJSON:
    name: str = "geojson"
    suffix: str = ".geojson"
    decimals: int = 7
    """Digits after the point; 7 are about a centimetre."""

    def write(self, fields: gpd.GeoDataFrame | FieldBatches, path: Path, *, layer: str = "fields") -> list[Path]:
        """Write `fields` in longitude and latitude, one feature a line, `layer` as the collection's name.

        Raises ExportError for fields without a CRS.
        """
        if fields.crs is None:
            raise ExportError(
                f"{Path(path).name} needs longitudes and latitudes, but these fields have no CRS; "
                f"state it with --crs EPSG:..., or write another format"
            )
        parts = in_parts(fields)
        with staged(Path(path)) as stage, stage.path.open("w", encoding="utf-8", newline="\n") as file:
            file.write(f'{{"type":"FeatureCollection","name":{json.dumps(layer, ensure_ascii=False)},"features":[')
            separator = "\n"
            for part in parts:
                for feature in _features(part.drop(columns=[part.geometry.name]), self.geometry(part)):
                    file.write(f"{separator}{feature}")
                    separator = ",\n"
            file.write("\n]}\n")
        return stage.files

    def geometry(self, table: gpd.GeoDataFrame) -> NDArray[Any]:
        """Valid geometries on WGS 84, rounded."""
        import numpy as np
        import shapely

        degrees = shapely.force_2d(table.geometry.to_crs("OGC:CRS84").to_numpy())
        lost = np.isinf(shapely.bounds(degrees)).any(axis=1)
        if lost.any():
            x, y = shapely.get_coordinates(table.geometry.to_numpy()[lost])[0]
            raise ExportError(
                f"the coordinates {x:g}, {y:g} have no longitude and latitude in {table.crs.name}; "
                f"check that --crs is the CRS of the coordinates"
            )
        degrees = cut_at_antimeridian(degrees, wide=not table.crs.is_geographic)
        oriented: NDArray[Any] = shapely.orient_polygons(rounded(degrees, self.decimals), exterior_cw=False)
        return oriented


def rounded(geometry: NDArray[Any], decimals: int) -> NDArray[Any]:
    """Coordinates with so many decimals. What rounding would make invalid is repaired, else left unrounded."""
    import numpy as np
    import shapely

    result: NDArray[Any] = shapely.transform(geometry, lambda points: np.round(points, decimals))
    broken = ~shapely.is_valid(result) & shapely.is_valid(geometry)
    if broken.any():
        before = geometry[broken]
        mended = shapely.transform(
            shapely.set_precision(before, 10.0**-decimals), lambda points: np.round(points, decimals)
        )
        fine = shapely.is_valid(mended) & ~shapely.is_empty(mended)
        result[broken] = np.where(fine, mended, before)
    return result


def cut_at_antimeridian(geometry: NDArray[Any], *, wide: bool = True) -> NDArray[Any]:
    """Geometries that reach over longitude 180 become two parts, one on each side.

    Points of one geometry lie within 180 degrees of its first point: true for fields, not for continents. Those that
    are wider than 180 degrees, as seen without turning around the globe, are cut only where `wide`.
    """
    import numpy as np
    import shapely

    west, _, east, _ = shapely.bounds(geometry).T
    over = (east > 180) | (west < -180) | (wide & (east - west > 180))
    result = geometry.copy()
    for index in np.flatnonzero(over).tolist():
        result[index] = _cut(geometry[index])
    return result


def _cut(geometry: Any) -> Any:
    import numpy as np
    import shapely

    first = shapely.get_coordinates(geometry)[0, 0]

    def unwrap(points: NDArray[Any]) -> NDArray[Any]:
        turns = np.round((points[:, 0] - first) / 360)
        return np.column_stack([points[:, 0] - 360 * turns, points[:, 1]])

    whole = shapely.transform(geometry, unwrap)
    pieces = []
    for turn in (-1, 0, 1):
        middle = 360.0 * turn
        part = shapely.intersection(whole, shapely.box(middle - 180, -90, middle + 180, 90))
        if not part.is_empty and shapely.get_dimensions(part) == shapely.get_dimensions(whole):
            pieces.append(shapely.transform(part, lambda points, shift=middle: points - [shift, 0.0]))
    return shapely.union_all(pieces) if len(pieces) > 1 else pieces[0]


def _features(attributes: pd.DataFrame, geometry: NDArray[Any]) -> Iterator[str]:
    """One feature as text after the other; the column `id` is its identifier too."""
    import shapely

    names = [json.dumps(name, ensure_ascii=False) for name in attributes.columns]
    columns = [_texts(attributes[name]) for name in attributes.columns]
    identifiers = _texts(attributes["id"]) if "id" in attributes.columns else ["null"] * len(attributes)
    for number, shape in enumerate(shapely.to_geojson(geometry)):
        values = ",".join(f"{name}:{column[number]}" for name, column in zip(names, columns, strict=True))
        identifier = f'"id":{identifiers[number]},' if identifiers[number] != "null" else ""
        yield f'{{"type":"Feature",{identifier}"properties":{{{values}}},"geometry":{shape or "null"}}}'


def _texts(column: pd.Series) -> list[str]:
    """JSON text of each value; missing and infinite ones are null."""
    import math

    import pandas as pd

    kind = column.dtype.kind
    if kind == "M":
        return ["null" if pd.isna(value) else json.dumps(value.isoformat()) for value in column]
    values = column.astype(object).where(column.notna(), None).tolist()
    if kind == "f":
        values = [value if value is not None and math.isfinite(value) else None for value in values]
    return [json.dumps(value, ensure_ascii=False, default=str) for value in values]
