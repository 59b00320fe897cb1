"""Outline scores: shapely's buffers and distances, and formulas written out, are the oracles."""

from __future__ import annotations

import math

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS
from shapely import box
from shapely.affinity import rotate, scale, translate

from geoseg.errors import InputError
from geoseg.metrics import Comparison, FieldRaster, evaluate, overlap_of_polygons, score_boundaries, score_pairs
from geoseg.metrics import outlines as module
from geoseg.metrics.outlines import LONG, PIECE, Rings, distances, near
from geoseg.metrics.tracing import traced

UTM = "EPSG:32633"
X, Y = 500_000, 5_800_000


def star(x, y, radii):
    """A polygon around (x, y)."""
    angle = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return shapely.Polygon(np.stack([x + radii * np.cos(angle), y + radii * np.sin(angle)], axis=1))


@st.composite
def fields(draw):
    """Up to four stars on a line, some of them with a hole."""
    shapes = []
    for i in range(draw(st.integers(1, 4))):
        radii = draw(st.lists(st.floats(20, 45), min_size=3, max_size=9))
        shape = star(100 * i, 0, np.array(radii))
        shapes.append(shape.difference(box(100 * i - 2, -2, 100 * i + 2, 2)) if draw(st.booleans()) else shape)
    return np.array(shapes, dtype=object)


def comparison(pred, true, **options):
    return Comparison.of(overlap_of_polygons(pred, true), pred, true, **options)


def frame(shapes, crs=UTM):
    return gpd.GeoDataFrame(geometry=list(shapes), crs=crs)


@given(fields(), st.floats(0.5, 30))
def test_points_stand_for_the_whole_outline(shapes, step):
    points = Rings.of(shapes).points(step)
    assert points.weight.max() <= step + 1e-9
    by_field = np.bincount(points.owner, weights=points.weight, minlength=len(shapes))
    assert by_field == pytest.approx(shapely.length(shapes))
    assert shapely.distance(points.geometry(), shapely.boundary(shapes)[points.owner]).max() < 1e-9


@given(fields())
def test_pieces_and_vertices_are_those_of_the_outline(shapes):
    rings = Rings.of(shapes)
    pieces, owner = rings.pieces()
    assert shapely.get_num_coordinates(pieces).max() <= PIECE + 1
    assert np.bincount(owner, weights=shapely.length(pieces)) == pytest.approx(shapely.length(shapes))
    assert shapely.union_all(pieces).symmetric_difference(shapely.union_all(shapely.boundary(shapes))).length < 1e-9
    corners = rings.vertices()
    expected = sum(len(ring.coords) - 1 for shape in shapes for ring in (shape.exterior, *shape.interiors))
    assert corners.weight.size == expected


def test_long_outlines_have_the_same_distances_as_short_ones():
    fine = star(0, 0, 50 + np.random.default_rng(0).uniform(-5, 5, 2 * LONG))
    both = np.array([fine, box(0, 0, 60, 60)], dtype=object)
    points = Rings.of(np.array([box(-20, -20, 30, 30), fine], dtype=object)).points(3)
    expected = shapely.distance(points.geometry(), shapely.boundary(both)[points.owner])
    assert distances(points, both) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(fields(), fields(), st.floats(1, 15))
def test_boundary_scores_are_lengths_within_a_buffer(pred, true, tolerance):
    tolerance += 0.0123  # no parallel sides just so far apart
    scores, _ = score_boundaries(comparison(pred, true), tolerance=tolerance, source="", step=0.2)
    for own, other, found in (
        (pred, true, scores.precision),
        (true, pred, scores.recall),
    ):
        # A buffer of many corners is a circle to a thousandth; a point stands for 0.2 or less on either side of it.
        around = shapely.union_all(shapely.boundary(other)).buffer(tolerance, quad_segs=64)
        inside = sum(line.intersection(around).length for line in shapely.boundary(own))
        assert found == pytest.approx(inside / shapely.length(own).sum(), abs=0.02)
    p, r = scores.precision, scores.recall
    assert scores.f1 == pytest.approx(2 * p * r / (p + r) if p + r else 0)


@settings(deadline=None)
@given(fields(), fields())
def test_swapping_layers_swaps_boundary_precision_and_recall_and_keeps_distances(pred, true):
    there, back = comparison(pred, true), comparison(true, pred)
    a, b = (score_boundaries(c, tolerance=4, source="", step=1)[0] for c in (there, back))
    assert (a.precision, a.recall) == pytest.approx((b.recall, b.precision))
    first, second = score_pairs(there, step=1), score_pairs(back, step=1)
    assert sorted(first.mean_boundary) == pytest.approx(sorted(second.mean_boundary))
    assert sorted(first.polis) == pytest.approx(sorted(second.polis))


