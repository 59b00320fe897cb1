"""Objects by watershed or components: kernels against oracles, tiled equal to whole, order of the rules."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import h_minima
from test_vectorize import FAST, serially

from geoseg.grid import TileGrid, Window
from geoseg.kernels.flood import BLUR, basins, borders, smoothed
from geoseg.kernels.graph import gathered, join_shallow, join_weak
from geoseg.kernels.grow import grow, rounds
from geoseg.kernels.label import roots, strongest
from geoseg.kernels.runs import decode, encode
from geoseg.results import FieldRules, Lines, Outlines
from geoseg.vectorize.instances import Components, Watershed

ANY = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
CROSS = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class Stored:
    """A ClassSource in memory: background, field, boundary."""

    grid: TileGrid
    stored: NDArray[np.uint8]
    lines: Lines = field(default_factory=lambda: Lines(channel=2, free_class=2))

    def classes(self, window: Window) -> NDArray[np.uint8]:
        stored = self._window(self.stored, window)
        return np.where(stored[0] == 255, 255, np.argmax(stored, axis=0)).astype(np.uint8)

    def probabilities(self, window: Window) -> NDArray[np.uint8]:
        return self._window(self.stored, window)

    def _window(self, values: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
        out = np.full((len(values), *window.shape), 255, np.uint8)
        part = window & self.grid.extent
        out[(slice(None), *part.within(window).slices)] = values[(slice(None), *part.slices)]
        return out


def objects(
    stored: NDArray[np.uint8],
    rules: FieldRules,
    *,
    method: Any = Watershed,
    tile: int = 4096,
    phase: tuple[int, int] = (0, 0),
) -> Outlines | None:
    rows, cols = stored.shape[1:]
    source = Stored(TileGrid(shape=(rows, cols), phase=phase, patch=tile, halo=0), stored)
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        parts = list(method().outlines(source, [1], map_tiles=serially, rules=rules, folder=Path(folder)))
    return Outlines.joined(parts) if parts else None


def same(a: Outlines | None, b: Outlines | None) -> bool:
    if a is None or b is None:
        return a is b
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in Outlines.__slots__)


def scene(seed: int, shape: tuple[int, int], *, smooth: float, levels: int, holes: bool) -> NDArray[np.uint8]:
    """(3, row, col) stored probabilities; few levels make plateaus and ties."""
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.random((3, *shape)), (0, smooth, smooth))
    values = (values - values.min(axis=(1, 2), keepdims=True)) / (np.ptp(values, axis=(1, 2))[:, None, None] + 1e-9)
    values[1] += 0.2
    values = np.round(values / values.sum(axis=0) * levels) / levels
    stored = np.floor(254 * values + 0.5).clip(0, 254).astype(np.uint8)
    if holes:
        stored[:, ndimage.gaussian_filter(rng.random(shape), 2) > 0.55] = 255
    return stored


def laid_out(outlines: Outlines, shape: tuple[int, int]) -> NDArray[np.int32]:
    """(row, col) objects 1.. burnt from exact outlines."""
    from affine import Affine
    from rasterio.features import rasterize

    from geoseg.vectorize.polygons import polygons

    shapes = polygons(outlines, Affine.identity())
    return np.asarray(rasterize([(one, i + 1) for i, one in enumerate(shapes)], out_shape=shape, dtype="int32"))


@ANY
@given(
    seed=st.integers(0, 10**6), rows=st.integers(5, 50), cols=st.integers(5, 50),
    smooth=st.sampled_from([0.0, 0.7, 1.5, 3.0]), levels=st.sampled_from([3, 8, 254]), holes=st.booleans(),
    minimum=st.integers(0, 15), hole=st.sampled_from([0, 3, 12, 40]), reach=st.sampled_from([0.0, 1.0, 1.5, 2.5]),
    fragment=st.sampled_from([0, 5, 30]), smooth_outlines=st.booleans(), tolerance=st.sampled_from([0.0, 1.0, 2.5]),
    tile=st.integers(4, 20), phase=st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
    method=st.sampled_from([Watershed, Components]),
)  # fmt: skip
def test_tiled_equals_whole(
    seed: int, rows: int, cols: int, smooth: float, levels: int, holes: bool, minimum: int, hole: int, reach: float,
    fragment: int, smooth_outlines: bool, tolerance: float, tile: int, phase: tuple[int, int], method: Any,
) -> None:  # fmt: skip
    stored = scene(seed, (rows, cols), smooth=smooth, levels=levels, holes=holes)
    rules = FieldRules(
        min_pixels=minimum, hole_pixels=hole, reach=reach, fragment=fragment, smooth=smooth_outlines,
        tolerance=tolerance, classes=3,
    )  # fmt: skip
    whole = objects(stored, rules, method=method)
    assert same(objects(stored, rules, method=method, tile=tile, phase=phase), whole)


@ANY
@given(seed=st.integers(0, 10**6), rows=st.integers(3, 30), cols=st.integers(3, 30), levels=st.sampled_from([3, 254]))
def test_every_pixel_lies_in_the_basin_that_steepest_descent_leads_to(
    seed: int, rows: int, cols: int, levels: int
) -> None:
    evidence, kinds = terrain(seed, (rows, cols), levels)
    labels, bottoms, exits = basins(evidence, kinds)
    assert not exits.any()  # nothing lies beyond
    keys = evidence[1:-1, 1:-1].astype(np.int64) * rows * cols + np.arange(rows * cols).reshape(rows, cols)
    for r, c in np.argwhere(kinds[1:-1, 1:-1]):
        at = (int(r), int(c))
        while True:
            near = [at, *((at[0] + y, at[1] + x) for y, x in ((-1, 0), (1, 0), (0, -1), (0, 1)))]
            lowest = min(
                (p for p in near if kinds[p[0] + 1, p[1] + 1] == kinds[at[0] + 1, at[1] + 1]), key=lambda p: keys[p]
            )
            if lowest == at:
                break
            at = lowest
        assert bottoms[labels[r, c] - 1] == at[0] * cols + at[1]


@ANY
@given(seed=st.integers(0, 10**6), rows=st.integers(4, 40), cols=st.integers(4, 40), depth=st.integers(1, 20000))
def test_regions_of_some_depth_are_the_h_minima_of_scikit_image(seed: int, rows: int, cols: int, depth: int) -> None:
    evidence, kinds = terrain(seed, (rows, cols), 254)
    # Of minima that are equally deep scikit-image takes all, and a watershed one: no two are equal here.
    evidence = (
        np.random.default_rng(seed)
        .permutation(np.linspace(0, 65024, evidence.size).astype(np.uint16))
        .reshape(evidence.shape)
    )
    labels, bottoms, _ = basins(evidence, kinds)
    inside = evidence[1:-1, 1:-1]
    bottom = np.concatenate(
        [[0], inside.reshape(-1)[bottoms].astype(np.int64) << 46 | bottoms // cols << 23 | bottoms % cols]
    )
    parent = np.arange(len(bottom))
    a, b, saddle, _ = borders(labels, evidence, kinds)
    assert (np.diff(saddle.astype(int)) >= 0).all()
    join_shallow(parent, a, b, saddle, bottom, np.zeros(len(bottom), np.bool_), depth)
    regions = roots(parent)[labels]
    for kind in (1, 2):
        here = kinds[1:-1, 1:-1] == kind
        high = np.where(here, inside.astype(np.int64), 10**6)
        minima, count = ndimage.label((h_minima(high, depth, footprint=CROSS) > 0) & here)
        deep = np.unique(regions[minima > 0])
        assert count == len(deep) == len(np.unique(regions[here]))


def terrain(seed: int, shape: tuple[int, int], levels: int) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Evidence and kinds of the pixels, framed."""
    rng = np.random.default_rng(seed)
    evidence = (rng.integers(0, levels, (shape[0] + 2, shape[1] + 2)) * (65024 // levels)).astype(np.uint16)
    kinds = np.zeros_like(evidence, np.uint8)
    kinds[1:-1, 1:-1] = (ndimage.uniform_filter(rng.random(shape), 3) * 6).astype(np.uint8) % 3
    return evidence, kinds


@ANY
@given(seed=st.integers(0, 10**6), count=st.integers(2, 14), fragment=st.sampled_from([0.0, 6.0]))
def test_lines_without_contrast_go_weakest_first(seed: int, count: int, fragment: float) -> None:
    rng = np.random.default_rng(seed)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count) if rng.random() < 0.4]
    a, b = (np.array([pair[k] for pair in pairs], np.int64) for k in (0, 1))
    length = rng.integers(1, 9, len(pairs))
    support = length * rng.integers(0, 120, len(pairs))
    area = rng.integers(1, 20, count)
    inner = area * rng.integers(0, 30, count)
    found = join_weak(a, b, length, support, area, inner, 50 << 8, fragment)

    group = {i: {i} for i in range(count)}  # the plain way: look at everything after every step
    while True:
        lines: dict[tuple[int, int], list[int]] = {}
        for k, (i, j) in enumerate(pairs):
            x, y = sorted((min(group[i]), min(group[j])))
            if x != y:
                total = lines.setdefault((x, y), [0, 0])
                total[0] += int(length[k])
                total[1] += int(support[k])
        due = []
        for (x, y), (size, total_support) in lines.items():
            sizes = [sum(int(area[k]) for k in group[one]) for one in (x, y)]
            means = [(sum(int(inner[k]) for k in group[one]) << 8) // n for one, n in zip((x, y), sizes, strict=True)]
            contrast = (total_support << 8) // size - max(means)
            if contrast < 50 << 8 or min(sizes) < fragment:
                due.append((contrast, x, y))
        if not due:
            break
        _, x, y = min(due)
        both = group[x] | group[y]
        for member in both:
            group[member] = both
    assert found.tolist() == [min(group[i]) for i in range(count)]


def test_gathered_lines_add_up_and_keep_the_lowest_saddle() -> None:
    a, b = np.array([1, 2, 3, 1]), np.array([2, 3, 1, 3])
    region = np.array([0, 5, 5, 2])
    found = gathered(region, a, b, np.array([9, 8, 7, 6]), np.array([1, 2, 3, 4]), np.array([10, 20, 30, 40]))
    assert [values.tolist() for values in found] == [[2], [5], [6], [9], [90]]


@ANY
@given(
    seed=st.integers(0, 10**6), rows=st.integers(2, 25), cols=st.integers(2, 25), reach=st.sampled_from([1.0, 1.5, 2.9])
)
def test_grown_labels_follow_the_rule_stay_in_reach_and_connected(
    seed: int, rows: int, cols: int, reach: float
) -> None:
    rng = np.random.default_rng(seed)
    labels = ndimage.label(ndimage.uniform_filter(rng.random((rows, cols)), 3) > 0.55)[0].astype(np.int32)
    free = rng.random((rows, cols)) < 0.8
    grown = labels.copy()
    grow(grown, free, reach)

    plain = {(int(r), int(c)): (int(labels[r, c]), 0, 0) for r, c in np.argwhere(labels)}
    waiting = {p for p in map(tuple, np.argwhere(free & (labels == 0)).tolist()) if neighbours(p) & plain.keys()}
    for _ in range(rounds(reach)):
        taken = {}
        for r, c in waiting:
            near = [
                (down**2 + right**2, label, down, right)
                for y, x in neighbours((r, c)) & plain.keys()
                for label, down, right in [(plain[y, x][0], plain[y, x][1] + r - y, plain[y, x][2] + c - x)]
            ]
            distance, label = min((one[0], one[1]) for one in near)
            if distance <= reach**2:
                # Of equally near origins of one label the distance is all that counts further on; any will do.
                best = next(one for one in ordered((r, c), near, plain) if one[:2] == (distance, label))
                taken[r, c] = best[1:]
        plain |= taken
        waiting = {
            p for q in taken for p in neighbours(q)
            if 0 <= p[0] < rows and 0 <= p[1] < cols and free[p] and labels[p] == 0 and p not in plain
        }  # fmt: skip
    expected = np.zeros_like(labels)
    for place, value in plain.items():
        expected[place] = value[0]
    assert np.array_equal(grown, expected)
    assert np.array_equal(grown[labels > 0], labels[labels > 0])
    for label in np.unique(labels[labels > 0]):
        assert ndimage.label(grown == label)[1] == 1


def neighbours(place: tuple[int, int]) -> set[tuple[int, int]]:
    return {(place[0] - 1, place[1]), (place[0], place[1] - 1), (place[0], place[1] + 1), (place[0] + 1, place[1])}


def ordered(place: tuple[int, int], near: list[Any], plain: dict[Any, Any]) -> list[Any]:
    """Candidates in the order up, left, right, down."""
    r, c = place
    return [
        (down**2 + right**2, label, down, right)
        for y, x in ((r - 1, c), (r, c - 1), (r, c + 1), (r + 1, c))
        if (y, x) in plain
        for label, down, right in [(plain[y, x][0], plain[y, x][1] + r - y, plain[y, x][2] + c - x)]
    ]


@ANY
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 9), cols=st.integers(1, 9))
def test_runs_come_back_as_they_were(seed: int, rows: int, cols: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 3, (rows, cols)).astype(np.int32)
    assert np.array_equal(decode(encode(labels), (rows, cols), np.arange(3, dtype=np.int32)), labels)


