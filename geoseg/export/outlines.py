"""Field outlines as they are drawn on a picture, kept as plain arrays: memory follows the picture, not the fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import geopandas as gpd

    from geoseg.scene import Scene

SMOOTH = 3
"""Lines are drawn so many times larger and reduced, which makes them smooth."""
FEW = 4000
"""Up to so many fields get a dark casing and rounded corners."""

SPECK = 1.5
"""Where there are more than that, fields of fewer pixels of the picture are not drawn."""

TOLERANCE = 0.3
"""How far a drawn outline may lie from the field's, in pixels of the picture."""

Rings = list[list[float]]
"""Of one polygon, the shell first: x, y, x, y, ... on the enlarged picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The polygons of one part of the fields."""

    points: NDArray[Any]
    """(vertex, 2) x and y on the enlarged picture; whole pixels where there are more than a few fields."""
    rings: NDArray[np.int32]
    """(ring + 1,) where each ring begins in `points`."""
    polygons: NDArray[np.int32]
    """(polygon + 1,) where each polygon begins in `rings`."""

    def __getitem__(self, polygon: int) -> Rings:
        """Vertices of each ring, one beyond the end: the line then has a corner where it closes."""
        first, last = self.polygons[polygon : polygon + 2].tolist()
        rings = []
        for begin, end in pairwise(self.rings[first : last + 1].tolist()):
            ring = self.points[begin:end].ravel().tolist()
            rings.append([*ring, *ring[2:4]])
        return rings


@dataclass(slots=True, kw_only=True)
class Drawing:
    """Outlines of fields on a view of a scene: fields are added, then finish() is called, then they are drawn."""

    scene: Scene
    panel: tuple[int, int]
    """(height, width) of the view in pixels."""
    areas: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """(polygon,) in pixels of the view."""
    _known: int = 0
    _waiting: list[NDArray[Any]] = field(default_factory=list)
    """Geometries that are drawn, specks and all, where no more than a few come."""
    _pieces: list[Piece] = field(default_factory=list)

    def add(self, geometry: gpd.GeoSeries) -> None:
        """More fields, in any CRS."""
        import shapely

        if self.scene.crs is not None and geometry.crs is not None and geometry.crs != self.scene.crs:
            geometry = geometry.to_crs(self.scene.crs)
        shapes = geometry.to_numpy()
        shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
        self._known += len(shapes)
        self._waiting.append(shapes)
        if self._known > FEW:
            self.finish()

    def finish(self) -> None:
        """Draw what still waits."""
        specks = SPECK if self._known > FEW else 0.0
        for shapes in self._waiting:
            self._draw(shapes, specks=specks)
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self.areas)

    def __iter__(self) -> Iterator[Rings]:
        """Larger polygons first, so that fields in another one's hole are drawn over it."""
        starts = np.cumsum([0, *(len(piece.polygons) - 1 for piece in self._pieces)])
        order = np.argsort(-self.areas, kind="stable")
        pieces = np.searchsorted(starts, order, side="right") - 1
        for polygon, piece in zip(order.tolist(), pieces.tolist(), strict=True):
            yield self._pieces[piece][polygon - int(starts[piece])]

    def _draw(self, shapes: NDArray[Any], *, specks: float) -> None:
        """Keep the polygons of `shapes` as they look; those that cover less than `specks` pixels are left out."""
        import shapely

        inverse = ~self.scene.transform
        factors = np.array([self.panel[1] / self.scene.shape[1], self.panel[0] / self.scene.shape[0]])
        shapes = shapes[shapely.area(shapes) * abs(float(inverse.determinant)) * factors.prod() >= specks]

        def to_panel(points: NDArray[Any]) -> NDArray[Any]:
            x, y = points[:, 0], points[:, 1]
            columns = inverse.a * x + inverse.b * y + inverse.c
            rows = inverse.d * x + inverse.e * y + inverse.f
            moved: NDArray[Any] = np.column_stack([columns, rows]) * factors
            return moved

        moved = shapely.transform(shapely.force_2d(shapes), to_panel)
        parts = shapely.get_parts(shapely.simplify(moved, TOLERANCE, preserve_topology=False))
        parts = parts[(shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)]
        if not len(parts):
            return
        self.areas = np.concatenate([self.areas, shapely.area(parts)])
        _, points, (rings, polygons) = shapely.to_ragged_array(parts)
        points = points * SMOOTH
        self._pieces.append(
            Piece(
                points=points if len(self) <= FEW else points.astype(np.int32),  # as Pillow draws thin lines
                rings=rings.astype(np.int32),
                polygons=polygons.astype(np.int32),
            )
        )
