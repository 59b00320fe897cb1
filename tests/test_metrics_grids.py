"""The CRS and the grid of a comparison: metres wherever the layers are, and what the grid cannot show is told."""

from __future__ import annotations

import math

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from pyproj import CRS
from shapely import box
from shapely.affinity import translate

from geoseg.metrics import FieldPolygons, FieldRaster, evaluate
from geoseg.metrics.grids import metric_crs

UTM = "EPSG:32633"
FIELDS = [box(500_000 + x, 5_800_000 + y, 500_150 + x, 5_800_150 + y) for x in (20, 190) for y in (20, 190)]


def polygons(shapes=FIELDS, crs=UTM):
    return gpd.GeoDataFrame(geometry=list(shapes), crs=crs)


def squares_at(lon, lat, crs, sides=((0, 0), (300, 0))):
    """Squares of 100 m on the ground at a place, in another CRS."""
    near = CRS(f"+proj=laea +lon_0={lon} +lat_0={lat} +datum=WGS84")
    return polygons([box(x, y, x + 100, y + 100) for x, y in sides], crs=near).to_crs(crs)


@pytest.mark.parametrize("crs", ["EPSG:3395", "EPSG:32662", "ESRI:54030", "EPSG:3413", "EPSG:32633", "EPSG:3035"])
def test_areas_are_metric_in_any_projected_crs(crs):
    there = squares_at(12, 58.6, crs)
    scores = evaluate(there, there, min_area_m2=9_900)
    assert scores.areas.true_area == pytest.approx(20_000, rel=1e-2)
    assert scores.boundary.true_length == pytest.approx(800, rel=1e-2)
    assert scores.boundary.tolerance == 5
    assert evaluate(there, there, min_area_m2=10_100).objects.true == 0
    assert evaluate(there, there.iloc[:0], min_area_m2=9_900).areas.predicted_area == pytest.approx(20_000, rel=1e-2)


@pytest.mark.parametrize(("crs", "kept"), [("EPSG:3395", False), ("EPSG:32662", False), ("EPSG:32633", True)])
def test_raster_areas_are_metric_in_any_projected_crs(crs, kept):
    left, bottom, *_ = squares_at(12, 58.6, crs).total_bounds
    labels = np.zeros((40, 40), np.int32)
    labels[5:20, 5:20] = 1
    ids = FieldRaster.of_instances(
        labels, name="ids", crs=CRS(crs), transform=Affine(10, 0, left, 0, -10, bottom + 400)
    )
    scores = evaluate(ids, ids)
    truth = gpd.GeoSeries([box(left + 50, bottom + 200, left + 200, bottom + 350)], crs=crs)
    metric = truth.to_crs("+proj=laea +lon_0=12 +lat_0=58.6 +datum=WGS84")
    assert scores.areas.true_area == pytest.approx(metric.area[0], rel=1e-2)
    assert scores.boundary.true_length == pytest.approx(metric.length[0], rel=1e-2)
    assert scores.boundary.tolerance == pytest.approx(2 * math.sqrt(metric.area[0] / 225), rel=1e-2)
    assert (scores.boundary.tolerance == 20) is kept


def test_the_crs_of_the_truth_is_kept_where_no_other_is_better():
    for crs, shapes in (
        ("EPSG:6933", [box(x, y, x + 100, y + 100) for x in (-17e6, 17e6) for y in (-7e6, 7e6)]),  # all the world
        ("EPSG:32633", [box(3e9, 0, 3e9 + 1, 1)]),  # no place at all
        ("EPSG:32633", FIELDS),
        ("EPSG:32633", []),
    ):
        layer = FieldPolygons.of(polygons(shapes, crs=crs), name="truth")
        assert metric_crs(layer, layer) == CRS(crs)


@pytest.mark.parametrize("pixel", [None, 10, 90, 1e9])
def test_overlaps_are_told_whatever_the_grid(pixel):
    third = [*FIELDS, translate(FIELDS[0], 50, 0), translate(FIELDS[0], 0, 0)]  # the fifth lies on two others
    again = [note for note in evaluate(polygons(third), polygons(), pixel_size_m=pixel).notes if "overlap" in note]
    assert again == ["prediction: polygons overlap each other (31.1% of their area is covered twice or more)"]
    side_by_side = polygons([translate(FIELDS[0], 150 * i, 0) for i in range(6)])
    notes = evaluate(side_by_side, side_by_side, pixel_size_m=pixel).notes
    assert not any("overlap" in note for note in notes)


def test_a_grid_that_shows_no_field_is_told():
    thin = polygons([box(500_000, 5_800_000.001, 600_000, 5_800_000.011)])
    for scores in (evaluate(polygons(), polygons(), pixel_size_m=1e9), evaluate(thin, thin)):
        assert [note.partition(":")[0] for note in scores.notes] == ["prediction", "truth"]
        assert all("the grid is too coarse" in note and "--pixel-size-m" in note for note in scores.notes)
    flat = polygons([box(0.1, -9, 0.4, -1)], crs=None)
    assert any("too coarse for pixel scores" in note for note in evaluate(flat, flat).notes)
