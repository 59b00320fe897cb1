"""GeoJSON after RFC 7946: degrees, right-hand rule, antimeridian, validity after rounding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import ExportError
from geoseg.export.geojson import GeoJSON, cut_at_antimeridian, rounded


def written(fields: gpd.GeoDataFrame, folder: Path) -> dict[str, Any]:
    file = GeoJSON().write(fields, folder / "fields.geojson")[0]
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def square(x: float, y: float, side: float = 100.0) -> shapely.Polygon:
    return shapely.box(x, y, x + side, y + side)


def test_document_is_plain_rfc_7946(tmp_path: Path) -> None:
    ring = shapely.Polygon(square(500_000, 5e6).exterior.coords[::-1], [square(500_020, 5_000_020, 10).exterior.coords])
    fields = gpd.GeoDataFrame({"id": ["r-1"], "class": ["Grünland"], "score": [np.nan]}, geometry=[ring], crs=32632)
    document = written(fields, tmp_path)
    assert set(document) == {"type", "name", "features"}
    (feature,) = document["features"]
    assert feature["id"] == "r-1"
    assert feature["properties"] == {"id": "r-1", "class": "Grünland", "score": None}
    shape = shapely.geometry.shape(feature["geometry"])
    assert shape.exterior.is_ccw
    assert not shape.interiors[0].is_ccw
    places = [number for pair in feature["geometry"]["coordinates"][0] for number in pair]
    assert all(round(number, 7) == number for number in places)
    back = gpd.GeoSeries([shape], crs="OGC:CRS84").to_crs(32632)
    assert shapely.hausdorff_distance(back[0], ring) < 0.02


def test_fields_without_crs_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="--crs"):
        GeoJSON().write(gpd.GeoDataFrame(geometry=[square(0, 0)]), tmp_path / "fields.geojson")
    assert not list(tmp_path.iterdir())


def test_coordinates_outside_the_projection_are_refused(tmp_path: Path) -> None:
    fields = gpd.GeoDataFrame(geometry=[square(1e12, 1e12)], crs=32632)
    with pytest.raises(ExportError, match="no longitude and latitude"):
        GeoJSON().write(fields, tmp_path / "fields.geojson")


def test_a_field_on_the_antimeridian_becomes_two_parts(tmp_path: Path) -> None:
    edge = gpd.GeoSeries([shapely.Point(180, -17)], crs=4326).to_crs(32701)[0]
    field = square(edge.x - 300, edge.y, 1000)
    (feature,) = written(gpd.GeoDataFrame(geometry=[field], crs=32701), tmp_path)["features"]
    shape = shapely.geometry.shape(feature["geometry"])
    assert shape.geom_type == "MultiPolygon"
    assert shape.is_valid
    west, east = sorted(part.bounds[0] for part in shape.geoms)
    assert west == -180
    assert 179.9 < east < 180
    assert all(part.exterior.is_ccw for part in shape.geoms)
    area = sum(gpd.GeoSeries([part], crs=4326).to_crs(32701)[0].area for part in shape.geoms)
    assert area == pytest.approx(1e6, rel=1e-4)


def test_longitudes_above_180_come_back() -> None:
    (cut,) = cut_at_antimeridian(np.array([shapely.box(185, 10, 186, 11)]))
    assert cut.bounds == (-175, 10, -174, 11)


def test_a_continent_in_degrees_is_left_alone(tmp_path: Path) -> None:
    wide = shapely.box(-170, -80, 170, -60)
    (feature,) = written(gpd.GeoDataFrame(geometry=[wide], crs=4326), tmp_path)["features"]
    assert shapely.geometry.shape(feature["geometry"]).equals(wide)


@given(
    st.lists(
        st.tuples(st.floats(0, 4e-6, allow_subnormal=False), st.floats(0, 4e-6, allow_subnormal=False)),
        min_size=4,
        max_size=12,
    )
)
def test_rounding_keeps_valid_polygons_valid(points: list[tuple[float, float]]) -> None:
    shape = shapely.Polygon(points)
    if not shape.is_valid or shape.area == 0:
        return
    (result,) = rounded(np.array([shape]), 7)
    assert result.is_valid
    assert not result.is_empty


def test_missing_geometry_is_null(tmp_path: Path) -> None:
    fields = gpd.GeoDataFrame({"id": ["a", "b"]}, geometry=[square(5e5, 5e6), None], crs=32632)
    assert written(fields, tmp_path)["features"][1]["geometry"] is None
