"""The preview: right colours in the right places, the same whatever the pieces it was read in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS

from geoseg.errors import ExportError
from geoseg.export import thumbnail as thumbnails
from geoseg.export.preview import FILLS, NO_DATA, Sheet, write_preview
from geoseg.export.thumbnail import color_bands, thumbnail
from geoseg.grid import Window
from geoseg.protocols import Reader
from geoseg.results import Block
from geoseg.scene import Band, Scene


@dataclass(frozen=True)
class ArrayReader:
    """A scene in memory."""

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    names: tuple[str | None, ...] = ("blue", "green", "red", "nir")
    crs: CRS | None = field(default_factory=lambda: CRS.from_epsg(32632))
    sizes: list[int] = field(default_factory=list)

    @property
    def scene(self) -> Scene:
        bands = tuple(Band(name=name, dtype="uint16") for name in self.names)
        transform = Affine(10, 0, 400_000, 0, -10, 5_800_000) if self.crs else Affine(1, 0, 0, 0, -1, 0)
        return Scene(shape=self.valid.shape, transform=transform, crs=self.crs, bands=bands, name="Börde 2021-06-15")

    def read(self, window: Window, bands: Sequence[int] | None = None) -> Block:
        self.sizes.append(window.size)
        chosen = range(len(self.names)) if bands is None else bands
        return Block(
            pixels=np.stack([self.pixels[band][window.slices] for band in chosen]),
            valid=self.valid[window.slices],
            window=window,
        )

    def content_hash(self) -> str:
        return ""


def make_reader(rows: int = 300, cols: int = 400, **options: Any) -> ArrayReader:
    """A grey ramp from left to right with an invalid corner of wild values."""
    ramp = np.broadcast_to(np.linspace(200, 4000, cols), (4, rows, cols)).astype(np.uint16).copy()
    valid = np.ones((rows, cols), bool)
    valid[: rows // 4, : cols // 4] = False
    ramp[:, ~valid] = 65535
    return ArrayReader(pixels=ramp, valid=valid, **options)


def make_fields(reader: ArrayReader) -> gpd.GeoDataFrame:
    scene = reader.scene
    left, top = scene.transform @ (200, 100)
    right, bottom = scene.transform @ (300, 200)
    box = shapely.box(left, bottom, right, top)
    return gpd.GeoDataFrame({"id": ["r-1"], "area_m2": [1e6]}, geometry=[box], crs=scene.crs)


def test_the_test_reader_is_a_reader() -> None:
    assert isinstance(make_reader(), Reader)


def test_both_views_show_the_scene_and_one_the_fields(tmp_path: Path) -> None:
    reader = make_reader()
    files = write_preview(reader, make_fields(reader), tmp_path / "preview.png", model="fields-s2", size=900)
    assert files == [tmp_path / "preview.png"]
    sheet = Sheet.fit(reader.scene.shape, size=900)
    page = np.asarray(Image.open(files[0]).convert("RGB")).astype(int)
    assert page.shape[:2] == sheet.size[::-1]
    height, width = sheet.panel
    left, right = (page[y : y + height, x : x + width] for x, y in sheet.corners)
    assert (left[: height // 5, : width // 5] == NO_DATA).all()
    assert left[height // 2, -3].mean() > 245
    assert left[height // 2, 2].mean() < 10
    inside = (slice(int(0.4 * height), int(0.6 * height)), slice(int(0.55 * width), int(0.7 * width)))
    outside = (slice(int(0.75 * height), height), slice(int(0.8 * width), width))
    assert np.array_equal(left[outside], right[outside])
    tint = right[inside] - left[inside]
    assert (tint[..., 0] - tint[..., 2]).mean() > 20
    assert FILLS[0][0] > FILLS[0][2]
    edge = right[height // 2, int(0.5 * width) - 2 : int(0.5 * width) + 3]
    assert (edge[:, 0] - edge[:, 2]).max() > 120


def test_nothing_found_and_no_crs_still_give_a_picture(tmp_path: Path) -> None:
    reader = make_reader(7, 5, crs=None)
    empty = gpd.GeoDataFrame({"area_m2": []}, geometry=[])
    (file,) = write_preview(reader, empty, tmp_path / "preview.png", size=400)
    with Image.open(file) as page:
        assert page.width >= 400


def test_a_scene_without_valid_pixels_is_grey(tmp_path: Path) -> None:
    reader = make_reader()
    reader.valid[:] = False
    small = thumbnail(reader, side=100)
    assert not small.valid.any()
    write_preview(reader, make_fields(reader), tmp_path / "preview.png", size=400)


def test_mask_is_tinted_in_its_colours(tmp_path: Path) -> None:
    reader = make_reader()
    mask = np.ones((30, 40), np.uint8)
    mask[:, 20:] = 255
    nothing = make_fields(reader).iloc[:0]
    file = tmp_path / "preview.png"
    write_preview(reader, nothing, file, mask=mask, colors={1: (255, 0, 0, 255)}, size=900)
    sheet = Sheet.fit(reader.scene.shape, size=900)
    page = np.asarray(Image.open(file).convert("RGB")).astype(int)
    height, width = sheet.panel
    left, right = (page[y : y + height, x : x + width] for x, y in sheet.corners)
    difference = (right - left)[height // 2 : height * 3 // 4]
    assert difference[:, : width // 2 - 2, 0].min() > 0
    assert (difference[:, width // 2 + 2 :] == 0).all()


@pytest.mark.parametrize("shape", [(300, 400), (301, 397), (13, 900), (900, 13)])
def test_pieces_do_not_show(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    reader = ArrayReader(pixels=rng.integers(0, 4000, (4, *shape)).astype(np.uint16), valid=rng.random(shape) > 0.3)
    whole = thumbnail(reader, side=50)
    monkeypatch.setattr(thumbnails, "READ_PIXELS", 2000)
    reader.sizes.clear()
    pieces = thumbnail(reader, side=50)
    assert np.array_equal(whole.pixels, pieces.pixels)
    assert np.array_equal(whole.valid, pieces.valid)
    assert max(reader.sizes) <= 2000
    assert sum(reader.sizes) == shape[0] * shape[1]


def test_a_huge_scene_is_sampled() -> None:
    reader = make_reader(800, 800)
    small = thumbnail(reader, side=40, total_pixels=80_000)
    assert sum(reader.sizes) <= 80_000
    full = thumbnail(reader, side=40)
    assert np.abs(small.pixels.astype(int) - full.pixels).max() <= 2


def test_bands_are_chosen_by_name() -> None:
    assert color_bands(make_reader().scene) == (2, 1, 0)
    assert color_bands(make_reader(names=("green", "red", "nir", None)).scene) == (2, 1, 0)
    assert color_bands(make_reader(names=(None, None, None, None)).scene) == (0, 1, 2)


def test_wide_scenes_are_stacked() -> None:
    assert not Sheet.fit((100, 900), size=1600).beside
    assert Sheet.fit((900, 100), size=1600).beside


def test_tiny_sizes_are_refused(tmp_path: Path) -> None:
    reader = make_reader()
    with pytest.raises(ExportError, match="use 200 or more"):
        write_preview(reader, make_fields(reader), tmp_path / "preview.png", size=50)
