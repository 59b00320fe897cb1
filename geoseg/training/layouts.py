"""Layouts of farmland: where roads, woods, villages and parcels lie, in metres, before anything is painted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.transform import Affine

from geoseg.errors import InputError
from geoseg.training.textures import fractal_noise

Range = tuple[float, float]
Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a kind of farmland is laid out; every range is drawn from once a scene."""

    block_ha: Range
    """Area between two roads or tracks."""
    parcel_ha: Range
    """Median parcel."""
    spread: float = 0.6
    """Standard deviation of the logarithm of a parcel's area within a scene."""
    strips: Range = (0.2, 0.7)
    """Share of blocks that are cut into parallel strips; the others are cut crosswise."""
    skew: float = 0.12
    """Largest turn of a cut, in radians, from square."""
    bend_m: Range = (0.0, 40.0)
    """How far straight lines are bent."""
    farmed: Range = (0.6, 0.95)
    """Share of blocks that are fields; the others are woods, rough land, villages and water."""
    woods: Range = (0.0, 0.25)
    """Share of the land under woods of natural outline."""
    islands: Range = (0.0, 1.5)
    """Copses, ponds and farmyards a square kilometre."""
    gaps: Range = (0.0, 0.5)
    """Share of blocks whose parcels stand a few metres apart."""
    hedges: Range = (0.0, 0.3)
    """Share of cuts between blocks that carry hedges or ditches."""
    grass: Range = (0.05, 0.4)
    """Share of parcels under grass."""


