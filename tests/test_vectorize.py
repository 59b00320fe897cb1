"""Components and outlines: equal to rasterio's on the whole raster, whatever the tiling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage

from geoseg.grid import TileGrid, Window
from geoseg.kernels.label import label
from geoseg.kernels.outline import trace
from geoseg.results import FieldRules, Lines, Outlines
from geoseg.vectorize.instances import Components
from geoseg.vectorize.polygons import nothing, polygons

FAST = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
"""Where pieces of tiles need not wait for a disk."""


@dataclass(frozen=True)
class ArrayClasses:
    """A ClassSource on arrays."""

    array: NDArray[np.uint8]
    grid: TileGrid
    stored: NDArray[np.uint8] | None = None

    @property
    def lines(self) -> Lines:
        return Lines()

    def classes(self, window: Window) -> NDArray[np.uint8]:
        return self._cut(self.array, window)

    def probabilities(self, window: Window) -> NDArray[np.uint8]:
        if self.stored is None:
            return np.empty((0, *window.shape), np.uint8)
        return np.stack([self._cut(channel, window) for channel in self.stored])

    def _cut(self, array: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
        out = np.full(window.shape, 255, np.uint8)
        part = window & self.grid.extent
        out[part.within(window).slices] = array[part.slices]
        return out


def serially(
    function: Callable[[Any], Any], items: Iterable[Any], *, done: Callable[[Any], None], stage: str, total: int,
    finished: int = 0,
) -> None:  # fmt: skip
    for item in reversed(list(items)):
        done(function(item))


def outlines(
    array: NDArray[np.uint8], *, tile: int, phase: tuple[int, int] = (0, 0), wanted: Sequence[int] = (1,),
    min_pixels: float = 0, stored: NDArray[np.uint8] | None = None, **rules: Any,
) -> Outlines:  # fmt: skip
    grid = TileGrid(shape=array.shape, phase=phase, patch=tile, halo=0)
    source = ArrayClasses(array, grid, stored)
    with TemporaryDirectory(dir=FAST) as folder:
        parts = list(
            Components().outlines(
                source,
                wanted,
                map_tiles=serially,
                rules=FieldRules(min_pixels=min_pixels, **rules),
                folder=Path(folder),
            )
        )
    return Outlines.joined(parts) if parts else nothing()


def normalised(polygons_: Any) -> set[bytes]:
    return {shapely.to_wkb(shapely.normalize(polygon)) for polygon in polygons_}


def straightened(polygons_: Any) -> list[Any]:
    """Without the vertices that outlines have at junctions where they run straight on, which rasterio leaves out."""

    def turns(ring: Any) -> NDArray[np.float64]:
        places = shapely.get_coordinates(ring)[:-1]
        before, after = places - np.roll(places, 1, axis=0), np.roll(places, -1, axis=0) - places
        return np.asarray(places[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]])

    return [shapely.Polygon(turns(one.exterior), [turns(hole) for hole in one.interiors]) for one in polygons_]


def oracle(array: NDArray[np.uint8], wanted: Sequence[int]) -> list[Any]:
    mask = np.isin(array, wanted)
    return [shapely.geometry.shape(g) for g, _ in shapes(array, mask=mask, connectivity=4)]


def same(a: Outlines, b: Outlines) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in Outlines.__slots__)


masks = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.sampled_from([0, 1, 1, 2, 255])
)


@given(masks)
def test_labels_are_those_of_scipy(array: NDArray[np.uint8]) -> None:
    wanted = np.zeros(256, np.bool_)
    wanted[1] = True
    labels, count = label(array, wanted)
    expected, expected_count = ndimage.label(array == 1)
    assert count == expected_count
    np.testing.assert_array_equal(labels, expected)


@given(masks, st.integers(1, 9), st.tuples(st.integers(-20, 20), st.integers(-20, 20)))
def test_tiled_outlines_equal_the_whole_and_rasterio(
    array: NDArray[np.uint8], tile: int, phase: tuple[int, int]
) -> None:
    whole = outlines(array, tile=64, wanted=(1, 2))
    tiled = outlines(array, tile=tile, phase=phase, wanted=(1, 2))
    assert same(whole, tiled)
    made = polygons(tiled, Affine.identity())
    assert all(polygon.is_valid for polygon in made)
    assert normalised(straightened(made)) == normalised(oracle(array, (1, 2)))


@given(masks, st.integers(1, 9))
def test_sums_add_up_over_tiles(array: NDArray[np.uint8], tile: int) -> None:
    stored = np.stack(
        [
            np.full(array.shape, 7 * i, np.uint8) + (np.indices(array.shape).sum(0) % 50).astype(np.uint8)
            for i in range(3)
        ]
    )
    tiled = outlines(array, tile=tile, wanted=(1,), stored=stored)
    labels, count = ndimage.label(array == 1)
    assert len(tiled) == count
    for i in range(count):
        inside = labels == i + 1
        assert tiled.pixels[i] == inside.sum()
        assert tiled.sums[i] == stored[1][inside].sum()
        assert tuple(tiled.first[i]) == tuple(np.argwhere(inside)[0])
        ring = ndimage.binary_dilation(np.pad(inside, 1))
        assert tiled.touches[i] == bool((np.pad(array, 1, constant_values=255)[ring] == 255).any())


def test_small_objects_go_only_after_the_union_over_seams() -> None:
    array = np.zeros((4, 40), np.uint8)
    array[1, 2:30] = 1  # 28 pixels, at most 5 in any tile
    array[3, 2:6] = 1
    found = outlines(array, tile=5, min_pixels=10)
    assert found.pixels.tolist() == [28]
    assert shapely.area(polygons(found, Affine.identity())).tolist() == [28.0]


def test_rings_touching_at_a_corner_are_holes_of_valid_polygons() -> None:
    array = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.uint8)
    (polygon,) = polygons(outlines(array, tile=2), Affine.identity())
    assert polygon.is_valid
    assert polygon.area == 7
    assert len(polygon.interiors) == 1


@pytest.mark.parametrize("tile", [128, 256, 2000])
def test_mask_of_2000_pixels_equals_rasterio_on_the_whole(tile: int) -> None:
    rng = np.random.default_rng(7)
    smooth = ndimage.gaussian_filter(rng.standard_normal((2000, 2000)), 4)
    array = np.digitize(smooth, [-0.01, 0.02]).astype(np.uint8)
    array[rng.random(array.shape) < 0.01] = 1  # specks, corner contacts, holes
    array[:60, 900:] = 255
    made = polygons(outlines(array, tile=tile, phase=(-13, 77)), Affine.identity())
    expected = oracle(array, (1,))
    assert len(made) == len(expected) > 1000
    assert normalised(straightened(made)) == normalised(expected)


def test_a_checkerboard_of_two_classes_is_one_component_a_pixel() -> None:
    array = (np.indices((40, 50)).sum(0) % 2 + 1).astype(np.uint8)
    wanted = np.zeros(256, np.bool_)
    wanted[1:3] = True
    labels, count = label(array, wanted)
    assert count == array.size
    np.testing.assert_array_equal(labels.ravel(), np.arange(1, array.size + 1))


def test_trace_without_labels_gives_nothing() -> None:
    assert len(trace(np.zeros((5, 5), np.int64))) == 0
