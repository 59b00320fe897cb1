"""What a model folder says of the channels that were taken out of its network: `pruning.json`, and a section of the card.

Written by `geoseg models prune`; a training that goes on from the model keeps it. This module needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from geoseg.errors import InputError, ModelError

RECORD = "pruning.json"
SCHEMA = "geoseg-pruning-1"


Measure = Literal["multiply-adds", "channels"]
Ranking = Literal["global", "layer"]
Importance = Literal["l2", "l1", "batch-norm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """What is taken away, and by which order."""

    share: float
    """Of the whole network's, that is to be taken away; above 0 and below 1."""
    of: Measure = "multiply-adds"
    """What the share is of: multiply-adds of a forward pass, or channels of all convolutions."""
    ranking: Ranking = "global"
    """Channels of all groups against each other, or the same share of each group."""
    importance: Importance = "l2"
    """Least goes first: norm of the weights of a group's channel, or the scale of its batch normalisations."""
    round_to: int = 8
    """Channels that stay are a multiple of it: what vector units take at a time."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"a share of {self.share:g} cannot be taken away; give one between 0 and 1, e.g. 0.3")
        for what, value, known in (
            ("--of", self.of, Measure), ("--ranking", self.ranking, Ranking), ("--importance", self.importance, Importance),
        ):  # fmt: skip
            if value not in get_args(known):
                raise InputError(f"{what} {value!r} is not known; known: {', '.join(get_args(known))}")
        if self.round_to < 1:
            raise InputError(f"channels cannot be a multiple of {self.round_to}; give 1, 8 or 16 for --round-to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a network takes."""

    parameters: int
    multiply_adds: int
    """For each pixel of a patch."""
    channels: int
    """Of all convolutions together."""
    weights_bytes: int
    """Of the weight file."""
    mpx_per_s: float | None
    """Millions of pixels a second through the network, on the machine that pruned it."""


def record_of(before: Size, after: Size, **more: Any) -> dict[str, Any]:
    """What `pruning.json` holds."""
    return {"schema": SCHEMA, "before": asdict(before), "after": asdict(after), **more}


def read_pruning(folder: Path) -> dict[str, Any] | None:
    """What a model folder holds; None where nothing was pruned. Raises ModelError."""
    path = folder / RECORD
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        Size(**found["before"]), Size(**found["after"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} cannot be read ({error!r}); remove it, or make it again with `geoseg models prune`"
        ) from error
    return dict(found)


def section(record: Mapping[str, Any], trained: Sequence[Mapping[str, Any]] = ()) -> str:
    """A section of the card, as Markdown; `trained` are scores of the same scenes after a training that followed."""
    before, after = (Size(**record[name]) for name in ("before", "after"))
    options = record["options"]
    rows = [
        ("parameters", *(f"{one.parameters:,}" for one in (before, after)), _less(before.parameters, after.parameters)),
        ("multiply-adds a pixel", *(f"{one.multiply_adds:,}" for one in (before, after)),
         _less(before.multiply_adds, after.multiply_adds)),
        ("channels of convolutions", *(f"{one.channels:,}" for one in (before, after)), _less(before.channels, after.channels)),
        ("weights", *(f"{one.weights_bytes / 1e6:.2f} MB" for one in (before, after)),
         _less(before.weights_bytes, after.weights_bytes)),
    ]  # fmt: skip
    if before.mpx_per_s and after.mpx_per_s:
        rows.append(
            ("Mpx/s through the network", f"{before.mpx_per_s:.1f}", f"{after.mpx_per_s:.1f}",
             f"{after.mpx_per_s / before.mpx_per_s:.2f} times as fast")
        )  # fmt: skip
    lines = [
        "## Pruned",
        "",
        f"Whole channels of {record['from']} were taken away: a share of {options['share']:g} of its {options['of']} was asked "
        f"for. Importance: {options['importance']}; ranking: {options['ranking']}; channels that stay: multiples of "
        f"{options['round_to']}.",
        "",
        "| | before | after | |",
        "|---|---:|---:|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    if record.get("engine"):
        lines += [f"Speed: {record['engine']}, {record['threads']} cores, patches of {record['patch']} px.", ""]
    if (agreement := record.get("agreement")) is not None:
        lines += [
            f"Before any training {agreement:.1%} of pixels had the class that {record['from']} gives them in float32 "
            f"({', '.join(record['scenes'])}).",
            "",
        ]
    if (scores := record.get("scores")) and scores["before"]:
        lines += _scored(scores, trained)
    elif not trained:
        lines += ["A pruned network has to be trained again before its masks are worth what they were.", ""]
    return "\n".join(lines)


def _less(before: int, after: int) -> str:
    return f"{after / before - 1:+.0%}"


def _scored(scores: Mapping[str, Sequence[Mapping[str, Any]]], trained: Sequence[Mapping[str, Any]]) -> list[str]:
    # Of a later training they may be others; of two scenes of one name nobody knows which is which but by their order.
    names, later = [one["scene"] for one in scores["before"]], [one["scene"] for one in trained]
    if names != later and len(set(later)) == len(later) and set(names) <= set(later):
        trained = [trained[later.index(name)] for name in names]
    known = bool(trained) and names == [one["scene"] for one in trained]
    columns = [scores["before"], scores["after"], *([trained] if known else [])]
    titles = ["before", "pruned", *(["pruned and trained"] if known else [])]
    lines = [
        "Held out scenes through the whole of `geoseg run`, object F1@.5 and pixel IoU:",
        "",
        f"| scene | {' | '.join(titles)} |",
        f"|---|{'---:|' * len(titles)}",
    ]
    for row in zip(*columns, strict=True):
        cells = [
            " and ".join("-" if one[name] is None else f"{one[name]:.3f}" for name in ("f1", "pixel_iou"))
            for one in row
        ]
        lines.append(f"| {row[0]['scene']} | {' | '.join(cells)} |")
    return [*lines, ""]