@given(fields())
def test_perfect_outlines_are_no_distance_away(shapes):
    same = comparison(shapes, shapes)
    scores, lengths = score_boundaries(same, tolerance=0.01, source="", step=1)
    assert scores.f1 == scores.precision == scores.recall == 1
    assert lengths.true == pytest.approx(shapely.length(shapes))
    pairs = score_pairs(same, step=1)
    assert max(pairs.mean_boundary) == pytest.approx(0, abs=1e-9)
    assert max(pairs.polis) == pytest.approx(0, abs=1e-9)


@given(fields(), st.floats(-8, 8), st.floats(0.9, 1.1), st.floats(-10, 10))
def test_polis_is_the_formula_of_the_paper(shapes, shift, factor, angle):
    pred = np.array([translate(rotate(scale(s, factor, factor), angle), shift) for s in shapes], dtype=object)
    compared = comparison(pred, shapes)
    found = score_pairs(compared, step=1).polis
    for i, value in enumerate(found):
        a, b = pred[compared.matched_pred[i]], shapes[compared.matched_true[i]]
        sides = []
        for one, other in ((a, b), (b, a)):
            corners = [shapely.Point(xy) for ring in (one.exterior, *one.interiors) for xy in ring.coords[:-1]]
            sides.append(sum(corner.distance(other.boundary) for corner in corners) / (2 * len(corners)))
        assert value == pytest.approx(sum(sides))


def test_distances_that_can_be_worked_out_by_hand():
    true, pred = box(0, 0, 100, 100), box(-4, -4, 104, 104)
    pairs = score_pairs(comparison(np.array([pred]), np.array([true])), step=0.01)
    # Inner to outer: 4 everywhere. Outer to inner: 4, but up to 4 sqrt(2) on the last 4 before each corner.
    corner = np.hypot(4, np.linspace(0, 4, 10_001)).mean()
    assert pairs.mean_boundary[0] == pytest.approx((4 + (400 * 4 + 32 * corner) / 432) / 2, rel=1e-4)
    assert pairs.polis[0] == pytest.approx((4 + 4 * math.sqrt(2)) / 2)


def test_a_dense_cloud_of_points_says_the_same():
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(4)
    a, b = star(0, 0, 50 + rng.uniform(-9, 9, 40)), star(2, -3, 50 + rng.uniform(-9, 9, 25))
    pairs = score_pairs(comparison(np.array([a]), np.array([b])), step=0.1)
    clouds = [Rings.of(np.array([s])).points(0.01).xy for s in (a, b)]
    ways = [cKDTree(clouds[1]).query(clouds[0])[0].mean(), cKDTree(clouds[0]).query(clouds[1])[0].mean()]
    assert pairs.mean_boundary[0] == pytest.approx(sum(ways) / 2, abs=0.01)


def test_many_points_are_thinned(monkeypatch):
    shapes = np.array([star(120 * i, 0, np.full(50, 40.0)) for i in range(6)], dtype=object)
    pred = np.array([translate(s, 3) for s in shapes], dtype=object)
    full = score_pairs(comparison(pred, shapes), step=1)
    monkeypatch.setattr(module, "MAX_POINTS", 100)
    monkeypatch.setattr("geoseg.metrics.boundary.MAX_POINTS", 100)
    thin = score_pairs(comparison(pred, shapes), step=1)
    assert np.isfinite(thin.mean_boundary).all()
    assert 0 < np.isfinite(thin.polis).sum() < 6
    assert thin.to_dict()["mean_boundary_distance"] == pytest.approx(full.to_dict()["mean_boundary_distance"], rel=0.05)


def test_distances_are_in_metres_whatever_the_crs():
    true = [box(X + x, Y, X + x + 200, Y + 200) for x in (0, 400)]
    pred = [translate(s, 5, 0) for s in true]
    for crs in (UTM, 4326, 3857):
        scores = evaluate(frame(pred).to_crs(crs), frame(true).to_crs(crs), tolerance_m=4)
        record = scores.to_dict()
        assert record["boundary"]["unit"] == "metre"
        # Only the two sides along x coincide, and 4 m of the others; the mean of d is half of 5 m, and a bit less.
        assert record["boundary"]["precision"] == pytest.approx(0.51, abs=0.02)
        assert record["matched_outlines"]["mean_boundary_distance"] == pytest.approx(2.5, abs=0.1)
        assert record["matched_outlines"]["polis"] == pytest.approx(2.5, abs=0.01)  # two of four corners are 5 m off
    there = [frame([translate(s, 1e6 - X, 2e5 - Y) for s in shapes], "EPSG:2263") for shapes in (pred, true)]
    feet = evaluate(*there)
    assert feet.to_dict()["matched_outlines"]["polis"] == pytest.approx(2.5 * 0.3048, abs=0.01)


