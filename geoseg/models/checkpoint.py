"""Checkpoints of torchgeo's SemanticSegmentationTask: hyper-parameters and weights out of a Lightning .ckpt.

A sidecar NAME.spec.json beside NAME.ckpt states what the checkpoint does not know (bands, scaling, resolution, class
names). It is a ModelSpec in JSON; entries that it leaves out keep the defaults below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from geoseg.errors import ModelError
from geoseg.models.bundle import read_record
from geoseg.models.kept import kept_spec
from geoseg.models.weights import check_sha256, file_sha256, load_state, model_fingerprint, read_torch_file
from geoseg.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "model."
"""The task keeps its network in `self.model`."""

DEFAULT_BANDS = {3: ("red", "green", "blue"), 4: ("red", "green", "blue", "nir")}
DEFAULT_CLASSES = {2: ("background", "field"), 3: ("background", "field", "boundary")}
EXAMPLE = (
    '{"bands": [{"name": "red", "mean": 0, "std": 3000}, ...], '
    '"outputs": [{"name": "background"}, {"name": "field"}], "field_class": "field"}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointModel:
    content_addressed: ClassVar[bool] = True

    path: Path
    spec: ModelSpec
    """Its `architecture` holds the hyper-parameters that decide the network."""
    weights_sha256: str
    """Of the whole checkpoint file."""
    trust: bool = False
    """True where the user allows the file to execute code."""

    @classmethod
    def open(cls, path: Path, *, trust: bool = False) -> CheckpointModel:
        """The model in a checkpoint; ModelError where it is none, or where its spec cannot be guessed."""
        sidecar = path.with_suffix(".spec.json")
        record = read_record(sidecar) if sidecar.is_file() else {}
        digest = file_sha256(path)

        def find() -> ModelSpec:
            told = _read(path, trust=trust)["hyper_parameters"]
            return checkpoint_spec(told, record, path=path, weights_sha256=digest)

        spec = kept_spec(find, "checkpoint", digest, path.name, json.dumps(record, sort_keys=True), trust)
        return cls(path=path, spec=spec, weights_sha256=digest, trust=trust)

    @property
    def runtime(self) -> str:
        return "torch"

    def fingerprint(self) -> str:
        return model_fingerprint(self.spec, self.weights_sha256)

    def network(self) -> nn.Module:
        """The network in float32 and eval mode."""
        from geoseg.models.architectures import PairedLogits, build_torchgeo_network

        check_sha256(self.path, self.weights_sha256, model=self.spec.name)
        network = build_torchgeo_network(self.spec.architecture)
        load_state(network, network_state(_read(self.path, trust=self.trust)["state_dict"]), model=self.spec.name)
        if self.spec.architecture["paired"]:
            network = PairedLogits(network)
        return network.float().eval()


def network_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own tensors out of a task's state: without prefixes, losses and metrics."""
    names = {key: key.replace("_orig_mod.", "") for key in state}  # torch.compile leaves these behind
    if not any(name.startswith(PREFIX) for name in names.values()):
        return {names[key]: value for key, value in state.items()}
    return {name.removeprefix(PREFIX): state[key] for key, name in names.items() if name.startswith(PREFIX)}


def checkpoint_spec(
    hyper_parameters: Mapping[str, Any], sidecar: Mapping[str, Any], *, path: Path, weights_sha256: str
) -> ModelSpec:
    """What hyper-parameters and sidecar together say about a checkpoint."""
    architecture = _architecture(hyper_parameters, path)
    record: dict[str, Any] = {
        "name": path.stem,
        "title": f"{architecture['model']} {architecture['backbone'] or ''}".strip() + ", a torchgeo checkpoint",
        "scaling": "fixed",
        "units": "raw",
        "patch": 1024,
        "halo": 64,
        "stride": 32,
        "reach": "local" if architecture["model"] == "fcn" else "patch",
        **_default_bands(architecture["in_channels"], sidecar, path),
        **_default_outputs(architecture, hyper_parameters.get("labels"), sidecar, path),
        **sidecar,
        "architecture": architecture,
        "weights_sha256": weights_sha256,
    }
    spec = ModelSpec.from_dict(record)
    channels = architecture["outputs"] + int(architecture["paired"])
    for found, expected, what in (
        (len(spec.bands), architecture["in_channels"], "bands"),
        (len(spec.outputs), channels, "outputs"),
    ):
        if found != expected:
            raise ModelError(
                f"{_sidecar_name(path)} names {found} {what}, but the network in {path.name} has {expected}; correct it"
            )
    return spec


