"""The sample tiles and their exact truth: `python -m geoseg.training.sample_tiles OUTDIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine

from geoseg.training.generate import GeneratedScene, generate_scene

BANDS = ("red", "green", "blue", "nir")
NODATA_CORNER_PX = 60
"""Legs of the triangle without data in the last corner of tiles that have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTile:
    name: str
    seed: int
    size: int
    """Side in pixels."""
    gsd_m: float
    style: str
    epsg: int
    corner: tuple[float, float]
    """Easting and northing of the upper left corner."""
    byte: bool = False
    """Three bands of 8 bits without near infrared, in place of four of 16."""
    nodata: bool = False
    """One corner without data."""

    @property
    def transform(self) -> Affine:
        return Affine(self.gsd_m, 0, self.corner[0], 0, -self.gsd_m, self.corner[1])


TILES = (
    SampleTile(
        name="s2_farmland",
        seed=11,
        size=512,
        gsd_m=10,
        style="mixed",
        epsg=32633,
        corner=(402_000, 5_804_000),
        nodata=True,
    ),
    SampleTile(
        name="s2_smallholder", seed=21, size=320, gsd_m=10, style="smallholder", epsg=32634, corner=(568_000, 5_560_000)
    ),
    SampleTile(
        name="rgb_farmland_1m",
        seed=13,
        size=1024,
        gsd_m=1,
        style="mixed",
        epsg=32632,
        corner=(611_000, 5_742_000),
        byte=True,
    ),
)


def scene_of(tile: SampleTile) -> GeneratedScene:
    return generate_scene(tile.seed, size=tile.size, gsd_m=tile.gsd_m, style=tile.style)


def stored_pixels(tile: SampleTile, scene: GeneratedScene) -> NDArray[Any]:
    """The (band, row, col) values of the tile's file."""
    pixels: NDArray[Any] = scene.pixels
    if tile.byte:
        colours = scene.pixels[:3].astype(np.float32)
        low, high = np.percentile(colours, (0.5, 99.5))
        pixels = np.clip(1 + np.sqrt(np.clip((colours - low) / (high - low), 0, 1)) * 254, 1, 255).astype(np.uint8)
    if tile.nodata:
        row, col = np.indices(pixels.shape[1:])
        pixels = np.where(row + col > 2 * (tile.size - 1) - NODATA_CORNER_PX, 0, pixels).astype(pixels.dtype)
    return pixels


def truth_of(tile: SampleTile, scene: GeneratedScene) -> geopandas.GeoDataFrame:
    """The parcels within the tile's frame, as polygons in the tile's CRS."""
    frame = shapely.box(0, 0, tile.size, tile.size)
    if tile.nodata:
        corner, edge = tile.size, tile.size - NODATA_CORNER_PX
        frame = shapely.difference(frame, shapely.polygons([(corner, edge), (corner, corner), (edge, corner)]))
    inside = shapely.get_parts(shapely.intersection(scene.parcels, frame))
    inside = inside[(shapely.get_type_id(inside) == 3) & (shapely.area(inside) > 1)]
    step, (east, north) = tile.gsd_m, tile.corner
    placed = shapely.transform(inside, lambda p: np.stack([east + p[:, 0] * step, north - p[:, 1] * step], axis=1))
    return geopandas.GeoDataFrame({"id": np.arange(1, len(placed) + 1)}, geometry=list(placed), crs=f"EPSG:{tile.epsg}")


def write_tile(tile: SampleTile, folder: Path) -> None:
    """Write NAME.tif and NAME_truth.gpkg."""
    scene = scene_of(tile)
    pixels = stored_pixels(tile, scene)
    layout = {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 9,
    }
    shape = {"count": len(pixels), "height": tile.size, "width": tile.size, "dtype": pixels.dtype.name}
    nodata = 0 if tile.nodata else None
    with rasterio.open(
        folder / f"{tile.name}.tif",
        "w",
        crs=f"EPSG:{tile.epsg}",
        transform=tile.transform,
        nodata=nodata,
        **layout,
        **shape,
    ) as file:
        file.write(pixels)
        file.descriptions = BANDS[: len(pixels)]
    truth = folder / f"{tile.name}_truth.gpkg"
    truth.unlink(missing_ok=True)  # a layer written over an old one leaves its pages in the file
    truth_of(tile, scene).to_file(truth, layer="fields", driver="GPKG")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m geoseg.training.sample_tiles", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the tiles go")
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for tile in TILES:
        write_tile(tile, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
