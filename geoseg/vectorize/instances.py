"""The vectorizers `components` and `watershed`: objects equal to those of the whole raster whatever the tiling, in memory
that follows the tile.

Three passes over the tiles, and between them what must be known of the whole: which regions are one object, and which gaps
are filled. Pixels stay with the tiles, as runs on disk.

regions    the tile's regions, by the one method or the other; those it must ask about are sent
fields     numbers written in, boundary pixels given to the nearest object, gaps filled, sums
outlines   traced with one pixel of the neighbours' final numbers around; parts are joined row by row of tiles
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.pieces import Pieces
from geoseg.protocols import ClassSource, TileMap
from geoseg.results import FieldRules, Outlines
from geoseg.vectorize.division import Limits, divided
from geoseg.vectorize.regions import REGIONS, LabelTile, Numbers, united_components
from geoseg.vectorize.rows import PART, WHOLE, joined_objects, rows_of_objects
from geoseg.vectorize.seams import Index
from geoseg.vectorize.shapes import SHAPES, ShapeTile, depth_of, shape_item
from geoseg.vectorize.tracing import TraceTile
from geoseg.vectorize.unions import united
from geoseg.vectorize.watershed import FloodTile


@dataclass(frozen=True, slots=True)
class Components:
    """4-connected pixels of one class are one object."""

    def outlines(
        self, source: ClassSource, wanted: Sequence[int], *, map_tiles: TileMap, rules: FieldRules, folder: Path
    ) -> Iterator[Outlines]:
        pieces = Pieces(folder)
        task = LabelTile(source=source, wanted=tuple(wanted), pieces=pieces, depth=depth_of(rules))
        return _objects(task, lambda: united_components(source.grid, pieces), source, map_tiles, rules, pieces)


@dataclass(frozen=True, slots=True)
class Watershed:
    """The pixels of a class, divided along lines of boundary evidence."""

    def outlines(
        self, source: ClassSource, wanted: Sequence[int], *, map_tiles: TileMap, rules: FieldRules, folder: Path
    ) -> Iterator[Outlines]:
        pieces, limits = Pieces(folder), Limits.of(source.lines, fragment=rules.fragment)
        task = FloodTile(source=source, wanted=tuple(wanted), pieces=pieces, depth=depth_of(rules), limits=limits)
        return _objects(task, lambda: divided(source.grid, pieces, limits), source, map_tiles, rules, pieces)


def _objects(
    regions: Callable[[Index], Index], numbered: Callable[[], Numbers], source: ClassSource, map_tiles: TileMap,
    rules: FieldRules, pieces: Pieces,
) -> Iterator[Outlines]:  # fmt: skip
    grid = source.grid
    everything = [tile.index for tile in grid]
    missing = [index for index in everything if not pieces.holds(REGIONS, index)]
    _mapped(map_tiles, regions, missing, stage="regions", total=len(everything), left=len(missing))
    missing = [index for index in everything if not pieces.holds(SHAPES, index)]
    numbers = numbered() if missing else Numbers.none()
    _mapped(
        map_tiles, ShapeTile(source=source, pieces=pieces, rules=rules),
        (shape_item(index, numbers) for index in missing), stage="fields", total=len(everything), left=len(missing),
    )  # fmt: skip
    del numbers
    seams = united(grid, pieces, rules)
    missing = [index for index in seams.starts if not (pieces.holds(WHOLE, index) and pieces.holds(PART, index))]
    _mapped(
        map_tiles, TraceTile(source=source, pieces=pieces, rules=rules), map(seams.item, missing), stage="outlines",
        total=len(seams.starts), left=len(missing),
    )  # fmt: skip
    joined_objects(seams)
    yield from rows_of_objects(grid, pieces, tolerance=rules.tolerance)


def _mapped(
    map_tiles: TileMap, task: Callable[[Any], Index], items: Iterable[Any], *, stage: str, total: int, left: int
) -> None:
    map_tiles(task, items, done=_nothing, stage=stage, total=total, finished=total - left)


def _nothing(_: Index) -> None:
    """What tasks leave is on disk."""
