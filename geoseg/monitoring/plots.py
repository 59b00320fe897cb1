"""Pictures: a curve a field, a map a date."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.disk import replacing
from geoseg.errors import InputError
from geoseg.monitoring.curves import Curves
from geoseg.runtime.events import Events
from geoseg.runtime.stop import Stop

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE, GREEN, ORANGE, BLUE = "#26302b", "#8b9690", "#2f7d4f", "#c8702a", "#3a6ea5"
BAR_MAP, ANOMALY_MAP = "YlGn", "BrBG"


def plot_folder(folder: str | Path) -> Path:
    """The folder, made if need be. Raises InputError where that cannot be, or where matplotlib is missing."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise InputError(
            "--plots needs matplotlib, which is not installed; install it with `pip install 'geoseg[monitor]'`"
        ) from error
    del mpl
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder {path} cannot be made ({error.strerror or error}); give another --plots"
        ) from error
    return path


def draw_all(
    curves: Curves,
    shapes: Mapping[str, Any],
    crs: CRS | None,
    folder: Path,
    wanted: Sequence[str] | None,
    most: int,
    days: Collection[date],
    events: Events,
    stop: Stop,
) -> list[Path]:
    """A picture of each wanted field, else of the first `most`, and a map of each of `days`."""
    known = curves.ids.tolist()
    if unknown := [name for name in wanted or () if name not in known]:
        raise InputError(f"no field {unknown[0]!r} to plot; ids begin with: {', '.join(known[:8])}")
    chosen = list(wanted) if wanted is not None else known[:most]
    if wanted is None and len(known) > most:
        events.note(
            f"the first {most} of {len(known)} fields are plotted; name others with --field, or see --plot-fields"
        )
    out = []
    for name in chosen:
        if stop:
            break
        out.append(draw_field(curves, known.index(name), folder / f"field_{_file_name(name)}.png"))
    placed = [i for i, name in enumerate(known) if name in shapes]
    for place, day in enumerate(curves.days):
        if day.item() not in days:
            continue
        if stop or not placed:
            break
        out.append(draw_map(curves, placed, place, shapes, crs, folder / f"map_{day}_{curves.variable}.png"))
    return out


