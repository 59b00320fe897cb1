"""Kinds of geometry by name, as files state them: `Polygon`, `MultiPolygon`, `Point Z`."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = (
    "Point", "LineString", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon",
    "GeometryCollection",
)  # fmt: skip
"""By shapely's type id; rings are written as lines."""

POLYGONS = frozenset({"Polygon", "MultiPolygon"})


def kinds_of(geometry: NDArray[Any]) -> frozenset[str]:
    """Kinds that occur among shapely geometries, ` Z` behind those with heights; missing ones are left out."""
    import numpy as np
    import shapely

    types = shapely.get_type_id(geometry)
    high = shapely.has_z(geometry) & ~shapely.is_empty(geometry)
    return frozenset(NAMES[code // 2] + " Z" * (code % 2) for code in np.unique(2 * types + high).tolist() if code >= 0)


def are_polygons(kinds: Set[str]) -> bool:
    """True where there are polygons and nothing else; an empty layer counts as polygons."""
    return flat(kinds) <= POLYGONS


def flat(kinds: Set[str]) -> frozenset[str]:
    """The kinds without regard to heights."""
    return frozenset(kind.removesuffix(" Z") for kind in kinds)


def layer_kind(kinds: Set[str]) -> str:
    """The one kind that a layer of these states; single and multiple ones together are multiple ones."""
    names = flat(kinds) or {"Polygon"}
    height = " Z" if any(kind.endswith(" Z") for kind in kinds) else ""
    if len(names) == 1:
        return f"{next(iter(names))}{height}"
    families = {name.removeprefix("Multi") for name in names}
    return f"Multi{families.pop()}{height}" if len(families) == 1 else "Unknown"


def promoted(geometry: NDArray[Any], kind: str) -> NDArray[Any]:
    """`geometry` with single ones as multiple ones where the layer's kind is a multiple one."""
    import numpy as np
    import shapely

    if not kind.startswith("Multi"):
        return geometry
    single = kind.removeprefix("Multi").removesuffix(" Z")
    build = {"Point": shapely.multipoints, "LineString": shapely.multilinestrings, "Polygon": shapely.multipolygons}
    result = geometry.copy()
    for code in (code for code, name in enumerate(NAMES) if name == single):
        rows = np.flatnonzero(shapely.get_type_id(geometry) == code)
        result[rows] = build[single](geometry[rows], indices=np.arange(len(rows)))
    return result
