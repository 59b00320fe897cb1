"""A model as a folder: spec.json and weights.safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from geoseg.errors import ModelError
from geoseg.models.catalogue import UNTRACEABLE
from geoseg.models.quantised import Quantised, read_quantised
from geoseg.models.weights import check_sha256, load_state, model_fingerprint, read_safetensors
from geoseg.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

SPEC = "spec.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleModel:
    content_addressed: ClassVar[bool] = True

    folder: Path
    """Holds spec.json and weights.safetensors."""
    spec: ModelSpec
    """As read when the bundle was opened; the weights must still have the hash it names."""

    @classmethod
    def open(cls, folder: Path) -> BundleModel:
        """The bundle in `folder`; ModelError where it is incomplete. Weights are not read yet."""
        spec = read_spec(folder / SPEC)
        if not (folder / WEIGHTS).is_file():
            raise ModelError(f"the model folder {folder} has no {WEIGHTS}; a bundle is {SPEC} and {WEIGHTS}")
        if not spec.weights_sha256:
            raise ModelError(f"{folder / SPEC} does not say weights_sha256; write the hash of {WEIGHTS} into it")
        return cls(folder=folder, spec=spec)

    @property
    def runtime(self) -> str:
        return "torch"

    @property
    def traceable(self) -> bool:
        """Whether other engines than torch may convert the network."""
        return self.spec.instances is None and not str(self.spec.architecture.get("encoder", "")).startswith(
            UNTRACEABLE
        )

    def fingerprint(self) -> str:
        return model_fingerprint(self.spec, self.spec.weights_sha256)

    def quantised(self) -> Quantised | None:
        """The network in 8 bits that lies beside the weights, if it was made of them."""
        return read_quantised(self.folder, weights_sha256=self.spec.weights_sha256)

    def network(self) -> nn.Module:
        """The network in float32 and eval mode, after checking the hash of its weights."""
        from geoseg.models.networks import build_network

        spec = self.spec
        check_sha256(self.folder / WEIGHTS, spec.weights_sha256, model=spec.name)
        network = build_network(spec.architecture, channels=len(spec.bands), outputs=len(spec.outputs))
        load_state(network, read_safetensors(self.folder / WEIGHTS), model=spec.name)
        return network.float().eval()


def read_spec(path: Path) -> ModelSpec:
    """A ModelSpec from a JSON file."""
    return ModelSpec.from_dict(read_record(path))


def read_record(path: Path) -> dict[str, object]:
    """A JSON object from a file; ModelError where it is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; a model folder needs a {SPEC}") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); compare it with `geoseg models show`") from error
    if not isinstance(record, dict):
        raise ModelError(f"{path} holds a {type(record).__name__}, expected an object; see `geoseg models show`")
    return record