def draw_field(curves: Curves, i: int, path: Path) -> Path:
    """One field: its dates with the spread of its pixels, the smooth curve, the season, neighbours, and gaps."""
    figure, axes = _figure((9, 4.2))
    name, days = str(curves.ids[i]), curves.days.astype("datetime64[D]")
    values = curves.values[i]
    some = np.isfinite(values)
    around = values - curves.neighbours.difference[i]
    if np.isfinite(around).any():
        near = np.isfinite(around)
        axes.plot(
            days[near],
            around[near],
            color=BLUE,
            lw=1,
            ls="--",
            marker=".",
            ms=4,
            alpha=0.8,
            label="neighbours' median",
            zorder=2,
        )
    for number, season in enumerate(curves.seasons[name]):
        if season.curve is None:
            continue
        first = np.datetime64(season.first)
        axes.plot(
            first + np.arange(len(season.curve)), season.curve, color=GREEN, lw=2.2, zorder=3,
            label=None if number else "smooth curve",
        )  # fmt: skip
        _mark_season(axes, season)
    if all(season.curve is None for season in curves.seasons[name]):
        axes.set_title(f"no curve: {int(some.sum())} dates have values, too few for a season", fontsize=9, color=PALE)
    low, high = np.maximum(values - curves.low[i], 0), np.maximum(curves.high[i] - values, 0)
    axes.errorbar(
        days[some], values[some], yerr=[low[some], high[some]], fmt="o", ms=5, color=INK, ecolor=PALE, elinewidth=1.4,
        capsize=2, zorder=4, label="median and middle half of the pixels",
    )  # fmt: skip
    if (~some).any():
        axes.plot(
            days[~some], np.full(int((~some).sum()), 0.02), transform=axes.get_xaxis_transform(), ls="", marker="x", ms=6,
            color=ORANGE, label="gap: cloud, nodata or outside", zorder=4, clip_on=False,
        )  # fmt: skip
    _frame_field(axes, curves, days)
    figure.suptitle(f"Field {name}", x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    return _save(figure, path)


def _mark_season(axes: Axes, season: Any) -> None:
    level = axes.get_xaxis_transform()
    if season.start is not None and season.end is not None:
        axes.axvspan(season.start, season.end, color=GREEN, alpha=0.07, lw=0, zorder=0)
    for what, day in (("start", season.start), ("peak", season.peak), ("end", season.end)):
        if day is not None:
            axes.axvline(day, color=GREEN, lw=1, ls=":", zorder=1)
            axes.text(
                day, 1.01, f"{what}\n{day:%d %b}", transform=level, ha="center", va="bottom", fontsize=7.5, color=GREEN
            )


def _frame_field(axes: Axes, curves: Curves, days: NDArray[np.datetime64]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    span = max(timedelta(days=6), timedelta(days=int((days[-1] - days[0]).astype(int) * 0.04)))
    axes.set_xlim(days[0].item() - span, days[-1].item() + span)
    locator = AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_ylabel(curves.variable.upper() if curves.variable != "luminance" else curves.variable)
    axes.grid(axis="y", color="0.92", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(*_ends(curves))
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            labels,
            frameon=False,
            fontsize=8,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.1),
            ncols=len(handles),
        )


def _ends(curves: Curves) -> tuple[float, float]:
    """Of the vertical axis, the same for all fields, so that their pictures can be laid side by side."""
    tops = [season.curve for every in curves.seasons.values() for season in every if season.curve is not None]
    drawn = np.concatenate([curves.low.ravel(), curves.high.ravel(), *tops])
    known = drawn[np.isfinite(drawn)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    margin = max(0.06 * (high - low), 0.01)
    return low - margin, high + margin


def draw_map(
    curves: Curves, placed: Sequence[int], place: int, shapes: Mapping[str, Any], crs: CRS | None, path: Path
) -> Path:
    """All fields on one date: the variable, and its difference from the neighbours; gaps are hatched."""
    figure, axes = _figure((12.5, 6.4), columns=2)
    drawn = np.array([shapes[str(curves.ids[i])] for i in placed], dtype=object)
    degrees = crs is not None and crs.is_geographic
    every = curves.values[placed]
    known = every[np.isfinite(every)]
    low, high = np.percentile(known, (2, 98)) if known.size else (0.0, 1.0)
    if high - low < 1e-6:
        low, high = low - 0.05, high + 0.05
    _choropleth(axes[0], drawn, every[:, place], BAR_MAP, (low, high), curves.variable.upper(), degrees=degrees)
    against = curves.neighbours.difference[placed]
    spread = np.nanpercentile(np.abs(against), 98) if np.isfinite(against).any() else 0.1
    spread = max(float(spread), 0.02)
    _choropleth(
        axes[1], drawn, against[:, place], ANOMALY_MAP, (-spread, spread), "difference from the neighbours' median",
        degrees=degrees,
    )  # fmt: skip
    seen = int(np.isfinite(every[:, place]).sum())
    figure.suptitle(
        f"{curves.variable.upper()} on {curves.days[place]}: values for {seen} of {len(placed)} fields", x=0.01, ha="left",
        fontsize=13, fontweight="bold", color=INK,
    )  # fmt: skip
    return _save(figure, path)


def _choropleth(
    axes: Axes, shapes: NDArray[np.object_], values: NDArray[np.float64], colours: str, ends: tuple[float, float],
    label: str, *, degrees: bool,
) -> None:  # fmt: skip
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PathCollection
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    some = np.isfinite(values)
    scale = ScalarMappable(Normalize(*ends), colours)
    gap: dict[str, Any] = {"facecolor": "#f1f1ee", "edgecolor": PALE, "linewidth": 0.4, "hatch": "////"}
    if some.any():
        filled = [_path(shape) for shape in shapes[some]]
        axes.add_collection(PathCollection(filled, facecolor=scale.to_rgba(values[some]), edgecolor=INK, linewidth=0.4))
    if (~some).any():
        axes.add_collection(PathCollection([_path(shape) for shape in shapes[~some]], **gap))
        axes.legend(
            handles=[Patch(label="gap", **gap)], frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1)
        )
    left, bottom, right, top = shapely.total_bounds(shapes)
    margin = 0.03 * max(right - left, top - bottom)
    axes.set_xlim(left - margin, right + margin)
    axes.set_ylim(bottom - margin, top + margin)
    axes.set_aspect(1 / max(0.1, np.cos(np.radians((bottom + top) / 2))) if degrees else 1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.85")
    bar = axes.figure.colorbar(
        scale, ax=axes, orientation="horizontal", fraction=0.05, pad=0.03, aspect=35, extend="both"
    )
    bar.set_label(label, fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def _path(shape: Any) -> Any:
    """A polygon with its holes, or several, as one path."""
    from matplotlib.path import Path as Outline

    rings = shapely.get_rings(shapely.get_parts(shape))
    return Outline.make_compound_path(*(Outline(shapely.get_coordinates(ring), closed=True) for ring in rings))


def _figure(size: tuple[float, float], columns: int = 1) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def _save(figure: Figure, path: Path) -> Path:
    try:
        with replacing(path) as file:
            figure.canvas.print_figure(file, format="png")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); give another --plots") from error
    return path


def _file_name(name: str) -> str:
    """A name that every file system takes; ids that differ stay apart."""
    from hashlib import sha256

    plain = re.sub(r"[^0-9A-Za-z_-]+", "_", name)[:80]
    return plain if plain == name else f"{plain}_{sha256(name.encode()).hexdigest()[:6]}"
