"""A picture of an evaluation: every field in the colour of its verdict, true outlines on top.

Predictions are filled with their colour over a paler one for true fields, so that a missed field shows through, and
where a matched prediction leaves out a part of its field, that part is pale green.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geoseg.disk import replacing
from geoseg.errors import InputError
from geoseg.metrics.comparison import Comparison
from geoseg.metrics.verdicts import FALSE, IGNORED, MATCHED, MERGED, MISSED, SPLIT, VerdictCounts, Verdicts

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 1600
"""Longer side of the map, in pixels."""

LEAST_SIDE = 120
SMOOTH = 2
"""The map is drawn that many times larger and averaged."""

MARGIN = 24
PAPER, INK = (255, 255, 255), (30, 30, 30)

COLORS = {
    MATCHED: (70, 170, 90),
    SPLIT: (245, 160, 40),
    MERGED: (150, 85, 185),
    MISSED: (60, 120, 210),
    FALSE: (215, 60, 55),
    IGNORED: (205, 205, 205),
}
PALE = {code: tuple(round(255 - 0.4 * (255 - part)) for part in COLORS[code]) for code in (MATCHED, SPLIT, MERGED)}
PALE[MISSED] = COLORS[MISSED]
"""Fills of true fields; a missed one has nothing over it that would show it."""

OUTLINE_WIDTH = 6
"""Pixels that a typical field must be wide for its predicted outline to be drawn, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Where things lie on the map."""

    left: float
    top: float
    unit: float
    """Units of the coordinates in a pixel."""
    shape: tuple[int, int]
    """(rows, columns) of the map."""

    @classmethod
    def around(cls, shapes: NDArray[Any]) -> Sheet:
        """A map that holds all shapes with a little room around them."""
        import shapely

        west, south, east, north = shapely.total_bounds(shapes) if shapes.size else (0.0, 0.0, 1.0, 1.0)
        unit = max(east - west, north - south) / (SIDE - 16)
        height, width = ((north - south) / unit + 16, (east - west) / unit + 16)
        rows, cols = max(math.ceil(height), LEAST_SIDE), max(math.ceil(width), LEAST_SIDE)
        return cls(
            left=(west + east - cols * unit) / 2, top=(south + north + rows * unit) / 2, unit=unit, shape=(rows, cols)
        )

    @property
    def fine(self) -> Affine:
        """(col, row) of the enlarged map to (x, y)."""
        size = self.unit / SMOOTH
        return Affine(size, 0, self.left, 0, -size, self.top)


def draw(compared: Comparison, verdicts: Verdicts, path: str | Path, *, title: str) -> Path:
    """Writes the picture as a PNG; a file of that name is replaced.

    Raises:
        InputError: the name is not that of a PNG, or its folder does not exist.
    """
    out = picture_path(path)
    sheet = Sheet.around(np.concatenate([compared.pred, compared.true]))
    page = _page(_map(compared, verdicts, sheet), VerdictCounts.of(verdicts), title)
    _scale_bar(page, sheet, compared)
    try:
        with replacing(out) as file:
            page.save(file, format="PNG", optimize=True)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror or error}); give another place") from error
    return out


def picture_path(path: str | Path, *, sources: Sequence[str | Path] = ()) -> Path:
    """The path, if a picture can be written there without replacing one of `sources`; raises InputError otherwise."""
    out = Path(path)
    if any(out.exists() and Path(source).exists() and out.samefile(source) for source in sources):
        raise InputError(f"{out} is one of the layers that are compared; give another name for the picture")
    if out.suffix.lower() != ".png":
        raise InputError(
            f"the picture {out.name} has the suffix {out.suffix or 'none'}; pictures are PNG: name it .png"
        )
    if not out.parent.is_dir():
        raise InputError(f"the folder {out.parent} for the picture does not exist; make it, or give another one")
    if out.is_dir():
        raise InputError(f"{out} is a folder; give the name of a file for the picture")
    return out


def _map(compared: Comparison, verdicts: Verdicts, sheet: Sheet) -> Image:
    """The filled fields and their outlines."""
    import shapely
    from PIL import Image

    # A vertex that no pixel shows costs time only; ring by ring, so that nothing is lost.
    pred, true = (shapely.simplify(shapes, sheet.unit / 4) for shapes in (compared.pred, compared.true))
    below, above = _burnt(true, verdicts.true, sheet), _burnt(pred, verdicts.pred, sheet)
    pixels = np.full((*below.shape, 3), PAPER, dtype=np.uint8)
    pale = np.array([PALE[code] for code in (MATCHED, SPLIT, MERGED, MISSED)])  # in the order of their codes
    for code, color in PALE.items():
        pixels[below == code + 1] = color
    for code, color in COLORS.items():
        pixels[above == code + 1] = color
    for code in (FALSE, IGNORED):  # what these lie on must show
        both = (above == code + 1) & (below > 0)
        pixels[both] = ((5 * np.array(COLORS[code]) + 3 * pale) // 8)[below[both] - 1]
    if _typical_width(pred) > OUTLINE_WIDTH * sheet.unit:
        pixels[_lines(pred, sheet)] = PAPER
    pixels[_lines(true, sheet)] = INK
    rows, cols = sheet.shape
    return Image.fromarray(pixels).resize((cols, rows), Image.Resampling.BOX)


def _burnt(shapes: NDArray[Any], codes: NDArray[np.uint8], sheet: Sheet) -> NDArray[np.uint8]:
    """(row, col) code + 1, 0 for none; ignored ones below all, then the larger below the smaller."""
    import shapely
    from rasterio.features import rasterize

    rows, cols = sheet.shape
    out = np.zeros((rows * SMOOTH, cols * SMOOTH), dtype=np.uint8)
    order = np.lexsort((-shapely.area(shapes), codes != IGNORED))
    if order.size:
        rasterize(((shapes[i], int(codes[i]) + 1) for i in order), out=out, transform=sheet.fine)
    return out


def _lines(shapes: NDArray[Any], sheet: Sheet) -> NDArray[np.bool_]:
    import shapely
    from rasterio.features import rasterize

    rows, cols = sheet.shape
    out = np.zeros((rows * SMOOTH, cols * SMOOTH), dtype=np.uint8)
    if shapes.size:
        rasterize(shapely.boundary(shapes), out=out, transform=sheet.fine, all_touched=True)
    return out > 0


def _typical_width(shapes: NDArray[Any]) -> float:
    import shapely

    return math.sqrt(float(np.median(shapely.area(shapes)))) if shapes.size else 0.0


def _legend(counts: VerdictCounts) -> list[tuple[tuple[int, ...] | None, str]]:
    """Colours and words; None stands for the true outline."""
    true, pred = counts.true, counts.predicted
    entries: list[tuple[tuple[int, ...] | None, str]] = [
        (COLORS[MATCHED], f"matched: {true[MATCHED]:,}"),
        (COLORS[SPLIT], f"split: {true[SPLIT]:,}" + (f" in {pred[SPLIT]:,} pieces" if pred[SPLIT] else "")),
        (COLORS[MERGED], f"merged: {true[MERGED]:,}" + (f" in {pred[MERGED]:,}" if pred[MERGED] else "")),
        (COLORS[MISSED], f"missed: {true[MISSED]:,}"),
        (COLORS[FALSE], f"false: {pred[FALSE]:,}"),
    ]
    if pred[IGNORED]:
        entries.append((COLORS[IGNORED], f"no label, not counted: {pred[IGNORED]:,}"))
    return [*entries, (None, "true outline")]


def _page(view: Image, counts: VerdictCounts, title: str) -> Image:
    """The map below its title and legend."""
    from PIL import Image, ImageDraw, ImageFont

    large, small = ImageFont.load_default(24), ImageFont.load_default(18)
    width = max(view.width + 2 * MARGIN, 700)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    places: list[tuple[int, int]] = []
    x, y = MARGIN, MARGIN + 40
    for _, text in _legend(counts):
        needed = 28 + round(measure.textlength(text, font=small)) + 26
        if x > MARGIN and x + needed > width - MARGIN:
            x, y = MARGIN, y + 28
        places.append((x, y))
        x += needed
    top = y + 28 + 12
    page = Image.new("RGB", (width, top + view.height + MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    while len(title) > 1 and pen.textlength(title, font=large) > width - 2 * MARGIN:
        title = title.rstrip("…")[:-1] + "…"
    pen.text((MARGIN, MARGIN - 6), title, font=large, fill=INK)
    for (x, y), (color, text) in zip(places, _legend(counts), strict=True):
        if color is None:
            pen.line([(x, y + 10), (x + 20, y + 10)], fill=INK, width=2)
        else:
            pen.rectangle((x, y, x + 20, y + 19), fill=color)
        pen.text((x + 28, y - 1), text, font=small, fill=INK)
    page.paste(view, ((width - view.width) // 2, top))
    return page


def _scale_bar(page: Image, sheet: Sheet, compared: Comparison) -> None:
    """A round length, in the lower left corner of the map."""
    from PIL import ImageDraw, ImageFont

    cols = sheet.shape[1]
    if cols < 200 or not compared.pred.size + compared.true.size:
        return
    pixel = sheet.unit * compared.metres
    wanted = cols * pixel / 5
    power = 10.0 ** math.floor(math.log10(wanted))
    length = next(step * power for step in (5, 2, 1) if step * power <= wanted * (1 + 1e-9))
    unit = "px" if compared.unit == "pixel" else "km" if length >= 1000 else "m"
    label = f"{length / 1000 if unit == 'km' else length:g} {unit}"
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    left, bottom = (page.width - cols) // 2 + 14, page.height - MARGIN - 14
    bar = round(length / pixel)
    right = left + max(bar, round(pen.textlength(label, font=font)))
    pen.rectangle((left - 7, bottom - 30, right + 7, bottom + 7), fill=PAPER)
    pen.text((left, bottom - 27), label, font=font, fill=INK)
    pen.line([(left, bottom - 5), (left, bottom), (left + bar, bottom), (left + bar, bottom - 5)], fill=INK, width=2)
