"""TileGrid: cores partition the scene, patches hold their cores, and the region changes nothing that is seen."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import InputError
from geoseg.grid import TileGrid, Window, lattice_phase


@st.composite
def grids(draw: st.DrawFn, *, region: bool = False) -> TileGrid:
    stride = draw(st.sampled_from([1, 2, 4, 8]))
    halo = stride * draw(st.integers(0, 3))
    core = stride * draw(st.integers(1, 6))
    shape = (draw(st.integers(1, 70)), draw(st.integers(1, 70)))
    window = None
    if region:
        row, col = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        window = Window(row, col, draw(st.integers(1, shape[0])), draw(st.integers(1, shape[1])))
    return TileGrid(
        shape=shape,
        phase=(draw(st.integers(-10_000, 10_000)), draw(st.integers(-10_000, 10_000))),
        patch=core + 2 * halo, halo=halo, stride=stride, k=draw(st.integers(1, 3)), region=window,
    )  # fmt: skip


@given(grids(region=True))
def test_tile_cores_partition_the_region(grid: TileGrid) -> None:
    count = np.zeros(grid.shape, int)
    for tile in grid:
        assert tile.core
        count[tile.core.slices] += 1
    expected = np.zeros(grid.shape, int)
    expected[grid.extent.slices] = 1
    np.testing.assert_array_equal(count, expected)
    assert len(list(grid)) == len(grid)


@given(grids(region=True))
def test_patch_cores_partition_the_tile(grid: TileGrid) -> None:
    for tile in grid:
        count = np.zeros(grid.shape, int)
        for patch in grid.patches(tile):
            count[(patch.core & tile.core).slices] += 1
        assert (count[tile.core.slices] == 1).all()
        assert count.sum() == tile.core.size


@given(grids(region=True))
def test_windows_nest_and_frames_lie_on_the_stride_lattice(grid: TileGrid) -> None:
    for tile in grid:
        assert tile.window.contains(tile.core)
        assert tile.chunk.contains(tile.core)
        assert grid.hull.contains(tile.chunk)
        assert grid.scene.contains(tile.window)
        for patch in grid.patches(tile):
            assert tile.window.contains(patch.window)
            assert patch.window.contains(patch.core)
            assert patch.frame.contains(patch.window)
            assert (patch.frame.row - grid.phase[0]) % grid.stride == 0
            assert (patch.frame.col - grid.phase[1]) % grid.stride == 0
            assert patch.frame.height % grid.stride == patch.frame.width % grid.stride == 0
            assert max(patch.frame.shape) <= grid.patch


@given(grids())
def test_a_run_has_at_most_nine_frame_shapes(grid: TileGrid) -> None:
    assert len({patch.frame.shape for tile in grid for patch in grid.patches(tile)}) <= 9


@given(grids(), st.integers(1, 4), st.data())
def test_patches_depend_on_neither_k_nor_region(grid: TileGrid, k: int, data: st.DataObject) -> None:
    row, col = data.draw(st.integers(0, grid.shape[0] - 1)), data.draw(st.integers(0, grid.shape[1] - 1))
    other = TileGrid(
        shape=grid.shape, phase=grid.phase, patch=grid.patch, halo=grid.halo, stride=grid.stride, k=k,
        region=Window(row, col, 5, 7),
    )  # fmt: skip
    whole = {patch.core: patch for tile in grid for patch in grid.patches(tile)}
    for tile in other:
        for patch in other.patches(tile):
            assert whole[patch.core] == patch


@pytest.mark.parametrize("shift", [0.0, 0.5, -0.5, 1e-9, -1e-9])
def test_phase_is_stable_against_rounding_at_half_pixels(shift: float) -> None:
    at = [
        lattice_phase(Affine(10, 0, 600_000 + 10 * (i + shift), 0, -10, 5_000_000 + 10 * (i + shift)))
        for i in range(50)
    ]
    assert {(row - i, col + i) for i, (row, col) in enumerate(at)} == {(at[0][0], at[0][1])}


def test_two_windows_of_one_grid_share_the_lattice() -> None:
    a = TileGrid(shape=(300, 300), phase=lattice_phase(Affine(10, 0, 600_000, 0, -10, 5_000_000)), patch=64, halo=8)
    moved = Affine(10, 0, 600_000 + 10 * 37, 0, -10, 5_000_000 - 10 * 21)
    b = TileGrid(shape=(200, 200), phase=lattice_phase(moved), patch=64, halo=8)
    cores = {(p.core.row, p.core.col) for tile in a for p in a.patches(tile)}
    moved_cores = {
        (p.core.row + 21, p.core.col + 37) for tile in b for p in b.patches(tile) if p.core.row and p.core.col
    }
    assert moved_cores <= cores


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patch": 30}, "multiples of the model's stride 8"),
        ({"patch": 16}, "use a patch of at least 24"),
        ({"k": 0}, "--tile 0"),
        ({"region": Window(500, 500, 5, 5)}, "outside the scene"),
    ],
)
def test_impossible_grids_say_what_would_do(change: dict[str, object], says: str) -> None:
    values: dict[str, object] = {"shape": (100, 100), "phase": (0, 0), "patch": 64, "halo": 8, "stride": 8}
    with pytest.raises(InputError, match=says):
        TileGrid(**(values | change))  # type: ignore[arg-type]
