"""Outlines as a coverage: neighbours share their vertices, exact, smooth and simplified, whatever the tiles."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pyproj import CRS
from scipy import ndimage
from test_vectorize import FAST, ArrayClasses, outlines, same, serially, straightened

from geoseg.grid import TileGrid
from geoseg.kernels.outline import trace
from geoseg.pieces import Pieces
from geoseg.results import SMOOTH_SCALE, FieldRules, Outlines
from geoseg.scene import Band, Scene
from geoseg.vectorize.instances import Components
from geoseg.vectorize.polygons import longest_pixel_m, polygons
from geoseg.vectorize.simplify import CornerTiles, simplified

labels = st.integers(2, 6).flatmap(
    lambda count: hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.sampled_from([0, *range(1, count)])
    )
)
"""Small rasters of up to six labels, 0 among them."""


@st.composite
def patchy(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Rasters of a few labels with larger patches, in which outlines are long enough to be simplified."""
    seed, count = draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, 6))
    rng, shape = np.random.default_rng(seed), (draw(st.integers(8, 40)), draw(st.integers(8, 40)))
    noise = ndimage.gaussian_filter(rng.standard_normal((count, *shape)), (0, *2 * [draw(st.floats(0.5, 3))]))
    array = noise.argmax(axis=0).astype(np.uint8)
    specks = rng.random(shape) < draw(st.sampled_from([0, 0.02, 0.1]))
    array[specks] = rng.integers(0, count, specks.sum())
    return array


rasters = st.one_of(labels, patchy())
tolerances = st.sampled_from([0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0])


def margins_for(array: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """(class, row, col) stored probabilities whose argmax is `array`."""
    rng = np.random.default_rng(seed)
    stored = rng.integers(0, 120, (int(array.max()) + 1, *array.shape)).astype(np.uint8)
    np.put_along_axis(
        stored, array[None].astype(np.int64), rng.integers(120, 255, (1, *array.shape)).astype(np.uint8), 0
    )
    return stored


def traced(array: NDArray[np.uint8], *, tile: int = 64, **rules: Any) -> Outlines:
    return outlines(array, tile=tile, wanted=range(1, 7), **rules)


def check_coverage(found: Outlines, count: int) -> NDArray[np.object_]:
    made = polygons(found, Affine.identity())
    assert len(made) == count
    assert shapely.is_valid(made).all()
    assert (shapely.area(made) > 0).all()
    assert shapely.coverage_is_valid(made)
    shells = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, found.vertices[:, ::-1].astype(float), (found.rings, np.arange(len(found.rings)))
    )
    holes = np.ones(len(shells), np.bool_)
    holes[found.objects[:-1]] = False
    # x to the right, y downward: what is clockwise on screen counts as counter-clockwise.
    np.testing.assert_array_equal(shapely.is_ccw(shapely.get_exterior_ring(shells)), ~holes)
    return made


@given(rasters)
def test_outlines_are_a_coverage(array: NDArray[np.uint8]) -> None:
    found = traced(array)
    made = check_coverage(found, len(found))
    # Every pixel has its label back, and every corner with more than two boundaries is a vertex.
    assert shapely.area(made).sum() == (array > 0).sum()
    framed = np.pad(array, 1).astype(int)
    a, b, c, d = framed[:-1, :-1], framed[:-1, 1:], framed[1:, :-1], framed[1:, 1:]
    joints = np.argwhere((a != b).astype(int) + (b != d) + (d != c) + (c != a) > 2)
    assert {*map(tuple, joints.tolist())} == {*map(tuple, found.vertices[found.junction].tolist())}
    assert shapely.equals(made, straightened(made)).all()


