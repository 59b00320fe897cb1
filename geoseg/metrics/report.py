"""An evaluation as a text table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCORES = (
    ("precision", "precision"),
    ("recall", "recall"),
    ("f1", "F1"),
    ("mean_f1", "F1, mean over IoU .50 to .95"),
    ("pq", "PQ"),
    ("sq", "SQ, mean IoU of matches"),
    ("rq", "RQ"),
    ("mean_best_iou", "best IoU, mean over true fields"),
)
PIXEL_SCORES = (("iou", "IoU"), ("dice", "Dice"), ("precision", "precision"), ("recall", "recall"))


def number(value: float | None) -> str:
    """Three decimals, or a dash where a score has no meaning."""
    return "-" if value is None else f"{value:.3f}"


def table(record: Mapping[str, Any]) -> str:
    """The main scores of `Evaluation.to_dict()` as plain text, without a newline at the end."""
    objects, pixels, grid = record["objects"], record["pixels"], record["grid"]
    lines = [
        f"prediction  {record['pred']['name']} ({record['pred']['kind']}; field: {record['pred']['field']})",
        f"truth       {record['truth']['name']} ({record['truth']['kind']}; field: {record['truth']['field']})",
    ]
    if record["partial"]:
        lines.append("labels      partial: predictions and pixels outside labelled fields do not count")
    if record["min_area_m2"]:
        lines.append(f"objects     of at least {record['min_area_m2']:g} m2")

    lines += ["", f"Fields (a match is an IoU above {objects['iou_above']:g}, by {objects['measured_by']})"]
    counts = [("true", objects["true"]), ("predicted", objects["predicted"]), ("matched", objects["matched"])]
    if record["partial"]:
        counts.append(("predicted elsewhere, not counted", objects["ignored"]))
    lines += _rows([(label, f"{count:,}") for label, count in counts])
    lines += _rows([(label, number(objects[key])) for key, label in SCORES])

    lines += ["", f"Pixels ({pixels['counted']:,} of {grid['pixel_size']:.4g} {grid['unit']}, {grid['source']} grid)"]
    lines += _rows([(f"field {label}", number(pixels["field"][key])) for key, label in PIXEL_SCORES])
    lines += _rows([("mIoU", number(pixels["miou"])), ("accuracy", number(pixels["accuracy"]))])
    others = [scores for scores in pixels["classes"] if scores["class"] not in ("background", "field")]
    lines += _rows([(f"{scores['class']} IoU", number(scores["iou"])) for scores in others])
    if record["notes"]:
        lines += ["", *(f"note: {note}" for note in record["notes"])]
    return "\n".join(lines)


def _rows(pairs: list[tuple[str, str]]) -> list[str]:
    return [f"  {label:<34}{value:>10}" for label, value in pairs]