def test_blur_is_the_binomial_filter_without_division() -> None:
    values = np.random.default_rng(3).integers(0, 255, (20, 17)).astype(np.uint8)
    weights = np.array([1, 4, 6, 4, 1])
    expected = ndimage.convolve(values.astype(np.int64), np.outer(weights, weights))[BLUR:-BLUR, BLUR:-BLUR]
    assert np.array_equal(smoothed(values), expected)


def test_the_rest_of_probabilities_is_the_background() -> None:
    stored = np.array([[[100, 90, 30]], [[50, 90, 40]]], np.uint8)  # what is left: 104, 74, 184
    codes = np.array([1, 2, 0], np.uint8)
    assert strongest(stored, True, codes).tolist() == [[0, 1, 0]]
    assert strongest(stored, False, codes).tolist() == [[1, 1, 2]]


def two_fields(line: int, *, interior: int = 5) -> NDArray[np.uint8]:
    """Two fields of 30 x 30 pixels side by side, with a line of that boundary probability between them, on background."""
    stored = np.zeros((3, 40, 71), np.uint8)
    stored[0] = 254
    stored[:, 5:35, 5:66] = np.array([0, 254 - interior, interior])[:, None, None]
    stored[:, 5:35, 35] = np.array([0, 254 - line, line])[:, None]
    return stored


