"""A picture of what a renderer paints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from geoseg.disk import replacing
from geoseg.training.layouts import STYLES, lay_out
from geoseg.training.renderer import Image, Renderer, painted
from geoseg.training.targets import class_mask

if TYPE_CHECKING:
    from geoseg.training.rendering import Shown

PREVIEW = "preview.png"
COLOURS = np.array([(122, 111, 93), (140, 170, 90), (183, 71, 42)], dtype=np.uint8)
"""Of background, field and boundary."""

GAP, ZOOM = 6, 2


def draw_preview(renderer: Renderer, shown: Sequence[Shown], path: Path) -> None:
    """Writes a PNG, a column a chip: real layouts, what is painted into them, the real images; new layouts, and what is
    painted into those.
    """
    side = shown[0].image.shape[1]
    rows: list[list[NDArray[np.uint8]]] = [[], [], [], [], []]
    for k, one in enumerate(shown):
        mask = one.inputs[:3].argmax(axis=0).astype(np.uint8)
        new = _layout(renderer, list(STYLES)[k % len(STYLES)], side=side, seed=k)
        parts = [COLOURS[mask], _rgb(renderer, painted(renderer.painter, one.inputs)), _rgb(renderer, one.image)]
        parts += [COLOURS[new], _rgb(renderer, renderer.render(new, np.random.default_rng((k, 19))))]
        for row, part in zip(rows, parts, strict=True):
            row.append(np.pad(part, ((0, GAP), (0, GAP), (0, 0)), constant_values=255))
    rows[2] = [np.pad(part, ((0, 2 * GAP), (0, 0), (0, 0)), constant_values=255) for part in rows[2]]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    picture = Picture.fromarray(sheet)
    picture = picture.resize((picture.width * ZOOM, picture.height * ZOOM), Picture.Resampling.NEAREST)
    with replacing(path) as file:
        picture.save(file, format="png")


def _layout(renderer: Renderer, style: str, *, side: int, seed: int) -> NDArray[np.uint8]:
    size = renderer.pixel_size_m
    parcels: Any = lay_out(np.random.default_rng((seed, 23)), side_m=side * size, style=style).parcels
    import shapely

    moved = shapely.transform(parcels, lambda metres: metres / size)
    return class_mask(moved, (side, side), boundary_px=renderer.boundary_px)


def _rgb(renderer: Renderer, image: Image) -> NDArray[np.uint8]:
    """(row, col, 3) of scaled values: red, green and blue where there are such bands, else the first ones."""
    names = list(renderer.bands)
    usual = [names.index(name) for name in ("red", "green", "blue") if name in names]
    chosen = usual if len(usual) == 3 else [min(k, len(names) - 1) for k in range(3)]
    bytes_: NDArray[np.uint8] = np.clip((np.moveaxis(image[chosen], 0, -1) + 1.2) / 2.6 * 255, 0, 255).astype(np.uint8)
    return bytes_
