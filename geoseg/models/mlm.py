"""Metadata of the STAC Machine Learning Model extension (MLM 1.5): what other tools read of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geoseg.errors import ModelError
from geoseg.models.catalogue import NETWORKS, settings_of
from geoseg.spec import ModelSpec

SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.1/schema.json"
CLASSIFICATION_SCHEMA = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
FILE_SCHEMA = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
EO_SCHEMA = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"

COMMON_NAMES = (
    "pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071", "rededge075", "rededge078",
    "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12",
)  # fmt: skip
"""Of the eo extension."""

WORLD = (-180.0, -90.0, 180.0, 90.0)
SCENE_SCALING = "clip((v - p50) / max(p90 - p10, 1e-6), -{clip:g}, {clip:g})"


def stac_item(
    spec: ModelSpec,
    *,
    asset: Mapping[str, Any],
    parameters: int | None = None,
    framework: str = "PyTorch",
    created: str | None = None,
    pretrained_source: str | None = None,
) -> dict[str, Any]:
    """A STAC Item that describes a model.

    Args:
        spec: of the model.
        asset: the file: `href`, `type`, `mlm:artifact_type`, and what is known of `file:size` and `file:checksum`.
        parameters: how many weights it has.
        framework: what reads the file.
        created: RFC 3339 time; without it the item says that its time is open.
        pretrained_source: what the weights, or those of the encoder, were trained on; None for random weights.
    """
    west, south, east, north = WORLD
    seen = [_band(band.name) for band in spec.bands]
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [SCHEMA, CLASSIFICATION_SCHEMA, FILE_SCHEMA, EO_SCHEMA],
        "id": spec.name,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(WORLD),
        "properties": {
            "title": spec.title,
            # A model has no time of its own: it is meant for scenes of any.
            "datetime": created,
            **({} if created else {"start_datetime": "1900-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}),
            **({"license": spec.licence} if spec.licence else {}),
            "bands": seen,  # what mlm:input refers to: the extension looks for them here
            **mlm_properties(spec, parameters=parameters, framework=framework, pretrained_source=pretrained_source),
        },
        "links": [],
        "assets": {
            "model": {
                "title": f"Weights of {spec.name}",
                "roles": ["mlm:model", "mlm:weights"],
                "bands": seen,
                **asset,
            }
        },
    }


def mlm_properties(
    spec: ModelSpec, *, parameters: int | None, framework: str = "PyTorch", pretrained_source: str | None = None
) -> dict[str, Any]:
    """The `mlm:` properties of an item."""
    kind = str(spec.architecture.get("type", "unknown"))
    architecture = NETWORKS[kind].title if kind in NETWORKS else str(spec.architecture.get("model", kind))
    if not spec.architecture:  # a method, which learned nothing
        architecture = spec.title
    source = pretrained_source or (spec.trained_on if spec.architecture else None) or None
    settings = {name: value for name, value in settings_of(spec.architecture).items() if value is not None}
    more = {
        "patch": spec.patch,
        "halo": spec.halo,
        "stride": spec.stride,
        "upsample": spec.upsample,
        "units": spec.units,
    }
    return {
        "mlm:name": spec.name,
        "mlm:architecture": architecture,
        "mlm:tasks": ["semantic-segmentation" if spec.instances is None else "instance-segmentation"],
        "mlm:framework": framework,
        **({} if parameters is None else {"mlm:total_parameters": parameters}),
        "mlm:pretrained": source is not None,
        "mlm:pretrained_source": source,
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:batch_size_suggestion": 1,
        "mlm:input": [_input(spec)],
        "mlm:output": [_output(spec)],
        "mlm:hyperparameters": {**{name: _plain(value) for name, value in settings.items()}, **more},
    }


def _input(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": "pixels",
        "bands": [band.name for band in spec.bands],
        "input": {
            "shape": [-1, len(spec.bands), spec.patch, spec.patch],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": _value_scaling(spec),
        "resize_type": None,
        "pre_processing_function": None,
    }


def _value_scaling(spec: ModelSpec) -> list[dict[str, Any]]:
    """One entry for all bands, or one for each."""
    if spec.scaling == "scene":
        limit = float("inf") if spec.clip is None else spec.clip
        return [
            {
                "type": "processing",
                "format": "numpy",
                "expression": SCENE_SCALING.format(clip=limit),
                "description": "p10, p50 and p90 are percentiles of a band's valid pixels over the whole scene",
            }
        ]
    if spec.clip is None:
        return [{"type": "z-score", "mean": band.mean, "stddev": band.std} for band in spec.bands]
    return [
        {
            "type": "processing",
            "format": "numpy",
            "expression": f"clip((v - {band.mean:g}) / {band.std:g}, -{spec.clip:g}, {spec.clip:g})",
        }
        for band in spec.bands
    ]


def _output(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": "logits",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, len(spec.outputs), spec.patch, spec.patch],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": [
            {"value": value, "name": name, "description": name} for value, name in enumerate(spec.class_names)
        ],
        "post_processing_function": {"format": "numpy", "expression": "softmax over the classes, argmax"},
    }


def _band(name: str) -> dict[str, Any]:
    plain = plain_name(name)
    return {"name": name, **({"eo:common_name": plain} if plain in COMMON_NAMES else {})}


def plain_name(name: str) -> str:
    """A band's name without the number of its date: `red` of `red_2`."""
    first, _, last = name.rpartition("_")
    return first if first and last.isdecimal() else name


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_item(item: Mapping[str, Any]) -> None:
    """ModelError where an item lacks what MLM 1.5 requires. `stac-model` and the JSON schema say more; the tests ask them."""
    properties, assets = item.get("properties", {}), item.get("assets", {})
    required = ("mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output")
    missing = [name for name in required if not properties.get(name)]
    if missing or item.get("type") != "Feature" or SCHEMA not in item.get("stac_extensions", []):
        raise ModelError(f"the STAC metadata lack {', '.join(missing) or 'the MLM extension'}; write the package again")
    if not any("mlm:model" in asset.get("roles", []) for asset in assets.values()):
        raise ModelError("the STAC metadata name no asset with the role mlm:model; write the package again")