def test_fields_that_touch_are_divided_along_a_line_that_components_do_not_see() -> None:
    stored = two_fields(120)
    rules = FieldRules(fragment=35)
    divided, joined = objects(stored, rules), objects(stored, rules, method=Components)
    assert divided is not None
    assert joined is not None
    assert len(divided) == 2
    assert len(joined) == 1
    assert divided.pixels.sum() == joined.pixels.sum()


def test_a_line_without_contrast_or_a_small_part_is_no_reason_to_divide() -> None:
    faint, noisy = objects(two_fields(30), FieldRules()), objects(two_fields(120, interior=90), FieldRules())
    small = objects(two_fields(120), FieldRules(fragment=1000))
    assert [len(found) for found in (faint, noisy, small) if found is not None] == [1, 1, 1]


def test_boundary_pixels_go_to_the_nearest_field_as_far_as_they_may() -> None:
    stored = two_fields(200)
    stored[:, 5:35, 33:38] = np.array([0, 50, 204])[:, None, None]  # a boundary five pixels wide
    kept, given_back = objects(stored, FieldRules(reach=1)), objects(stored, FieldRules(reach=3))
    assert kept is not None
    assert given_back is not None
    assert kept.pixels.tolist() == [30 * 29, 30 * 29]
    assert sorted(given_back.pixels.tolist()) == [30 * 30, 30 * 31]  # the middle goes to one of them
    assert given_back.own.tolist() == [30 * 28, 30 * 28]