@given(rasters, tolerances, st.booleans(), st.integers(0, 99))
@settings(max_examples=300)
def test_simplified_and_smooth_outlines_are_a_coverage_near_the_exact_one(
    array: NDArray[np.uint8], tolerance: float, smooth: bool, seed: int
) -> None:
    stored = margins_for(array, seed)
    before = traced(array, smooth=smooth, stored=stored)
    exact = check_coverage(before, len(before))
    after = traced(array, smooth=smooth, tolerance=tolerance, stored=stored)
    made = check_coverage(after, len(before))
    assert not len(after) or after.scale == before.scale == (SMOOTH_SCALE if smooth else 1)
    for old, new in zip(exact, made, strict=True):
        assert len(old.interiors) == len(new.interiors)
        places = {*map(tuple, shapely.get_coordinates(old).tolist())}
        assert {*map(tuple, shapely.get_coordinates(new).tolist())} <= places
        for a, b in ((old, new), (new, old)):
            assert shapely.hausdorff_distance(a.boundary, b.boundary, densify=0.1) <= tolerance + 1e-9
    assert shapely.coverage_is_valid(shapely.coverage_simplify(exact, tolerance))


@given(
    rasters, st.integers(4, 12), st.tuples(st.integers(-9, 9), st.integers(-9, 9)), st.sampled_from([0.0, 1.0, 2.5]),
    st.booleans(),
)  # fmt: skip
def test_tiles_make_no_difference(
    array: NDArray[np.uint8], tile: int, phase: tuple[int, int], tolerance: float, smooth: bool
) -> None:
    rules: dict[str, Any] = {"tolerance": tolerance, "smooth": smooth, "stored": margins_for(array, 1)}
    assert same(traced(array, **rules), traced(array, tile=tile, phase=phase, **rules))


@given(rasters, st.sampled_from([1.0, 2.5]), st.booleans(), st.integers(0, 99))
def test_each_object_is_simplified_alone_as_with_the_others(
    array: NDArray[np.uint8], tolerance: float, smooth: bool, seed: int
) -> None:
    grid = TileGrid(shape=array.shape, phase=(3, -2), patch=7, halo=0)
    rules = FieldRules(tolerance=tolerance, smooth=smooth)
    with TemporaryDirectory(dir=FAST) as folder:
        parts = list(
            Components().outlines(
                ArrayClasses(array, grid), range(1, 7), map_tiles=serially, rules=rules, folder=Path(folder)
            )
        )
        before = traced(array, smooth=smooth)
        corners = CornerTiles(grid=grid, pieces=Pieces(Path(folder)))
        order = np.random.default_rng(seed).permutation(len(before))
        together = simplified(before.taken(order), corners, tolerance=tolerance)
        alone = [simplified(before.taken(order[i : i + 1]), corners, tolerance=tolerance) for i in range(len(order))]
    if not len(before):
        return
    assert same(Outlines.joined(parts).taken(order), together)
    assert same(Outlines.joined(alone), together)


def drawn(text: str) -> NDArray[np.uint8]:
    """A raster from lines of digits, . for 0."""
    rows = [line.strip().replace(".", "0") for line in text.strip().splitlines()]
    return np.array([[int(digit) for digit in row] for row in rows], np.uint8)


ISLAND_IN_A_BAY = """
    1111111111111
    1111....11111
    1111.22.11111
    1111....11111
    11111..111111
    11111..111111
    .............
"""
LENS = """
    1111111111111111
    1111111111111111
    1111113333111111
    1113333333333111
    2222233333322222
    2222222222222222
    2222222222222222
"""
A_PIXEL_ON_AN_EDGE = """
    11111111
    11131111
    22222222
    22222222
"""
NESTED_RINGS = """
    11111111111
    1.........1
    1.2222222.1
    1.2.....2.1
    1.2.333.2.1
    1.2.3.3.2.1
    1.2.333.2.1
    1.2.....2.1
    1.2222222.1
    1.........1
    11111111111
"""


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("tolerance", [0.6, 1.5, 3.0, 20.0])
@pytest.mark.parametrize(
    ("text", "count"), [(ISLAND_IN_A_BAY, 2), (LENS, 3), (A_PIXEL_ON_AN_EDGE, 3), (NESTED_RINGS, 3)]
)
def test_places_where_a_shortcut_would_go_wrong(text: str, count: int, tolerance: float, smooth: bool) -> None:
    array = drawn(text)
    exact = check_coverage(traced(array, smooth=smooth), count)
    found = traced(array, smooth=smooth, tolerance=tolerance)
    made = check_coverage(found, count)
    assert [len(one.interiors) for one in made] == [len(one.interiors) for one in exact]
    assert len(found.vertices) < len(traced(array, smooth=smooth).vertices) or not smooth


