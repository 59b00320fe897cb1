"""TileGrid: the one value that owns all tile arithmetic, in integer scene pixels.

Scene pixels are (row, col) with (0, 0) at the scene's first pixel. The lattice is anchored to the origin of the CRS, so
that two windows of one satellite grid, or an AOI and the whole scene, are cut along the same lines.

    cell      one lattice square of core x core pixels; a patch predicts one cell, or with blending all that it sees
    patch     a cell plus its halo, clipped to the scene, grown by reflection: what the model sees
    tile      k x k cells: what Dask and the store handle. `core` is what it writes, `window` what it reads,
              `inner` is core within window
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from affine import Affine

from geoseg.errors import InputError
from geoseg.scene import Scene
from geoseg.spec import ModelSpec


@dataclass(frozen=True, slots=True, order=True)
class Window:
    row: int
    col: int
    height: int
    width: int

    @property
    def row_stop(self) -> int:
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def size(self) -> int:
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """As an index into an array whose first pixel is (0, 0)."""
        return slice(self.row, self.row_stop), slice(self.col, self.col_stop)

    def __bool__(self) -> bool:
        return self.height > 0 and self.width > 0

    def __and__(self, other: Window) -> Window:
        row, col = max(self.row, other.row), max(self.col, other.col)
        return Window(
            row,
            col,
            max(0, min(self.row_stop, other.row_stop) - row),
            max(0, min(self.col_stop, other.col_stop) - col),
        )

    def grown(self, pixels: int) -> Window:
        return Window(self.row - pixels, self.col - pixels, self.height + 2 * pixels, self.width + 2 * pixels)

    def within(self, outer: Window) -> Window:
        """The same pixels, counted from the first pixel of `outer`."""
        return Window(self.row - outer.row, self.col - outer.col, self.height, self.width)

    def contains(self, other: Window) -> bool:
        return (
            self.row <= other.row
            and self.col <= other.col
            and other.row_stop <= self.row_stop
            and other.col_stop <= self.col_stop
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    cell: Window
    """Its lattice square; may reach beyond the scene."""
    core: Window
    """What its prediction is kept for: the cell, or all of `window` where patches are blended, clipped to the scene."""
    window: Window
    """What is read for it: cell and halo, clipped to the scene."""
    frame: Window
    """What the model sees: `window` grown outward by reflection, to the full patch or to the stride lattice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    index: tuple[int, int]
    """(row, column) on the anchored tile lattice; may be negative."""
    chunk: Window
    """Its full square, the store's chunk; may reach beyond the scene."""
    core: Window
    """What it writes: the chunk clipped to the region of the run."""
    window: Window
    """What it reads: its patches' windows together."""

    @property
    def inner(self) -> Window:
        """The core, counted from the window's first pixel."""
        return self.core.within(self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    shape: tuple[int, int]
    """(rows, columns) of the scene."""
    phase: tuple[int, int]
    """Scene pixel (row, col) of the lattice's origin."""
    patch: int
    halo: int
    stride: int = 1
    k: int = 1
    """Cells along a tile's side."""
    blend: bool = False
    """True where patches are blended over their overlap of 2 x halo, False where each keeps its cell only."""
    region: Window | None = None
    """The part of the scene to do; None for all of it. Never changes what a patch sees."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"--tile {self.k} is not a tile; use 1 or more cells")
        if self.stride < 1 or self.patch % self.stride or self.halo % self.stride or self.halo < 0:
            least = 2 * self.halo // self.stride + 1
            options = ", ".join(str(self.stride * i) for i in range(least, least + 3))
            raise InputError(
                f"patch {self.patch} and halo {self.halo} must be multiples of the model's stride {self.stride}; "
                f"use {options}, ..."
            )
        if self.patch <= 2 * self.halo:
            raise InputError(
                f"patch {self.patch} leaves nothing inside a halo of {self.halo} on each side; "
                f"use a patch of at least {2 * self.halo + self.stride}"
            )
        if self.blend and not 0 < 4 * self.halo <= self.patch:
            raise InputError(
                f"patches of {self.patch} pixels cannot be blended over an overlap of {2 * self.halo}; use --overlap "
                f"{2 * self.stride} to {self.patch // 2}, in steps of {2 * self.stride}"
            )
        if self.region is not None and not (self.region & self.scene):
            raise InputError("the area of interest lies outside the scene; choose one that overlaps it")

    @classmethod
    def fit(
        cls, scene: Scene, spec: ModelSpec, *, patch: int | None = None, overlap: int = 0, k: int = 1,
        region: Window | None = None,
    ) -> TileGrid:  # fmt: skip
        """The grid that a model asks for on a scene; with an `overlap` in pixels its patches are blended."""
        step = 2 * spec.stride
        if overlap % step:
            good = " or ".join(str(near) for near in (overlap // step * step, -(-overlap // step) * step) if near)
            raise InputError(f"--overlap {overlap} is no multiple of {step}, twice the model's stride; use {good}")
        return cls(
            shape=scene.shape,
            phase=lattice_phase(scene.transform) if scene.crs is not None else (0, 0),
            patch=patch or spec.patch,
            halo=overlap // 2 if overlap else spec.halo,
            stride=spec.stride,
            k=k,
            blend=overlap > 0,
            region=region,
        )

    @property
    def scene(self) -> Window:
        return Window(0, 0, *self.shape)

    @property
    def extent(self) -> Window:
        """The region of the run, clipped to the scene."""
        return self.scene if self.region is None else self.region & self.scene

    @property
    def core(self) -> int:
        """Side of a lattice cell in pixels."""
        return self.patch - 2 * self.halo

    @property
    def tile_size(self) -> int:
        """Side of a tile in pixels."""
        return self.k * self.core

    @property
    def tile_range(self) -> tuple[range, range]:
        """Tile indices along rows and columns that the region touches."""
        rows, cols = (
            range((start - phase) // self.tile_size, -((phase - stop) // self.tile_size))
            for start, stop, phase in (
                (self.extent.row, self.extent.row_stop, self.phase[0]),
                (self.extent.col, self.extent.col_stop, self.phase[1]),
            )
        )
        return rows, cols

    @property
    def hull(self) -> Window:
        """All chunks together: what the store spans, in scene pixels."""
        rows, cols = self.tile_range
        size = self.tile_size
        return Window(
            self.phase[0] + rows.start * size, self.phase[1] + cols.start * size, len(rows) * size, len(cols) * size
        )

    def __len__(self) -> int:
        rows, cols = self.tile_range
        return len(rows) * len(cols)

    def __iter__(self) -> Iterator[Tile]:
        rows, cols = self.tile_range
        return (self.tile((i, j)) for i in rows for j in cols)

    def in_strips(self, width: int) -> Iterator[Tile]:
        """All tiles, strip after strip of so many columns of tiles: neighbours come soon after each other."""
        rows, cols = self.tile_range
        for first in range(cols.start, cols.stop, width):
            for i in rows:
                for j in range(first, min(first + width, cols.stop)):
                    yield self.tile((i, j))

    def tile(self, index: tuple[int, int]) -> Tile:
        size = self.tile_size
        chunk = Window(self.phase[0] + index[0] * size, self.phase[1] + index[1] * size, size, size)
        # Whole cells are read, also where the region covers them in part: a patch never depends on the region.
        core = chunk & self.extent
        covered = self._cells(core)
        return Tile(index=index, chunk=chunk, core=core, window=covered.grown(self.halo) & self.scene)

    def patches(self, tile: Tile) -> Iterator[Patch]:
        """The patches that predict the tile's core, in row-major order."""
        cells = self._cells(tile.core)
        for row in range(cells.row, cells.row_stop, self.core):
            for col in range(cells.col, cells.col_stop, self.core):
                cell = Window(row, col, self.core, self.core)
                window = cell.grown(self.halo) & self.scene
                core = window if self.blend else cell & self.scene
                yield Patch(cell=cell, core=core, window=window, frame=self._frame(cell, window))

    @property
    def frame_shapes(self) -> list[tuple[int, int]]:
        """(rows, columns) of all the shapes of patches that the run meets: at most nine."""
        cells = self._cells(self.extent)
        sides = []
        for axis, (start, stop) in enumerate(((cells.row, cells.row_stop), (cells.col, cells.col_stop))):
            size, phase = self.shape[axis], self.phase[axis]
            places = {start, min(start + self.core, stop - self.core), stop - self.core}
            ends = (
                self._side(at, max(0, at - self.halo), min(size, at + self.core + self.halo), size, phase)
                for at in places
            )
            sides.append(sorted({end - begin for begin, end in ends}))
        return [(rows, cols) for rows in sides[0] for cols in sides[1]]

    def chunk_index(self, tile: Tile) -> tuple[int, int]:
        """Position of the tile's chunk in the store."""
        rows, cols = self.tile_range
        return tile.index[0] - rows.start, tile.index[1] - cols.start

    def _cells(self, window: Window) -> Window:
        """The lattice cells whose patches predict a window: those that it touches, or whose overlap it touches."""
        part = window.grown(self.halo) & self.scene if self.blend else window
        (row, col), (row_stop, col_stop) = self._cell_floor(part), self._cell_ceil(part)
        return Window(row, col, row_stop - row, col_stop - col)

    def _cell_floor(self, window: Window) -> tuple[int, int]:
        core = self.core
        return (
            self.phase[0] + (window.row - self.phase[0]) // core * core,
            self.phase[1] + (window.col - self.phase[1]) // core * core,
        )

    def _cell_ceil(self, window: Window) -> tuple[int, int]:
        core = self.core
        return (
            self.phase[0] - (self.phase[0] - window.row_stop) // core * core,
            self.phase[1] - (self.phase[1] - window.col_stop) // core * core,
        )

    def _frame(self, cell: Window, window: Window) -> Window:
        row, row_stop = self._side(cell.row, window.row, window.row_stop, self.shape[0], self.phase[0])
        col, col_stop = self._side(cell.col, window.col, window.col_stop, self.shape[1], self.phase[1])
        return Window(row, col, row_stop - row, col_stop - col)

    def _side(self, cell: int, start: int, stop: int, size: int, phase: int) -> tuple[int, int]:
        """A frame's extent along one axis: full for whole cells (so that a run has at most nine shapes), else least."""
        if cell >= 0 and cell + self.core <= size:
            return cell - self.halo, cell + self.core + self.halo
        stride = self.stride
        return phase + (start - phase) // stride * stride, phase - (phase - stop) // stride * stride


def lattice_phase(transform: Affine) -> tuple[int, int]:
    """Scene pixel (row, col) nearest the origin of the CRS.

    floor(x + .25) and not round(x): grids shifted by half a pixel against the origin (common) then fall to one side
    whatever the rounding of the last bits.
    """
    col, row = ~transform @ (0.0, 0.0)
    return math.floor(row + 0.25), math.floor(col + 0.25)
