"""What is learnt from and what is scored: windows of scenes that no pixel leaks between.

Validation and holdout are *places*: whole scenes, or blocks of scenes. A chip to learn from keeps a guard band of at least a
patch to every such place, also where another scene shows it (another date, an overlapping image). Augmentation moves pixels
within their chip only, so it cannot reach beyond it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.scene import Scene, to_lonlat
from geoseg.training.recipe import Split
from geoseg.training.scenes import COARSE, Census, LabelledScene, Role

LEAST_KNOWN = 0.05
"""Share of a chip's pixels that must be labelled."""

SCENES_ENOUGH = 4
"""With so many scenes `auto` splits by scene."""

FAR_PX = 65_536
"""No guard band is wider."""

MOST_VALIDATION = 256
"""Chips that are validated on; more are thinned out evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Where chips of a scene begin."""

    corners: NDArray[np.int64]
    """(place, 2) rows and columns, on a lattice of COARSE pixels, where a chip to learn from may lie."""
    validation: tuple[Window, ...]
    """Parts that are scored; each is read with the patch around it that `chips` gives."""
    taken: tuple[Any, ...]
    """Polygons in pixel coordinates that training keeps away from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    plots: tuple[Plot, ...]
    """One a scene."""
    patch: int
    guard: int
    by: str
    """`scene` or `blocks`."""

    def allowed(self, number: int, window: Window) -> bool:
        """Whether a chip of scene `number` keeps its distance."""
        return bool(_free(self.plots[number].taken, np.array([[window.row, window.col]]), self.patch, self.guard)[0])


def divide(scenes: Sequence[LabelledScene], counts: Sequence[Census], split: Split, *, patch: int) -> Division:
    """Training and validation places. Raises InputError where nothing is left of one of them."""
    guard = patch if split.guard_px is None else split.guard_px
    if guard < patch:
        raise InputError(
            f"split.guard_px {guard} is less than the patch of {patch}: chips of training and validation would overlap; "
            f"leave it out, or give {patch} or more"
        )
    named = any(one.entry.validation for one in scenes)
    open_ = [i for i, one in enumerate(scenes) if not (one.entry.holdout or one.entry.validation)]
    by = split.by if split.by != "auto" else ("scene" if named or len(open_) >= SCENES_ENOUGH else "blocks")
    held = [[one.extent] if one.entry.holdout else [] for one in scenes]
    scored = [[one.extent] if one.entry.validation else [] for one in scenes]
    if by == "scene" and not named:
        if len(open_) < 2:
            raise InputError("split.by: scene needs two scenes or more that are no holdouts; use split.by: blocks")
        for i in _some_scenes([scenes[i] for i in open_], open_, split):
            scored[i] = [scenes[i].extent]
    elif by == "blocks":
        for i, blocks in _some_blocks(scenes, counts, open_, split, patch=patch).items():
            scored[i] = [*scored[i], *blocks]
    plots = []
    for i, one in enumerate(scenes):
        kept_out = _seen_from(one.scene, i, scenes, held)
        taken = (*kept_out, *_seen_from(one.scene, i, scenes, scored))
        learns = not (one.entry.holdout or one.extent in scored[i])
        corners = _corners(one, counts[i], taken, patch=patch, guard=guard) if learns else np.empty((0, 2), np.int64)
        windows = tuple(
            window
            for block in scored[i]
            for window in _tiled(block, patch)
            if _known(counts[i], window) and not (kept_out and _meets(kept_out, window))
        )
        plots.append(Plot(corners=corners, validation=windows, taken=taken))
    plots = _thinned(plots)
    if not any(len(plot.corners) for plot in plots):
        raise InputError(
            f"no chip of {patch} pixels to learn from is left: labels are missing, or the scenes are too small for validation "
            f"and a guard of {guard} pixels around it; use a smaller `patch`, more scenes, or one with `validation: true`"
        )
    if not any(plot.validation for plot in plots):
        raise InputError(
            "no labelled pixel is left to validate on; raise split.validation, or name a scene with `validation: true`"
        )
    return Division(plots=tuple(plots), patch=patch, guard=guard, by=by)


def chip_window(part: Window, extent: Window, patch: int) -> Window:
    """The full patch that is read to score `part`: moved into the scene where the scene is large enough."""
    row = max(0, min(part.row, extent.height - patch))
    col = max(0, min(part.col, extent.width - patch))
    return Window(row, col, patch, patch)


def _some_scenes(scenes: Sequence[LabelledScene], numbers: Sequence[int], split: Split) -> list[int]:
    """The scenes for validation: by a hash of their content, so that the order in the recipe does not matter."""
    order = sorted(range(len(scenes)), key=lambda i: _draw(split.seed, scenes[i].reader.content_hash()))
    count = min(len(scenes) - 1, max(1, round(split.validation * len(scenes))))
    return [numbers[i] for i in order[:count]]


def _some_blocks(
    scenes: Sequence[LabelledScene], counts: Sequence[Census], numbers: Sequence[int], split: Split, *, patch: int
) -> dict[int, list[Window]]:
    """The blocks for validation, drawn by place, so that two dates of one scene give the same ones."""
    drawn: list[tuple[float, int, Window, int]] = []
    for i in numbers:
        for block in blocks_of(scenes[i].scene.shape, patch=patch, side=split.block_px):
            if known := _known(counts[i], block):
                x, y = scenes[i].scene.transform @ (block.col + block.width / 2, block.row + block.height / 2)
                drawn.append((_draw(split.seed, f"{x:.3f} {y:.3f}"), i, block, known))
    wanted = split.validation * sum(known for *_, known in drawn)
    chosen: dict[int, list[Window]] = {}
    reached = 0
    for _, i, block, known in sorted(drawn, key=lambda one: one[:2]):
        # The block that crosses the share is taken only if that comes nearer to it.
        if reached and reached + known / 2 > wanted:
            break
        chosen.setdefault(i, []).append(block)
        reached += known
    return chosen


def blocks_of(shape: tuple[int, int], *, patch: int, side: int | None) -> list[Window]:
    """A scene cut into blocks of about equal size: 4 patches, or halves of the scene where it is smaller than 12."""

    def cuts(length: int) -> NDArray[np.int64]:
        count = round(length / side) if side else (round(length / (4 * patch)) if length >= 12 * patch else 2)
        count = max(1, min(count, length // patch))
        return np.linspace(0, length, count + 1).round().astype(np.int64)

    rows, cols = cuts(shape[0]), cuts(shape[1])
    return [
        Window(top, left, bottom - top, right - left)
        for top, bottom in pairwise(rows.tolist())
        for left, right in pairwise(cols.tolist())
    ]


def _draw(seed: int, text: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:6], "big") / 2**48


def _tiled(block: Window, patch: int) -> list[Window]:
    """A block as windows of at most a patch."""
    return [
        Window(row, col, patch, patch) & block
        for row in range(block.row, block.row_stop, patch)
        for col in range(block.col, block.col_stop, patch)
    ]


def _known(count: Census, window: Window) -> int:
    """Labelled pixels of a window, counted by whole squares."""
    rows = slice(window.row // COARSE, -(-window.row_stop // COARSE))
    cols = slice(window.col // COARSE, -(-window.col_stop // COARSE))
    return int(count.known[rows, cols].sum())


def _corners(one: LabelledScene, count: Census, taken: Sequence[Any], *, patch: int, guard: int) -> NDArray[np.int64]:
    """Where chips may begin: labelled well enough and far enough from what is taken."""
    rows, cols = one.scene.shape
    lattice = np.stack(
        np.meshgrid(*(_starts(length, patch) for length in (rows, cols)), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    total = np.pad(count.known.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    top, left = (lattice // COARSE).T
    bottom = np.minimum(-(-(lattice[:, 0] + patch) // COARSE), total.shape[0] - 1)
    right = np.minimum(-(-(lattice[:, 1] + patch) // COARSE), total.shape[1] - 1)
    known = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
    fit: NDArray[np.int64] = lattice[(known >= LEAST_KNOWN * patch * patch) & _free(taken, lattice, patch, guard)]
    return fit


def _starts(length: int, patch: int) -> NDArray[np.int64]:
    last = max(0, length - patch)
    return np.unique(np.append(np.arange(0, last + 1, COARSE), last))


def _free(taken: Sequence[Any], corners: NDArray[np.int64], patch: int, guard: int) -> NDArray[np.bool_]:
    """Which chips of that side keep the guard band to all polygons; touching it is far enough."""
    if not taken or not len(corners):
        return np.ones(len(corners), dtype=bool)
    row, col = corners.T
    reach = guard - 1e-6
    boxes = shapely.box(col - reach, row - reach, col + patch + reach, row + patch + reach)
    near = shapely.STRtree(list(taken)).query(boxes, predicate="intersects")[0]
    free = np.ones(len(corners), dtype=bool)
    free[near] = False
    return free


def _meets(taken: Sequence[Any], window: Window) -> bool:
    box = shapely.box(window.col, window.row, window.col_stop, window.row_stop).buffer(-1e-6)
    return bool(shapely.intersects(np.array(taken, dtype=object), box).any())


def _seen_from(
    scene: Scene, number: int, scenes: Sequence[LabelledScene], places: Sequence[Sequence[Window]]
) -> tuple[Any, ...]:
    """The places of all scenes, in pixel coordinates of one of them; only those that come near it."""
    rows, cols = scene.shape
    around = shapely.box(-FAR_PX, -FAR_PX, cols + FAR_PX, rows + FAR_PX)
    seen = []
    for i, windows in enumerate(places):
        for window in windows:
            box = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
            placed = box if i == number else moved(box, scenes[i].scene, scene)
            if placed is not None and shapely.intersects(placed, around):
                seen.append(placed)
    return tuple(seen)


def moved(box: Any, source: Scene, target: Scene) -> Any | None:
    """A polygon in the pixels of another scene; None where it lies nowhere near, or nobody knows where."""
    if source.crs is None or target.crs is None or _far(source, target):
        return None
    change = Transformer.from_crs(source.crs, target.crs, always_xy=True)
    back = tuple(~target.transform)[:6]

    def across(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        a, b, c, d, e, f = tuple(source.transform)[:6]
        x, y = a * pixels[:, 0] + b * pixels[:, 1] + c, d * pixels[:, 0] + e * pixels[:, 1] + f
        x, y = change.transform(x, y)
        a, b, c, d, e, f = back
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    length = max(source.shape)
    placed = shapely.transform(shapely.segmentize(box, max(1.0, length / 64)), across)
    return placed if np.isfinite(shapely.bounds(placed)).all() else None


def _far(one: Scene, other: Scene) -> bool:
    """True where two scenes are degrees apart: no need to bring one into the other's projection."""
    centres = []
    for scene in (one, other):
        x, y = scene.transform @ (scene.shape[1] / 2, scene.shape[0] / 2)
        centres.append((0.0, 0.0) if scene.crs is None else to_lonlat(x, y, scene.crs))
    reach = sum((scene.resolution_m() or 0.0) * max(scene.shape) for scene in (one, other)) * 2 / 111_000
    (lon0, lat0), (lon1, lat1) = centres
    across = abs((lon1 - lon0 + 180) % 360 - 180) * np.cos(np.radians(min(abs(lat0), abs(lat1))))
    return bool(abs(lat1 - lat0) > reach + 0.1 or across > reach + 0.1)


def _thinned(plots: list[Plot]) -> list[Plot]:
    total = sum(len(plot.validation) for plot in plots)
    if total <= MOST_VALIDATION:
        return plots
    keep = set(np.linspace(0, total - 1, MOST_VALIDATION).round().astype(int).tolist())
    thinned, at = [], 0
    for plot in plots:
        windows = tuple(window for k, window in enumerate(plot.validation, start=at) if k in keep)
        thinned.append(Plot(corners=plot.corners, validation=windows, taken=plot.taken))
        at += len(plot.validation)
    return thinned


def role_of(plot: Plot, one: LabelledScene) -> Role:
    """What a scene is mainly for."""
    if one.entry.holdout:
        return "holdout"
    return "training" if len(plot.corners) else "validation"
