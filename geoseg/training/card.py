"""The card and the record that go with a trained model."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from statistics import median
from typing import Any

from geoseg.models.pruned import section
from geoseg.spec import ModelSpec
from geoseg.training.preparation import Preparation
from geoseg.training.scenes import LabelledScene
from geoseg.training.session import Trained
from geoseg.training.start import RESOLUTION_SLACK
from geoseg.version import VERSION

SCHEMA = "geoseg-training-1"
LIBRARIES = ("torch", "lightning", "torchgeo", "segmentation_models_pytorch", "kornia", "numpy")


def final_spec(made: Preparation) -> ModelSpec:
    """The spec of the trained model: resolution and origin as the training scenes have them."""
    spec = made.start.spec
    learnt = [made.scenes[i] for i in made.learnt]
    sizes = [size for one in learnt if (size := one.scene.resolution_m()) is not None]
    if sizes:
        spec = replace(
            spec,
            nominal_m=float(f"{median(sizes):.4g}"),
            resolution_m=(
                float(f"{min(sizes) / RESOLUTION_SLACK:.3g}"),
                float(f"{max(sizes) * RESOLUTION_SLACK:.3g}"),
            ),
        )
    elif made.recipe.resolution_m is not None:
        spec = replace(spec, nominal_m=made.recipe.resolution_m)
    origin = f"from {made.start.parent.name}" if made.start.parent is not None else "from random weights"
    counted = f"{len(learnt)} scene{'s' if len(learnt) != 1 else ''}"
    plan = made.generated
    more = "" if plan is None else f" and {plan.wanted.scenes} generated ones ({plan.wanted.kind})"
    return replace(spec, trained_on=f"{counted} ({', '.join(one.scene.name for one in learnt[:5])}){more}, {origin}")


def training_record(
    made: Preparation,
    trained: Trained,
    holdout: Sequence[Mapping[str, Any]],
    generated: Sequence[LabelledScene] = (),
    *,
    seconds: float,
) -> dict[str, Any]:
    """training.json: all that made the model, as JSON values."""
    plan = made.generated
    return {
        "schema": SCHEMA,
        "identity": dict(made.identity()),
        "recipe": made.recipe.model_dump(mode="json", by_alias=True, exclude={"out"}),
        "scenes": [
            {**entry, **one.fingerprint()} for entry, one in zip(made.table(), made.scenes, strict=True)
        ],
        "generated": None if plan is None else plan.record(generated),
        "split": {"by": made.division.by, "guard_px": made.division.guard, "seed": made.recipe.split.seed},
        "class_pixels": dict(zip(made.recipe.targets.names, made.class_pixels.tolist(), strict=True)),
        "epochs": len(trained.history),
        "stopped_early": trained.early,
        "kept": trained.history[trained.epoch],
        "holdout": list(holdout),
        "seconds": round(seconds, 1),
        "machine": {"device": trained.device, "precision": trained.precision, "threads": trained.threads},
        "versions": {
            "geoseg": VERSION, "python": platform.python_version(), **{name: version(name) for name in LIBRARIES},
        },
        "notes": list(made.notes),
        **({} if made.start.pruning is None else {"pruning": dict(made.start.pruning)}),
    }  # fmt: skip


def card(spec: ModelSpec, record: Mapping[str, Any]) -> str:
    """The model's card, as Markdown."""
    recipe, kept, machine = record["recipe"], record["kept"], record["machine"]
    low, high = spec.resolution_m
    schedule = recipe["schedule"]
    bands = ", ".join(f"{band.name}{' (may be missing)' if band.optional else ''}" for band in spec.bands)
    outputs = ", ".join(f"{one.name} ({i})" for i, one in enumerate(spec.outputs))
    lines = [
        f"# {spec.name}",
        "",
        f"{spec.title}. Outputs: {outputs}.",
        "",
        "| | |",
        "|---|---|",
        f"| bands | {bands} |",
        f"| pixel size | trained at {spec.nominal_m:g} m, meant for {low:g} to {high:g} m |",
        f"| network | {spec.architecture.get('type')} with {spec.architecture.get('encoder', '-')}"
        f"{', pruned' if 'pruned' in spec.architecture else ''} |",
        f"| began | {spec.trained_on} |",
        f"| licence | {spec.licence or 'not stated'} |",
        f"| made by | geoseg {record['versions']['geoseg']}, torch {record['versions']['torch']}, "
        f"{machine['device']} in {machine['precision']}, {machine['threads']} threads, {record['seconds']:.0f} s |",
        "",
        "## Data",
        "",
        "| scene | used for | fields | labelled | sha256 of pixels | of labels |",
        "|---|---|---:|---:|---|---|",
    ]
    for one in record["scenes"]:
        fields = "-" if one["fields"] is None else one["fields"]
        both = " and validation" if one["role"] == "training" and one["validation_chips"] else ""
        lines.append(
            f"| {one['scene']} | {one['role']}{both} | {fields} | {one['labelled']:.0%} | "
            f"`{one['image'][:16]}` | `{one['labels'][:16]}` |"
        )
    if (plan := record.get("generated")) is not None:
        painter = f", painted by the renderer `{plan['renderer'][:16]}`" if plan["renderer"] else ""
        lines += [
            "",
            f"Generated ({plan['kind']}): {plan['scenes']} scenes of {plan['side_px']} px, styles "
            f"{', '.join(plan['styles'])}, seed {recipe['seed']}{painter}; {plan['share']:.0%} of the chips to learn from. "
            f"sha256 of all `{plan['sha256'][:16]}`.",
        ]
    split = record["split"]
    lines += [
        "",
        f"Split by {split['by']} (seed {split['seed']}); chips to learn from keep {split['guard_px']} px to all that is scored.",
        "",
        "## Training",
        "",
        f"{record['epochs']} epochs of {schedule['steps']} steps of {schedule['batch']} chips of {recipe['patch']} px, seed "
        f"{recipe['seed']}, peak rate {schedule['learning_rate']:g}"
        f"{'; ended early' if record['stopped_early'] else ''}. Kept: epoch {kept['epoch']:g}"
        f"{', the best on validation' if schedule['keep'] == 'best' else ', the last one'}. "
        "The whole recipe is in training.json, all epochs in metrics.csv.",
        "",
        "## Measured",
        "",
        "Validation (the epoch was chosen by it, so it flatters): "
        f"mean IoU {kept['val_miou']:.3f}; "
        + ", ".join(f"{name} {kept[f'val_iou_{name}']:.3f}" for name in spec.class_names)
        + ".",
        "",
    ]
    before = [] if "pruning" not in record else [section(record["pruning"], record["holdout"])]
    if not record["holdout"]:
        lines += ["No holdout scene was given: nothing is known of scenes that the training never looked at.", ""]
        return "\n".join([*lines, *before])
    lines += [
        "Holdout scenes, never looked at while training, through the whole of `geoseg run`:",
        "",
        "| scene | labels | true fields | found | object F1@.5 | PQ | pixel IoU |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for one in record["holdout"]:
        lines.append(
            f"| {one['scene']} | {'partial' if one['partial'] else 'complete'} | {one['true']} | {one['found']} | "
            f"{_score(one['f1'])} | {_score(one['pq'])} | {_score(one['pixel_iou'])} |"
        )
    return "\n".join([*lines, "", *before])


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