def test_holes_are_filled_before_small_objects_go_and_boundaries_before_holes() -> None:
    stored = np.zeros((3, 30, 30), np.uint8)
    stored[0] = 254
    stored[:, 3:27, 3:27] = np.array([0, 254, 0])[:, None, None]
    stored[:, 10:15, 10:15] = np.array([254, 0, 0])[:, None, None]  # a gap of 25 pixels ...
    stored[:, 9:16, 9] = np.array([0, 0, 254])[:, None]
    rules = {"reach": 1.0, "hole_pixels": 26.0}
    filled = objects(stored, FieldRules(**rules, min_pixels=576))  # the field reaches the minimum only with it
    assert filled is not None
    assert filled.pixels.tolist() == [576]
    stored[:, 12, 12] = [0, 254, 0]  # ... in which lies another object: it stays, whatever becomes of that
    islanded = objects(stored, FieldRules(**rules, min_pixels=10))
    assert islanded is not None
    assert islanded.pixels.tolist() == [576 - 25]


def test_gaps_without_data_are_never_filled() -> None:
    stored = np.zeros((3, 30, 30), np.uint8)
    stored[:, 3:27, 3:27] = np.array([0, 254, 0])[:, None, None]
    stored[0][stored[1] == 0] = 254
    stored[:, 14:16, 14:16] = 255
    found = objects(stored, FieldRules(hole_pixels=100))
    assert found is not None
    assert found.pixels.tolist() == [576 - 4]
    assert found.touches.tolist() == [True]
    assert found.opened.tolist() == [8]
    assert found.sides.tolist() == [4 * 24 + 8]


