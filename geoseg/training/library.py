"""Real parcel shapes as the geometry of generated scenes."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import InputError

ARCHIVE = "user_train_usa.tar.gz"
CELL_M = 1000.0


def read_cells(folder: Path) -> list[NDArray[Any]]:
    """The cells of the cultionet parcels (1 km2 each): polygons in metres, x right, y down from the cell's corner."""
    archive = folder / ARCHIVE
    if not archive.exists():
        raise InputError(f"{folder} has no {ARCHIVE}; give the folder with the archive of parcels and grid cells")
    with tempfile.TemporaryDirectory() as unpacked:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{archive} cannot be unpacked safely ({error}); download it again") from error
        found = sorted(Path(unpacked).rglob("*_poly_*.gpkg"))
        cells = [_cell(path, path.with_name(path.name.replace("_poly_", "_grid_"))) for path in found]
    return [cell for cell in cells if len(cell)]


def read_sparse_cells(folder: Path, *, least_m2: float = 60_000.0) -> list[NDArray[Any]]:
    """Squares of 1 km2 of the Azerbaijan parcels, as `read_cells` gives them: drawn fields with much land in between."""
    files = [folder / "test_area_lulc.geojson", folder / "test_area_crops.geojson"]
    if missing := [path.name for path in files if not path.exists()]:
        raise InputError(f"{folder} has no {', '.join(missing)}; give the folder with the parcels and land use")
    use, crops = (geopandas.read_file(path) for path in files)
    shapes = np.concatenate(
        [use[use["LULC"] == "cultivated land"].geometry.to_numpy(), crops.to_crs(use.crs).geometry.to_numpy()]
    )
    shapes = shapely.make_valid(shapes, method="structure", keep_collapsed=False)
    left, bottom, right, top = shapely.total_bounds(shapes)
    cells = []
    for x in np.arange(left, right, CELL_M):
        for y in np.arange(bottom, top, CELL_M):
            inside = shapely.intersection(shapes, shapely.box(x, y, x + CELL_M, y + CELL_M))
            inside = inside[shapely.area(inside) > 500]
            if shapely.area(inside).sum() >= least_m2:
                corner = np.array([x, y])
                placed = shapely.transform(inside, lambda p, c=corner: (p - c) * [1, -1] + [0, CELL_M])
                cells.append(_apart(placed[np.argsort(-shapely.area(placed))]))
    return [cell for cell in cells if len(cell)]


def mosaic(rng: np.random.Generator, cells: Sequence[NDArray[Any]], *, side_m: float) -> NDArray[Any]:
    """Random cells side by side, turned, flipped and scaled, that cover a square scene."""
    scale = float(np.exp(rng.uniform(np.log(0.35), np.log(1.2))))
    heading, reach = rng.uniform(0, np.pi / 2), side_m * 0.72 + 300
    count = int(np.ceil(2 * reach / (CELL_M * scale)))
    turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
    parts = []
    for row in range(count):
        for col in range(count):
            cell = cells[int(rng.integers(len(cells)))]
            flips = rng.choice([-1.0, 1.0], 2)
            swap = rng.random() < 0.5
            corner = np.array([col, row]) * CELL_M
            parts.append(shapely.transform(cell, lambda p, f=flips, s=swap, c=corner: _placed(p, f, s) + c))
    every = np.concatenate(parts)
    placed: NDArray[Any] = shapely.transform(every, lambda p: (p * scale - reach) @ turn + side_m / 2)
    return placed


def _placed(points: NDArray[np.float64], flips: NDArray[np.float64], swap: bool) -> NDArray[np.float64]:
    centred = (points - CELL_M / 2) * flips
    return (centred[:, ::-1] if swap else centred) + CELL_M / 2


def _cell(parcels: Path, grid: Path) -> NDArray[Any]:
    frame = geopandas.read_file(grid)
    drawn = geopandas.read_file(parcels).to_crs(frame.crs)
    left, _, _, top = frame.total_bounds
    square = shapely.box(0, 0, CELL_M, CELL_M)
    shapes = drawn.geometry[drawn.geometry.notna()].to_numpy()
    shapes = shapely.transform(shapes, lambda p: np.stack([p[:, 0] - left, top - p[:, 1]], axis=1))
    shapes = shapely.intersection(shapely.make_valid(shapes, method="structure", keep_collapsed=False), square)
    return _apart(shapes[np.argsort(-shapely.area(shapes))])


def _apart(shapes: NDArray[Any]) -> NDArray[Any]:
    """Single polygons without overlaps: the smaller one wins."""
    kept: list[Any] = []
    for shape in shapes:
        kept = [shapely.difference(other, shape) for other in kept]
        kept.append(shape)
    parts = shapely.get_parts(np.array(kept, dtype=object)) if kept else np.empty(0, dtype=object)
    polygons = parts[(shapely.get_type_id(parts) == 3) & (shapely.area(parts) > 500)]
    return np.asarray(polygons, dtype=object)
