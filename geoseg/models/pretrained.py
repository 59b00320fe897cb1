"""Pretrained encoders: torchgeo's named weights (Sentinel-2, Landsat, NAIP, ...) or a file, fitted to other bands.

This module imports torch only inside its functions.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import ModelError
from geoseg.models.catalogue import nearest_first
from geoseg.models.mlm import plain_name
from geoseg.models.torchgeo_weights import FAMILY, download
from geoseg.models.weights import file_sha256, read_safetensors, read_torch_file
from geoseg.sensors import MSI, OLI, SYNONYMS, TM

if TYPE_CHECKING:
    from torch import Tensor, nn

SENSORS: Mapping[str, Mapping[str, str]] = {
    "SENTINEL2": MSI, "LANDSAT_TM": TM, "LANDSAT_ETM": TM, "LANDSAT": OLI,
}  # fmt: skip
"""Common names by band number, by how a member's name begins; the first that fits counts."""

COLOURS = {"r": "red", "g": "green", "b": "blue"}

ENCODERS: Mapping[str, str] = {
    "ResNet18_Weights": "resnet18", "ResNet50_Weights": "resnet50", "ResNet152_Weights": "resnet152",
    "Swin_V2_T_Weights": "tv-swin_v2_t", "Swin_V2_B_Weights": "tv-swin_v2_b",
}  # fmt: skip
"""Encoders that torchgeo's families of weights fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderWeights:
    """The weights of an encoder, before they are fitted to a network."""

    name: str
    """Of torchgeo's member, or of the file."""
    path: Path
    bands: tuple[str, ...] | None
    """Common names of the bands that it was trained on; None where they are not known."""
    encoder: str | None
    """The encoder that it fits; None where that is not known."""
    source: str
    """What it was trained on, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What was done to bring weights into an encoder."""

    tensors: int
    first_layer: str
    """One sentence on the first layer, for the card."""


def find_weights(name: str, *, file: Path | None = None) -> EncoderWeights:
    """Weights by torchgeo's name (`ResNet18_Weights.SENTINEL2_ALL_MOCO`), or in a file.

    `file` is a local copy of named weights; without it they come from torch's cache or the hub. Raises ModelError.
    """
    if file is None and Path(name).is_file():
        return EncoderWeights(name=Path(name).name, path=Path(name), bands=None, encoder=None, source=Path(name).name)
    family, _, member_name = name.partition(".")
    if not family.endswith("_Weights"):
        raise ModelError(
            f"there is no weight file {name!r}; give a file, or a name of torchgeo's such as ResNet18_Weights.SENTINEL2_ALL_MOCO"
        )
    if family == FAMILY:
        raise ModelError(f"{name} is a whole model and no encoder; run it as it is: --model {name}")
    member = _member(family, member_name)
    meta: Mapping[str, Any] = member.meta
    path = file if file is not None else download(name, member.url, remedy="pass --weights-file FILE")
    if not path.is_file():
        raise ModelError(f"there is no weight file {path}; check --weights-file")
    return EncoderWeights(
        name=name,
        path=path,
        bands=member_bands(member_name, meta),
        encoder=ENCODERS[family],
        source=f"{name} ({meta.get('dataset', 'unknown data')}, {meta.get('publication', 'no publication')})",
    )