def test_lines_around_a_field_are_its_support() -> None:
    found = objects(two_fields(254), FieldRules(reach=1, fragment=35))
    assert found is not None
    # The line's pixels go to the left one: 30 of its 122 sides and of the other's 120 face the line.
    assert sorted(found.sides.tolist()) == [120, 122]
    assert (found.support >= 30 * 254).all()
    assert (found.support < 40 * 254).all()


@pytest.mark.parametrize("method", [Watershed, Components])
def test_a_hole_over_many_tiles_is_filled_or_not_as_in_the_whole(method: Any) -> None:
    stored = np.zeros((3, 40, 44), np.uint8)
    stored[1] = 254
    stored[:, 8:32, 9:33] = np.array([254, 0, 0])[:, None, None]  # whole tiles of 4 and 5 pixels lie in it
    for hole in (576, 577):
        rules = FieldRules(hole_pixels=hole)
        whole = objects(stored, rules, method=method)
        assert whole is not None
        assert whole.pixels.tolist() == [40 * 44 - 576 * (hole == 576)]
        for tile in (4, 5, 13):
            assert same(objects(stored, rules, method=method, tile=tile, phase=(-3, 2)), whole)


def test_patches_that_reach_over_rows_of_tiles_are_divided_as_in_the_whole() -> None:
    stored = np.zeros((3, 150, 60), np.uint8)  # one patch from top to bottom, seven lines across it, and texture
    stored[2] = np.random.default_rng(5).integers(0, 30, (150, 60))
    stored[2, 19::20] = 120
    stored[1] = 254 - stored[2]
    rules = FieldRules(fragment=9)
    whole = objects(stored, rules)
    assert whole is not None
    assert len(whole) == 8
    assert same(objects(stored, rules, tile=7, phase=(3, -2)), whole)
