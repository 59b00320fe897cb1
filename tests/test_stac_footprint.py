"""Footprints of scenes in longitude and latitude, where the globe is not a plane."""

from __future__ import annotations

from typing import Any

import pytest
import shapely
from affine import Affine
from pyproj import CRS

from geoseg.scene import Band, Scene
from geoseg.stac import lonlat_footprint


def footprint(crs: str, transform: Affine, shape: tuple[int, int] = (1000, 1000)) -> tuple[Any, list[float]]:
    scene = Scene(shape=shape, transform=transform, crs=CRS(crs), bands=(Band(name=None, dtype="uint8"),), name="x")
    found = lonlat_footprint(scene)
    return shapely.geometry.shape(found["geometry"]), found["bbox"]


EDGE_OF_ZONE_1 = Affine(50, 0, 330_000, 0, -50, 7_000_000)
OVER_180 = Affine(0.01, 0, 178, 0, -0.01, 5)


@pytest.mark.parametrize(("crs", "transform"), [("EPSG:32601", EDGE_OF_ZONE_1), ("EPSG:4326", OVER_180)])
def test_footprints_over_longitude_180_have_two_parts(crs: str, transform: Affine) -> None:
    shape, box = footprint(crs, transform)
    assert shape.geom_type == "MultiPolygon"
    assert shape.is_valid
    assert box[0] > 170 > -170 > box[2]
    assert all(part.exterior.is_ccw for part in shape.geoms)
    assert shape.bounds[0] >= -180
    assert shape.bounds[2] <= 180


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3995", 90), ("EPSG:3031", -90)])
def test_footprints_around_a_pole_hold_it(crs: str, pole: int) -> None:
    shape, box = footprint(crs, Affine(1000, 0, -500_000, 0, -1000, 500_000))
    assert shape.covers(shapely.Point(77, pole))
    assert shape.covers(shapely.Point(-135, pole * 0.95))
    assert not shape.covers(shapely.Point(45, pole * 0.9))
    assert (box[0], box[2]) == (-180, 180)
