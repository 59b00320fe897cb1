"""Classes to field polygons: options in metres become rules in pixels, a vectorizer makes outlines, and they go to disk."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import TileGrid, Window
from geoseg.kernels.flood import PLACE_BITS
from geoseg.plugins import load_plugin
from geoseg.protocols import ClassSource, Reader, TileMap, Vectorizer
from geoseg.recipes import RunOptions
from geoseg.results import FieldRules, Lines, Outlines
from geoseg.runtime.heap import give_back
from geoseg.scene import Scene, pixel_areas_m2

if TYPE_CHECKING:
    import geopandas as gpd

    from geoseg.vectorize.fieldfile import FieldFile

PLACES = 33
"""Places along each side of a scene at which pixels are measured; between them sizes are interpolated."""


def delineate(
    source: ClassSource,
    reader: Reader,
    *,
    wanted: Sequence[int],
    class_names: Sequence[str],
    pixel_size_m: float,
    min_area_m2: float,
    options: RunOptions,
    tiles: TileMap,
    folder: Path,
    unread: Sequence[Window] | None = None,
) -> FieldFile:
    """Polygons of the wanted classes: merged over seams, filtered by area, georeferenced, measured; in order of their ids.

    Args:
        source: class ids and probabilities on a grid.
        reader: whose scene gives the georeference.
        wanted: class ids.
        class_names: by class id.
        pixel_size_m: of a pixel, used where the scene has no CRS.
        min_area_m2: smaller objects are left out, after they are merged.
        options: those of fields are used.
        tiles: runs the tiles.
        folder: for the polygons and what is kept on the way to them. The same call again goes on with what is there.
        unread: parts of the scene that could not be read; None where that would have ended the run.
    """
    from geoseg.vectorize.fieldfile import open_field_file, write_field_file
    from geoseg.vectorize.polygons import fields, nothing

    scene, grid = reader.scene, source.grid
    if (made := open_field_file(folder, scene.crs)) is not None:
        return made
    method = options.method(source.lines)
    vectorizer: Vectorizer = load_plugin("vectorizers", method)()
    sizes = PixelSizes.of(scene, pixel_size_m)
    # Objects that cannot reach the minimum are dropped before they are traced.
    least = 0.98 * min_area_m2 / sizes.largest if sizes.largest > 0 else 0
    measured = len(source.probabilities(Window(grid.extent.row, grid.extent.col, 0, 0))) > 0

    def frame(outlines: Outlines) -> gpd.GeoDataFrame:
        # By pixels, so that the same fields are left whatever becomes of their outlines. An area that cannot be measured is no
        # reason to drop a field.
        large = ~(outlines.pixels * sizes.at(outlines.first) < min_area_m2)
        return fields(
            outlines.taken(np.flatnonzero(large)), scene, class_names, origin=grid.phase, pixel_size_m=pixel_size_m,
            with_confidence=measured, with_support=source.lines.channel is not None, unread=unread,
        )  # fmt: skip

    rules = field_rules(
        options, source.lines, scene, pixel_size_m=pixel_size_m, min_pixels=least, classes=len(class_names)
    )
    parts = vectorizer.outlines(source, wanted, map_tiles=tiles, rules=rules, folder=folder / method)
    made = write_field_file(folder, chain([frame(nothing())], map(frame, parts)), scene.crs)
    shutil.rmtree(folder / method, ignore_errors=True)
    give_back()
    return made


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PixelSizes:
    """Geodesic areas of a scene's pixels in m2."""

    rows: NDArray[np.float64]
    """(place,) where they are measured."""
    cols: NDArray[np.float64]
    areas: NDArray[np.float64]
    """(row place, col place); nan off the globe."""

    @classmethod
    def of(cls, scene: Scene, pixel_size_m: float) -> PixelSizes:
        """`pixel_size_m` is that of a scene without a CRS."""
        rows, cols = (np.linspace(0, size - 1, PLACES) for size in scene.shape)
        if scene.crs is None:
            areas = np.full((PLACES, PLACES), pixel_size_m**2)
        else:
            every = {"rows": np.repeat(rows, PLACES), "cols": np.tile(cols, PLACES)}
            areas = pixel_areas_m2(scene.transform, scene.crs, **every).reshape(PLACES, PLACES)
        return cls(rows=rows, cols=cols, areas=areas)

    @property
    def largest(self) -> float:
        """0 where none can be measured."""
        return float(np.nanmax(self.areas)) if np.isfinite(self.areas).any() else 0.0

    @property
    def middle(self) -> float:
        """At the scene's centre; 1 where that cannot be measured."""
        size = float(self.areas[PLACES // 2, PLACES // 2])
        return size if math.isfinite(size) else 1.0

    def at(self, pixels: NDArray[np.int64]) -> NDArray[np.float64]:
        """(pixel,) areas at (row, col), bilinear between the places."""
        below, right = (
            np.clip(np.interp(pixels[:, axis], places, np.arange(PLACES)), 0, PLACES - 1)
            for axis, places in enumerate((self.rows, self.cols))
        )
        row, col = np.minimum(below.astype(int), PLACES - 2), np.minimum(right.astype(int), PLACES - 2)
        down, across = below - row, right - col
        upper = self.areas[row, col] * (1 - across) + self.areas[row, col + 1] * across
        lower = self.areas[row + 1, col] * (1 - across) + self.areas[row + 1, col + 1] * across
        return np.asarray(upper * (1 - down) + lower * down)


FARTHEST = 1000
"""Pixels: no boundary is as wide."""


def check_fields(
    options: RunOptions, lines: Lines, grid: TileGrid, scene: Scene, *, pixel_size_m: float, measured: bool
) -> None:
    """InputError where the options of fields do not go with the source; before any work is done.

    Args:
        options: of the run.
        lines: what the source knows of boundaries.
        grid: on which it is.
        scene: gives the size of pixels; `pixel_size_m` where it has no CRS.
        measured: whether the source has probabilities.
    """
    from geoseg.vectorize.shapes import depth_of

    method = options.method(lines)
    load_plugin("vectorizers", method)
    if method == "watershed" and not measured:
        raise InputError(
            "a watershed needs probabilities, and found a mask of classes; give the probabilities of all classes, or use "
            "--instances components"
        )
    if method == "watershed" and max(grid.shape) >= 1 << PLACE_BITS:
        raise InputError(
            f"the scene has {max(grid.shape)} pixels along a side, and a watershed counts to {1 << PLACE_BITS}; take a part of it"
        )
    rules = field_rules(options, lines, scene, pixel_size_m=pixel_size_m, min_pixels=0, classes=0)
    largest = FARTHEST if len(grid) == 1 else min(FARTHEST, grid.tile_size - 1)
    if depth_of(rules) > largest:
        raise InputError(
            f"--give-back-m reaches {rules.reach:.0f} pixels, and with tiles of {grid.tile_size} pixels no more than "
            f"{math.floor(largest / math.sqrt(2)):d} are possible; use a smaller distance, or larger tiles (--tile)"
        )


def field_rules(
    options: RunOptions, lines: Lines, scene: Scene, *, pixel_size_m: float, min_pixels: float, classes: int
) -> FieldRules:
    """The options of fields in pixels, of the size that pixels have at the scene's centre."""
    from geoseg.vectorize.polygons import longest_pixel_m

    area = PixelSizes.of(scene, pixel_size_m).middle
    watershed = options.method(lines) == "watershed"
    chosen = options.shaping(divided=watershed, pixel_m=math.sqrt(area))
    # The scale of a projection is not quite 1, and 10 m are one pixel of 10 m nevertheless.
    reach = 1.005 * chosen["give_back_m"] / math.sqrt(area)
    return FieldRules(
        min_pixels=min_pixels, hole_pixels=chosen["max_hole_m2"] / area, reach=reach,
        fragment=chosen["min_part_m2"] / area, smooth=options.smooth,
        tolerance=options.simplify_m / longest_pixel_m(scene, pixel_size_m), classes=classes,
    )  # fmt: skip
