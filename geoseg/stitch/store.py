"""MaskStore: class ids and probabilities of a run in Zarr, one chunk a tile, one writer a chunk.

The arrays span the hull of the tile lattice, so that every chunk is a whole tile; pixels outside the scene stay 255. Zarr
format 2 with `.zarray` metadata is what GDAL opens, so that the COG driver can copy from the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.disk import flush
from geoseg.errors import RunError
from geoseg.grid import Tile, TileGrid, Window
from geoseg.kernels.runs import encode
from geoseg.pieces import Pieces
from geoseg.results import NODATA, Lines

OBJECTS = "objects"
"""The kind of pieces with numbers of objects."""

ALWAYS_WRITE: Any = {"write_empty_chunks": True}
"""Zarr leaves out chunks of fill values by default; here a missing chunk means that the tile is not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskStore:
    path: Path
    """Directory of the Zarr group; holds `mask` (row, col) and `probabilities` (channel, row, col), both uint8."""
    grid: TileGrid
    channels: int
    """Number of probability channels; 0 for a store that holds only the mask."""
    lines: Lines = field(default_factory=Lines)
    """What they say of the boundaries of fields."""
    numbers: Pieces | None = None
    """Where numbers of objects are kept, for models that find objects one by one."""
    _arrays: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self) if each.init}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_arrays", {})

    def create(self) -> None:
        """Makes the arrays on disk; existing ones are kept if they have the same shape and chunks."""
        import zarr
        from numcodecs import Zstd

        hull, size = self.grid.hull, self.grid.tile_size
        wanted: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {"mask": (hull.shape, (size, size))}
        if self.channels:
            wanted["probabilities"] = ((self.channels, *hull.shape), (self.channels, size, size))
        self.path.mkdir(parents=True, exist_ok=True)
        for name, (shape, chunks) in wanted.items():
            if (self.path / name / ".zarray").exists():
                found = zarr.open_array(self.path / name, mode="r")
                if found.shape != shape or found.chunks != chunks:
                    raise RunError(
                        f"the store holds {name} of {found.shape} in chunks of {found.chunks}, this run needs {shape} "
                        f"in {chunks}; use --restart to begin anew"
                    )
                continue
            zarr.create_array(
                store=self.path / name, shape=shape, chunks=chunks, dtype="uint8", fill_value=NODATA,
                zarr_format=2, compressors=Zstd(level=1),
            )  # fmt: skip

    def write(
        self, tile: Tile, mask: NDArray[np.uint8], probabilities: NDArray[np.uint8] | None,
        objects: NDArray[np.int32] | None = None,
    ) -> None:  # fmt: skip
        """Writes a tile's core; the rest of its chunk is 255.

        Args:
            tile: whose `core` is written.
            mask: (row, col) class ids of the core.
            probabilities: (channel, row, col) of the core; None for a store without them.
            objects: (row, col) numbers of objects in the core, 0 for none; for a store that keeps them.
        """
        if self.numbers is not None and objects is not None:
            self.numbers.save(OBJECTS, tile.index, {"runs": encode(objects)})
        inner = tile.core.within(tile.chunk).slices
        target = tile.chunk.within(self.grid.hull).slices
        chunk = np.full(tile.chunk.shape, NODATA, np.uint8)
        chunk[inner] = mask
        self._array("mask")[target] = chunk
        if probabilities is not None and self.channels:
            stack = np.full((self.channels, *tile.chunk.shape), NODATA, np.uint8)
            stack[(slice(None), *inner)] = probabilities
            self._array("probabilities")[(slice(None), *target)] = stack
        for path in self.chunk_files(tile):
            flush(path)

    def chunk_files(self, tile: Tile) -> list[Path]:
        """The files that hold a tile, whether they exist or not."""
        row, col = self.grid.chunk_index(tile)
        files = [self.path / "mask" / f"{row}.{col}"]
        if self.channels:
            files.append(self.path / "probabilities" / f"0.{row}.{col}")
        return files

    def holds(self, tile: Tile) -> bool:
        """True if the tile is on disk: a journal that says so is not enough after a power failure."""
        if self.numbers is not None and not self.numbers.holds(OBJECTS, tile.index):
            return False
        return all(path.exists() for path in self.chunk_files(tile))

    def objects(self, index: tuple[int, int]) -> NDArray[np.int32] | None:
        """(row, col) numbers of objects in a tile's core, 0 for none; None for a store without them."""
        if self.numbers is None:
            return None
        kept = self.numbers.load(OBJECTS, index)
        if kept is None:
            raise RunError(f"{self.numbers.folder} has lost tile {index}; --restart begins anew")
        return np.repeat(kept["runs"][:, 0], kept["runs"][:, 1]).reshape(self.grid.tile(index).core.shape)

    def classes(self, window: Window) -> NDArray[np.uint8]:
        """(row, col) class ids of a window in scene pixels, which may reach beyond the run; 255 there."""
        return self._read("mask", window)

    def probabilities(self, window: Window) -> NDArray[np.uint8]:
        """(channel, row, col) stored probabilities of a window; no channels if the store has none."""
        if not self.channels:
            return np.empty((0, *window.shape), np.uint8)
        return self._read("probabilities", window)

    def _read(self, name: str, window: Window) -> NDArray[np.uint8]:
        part = window & self.grid.hull
        lead = (self.channels,) if name == "probabilities" else ()
        if part == window:
            return np.asarray(self._array(name)[(..., *part.within(self.grid.hull).slices)])
        out = np.full((*lead, *window.shape), NODATA, np.uint8)
        if part:
            source = part.within(self.grid.hull).slices
            out[(..., *part.within(window).slices)] = self._array(name)[(..., *source)]
        return out

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            import zarr

            self._arrays[name] = zarr.open_array(self.path / name, mode="r+").with_config(ALWAYS_WRITE)
        return self._arrays[name]
