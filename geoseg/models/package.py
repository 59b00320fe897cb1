"""Model packages: a folder with weights.safetensors, spec.json (with STAC MLM metadata) and card.md.

torch is imported inside the functions that write: reading and verifying needs none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.disk import replacing
from geoseg.errors import ModelError
from geoseg.models.bundle import SPEC, WEIGHTS, BundleModel, read_record
from geoseg.models.catalogue import settings_of
from geoseg.models.mlm import check_item, stac_item
from geoseg.models.pruned import RECORD as PRUNING
from geoseg.models.quantised import GRAPH, RECORD
from geoseg.models.weights import file_sha256
from geoseg.protocols import Model
from geoseg.spec import ModelSpec, json_text

if TYPE_CHECKING:
    import torch

CARD = "card.md"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of tensors that are no parameters."""

MULTIHASH_SHA256 = "1220"
"""Before a SHA-256 in hex digits, where STAC's file extension wants a multihash: the algorithm and the 32 bytes that follow."""


def write_package(
    state: Mapping[str, torch.Tensor],
    spec: ModelSpec,
    folder: Path,
    *,
    card: str | None = None,
    pretrained_source: str | None = None,
) -> Path:
    """Writes a package with weights in half precision; its hash is put into the spec.

    Args:
        state: of the network that `spec.architecture` describes.
        spec: of the model.
        folder: is made where it is not there; files in it of these names are replaced.
        card: text in Markdown; None writes what the spec says.
        pretrained_source: what an encoder that was not trained here comes from.

    Raises ModelError where half precision cannot hold the weights, or where the folder cannot be written.
    """
    import torch
    from safetensors.torch import save

    halved = {
        key: (value.half() if value.is_floating_point() else value).cpu().contiguous() for key, value in state.items()
    }
    broken = [key for key, value in halved.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    flat = [key for key, value in halved.items() if key.endswith("running_var") and not (value > 0).all()]
    if broken or flat:
        raise ModelError(
            f"model {spec.name!r}: {', '.join((broken + flat)[:3])} cannot be held in half precision; "
            "expected finite weights and variances above 0; train again with a lower learning rate"
        )
    parameters = count_state(halved)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as file:
            file.write(save(halved))
        for stale in (RECORD, GRAPH, PRUNING):  # made of the weights that were here before
            (folder / stale).unlink(missing_ok=True)
        complete = replace(spec, weights_sha256=file_sha256(folder / WEIGHTS))
        with replacing(folder / SPEC) as file:
            file.write(spec_json(complete, folder, parameters, pretrained_source=pretrained_source).encode())
        with replacing(folder / CARD) as file:
            file.write((card or usual_card(complete, parameters)).encode())
    except OSError as error:
        raise ModelError(f"{folder} cannot be written ({error.strerror or error}); choose another folder") from error
    return folder


def spec_json(spec: ModelSpec, folder: Path, parameters: int, *, pretrained_source: str | None = None) -> str:
    """What spec.json holds: the ModelSpec, and beneath `mlm` a STAC Item for other tools. The item is no part of the model."""
    asset = {
        "href": f"./{WEIGHTS}",
        "type": "application/octet-stream; application=safetensors",
        "mlm:artifact_type": "safetensors",
        "file:size": (folder / WEIGHTS).stat().st_size,
        "file:checksum": MULTIHASH_SHA256 + spec.weights_sha256,
    }
    item = stac_item(spec, asset=asset, parameters=parameters, pretrained_source=pretrained_source)
    check_item(item)
    return json_text({**spec.to_dict(), "mlm": item})


def usual_card(spec: ModelSpec, parameters: int, *, more: str = "") -> str:
    """A card in Markdown of what the spec says, and `more` beneath it."""
    low, high = spec.resolution_m
    classes = ", ".join(f"{name} ({i})" for i, name in enumerate(spec.class_names))
    settings = ", ".join(f"{key} {value}" for key, value in settings_of(spec.architecture).items())
    rows = [
        ("bands", ", ".join(band.name + (" (may be missing)" if band.optional else "") for band in spec.bands)),
        ("pixel size", f"meant for {low:g} to {high:g} m, nominal {spec.nominal_m:g} m"),
        ("network", f"{spec.architecture.get('type', 'unknown')} ({settings}), {parameters / 1e6:.2f} M parameters"),
        ("patch", f"{spec.patch} px, halo {spec.halo}, stride {spec.stride}"),
        ("trained on", spec.trained_on or "nothing"),
        ("licence", spec.licence or "not stated"),
    ]
    table = "\n".join(f"| {label} | {value} |" for label, value in rows)
    return f"# {spec.name}\n\n{spec.title}: {classes}.\n\n| | |\n|---|---|\n{table}\n" + (f"\n{more}\n" if more else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFile:
    """A file of a package whose hash was checked."""

    name: str
    sha256: str
    size: int
    """Bytes."""


def verify_package(folder: Path) -> tuple[PackageFile, ...]:
    """The files of a package whose hashes are written down, all of them right. Raises ModelError for the first that is not."""
    model = BundleModel.open(folder)
    files = [_verified(folder / WEIGHTS, model.spec.weights_sha256, model.spec.name)]
    quantised = model.quantised()
    if quantised is not None:
        files.append(_verified(folder / GRAPH, quantised.sha256, model.spec.name))
    elif (folder / RECORD).is_file():
        raise ModelError(
            f"{folder / RECORD} speaks of other weights than {WEIGHTS}; make it again with `geoseg models quantize`"
        )
    if item := read_item(folder):
        noted = item["assets"]["model"].get("file:checksum", "")
        if noted != MULTIHASH_SHA256 + model.spec.weights_sha256:
            raise ModelError(
                f"the STAC metadata in {folder / SPEC} name another hash than weights_sha256; write the package again"
            )
    return tuple(files)


def read_item(folder: Path) -> dict[str, Any] | None:
    """The STAC Item in a package's spec.json, checked; None where there is none."""
    found = read_record(folder / SPEC).get("mlm")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ModelError(
            f"`mlm` in {folder / SPEC} is a {type(found).__name__}, expected a STAC Item; write the package again"
        )
    check_item(found)
    return found


def stac_of(model: Model) -> dict[str, Any]:
    """A STAC Item for a model that has no package; the hash is the one of its spec, if it says one."""
    digest = model.spec.weights_sha256
    checksum = {"file:checksum": MULTIHASH_SHA256 + digest} if digest else {}
    asset = {
        "href": f"./{model.spec.name}",
        "type": "application/octet-stream",
        "mlm:artifact_type": model.runtime,
        **checksum,
    }
    return stac_item(model.spec, asset=asset)


def read_card(folder: Path) -> str | None:
    """The text of card.md."""
    path = folder / CARD
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read ({error}); write the card again as text, or pass --no-card") from error


def count_state(state: Mapping[str, torch.Tensor]) -> int:
    """Parameters in a state dict."""
    return sum(value.numel() for key, value in state.items() if _is_parameter(key, value.is_floating_point()))


def count_parameters(path: Path) -> int:
    """Parameters in a safetensors file, from its header; without torch."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
            return sum(
                math.prod(each.get_shape())
                for key, each in slices.items()
                if _is_parameter(key, each.get_dtype().startswith(("F", "BF")))
            )
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}); fetch the model again") from error


def _is_parameter(name: str, floating: bool) -> bool:
    return floating and not name.endswith(STATISTICS)


def _verified(path: Path, expected: str, model: str) -> PackageFile:
    found = file_sha256(path)
    if found != expected:
        raise ModelError(
            f"{path} of model {model!r} has SHA-256 {found[:16]}..., expected {expected[:16]}...; "
            f"the file is damaged or was replaced: fetch the model again"
        )
    return PackageFile(name=path.name, sha256=found, size=path.stat().st_size)