def _architecture(hyper_parameters: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The entries that decide the network, under the names of torchgeo 0.5 and later whatever the file calls them."""
    values = dict(hyper_parameters)
    model = _first(values, "model", "segmentation_model")
    channels = _first(values, "in_channels")
    if not isinstance(model, str) or not isinstance(channels, int):
        raise ModelError(
            f"{path} has no hyper-parameters of a segmentation task (found {', '.join(sorted(map(str, values))) or 'none'}; "
            f"expected model, backbone, in_channels, num_classes); save it from torchgeo's SemanticSegmentationTask"
        )
    task = _first(values, "task") or "multiclass"
    outputs = _first(values, "num_classes") or _first(values, "num_labels") or 1
    return {
        "type": "torchgeo",
        "model": model,
        "backbone": _first(values, "backbone", "encoder_name"),
        "in_channels": channels,
        "outputs": int(outputs),
        "num_filters": int(_first(values, "num_filters") or 3),
        "model_kwargs": dict(_first(values, "model_kwargs") or {}),
        "task": task,
        # One sigmoid says "field or not"; with several labels the first one does.
        "paired": task in ("binary", "multilabel") or int(outputs) == 1,
    }


def _default_bands(channels: int, sidecar: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if "bands" in sidecar:
        return {}
    if channels not in DEFAULT_BANDS:
        raise ModelError(
            f"{path} takes {channels} bands and does not say which; "
            f"write {_sidecar_name(path)} beside it, for example {EXAMPLE}"
        )
    return {"bands": [{"name": name} for name in DEFAULT_BANDS[channels]]}


def _default_outputs(
    architecture: Mapping[str, Any], labels: Sequence[str] | None, sidecar: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    if "outputs" in sidecar:
        return {}
    count = architecture["outputs"]
    if architecture["paired"]:
        names = list(labels) if labels and len(labels) == count else [f"label_{i}" for i in range(count)]
        extra = [
            {"name": name, "kind": "boundary" if "bound" in name or "edge" in name else "distance"}
            for name in names[1:]
        ]
        return {"outputs": [{"name": "background"}, {"name": "field"}, *extra], "field_class": "field"}
    default = DEFAULT_CLASSES.get(count, tuple(f"class_{i}" for i in range(count)))
    names = list(labels) if labels and len(labels) == count else list(default)
    field = _first({name: name for name in names}, "field", "fields", "crop", "cropland", "parcel")
    field = sidecar.get("field_class", field or (names[1] if count == 2 else None))
    if field is None:
        raise ModelError(
            f"{path} has the classes {', '.join(names)} and does not say which of them is a field; "
            f"write {_sidecar_name(path)} beside it, for example {EXAMPLE}"
        )
    return {"outputs": [{"name": name} for name in names], "field_class": field}


def _read(path: Path, *, trust: bool) -> Mapping[str, Any]:
    content = read_torch_file(path, trust=trust)
    if not isinstance(content, Mapping) or "state_dict" not in content or "hyper_parameters" not in content:
        found = ", ".join(sorted(map(str, content))[:5]) if isinstance(content, Mapping) else type(content).__name__
        raise ModelError(
            f"{path} is not a Lightning checkpoint: it holds {found}, expected state_dict and hyper_parameters; "
            f"a bare state dict goes with a named model: --model Unet_Weights.NAME --weights FILE"
        )
    return content


def _sidecar_name(path: Path) -> str:
    return path.with_suffix(".spec.json").name


def _first(values: Mapping[str, Any], *names: str) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)