def test_default_tolerance_is_said_and_suits_the_data():
    true = [box(X, Y, X + 300, Y + 300)]
    vector = evaluate(frame(true), frame(true)).boundary
    assert (vector.tolerance, vector.source) == (20, "5 % of the median true field's width")
    labels = np.zeros((40, 40), np.int32)
    labels[5:20, 5:20] = 1
    place = {"name": "ids", "transform": Affine(10, 0, X, 0, -10, Y + 400)}
    raster = FieldRaster.of_instances(labels, crs=CRS(UTM), **place)
    scores = evaluate(raster, raster)
    assert (scores.boundary.tolerance, scores.boundary.source) == (20, "2 pixels of the truth")
    assert scores.boundary.true_length == pytest.approx(600)
    degrees = FieldRaster.of_instances(labels, name="ids", crs=CRS(4326), transform=Affine(1e-4, 0, 12, 0, -1e-4, 60))
    there = evaluate(degrees, degrees).boundary
    assert there.tolerance == pytest.approx(2 * math.sqrt(11.1 * 5.6), rel=0.02)
    assert there.true_length == pytest.approx(30 * (11.1 + 5.6), rel=0.02)
    plain = FieldRaster.of_instances(labels, name="ids", crs=None, transform=Affine.scale(1, -1))
    pixels = evaluate(plain, plain).to_dict()
    assert (pixels["boundary"]["tolerance"], pixels["boundary"]["unit"]) == (2, "pixel")
    assert pixels["areas"]["unit"] == "pixels"
    polygon = evaluate(frame([box(0, -9, 9, 0)], None), frame([box(0, -9, 9, 0)], None)).boundary
    assert (polygon.tolerance, polygon.source) == (2, "2 pixels")


def test_outlines_along_nodata_and_the_frame_do_not_count():
    labels = np.zeros((40, 40), np.int32)
    labels[0:20, 5:25] = 1  # 20 of its edges lie on the frame
    valid = np.ones((40, 40), bool)
    valid[:, 15:] = False  # and half of it on nodata
    raster = FieldRaster.of_instances(
        labels, name="ids", transform=Affine(10, 0, X, 0, -10, Y), crs=CRS(UTM), valid=valid
    )
    scores = evaluate(raster, raster)
    # Left and lower side of the visible half: 200 + 100 m, less half a pixel at the frame and at nodata.
    assert scores.boundary.true_length == pytest.approx(290, abs=5)
    assert scores.boundary.f1 == 1


def test_partial_boundary_scores_speak_of_labelled_land():
    true = [box(X, Y, X + 200, Y + 200)]
    right = [box(X, Y, X + 200, Y + 200), box(X + 1000, Y, X + 1300, Y + 200)]
    scores = evaluate(frame(right), frame(true), partial=True).boundary
    assert (scores.precision, scores.recall) == (1, 1)
    assert scores.predicted_length == pytest.approx(800, abs=1)
    assert evaluate(frame(right), frame(true)).boundary.precision == pytest.approx(800 / 1800, abs=0.01)
    cut = [box(X, Y, X + 100, Y + 200), box(X + 100, Y, X + 200, Y + 200), *right[1:]]
    divided = evaluate(frame(cut), frame(true), partial=True, tolerance_m=5).boundary
    assert divided.recall == 1
    assert divided.precision == pytest.approx((800 + 20) / 1200, abs=0.01)
    nothing = evaluate(frame([]), frame(true), partial=True).boundary
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, 0, 0)


def test_boundary_scores_of_images_pool():
    true, pred = frame([box(X, Y, X + 200, Y + 200)]), frame([box(X + 9, Y, X + 209, Y + 200)])
    one = evaluate(pred, true, tolerance_m=5)
    two = evaluate(true, true, tolerance_m=5)
    both = one.boundary + two.boundary
    assert both.precision == pytest.approx((one.boundary.precision + 1) / 2)
    assert (one.matched_outlines + two.matched_outlines).to_dict()["pairs"] == 2
    with pytest.raises(InputError, match="at 5 and 4 metre cannot be pooled"):
        _ = one.boundary + evaluate(true, true, tolerance_m=4).boundary
    plain = evaluate(frame([box(0, 0, 9, 9)], None), frame([box(0, 0, 9, 9)], None))
    with pytest.raises(InputError, match="metre and pixel cannot be pooled"):
        _ = one.matched_outlines + plain.matched_outlines


def test_traced_objects_cover_their_pixels():
    labels = np.array([[1, 0, 7, 7], [0, 1, 7, 3], [5, 5, 3, 3], [5, 0, 1, 3]], np.int32)
    shapes = traced(labels, np.array([1, 3, 7], np.int32), Affine.translation(10, 20))
    assert shapely.area(shapes).tolist() == [3, 4, 3]
    assert [shape.geom_type for shape in shapes] == ["MultiPolygon", "Polygon", "Polygon"]
    assert shapes[0].bounds == (10, 20, 13, 24)
    assert near(Rings.of(shapes).points(1), shapely.boundary(shapes), 1e-9).all()
    assert traced(labels, np.empty(0, np.int32), Affine.identity()).size == 0


def test_outlines_must_be_those_of_the_overlap():
    shapes = np.array([box(0, 0, 1, 1), box(2, 0, 3, 1)], dtype=object)
    with pytest.raises(InputError, match="1 predicted and 2 true outlines"):
        Comparison.of(overlap_of_polygons(shapes, shapes), shapes[:1], shapes)
