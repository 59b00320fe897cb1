"""One PNG to look at: the image beside the image with its fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ExportError
from geoseg.export.batches import FrameBatches
from geoseg.export.outlines import FEW, SMOOTH, Drawing
from geoseg.export.staging import staged
from geoseg.export.style import Color
from geoseg.export.thumbnail import Thumbnail, thumbnail
from geoseg.results import NODATA

if TYPE_CHECKING:
    import geopandas as gpd
    from PIL.Image import Image

    from geoseg.protocols import FieldBatches, Reader
    from geoseg.scene import Scene

MARGIN = 20
TITLE_HEIGHT = 62
PAPER = (252, 252, 250)
NO_DATA = (226, 226, 222)
INK = (30, 34, 32)
FAINT_INK = (105, 112, 108)
OUTLINE = (255, 233, 92)
CASING = (20, 24, 20, 150)
FILLS = ((255, 180, 60), (90, 200, 250), (250, 110, 140), (140, 225, 110), (190, 140, 255), (255, 235, 120))
FILL_ALPHA = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Where things are on the picture, in pixels."""

    panel: tuple[int, int]
    """(height, width) of one view of the scene."""
    beside: bool
    """The two views lie side by side, not one above the other."""

    @classmethod
    def fit(cls, shape: tuple[int, int], *, size: int) -> Sheet:
        """Panels with the scene's proportions on a sheet that is `size` wide, or high for upright sheets."""
        rows, cols = shape
        beside = cols <= 1.8 * rows
        width = (size - 3 * MARGIN) / 2 if beside else size - 2 * MARGIN
        high = size - 2 * MARGIN - TITLE_HEIGHT if beside else (size - 3 * MARGIN - TITLE_HEIGHT) / 2
        scale = min(width / cols, high / rows)
        return cls(panel=(max(1, round(rows * scale)), max(1, round(cols * scale))), beside=beside)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the sheet."""
        height, width = self.panel
        if self.beside:
            return max(2 * width + 3 * MARGIN, 420), height + 2 * MARGIN + TITLE_HEIGHT
        return max(width + 2 * MARGIN, 420), 2 * height + 3 * MARGIN + TITLE_HEIGHT

    @property
    def corners(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(x, y) of both panels' first pixels."""
        height, width = self.panel
        first = (MARGIN, MARGIN + TITLE_HEIGHT)
        return first, (first[0] + width + MARGIN, first[1]) if self.beside else (first[0], first[1] + height + MARGIN)


@dataclass(slots=True, kw_only=True)
class Found:
    """What the title says of the fields."""

    fields: int = 0
    area_m2: float | None = None
    """None where no area is known."""

    def add(self, part: gpd.GeoDataFrame) -> None:
        self.fields += len(part)
        if "area_m2" in part.columns and part["area_m2"].notna().any():
            self.area_m2 = (self.area_m2 or 0.0) + float(part["area_m2"].sum())

    def summary(self, model: str) -> str:
        """Model, number of fields, their area."""
        parts = [model] if model else []
        parts.append(f"{self.fields:,} {'field' if self.fields == 1 else 'fields'}".replace(",", " "))
        if self.area_m2 is not None and math.isfinite(self.area_m2):
            hectares = self.area_m2 / 10_000
            parts.append(f"{hectares:,.{0 if hectares >= 100 else 1}f} ha".replace(",", " "))
        return "  ·  ".join(parts)


def write_preview(
    reader: Reader,
    fields: gpd.GeoDataFrame | FieldBatches,
    dst: Path,
    *,
    model: str = "",
    mask: NDArray[np.uint8] | None = None,
    colors: Mapping[int, Color] | None = None,
    size: int = 2000,
) -> list[Path]:
    """Write the scene and, beside it, the scene with the outlines of `fields`, as a PNG of about `size` pixels.

    The scene is read once in pieces and averaged; a very large one is sampled. `mask` is a class mask of the whole
    scene, reduced to any size, with 255 for no data: its classes are tinted with `colors` where given, and the fields
    are not filled then. Returns the file.
    """
    import geopandas as gpd
    from PIL import Image

    if size < 200:
        raise ExportError(f"a preview of {size} pixels shows nothing; use 200 or more")
    scene = reader.scene
    sheet = Sheet.fit(scene.shape, size=size)
    view = _view(thumbnail(reader, side=max(sheet.panel)), sheet.panel)
    overlay = view.copy()
    if mask is not None:
        overlay = _tinted(overlay, mask, colors or {})
    outlines = Drawing(scene=scene, panel=sheet.panel)
    found = Found()
    for part in FrameBatches(frame=fields) if isinstance(fields, gpd.GeoDataFrame) else fields:
        outlines.add(part.geometry)
        found.add(part)
    outlines.finish()
    overlay = _with_fields(overlay, outlines, filled=mask is None)
    page = Image.new("RGB", sheet.size, PAPER)
    page.paste(view, sheet.corners[0])
    page.paste(overlay, sheet.corners[1])
    _write_title(page, scene.name, found.summary(model))
    _draw_scale(page, scene, sheet)
    with staged(Path(dst)) as stage:
        page.save(stage.path, format="PNG", optimize=True)
    return stage.files


