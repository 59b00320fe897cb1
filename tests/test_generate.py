"""Generated scenes: the same for the same seed, and a truth that fits the picture."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize

from geoseg.errors import InputError
from geoseg.training.generate import generate_dates, generate_scene
from geoseg.training.layouts import STYLES, halve, lay_out
from geoseg.training.sample_tiles import TILES, scene_of, stored_pixels, truth_of
from geoseg.training.targets import BOUNDARY, FIELD, class_mask
from geoseg.training.wilds import with_wilds

SAMPLE_TILES = Path(__file__).parents[1] / "sample_tiles"


@pytest.mark.parametrize("style", sorted(STYLES))
def test_every_style_gives_fields_and_the_same_scene_for_the_same_seed(style: str) -> None:
    first = generate_scene(3, size=64, gsd_m=10, style=style)
    again = generate_scene(3, size=64, gsd_m=10, style=style)
    assert first.pixels.shape == (4, 64, 64)
    assert len(first.parcels) > 0
    assert np.array_equal(first.pixels, again.pixels)
    assert shapely.equals_exact(first.parcels, again.parcels).all()


def test_another_seed_gives_another_scene() -> None:
    first, second = (generate_scene(seed, size=64, gsd_m=10) for seed in (3, 4))
    assert not np.array_equal(first.pixels, second.pixels)


def test_dates_of_a_scene_share_parcels_and_are_made_of_the_seed() -> None:
    first, second = generate_dates(6, size=64, gsd_m=10, style="loess", fineness=2)
    again = generate_dates(6, size=64, gsd_m=10, style="loess", fineness=2)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip((first, second), again, strict=True))
    assert shapely.equals_exact(first.parcels, second.parcels).all()
    changed = first.pixels.astype(int) - second.pixels
    assert (np.abs(changed) > 50).mean() > 0.3
    mask = first.mask(boundary_px=1.5)
    # Parcels still show at both dates: neighbours across an edge differ more than neighbours within a field.
    for scene in (first, second):
        step = np.abs(np.diff(np.log(scene.pixels.astype(float)), axis=2)).mean(axis=0)
        within = (mask[:, 1:] == FIELD) & (mask[:, :-1] == FIELD)
        across = (mask[:, 1:] == BOUNDARY) & (mask[:, :-1] == BOUNDARY)
        assert step[across].mean() > 1.3 * step[within].mean()


def test_wild_land_is_no_field() -> None:
    rng = np.random.default_rng(4)
    layout = with_wilds(rng, lay_out(rng, side_m=3000, style="boreal"), side_m=3000)
    wild = [
        polygon for kind, polygon in layout.areas if kind in {"mire", "park", "garden", "felled", "meadow", "scrub"}
    ]
    assert wild
    overlap = shapely.area(shapely.intersection(shapely.union_all(wild), shapely.union_all(layout.parcels)))
    assert overlap < 1e-6 * shapely.area(layout.parcels).sum()


def test_truth_polygons_rasterised_back_are_the_mask() -> None:
    scene = generate_scene(8, size=128, gsd_m=10, style="loess")
    mask = scene.mask(boundary_px=1.5)
    inside = rasterize([(parcel, 1) for parcel in scene.parcels], out_shape=mask.shape, dtype="uint8")
    assert (inside[mask == FIELD] == 1).all()
    assert 0.5 < (mask == FIELD).mean() < 0.98
    assert shapely.is_valid(scene.parcels).all()


def test_parcels_hardly_overlap() -> None:
    parcels = generate_scene(9, size=128, gsd_m=10, style="pasture").parcels
    assert shapely.area(shapely.union_all(parcels)) > 0.995 * shapely.area(parcels).sum()


def test_given_parcels_take_the_place_of_procedural_ones() -> None:
    parcels = np.array([shapely.box(100, 100, 500, 400), shapely.box(500, 100, 800, 400)], dtype=object)
    scene = generate_scene(1, size=96, gsd_m=10, parcels=parcels)
    assert 1 <= len(scene.parcels) <= 8
    assert shapely.area(scene.parcels).sum() > 0.6 * (700 * 300 / 100)


def test_unknown_styles_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no style 'martian'; known: boreal"):
        lay_out(np.random.default_rng(0), side_m=1000, style="martian")


def test_halving_keeps_the_area() -> None:
    square = np.array([[0.0, 0], [4, 0], [4, 2], [0, 2]])
    first, second, cut = halve(square, 0.25, 0.0)
    areas = sorted(shapely.area(shapely.polygons(part)) for part in (first, second))
    assert areas == pytest.approx([2.0, 6.0])
    assert shapely.length(shapely.linestrings(cut)) == pytest.approx(2.0)


def test_targets_keep_touching_fields_apart() -> None:
    turned = [shapely.affinity.rotate(shapely.box(x, 5, x + 20, 45), 27, origin=(25, 25)) for x in (5, 25)]
    for parcels in ([shapely.box(5, 5, 25, 45), shapely.box(25, 5, 45, 45)], turned):
        mask = class_mask(parcels, (50, 50), boundary_px=1.5)
        labels = rasterize([(parcel, k + 1) for k, parcel in enumerate(parcels)], out_shape=mask.shape, dtype="uint8")
        fields = np.where(mask == FIELD, labels, 0)
        for a, b in ((fields[:, 1:], fields[:, :-1]), (fields[1:], fields[:-1])):
            assert not ((a != b) & (a > 0) & (b > 0)).any()
        assert (mask == BOUNDARY).any()


def test_the_frame_of_a_scene_is_no_boundary() -> None:
    mask = class_mask([shapely.box(-50, -50, 80, 80)], (40, 40), boundary_px=3)
    assert (mask == FIELD).all()


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.name)
def test_sample_tiles_are_those_that_the_code_makes(tile) -> None:  # type: ignore[no-untyped-def]
    if tile.name != "s2_smallholder":
        with rasterio.open(SAMPLE_TILES / f"{tile.name}.tif") as file:
            assert file.shape == (tile.size, tile.size)
            assert file.crs.to_epsg() == tile.epsg
        return
    scene = scene_of(tile)
    with rasterio.open(SAMPLE_TILES / f"{tile.name}.tif") as file:
        difference = np.abs(file.read().astype(int) - stored_pixels(tile, scene))
    # Other builds of NumPy, SciPy and torch round differently, which moves single cells across thresholds.
    assert (difference > 2).mean() < 0.01
    kept = geopandas.read_file(SAMPLE_TILES / f"{tile.name}_truth.gpkg")
    made = truth_of(tile, scene)
    assert len(kept) == len(made)
    assert shapely.area(shapely.symmetric_difference(kept.union_all(), made.union_all())) < 1e-4 * made.area.sum()