STYLES: Mapping[str, Style] = {
    "boreal": Style(
        block_ha=(25, 110), parcel_ha=(1.5, 10), bend_m=(20, 70), skew=0.25, farmed=(0.5, 0.9), woods=(0.15, 0.5),
        islands=(1, 6), gaps=(0.0, 0.5), grass=(0.2, 0.6), spread=0.9, strips=(0.0, 0.4),
    ),
    "loess": Style(
        block_ha=(50, 160), parcel_ha=(8, 40), bend_m=(5, 50), farmed=(0.85, 0.98), woods=(0.0, 0.08), grass=(0.0, 0.1),
    ),
    "pasture": Style(
        block_ha=(15, 60), parcel_ha=(1.0, 4.0), bend_m=(10, 60), skew=0.2, farmed=(0.75, 0.97), woods=(0.0, 0.1),
        hedges=(0.3, 0.9), grass=(0.5, 0.95), strips=(0.2, 0.6),
    ),
    "smallholder": Style(
        block_ha=(6, 30), parcel_ha=(0.35, 1.5), bend_m=(10, 70), strips=(0.5, 1.0), farmed=(0.6, 0.95),
        woods=(0.0, 0.3), gaps=(0.0, 0.4), spread=0.5,
    ),
    "midwest": Style(
        block_ha=(60, 260), parcel_ha=(8, 40), bend_m=(0, 15), skew=0.02, farmed=(0.8, 0.97), woods=(0.0, 0.2),
        islands=(0.5, 3), hedges=(0, 0.2), gaps=(0.1, 0.8),
    ),
    "mixed": Style(
        block_ha=(15, 80), parcel_ha=(1.5, 8), bend_m=(10, 60), skew=0.2, woods=(0.05, 0.35), islands=(0.5, 4), spread=0.9,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    kind: str
    """road, track, hedge, ditch or margin."""
    path: Any
    width_m: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    parcels: NDArray[Any]
    """Polygons in metres, x right and y down from the scene's first corner; some reach beyond the scene."""
    areas: Sequence[tuple[str, Any]]
    """(kind, polygon) of all other land, in order of painting: rough, woods, village, water, yard, pond."""
    lines: Sequence[Line] = field(default_factory=tuple)
    grass: float = 0.2
    """Share of parcels under grass."""


def lay_out(rng: np.random.Generator, *, side_m: float, style: str) -> Layout:
    """A procedural layout that covers a square scene and 200 m around it."""
    if style not in STYLES:
        raise InputError(f"no style {style!r}; known: {', '.join(STYLES)}")
    plan = STYLES[style]
    median_m2 = 1e4 * np.exp(rng.uniform(*np.log(plan.parcel_ha)))
    block_m2 = max(1e4 * np.exp(rng.uniform(*np.log(plan.block_ha))), 1.5 * median_m2)
    blocks, lines = _blocks(rng, side_m=side_m, block_m2=block_m2, plan=plan)
    kinds = _land_use(rng, blocks, farmed=rng.uniform(*plan.farmed))
    strips, gaps = rng.uniform(*plan.strips), rng.uniform(*plan.gaps)
    parcels: list[Any] = []
    areas: list[tuple[str, Any]] = []
    for block, kind in zip(blocks, kinds, strict=True):
        if kind != "fields":
            areas.append((kind, shapely.polygons(block)))
            continue
        inset = shapely.buffer(shapely.polygons(block), -rng.uniform(2, 9), join_style="mitre")
        if inset.is_empty or inset.area < 1000:
            continue
        cut = _parcels(
            rng, np.array(inset.exterior.coords)[:-1], plan, median_m2=median_m2, strips=rng.random() < strips
        )
        gap = rng.uniform(1.5, 8) if rng.random() < gaps else 0.0
        parcels += [_rounded(shapely.polygons(p), gap, rng) for p in cut]
    bend = bending(rng, rng.uniform(*plan.bend_m))
    bent = [bend(p) for p in parcels if not p.is_empty]
    areas = [(kind, bend(area)) for kind, area in areas]
    lines = [Line(kind=line.kind, path=bend(line.path), width_m=line.width_m) for line in lines]
    woods = woodland(rng, side_m=side_m, share=rng.uniform(*plan.woods))
    dots = islands(rng, side_m=side_m, density=rng.uniform(*plan.islands))
    villages = woodland(rng, side_m=side_m, share=rng.uniform(-0.05, 0.10))
    kept = without(bent, [*woods, *villages, *(polygon for _, polygon in dots)])
    areas += [("woods", polygon) for polygon in woods] + [("village", polygon) for polygon in villages] + dots
    return Layout(parcels=kept, areas=areas, lines=lines, grass=rng.uniform(*plan.grass))


def without(parcels: Sequence[Any], obstacles: Sequence[Any], *, smallest_m2: float = 600.0) -> NDArray[Any]:
    """Parcels less the obstacles, in single parts, without slivers."""
    cut = np.array(parcels, dtype=object)
    if len(obstacles) and len(cut):
        tree = shapely.STRtree(obstacles)
        for index in np.unique(tree.query(cut, predicate="intersects")[0]):
            near = [obstacles[k] for k in tree.query(cut[index], predicate="intersects")]
            cut[index] = shapely.difference(cut[index], shapely.union_all(near))
    parts = shapely.get_parts(cut)
    parts = parts[shapely.get_type_id(parts) == 3]
    core = shapely.area(shapely.buffer(parts, -6.0))
    parts = parts[(shapely.area(parts) >= smallest_m2) & (core > 0)]
    return np.asarray(parts, dtype=object)


def bending(rng: np.random.Generator, amplitude_m: float) -> Any:
    """A smooth displacement of the plane, as a function from geometry to geometry."""
    waves = [(rng.uniform(600, 3000), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi, 2)) for _ in range(4)]

    def move(points: Points) -> Points:
        moved = points.copy()
        for length, heading, phase in waves:
            along = (points[:, 0] * np.cos(heading) + points[:, 1] * np.sin(heading)) * 2 * np.pi / length
            size = amplitude_m * min(1.0, length / 1500)
            moved[:, 0] += size * np.sin(along + phase[0])
            moved[:, 1] += size * np.sin(along + phase[1])
        return moved

    def bend(geometry: Any) -> Any:
        return shapely.transform(shapely.segmentize(geometry, 30.0) if amplitude_m > 0 else geometry, move)

    return bend


def woodland(rng: np.random.Generator, *, side_m: float, share: float) -> list[Any]:
    """Polygons of natural outline that cover about `share` of the scene."""
    if share < 0.01:
        return []
    cell_m = min(20.0, side_m / 100)
    cells = int(side_m / cell_m) + 20
    noise = fractal_noise(rng, (cells, cells), wavelength=rng.uniform(20, 70), octaves=4)
    mask = noise > np.quantile(noise, 1 - share)
    place = Affine(cell_m, 0, -10 * cell_m, 0, cell_m, -10 * cell_m)
    found = [shapely.geometry.shape(g) for g, v in shapes(mask.astype(np.uint8), mask=mask, transform=place)]
    smooth = shapely.buffer(shapely.buffer(np.array(found, dtype=object), 14), -26)
    smooth = shapely.get_parts(shapely.simplify(shapely.buffer(smooth, 12), 1.0))
    return [p for p in smooth if p.area > 1500]


def islands(rng: np.random.Generator, *, side_m: float, density: float) -> list[tuple[str, Any]]:
    """Copses, ponds and farmyards, `density` a square kilometre."""
    found = []
    for _ in range(rng.poisson(density * (side_m / 1000) ** 2)):
        kind = str(rng.choice(["woods", "yard", "pond"], p=[0.6, 0.3, 0.1]))
        radius = float(np.exp(rng.uniform(np.log(9), np.log(55))))
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(6, 12))))
        reach = radius * rng.uniform(0.6, 1.4, len(angles))
        centre = rng.uniform(0, side_m, 2)
        ring = np.stack([centre[0] + reach * np.cos(angles), centre[1] + reach * np.sin(angles)], axis=1)
        found.append((kind, shapely.buffer(shapely.convex_hull(shapely.multipoints(ring)), 3)))
    return found