def _view(small: Thumbnail, panel: tuple[int, int]) -> Image:
    """The scene at the panel's size, grey where there is no data."""
    from PIL import Image

    pixels = np.where(small.valid[..., None], small.pixels, np.array(NO_DATA, np.uint8))
    enlarge = panel[0] > small.valid.shape[0] * 2
    how = Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS
    return Image.fromarray(pixels.astype(np.uint8)).resize(panel[::-1], how)


def _tinted(view: Image, mask: NDArray[np.uint8], colors: Mapping[int, Color]) -> Image:
    from PIL import Image

    table = np.zeros((256, 4), np.uint8)
    for value, color in colors.items():
        table[value] = color
    table[:, 3] = table[:, 3] // 2
    table[NODATA] = 0
    tint = Image.fromarray(table[mask]).resize(view.size, Image.Resampling.NEAREST)
    return Image.alpha_composite(view.convert("RGBA"), tint).convert("RGB")


def _with_fields(view: Image, outlines: Drawing, *, filled: bool) -> Image:
    """Fills and outlines over a view; thin lines where the fields are small."""
    from PIL import Image, ImageDraw

    if not len(outlines):
        return view
    side = _typical_side(outlines.areas)
    width = min(2.0, max(1.2, 0.05 * side)) if side > 6 else 0.7
    few = len(outlines) <= FEW
    strength = min(1.0, max(0.3, side / 10))  # where fields are a few pixels, the image must still show
    outline_color = (*OUTLINE, round(255 * strength))
    layer = Image.new("RGBA", (view.width * SMOOTH, view.height * SMOOTH), (*OUTLINE, 0))
    draw = ImageDraw.Draw(layer)
    if filled:
        for number, (shell, *holes) in enumerate(outlines):
            draw.polygon(shell, fill=(*FILLS[number % len(FILLS)], round(FILL_ALPHA * strength)))
            for hole in holes:
                draw.polygon(hole, fill=(*OUTLINE, 0))
    joint = "curve" if few else None
    if few:
        for ring in chain.from_iterable(outlines):
            draw.line(ring, fill=CASING, width=round((width + 1.2) * SMOOTH), joint=joint)
    for ring in chain.from_iterable(outlines):
        draw.line(ring, fill=outline_color, width=max(1, round(width * SMOOTH)), joint=joint)
    smooth = layer.resize(view.size, Image.Resampling.BOX)
    return Image.alpha_composite(view.convert("RGBA"), smooth).convert("RGB")


def _typical_side(areas: NDArray[np.float64]) -> float:
    """Side of a square as large as the field that half of all field area lies below: specks do not count."""
    ordered = np.sort(areas)
    total = np.cumsum(ordered)
    return math.sqrt(float(ordered[np.searchsorted(total, total[-1] / 2)]))


def _write_title(page: Image, title: str, summary: str) -> None:
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(24), ImageFont.load_default(16)
    while title and draw.textlength(title, font=large) > page.width - 2 * MARGIN:
        title = title.rstrip("…")[:-1] + "…"
    draw.text((MARGIN, MARGIN - 4), title, font=large, fill=INK)
    draw.text((MARGIN, MARGIN + 29), summary, font=small, fill=FAINT_INK)


def _draw_scale(page: Image, scene: Scene, sheet: Sheet) -> None:
    """A scale bar in the first panel: a round number of metres, or of pixels where nothing says how large they are."""
    from PIL import ImageDraw, ImageFont

    height, width = sheet.panel
    if width < 160 or height < 60:
        return
    metres = scene.resolution_m()
    unit = (metres or 1.0) * scene.shape[1] / width
    length = _round_length(unit * width / 4)
    label = f"{length:g} px" if metres is None else f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    bar = round(length / unit)
    font = ImageFont.load_default(15)
    left, bottom = sheet.corners[0][0] + 14, sheet.corners[0][1] + height - 14
    draw = ImageDraw.Draw(page, "RGBA")
    text_width = round(draw.textlength(label, font=font))
    draw.rounded_rectangle(
        (left - 7, bottom - 32, left + max(bar, text_width) + 7, bottom + 7), radius=5, fill=(255, 255, 255, 205)
    )
    draw.text((left, bottom - 29), label, font=font, fill=INK)
    draw.line([(left, bottom - 7), (left, bottom), (left + bar, bottom), (left + bar, bottom - 7)], fill=INK, width=2)


def _round_length(largest: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that is not longer."""
    power = 10.0 ** math.floor(math.log10(largest))
    return max(step * power for step in (1, 2, 5) if step * power <= largest)
