"""An evaluation as a text table of three columns: what, how much, and the 95 % interval or a remark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
SEGMENTATION = (("goc", "over, GOC"), ("guc", "under, GUC"), ("gtc", "both, GTC"))
BOUNDARY = (("precision", "precision"), ("recall", "recall"), ("f1", "boundary F1"))
DISTANCES = (("mean_boundary_distance", "mean boundary distance"), ("polis", "PoLiS"))
AREAS = (("matched_mean_error", "area error of matches, mean"), ("matched_mean_bias", "area bias of matches, mean"))
PIXEL_SCORES = (("iou", "IoU"), ("dice", "Dice"), ("precision", "precision"), ("recall", "recall"))

HEAD_WIDTH = 50
"""Where the third column begins."""

Row = tuple[str, str, str]


def number(value: float | None) -> str:
    """Three decimals, or a dash where a score has no meaning."""
    return "-" if value is None else f"{value:.3f}"


def length(value: float | None, unit: str) -> str:
    """Three digits and the unit, or a dash."""
    if value is None:
        return "-"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:#.3g} {unit}" if value >= 0.01 else f"{value:.2f} {unit}"


def table(record: Mapping[str, Any]) -> str:
    """The main scores of `Evaluation.to_dict()` as plain text, without a newline at the end."""
    lines = [
        f"prediction  {record['pred']['name']} ({record['pred']['kind']}; field: {record['pred']['field']})",
        f"truth       {record['truth']['name']} ({record['truth']['kind']}; field: {record['truth']['field']})",
    ]
    if record["partial"]:
        lines.append("labels      partial: predictions and pixels outside labelled fields do not count")
    if record["min_area_m2"]:
        lines.append(f"objects     of at least {record['min_area_m2']:g} m2")
    for section in (_fields, _segmentation, _boundary, _areas, _pixels):
        lines += ["", *section(record)]
    if record["notes"]:
        lines += ["", *(f"note: {note}" for note in record["notes"])]
    return "\n".join(lines)


def _fields(record: Mapping[str, Any]) -> list[str]:
    objects, verdicts = record["objects"], record["verdicts"]
    head = f"Fields (match: IoU above {objects['iou_above']:g}, by {objects['measured_by']})"
    remark = "95 % interval" if record["intervals"] else ""
    became = [
        ", ".join(f"{name} {count:,}" for name, count in verdicts[side].items() if name != "ignored")
        for side in ("true", "predicted")
    ]
    rows = [
        ("true", f"{objects['true']:,}", became[0]),
        ("predicted", f"{objects['predicted']:,}", became[1]),
        ("matched", f"{objects['matched']:,}", ""),
    ]
    if record["partial"]:
        rows.append(("predicted elsewhere, not counted", f"{objects['ignored']:,}", ""))
    return [f"{head:<{HEAD_WIDTH}}{remark}".rstrip(), *_rows(rows), *_scores(record, "objects", SCORES)]


def _segmentation(record: Mapping[str, Any]) -> list[str]:
    errors = record["segmentation"]
    share = errors["references_without_overlap_area_share"]
    rows = [
        ("predictions on no true field", f"{errors['predictions_without_overlap']:,}", "counted above as 1"),
        (
            "true fields under no prediction",
            f"{errors['references_without_overlap']:,}",
            "not in the above" + ("" if share is None else f"; {100 * share:.1f} % of the true area"),
        ),
    ]
    head = "Segmentation errors (0 is best, weighted by predicted area)"
    return [head, *_scores(record, "segmentation", SEGMENTATION), *_rows(rows)]


def _boundary(record: Mapping[str, Any]) -> list[str]:
    boundary, pairs = record["boundary"], record["matched_outlines"]
    unit = "m" if boundary["unit"] == "metre" else "px"
    head = f"Outlines (right within {length(boundary['tolerance'], unit)}: {boundary['tolerance_source']})"
    rows = [
        (f"{label} of matches", length(pairs[key], unit), _interval(record, f"matched_outlines.{key}", unit))
        for key, label in DISTANCES
    ]
    return [head, *_scores(record, "boundary", BOUNDARY), *_rows(rows)]


def _areas(record: Mapping[str, Any]) -> list[str]:
    areas = record["areas"]
    by, unit = (1e4, "ha") if areas["unit"] == "m2" else (1, "px")
    total = f"{amount(areas['predicted_area'] / by)} of {amount(areas['true_area'] / by)} {unit}"
    head = f"Counts and areas (predicted {total})" if not record["partial"] else "Counts and areas"
    rows = [
        ("predicted for each true field", number(areas["count_ratio"]), _interval(record, "areas.count_ratio")),
        ("area bias", signed(areas["bias"]), _interval(record, "areas.bias", "%")),
        *(
            (label, signed(areas[key], sign="bias" in key), _interval(record, f"areas.{key}", "%"))
            for key, label in AREAS
        ),
    ]
    return [head, *_rows(rows)]


def _pixels(record: Mapping[str, Any]) -> list[str]:
    pixels, grid = record["pixels"], record["grid"]
    head = f"Pixels ({pixels['counted']:,} of {grid['pixel_size']:.4g} {grid['unit']}, {grid['source']} grid)"
    rows = [(f"field {label}", number(pixels["field"][key]), "") for key, label in PIXEL_SCORES]
    rows += [("mIoU", number(pixels["miou"]), ""), ("accuracy", number(pixels["accuracy"]), "")]
    others = [scores for scores in pixels["classes"] if scores["class"] not in ("background", "field")]
    rows += [(f"{scores['class']} IoU", number(scores["iou"]), "") for scores in others]
    return [head, *_rows(rows)]


def amount(value: float) -> str:
    """Four digits, and never an exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def signed(value: float | None, *, sign: bool = True) -> str:
    """A share in per cent, with its sign; a dash where it has no meaning."""
    return "-" if value is None else f"{100 * value:{'+' if sign else ''}.1f} %"


def _scores(record: Mapping[str, Any], section: str, scores: Sequence[tuple[str, str]]) -> list[str]:
    """Rows of the scores of a section, with their intervals."""
    return _rows(
        [(label, number(record[section][key]), _interval(record, f"{section}.{key}")) for key, label in scores]
    )


def _interval(record: Mapping[str, Any], name: str, unit: str = "") -> str:
    """`low to high`, or nothing."""
    ends = record["intervals"]["scores"].get(name) if record["intervals"] else None
    if ends is None:
        return ""
    if unit == "%":
        return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"
    if unit:
        return f"{length(ends[0], unit)} to {length(ends[1], unit)}"
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def _rows(rows: Sequence[Row]) -> list[str]:
    return [f"  {label:<34}{value:>10}    {remark}".rstrip() for label, value, remark in rows]
