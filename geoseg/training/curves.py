"""Learning curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geoseg.disk import replacing
from geoseg.training.task import Epoch

LOSS = {"train_loss": ("training", "#b7472a"), "val_loss": ("validation", "#1f5a7a")}
CLASS_COLOURS = ("#7a6f5d", "#3f7d3a", "#b7472a", "#1f5a7a", "#8a5a9e", "#c29a1f")


def draw_curves(history: Sequence[Epoch], path: Path, *, title: str, kept: int) -> None:
    """Losses and IoU by epoch (PNG); `kept` is the epoch, from 0, whose weights became the model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [epoch["epoch"] for epoch in history]
    dots = "o" if len(epochs) < 3 else None
    for name, (label, colour) in LOSS.items():
        left.plot(epochs, [epoch[name] for epoch in history], color=colour, label=label, marker=dots)
    left.set_ylabel("loss")
    classes = [name for name in history[0] if name.startswith("val_iou_")]
    for name, colour in zip(classes, CLASS_COLOURS * len(classes), strict=False):
        values = [epoch[name] for epoch in history]
        right.plot(epochs, values, color=colour, lw=1.2, label=name.removeprefix("val_iou_"), marker=dots)
    right.plot(
        epochs,
        [epoch["val_miou"] for epoch in history],
        color="black",
        lw=3,
        alpha=0.5,
        zorder=1,
        label="mean",
        marker=dots,
    )
    right.set_ylabel("IoU on validation")
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.axvline(epochs[kept], color="0.6", lw=1, ls="--")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{title}: epoch {epochs[kept]:g} is kept (dashed)", fontsize=10)
    with replacing(path) as file:
        canvas.print_figure(file, format="png")