@pytest.mark.parametrize("smooth", [False, True])
def test_a_checkerboard_keeps_every_corner(smooth: bool) -> None:
    array = (np.indices((9, 11)).sum(0) % 2 + 1).astype(np.uint8)
    made = check_coverage(traced(array, smooth=smooth, tolerance=2), array.size)
    inner = shapely.contains_properly(shapely.box(0, 0, 11, 9), made)
    np.testing.assert_allclose(shapely.area(made)[inner], 1)


def test_smooth_outlines_lie_on_the_contour() -> None:
    cols = np.broadcast_to(np.arange(60), (40, 60))
    for gain, centre in ((9.0, 29.3), (20.0, 31.77)):
        field = np.clip(np.round(127 + gain * (centre - cols - 0.5)), 0, 254).astype(np.uint8)
        stored = np.stack([254 - field, field])
        found = traced(stored.argmax(axis=0).astype(np.uint8), smooth=True, stored=stored)
        (polygon,) = polygons(found, Affine.identity())
        col, row = shapely.get_coordinates(polygon).T
        middle = (col > 5) & (row > 1) & (row < 39)
        # Probabilities are stored in steps of 1 / gain pixels, vertices in 1 / 64.
        np.testing.assert_allclose(col[middle], centre, atol=1 / gain + 1 / 64)
        assert middle.sum() == 38


def test_without_probabilities_smooth_outlines_pass_half_way() -> None:
    found = traced(drawn("11 \n 11"), smooth=True)
    assert found.scale == SMOOTH_SCALE
    (polygon,) = polygons(found, Affine.identity())
    assert polygon.equals(
        shapely.Polygon([(0.5, 0), (1.5, 0), (2, 0.5), (2, 1.5), (1.5, 2), (0.5, 2), (0, 1.5), (0, 0.5)])
    )


def test_outlines_that_run_straight_through_a_junction_have_a_vertex_there() -> None:
    chains = trace(np.pad(drawn("11 \n 23").astype(np.int64), 1))
    first = chains.vertices[chains.offsets[0] : chains.offsets[1]]
    joints = chains.junction[chains.offsets[0] : chains.offsets[1]]
    assert {*map(tuple, first.tolist())} == {(0, 0), (0, 2), (1, 2), (1, 1), (1, 0)}
    assert {*map(tuple, first[joints].tolist())} == {(1, 2), (1, 1), (1, 0)}


def test_an_outline_over_many_tiles_is_simplified_from_the_tiles_along_it() -> None:
    rows, cols = np.indices((300, 300))
    radius = np.hypot(rows - 150, cols - 150)
    array = ((radius > 120) & (radius < 140)).astype(np.uint8) + 2 * (radius < 30).astype(np.uint8)
    found = traced(array, tile=16, phase=(5, -3), tolerance=1.0)
    assert same(found, traced(array, tile=400, tolerance=1.0))
    check_coverage(found, 2)
    assert len(found.vertices) < len(traced(array).vertices) / 6


def test_a_pixels_length_is_the_largest_over_all_directions() -> None:
    def scene(transform: Affine, crs: int | None) -> Scene:
        return Scene(
            name="x", shape=(10, 20), transform=transform, crs=None if crs is None else CRS.from_epsg(crs),
            bands=(Band(name="a", dtype="uint8"),),
        )  # fmt: skip

    assert longest_pixel_m(scene(Affine(10, 0, 5e5, 0, -20, 5e6), 32633), 1) == pytest.approx(20, rel=1e-3)
    assert longest_pixel_m(scene(Affine(10, 0, 5e5, 0, -20, 5e6) @ Affine.rotation(30), 32633), 1) <= 20.01
    assert longest_pixel_m(scene(Affine(1e-4, 0, 20, 0, -1e-4, 60), 4326), 1) == pytest.approx(11.14, rel=1e-3)
    assert longest_pixel_m(scene(Affine(1, 0, 0, 0, -4, 0), None), 6) == pytest.approx(12)