def _blocks(
    rng: np.random.Generator, *, side_m: float, block_m2: float, plan: Style
) -> tuple[list[Points], list[Line]]:
    reach, heading = side_m * 0.75 + 300, rng.uniform(0, np.pi / 2)
    turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
    square = np.array([[-reach, -reach], [reach, -reach], [reach, reach], [-reach, reach]]) @ turn + side_m / 2
    hedged, lines, done, todo = rng.uniform(*plan.hedges), [], [], [square]
    while todo:
        block = todo.pop()
        area = _area(block)
        if area < block_m2 * np.exp(rng.normal(0, 0.4)):
            done.append(block)
            continue
        first, second, cut = halve(block, rng.uniform(0.35, 0.65), rng.uniform(-plan.skew, plan.skew))
        todo += [first, second]
        kind, width = "track", rng.uniform(2.0, 4.5)
        if rng.random() < hedged:
            kind, width = str(rng.choice(["hedge", "ditch"])), rng.uniform(2.5, 9)
        elif area > 8 * block_m2:
            kind, width = "road", rng.uniform(5, 11)
        elif rng.random() < 0.35:
            continue
        lines.append(Line(kind=kind, path=shapely.linestrings(cut), width_m=float(width)))
    return done, lines


def _land_use(rng: np.random.Generator, blocks: Sequence[Points], *, farmed: float) -> list[str]:
    """What each block is: unfarmed ones lie together, as a few waves over the land decide."""
    centres = np.array([block.mean(axis=0) for block in blocks])
    height = rng.normal(0, 0.5, len(blocks))
    for _ in range(4):
        vector = rng.normal(0, 1 / 500, 2)
        height += np.sin(centres @ vector + rng.uniform(0, 2 * np.pi))
    order = np.argsort(np.argsort(height)) / max(1, len(blocks))
    shares = rng.dirichlet([2.0, 1.8, 0.5, 0.1])
    others = rng.choice(["woods", "rough", "village", "water"], len(blocks), p=shares)
    return ["fields" if rank < farmed else str(other) for rank, other in zip(order, others, strict=True)]


def _parcels(rng: np.random.Generator, block: Points, plan: Style, *, median_m2: float, strips: bool) -> list[Points]:
    """A convex block cut until each part is about as large as its drawn size."""
    done, todo = [], [block]
    lengthwise = None
    if strips:
        sides = np.roll(block, -1, axis=0) - block
        longest = sides[np.argmax((sides**2).sum(axis=1))]
        lengthwise = longest / np.linalg.norm(longest)
        if _area(block) / (np.linalg.norm(longest) + 1) ** 2 > 0.3 and rng.random() < 0.5:
            lengthwise = np.array([-lengthwise[1], lengthwise[0]])
    while todo:
        part = todo.pop()
        if _area(part) < 1.5 * median_m2 * np.exp(rng.normal(0, plan.spread)) or _width(part) < 32:
            done.append(part)
            continue
        skew = rng.normal(0, plan.skew / 6) if strips else rng.uniform(-plan.skew, plan.skew) * (rng.random() < 0.4)
        share = float(np.clip(rng.normal(0.5, 0.1), 0.25, 0.75))
        first, second, _ = halve(part, share, skew, across=lengthwise)
        todo += [first, second]
    return done


def halve(polygon: Points, share: float, skew: float, *, across: Points | None = None) -> tuple[Points, Points, Points]:
    """A convex polygon cut in two by a straight line: both parts and the line's two ends.

    The line stands across the longest axis, or along the direction `across` if given; `share` of the extent lies
    on its first side, and `skew` turns it, in radians.
    """
    if across is None:
        centred = polygon - polygon.mean(axis=0)
        sides = np.roll(polygon, -1, axis=0) - polygon
        heading = sides[np.argmax((sides**2).sum(axis=1))]
        heading = heading / np.linalg.norm(heading)
        if np.ptp(centred @ heading) < np.ptp(centred @ np.array([-heading[1], heading[0]])):
            heading = np.array([-heading[1], heading[0]])
    else:
        heading = np.array([-across[1], across[0]])
    heading = heading * np.cos(skew) + np.array([-heading[1], heading[0]]) * np.sin(skew)
    along = polygon @ heading
    height = along - (along.min() + share * np.ptp(along))
    parts: tuple[list[Points], list[Points]] = ([], [])
    ends = []
    for k in range(len(polygon)):
        here, there = height[k], height[(k + 1) % len(polygon)]
        parts[int(here > 0)].append(polygon[k])
        if (here > 0) != (there > 0):
            point = polygon[k] + (polygon[(k + 1) % len(polygon)] - polygon[k]) * (here / (here - there))
            ends.append(point)
            parts[0].append(point)
            parts[1].append(point)
    return np.array(parts[0]), np.array(parts[1]), np.array(ends[:2])


def _area(polygon: Points) -> float:
    x, y = polygon[:, 0] - polygon[0, 0], polygon[:, 1] - polygon[0, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _width(polygon: Points) -> float:
    """About how wide a long polygon is, in metres."""
    sides = np.linalg.norm(np.roll(polygon, -1, axis=0) - polygon, axis=1)
    return _area(polygon) / float(sides.max())


def _rounded(parcel: Any, gap_m: float, rng: np.random.Generator) -> Any:
    if gap_m == 0:
        return parcel
    radius = rng.uniform(0, 12) if rng.random() < 0.5 else 0.0
    apart = shapely.buffer(parcel, -gap_m / 2 - radius, join_style="mitre")
    return shapely.buffer(apart, radius, quad_segs=4) if radius else apart