def member_bands(member: str, meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Common names of a member's bands, from torchgeo's `meta`; None where it does not say them."""
    told = meta.get("bands")
    if told is None:
        return ("red", "green", "blue") if "_RGB_" in f"_{member}_" else None
    sensor = next((names for start, names in SENSORS.items() if member.startswith(start)), {})
    return tuple(_common(str(band), sensor) for band in told)


def load_encoder(network: nn.Module, weights: EncoderWeights, bands: Sequence[str]) -> Fitted:
    """Puts weights into a network's encoder. The first layer is fitted to the bands; all else must match.

    A band that the weights know by name keeps its own part of the first layer, any other takes the mean over all parts. The
    layer is multiplied by (bands of the weights) / (bands of the network), so that its sums stay as large.
    """
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise ModelError("this network has an encoder of its own, for which there are no weights; leave --weights out")
    own: dict[str, Tensor] = encoder.state_dict()
    stem = _first_layer(encoder)
    found = _named_as(own, read_state(weights.path))
    wanted = [key for key in own if not key.endswith("num_batches_tracked")]
    missing = [key for key in wanted if key not in found]
    reshaped = [key for key in wanted if key in found and key != stem and found[key].shape != own[key].shape]
    if missing or reshaped:
        examples = [*(f"{key} missing" for key in missing[:2]), *(f"{key} of another shape" for key in reshaped[:2])]
        fits = f"; they fit {weights.encoder}" if weights.encoder else ""
        raise ModelError(
            f"the weights {weights.name} do not fit this encoder: {len(missing)} of {len(wanted)} tensors are missing, "
            f"{len(reshaped)} of another shape ({', '.join(examples)}){fits}: choose that with --encoder, or other --weights"
        )
    state = {key: found.get(key, own[key]) for key in own}
    state[stem], said = fitted_stem(state[stem], own[stem], weights.bands, bands)
    encoder.load_state_dict(state)
    return Fitted(tensors=len(wanted), first_layer=said)


def fitted_stem(
    kernel: Tensor, own: Tensor, trained: Sequence[str] | None, wanted: Sequence[str]
) -> tuple[Tensor, str]:
    """A first layer (output, band, row, col) for the wanted bands, and a sentence that says how it was made."""
    import torch

    if kernel.shape[0] != own.shape[0] or kernel.shape[2:] != own.shape[2:]:
        raise ModelError(
            f"the first layer of the weights is {list(kernel.shape)}, expected {list(own.shape)} but for the bands; "
            f"choose the encoder that they fit with --encoder"
        )
    count = kernel.shape[1]
    plain = [SYNONYMS.get(plain_name(band), plain_name(band)) for band in wanted]
    if trained is None or len(trained) != count:
        if count == len(wanted):
            return kernel, "taken as it is (the bands of the weights are not known; they count as those of the model)"
        trained = ()
    if list(trained) == plain:
        return kernel, "taken as it is"
    mean = kernel.mean(dim=1)
    known = list(trained)
    parts = [kernel[:, known.index(name)] if name in known else mean for name in plain]
    matched = [band for band, name in zip(wanted, plain, strict=True) if name in known]
    others = [band for band in wanted if band not in matched]
    told = [f"{', '.join(matched)} by name" if matched else "", f"{', '.join(others)} from the mean" if others else ""]
    said = f"{' and '.join(filter(None, told))}, times {count}/{len(wanted)}"
    return torch.stack(parts, dim=1) * (count / len(wanted)), said


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, a state dict or a checkpoint; nothing is executed."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    content = read_torch_file(path)
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not any(hasattr(value, "shape") for value in content.values()):
        raise ModelError(f"{path} holds a {type(content).__name__}, expected a state dict; pass another file")
    return {str(key): value.float() for key, value in content.items() if hasattr(value, "is_floating_point")}


def describe(weights: EncoderWeights, fitted: Fitted) -> str:
    """What the card says of the encoder."""
    return (
        f"## Encoder\n\nPretrained: {weights.source}, SHA-256 of the file {file_sha256(weights.path)}; {fitted.tensors} tensors. "
        f"First layer: {fitted.first_layer}."
    )


def _named_as(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under an encoder's own names: what stands before them in a file is found by trying."""
    inner = {key.removeprefix("model."): key for key in own} if all(key.startswith("model.") for key in own) else {}
    names = {**{key: key for key in own}, **inner}
    starts = {""} | {".".join(parts[:n]) + "." for key in state for parts in [key.split(".")] for n in (1, 2, 3)}
    best = max(
        sorted(starts),
        key=lambda start: sum(key.removeprefix(start) in names for key in state if key.startswith(start)),
    )
    return {
        names[key.removeprefix(best)]: value
        for key, value in state.items()
        if key.startswith(best) and key.removeprefix(best) in names
    }


def _first_layer(encoder: nn.Module) -> str:
    from torch import nn

    return next(f"{name}.weight" for name, module in encoder.named_modules() if isinstance(module, nn.Conv2d))


def _common(band: str, sensor: Mapping[str, str]) -> str:
    key = band.lower().removeprefix("sr_").removeprefix("b").lstrip("0").split("_")[0]
    return COLOURS.get(band.lower()) or sensor.get(key, band.lower())


def _member(family: str, name: str) -> Any:
    import torchgeo.models

    if family not in ENCODERS:
        raise ModelError(f"no network here takes weights of {family}; known: {', '.join(ENCODERS)}")
    members: type[enum.Enum] = getattr(torchgeo.models, family)
    if name not in members.__members__:
        raise ModelError(
            f"torchgeo has no {family}.{name}; it has {', '.join(nearest_first(name, members.__members__))}"
        )
    return members[name]
