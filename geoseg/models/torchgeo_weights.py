"""torchgeo's named segmentation weights, `Unet_Weights.NAME`, with what torchgeo itself leaves unsaid.

torchgeo names channels and classes by number and keeps the scaling in a transform. TRAINING below states the rest, by
the data set a member was trained on. `Unet_Weights` is torchgeo's only family with a segmentation head (0.8 to 0.10);
its other weights are bare encoders. Members are read from the installed torchgeo, so newer ones appear by themselves.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from geoseg.errors import ModelError
from geoseg.models.kept import kept_spec
from geoseg.models.weights import check_sha256, file_sha256, load_state, model_fingerprint, read_torch_file
from geoseg.spec import BandSpec, ModelSpec, bands, classes

if TYPE_CHECKING:
    from torch import nn

FAMILY = "Unet_Weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How the models of one data set were trained."""

    bands: tuple[BandSpec, ...]
    classes: Mapping[int, tuple[str, ...]]
    """Class names by number of classes."""
    field_class: str
    units: Literal["reflectance", "byte"]
    resolution_m: tuple[float, float]
    nominal_m: float
    upsample: int = 1
    patch: int = 512


TRAINING: Mapping[str, Training] = {
    # Fields of The World. Two Sentinel-2 dates, B4 B3 B2 B8 each: first window B (about harvest), then window A (about
    # planting); torchgeo's and ftw-baselines' FTW data sets stack them in this order. Stored values (reflectance times
    # 10,000, the offset of baseline 04.00 removed) divided by 3,000: in reflectance, by 0.3. Images are enlarged twice
    # before the network, as ftw-tools does by default. Source: torchgeo/models/unet.py, torchgeo/datasets/ftw.py.
    "FTW": Training(
        bands=bands(("red", "green", "blue", "nir", "red_2", "green_2", "blue_2", "nir_2"), std=0.3),
        classes={2: ("background", "field"), 3: ("background", "field", "boundary")},
        field_class="field",
        units="reflectance",
        resolution_m=(8.0, 12.5),
        nominal_m=10.0,
        upsample=2,
    ),
    # Tree crowns in drone images; bytes as they are.
    "OAM-TCD": Training(
        bands=bands(("red", "green", "blue")),
        classes={2: ("background", "tree-canopy")},
        field_class="tree-canopy",
        units="byte",
        resolution_m=(0.05, 0.2),
        nominal_m=0.1,
        patch=1024,
    ),
    # Rural roads in NAIP (torchgeo 0.9 and later); bytes divided by 255.
    "ChesapeakeRSC": Training(
        bands=bands(("red", "green", "blue", "nir"), std=255.0),
        classes={2: ("background", "road")},
        field_class="road",
        units="byte",
        resolution_m=(0.5, 2.0),
        nominal_m=1.0,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedWeightsModel:
    content_addressed: ClassVar[bool] = True

    path: Path
    """The weight file, local or in torch's hub cache."""
    spec: ModelSpec
    weights_sha256: str

    @classmethod
    def open(cls, name: str, *, weights: Path | None = None) -> NamedWeightsModel:
        """The model `Unet_Weights.NAME`, its weights from `weights` or else from the hub."""
        path = weights if weights is not None else download(name, _member(name).url)
        digest = file_sha256(path)
        version = importlib.metadata.version("torchgeo")
        spec = kept_spec(
            lambda: named_spec(name, _member(name).meta, weights_sha256=digest), "named", name, digest, version
        )
        return cls(path=path, spec=spec, weights_sha256=digest)

    @property
    def runtime(self) -> str:
        return "torch"

    def fingerprint(self) -> str:
        return model_fingerprint(self.spec, self.weights_sha256)

    def network(self) -> nn.Module:
        """The network in float32 and eval mode."""
        from geoseg.models.architectures import build_torchgeo_network
        from geoseg.models.checkpoint import network_state

        check_sha256(self.path, self.weights_sha256, model=self.spec.name)
        network = build_torchgeo_network(self.spec.architecture)
        content = read_torch_file(self.path)
        state = content.get("state_dict", content) if isinstance(content, Mapping) else None
        if state is None:
            raise ModelError(
                f"{self.path} holds a {type(content).__name__}, expected a state dict; pass another --weights"
            )
        load_state(network, network_state(state), model=self.spec.name)
        return network.float().eval()


def named_specs() -> dict[str, ModelSpec]:
    """Specs of all members that the installed torchgeo offers and TRAINING describes, by name. Imports torchgeo."""
    return {
        name: named_spec(name, member.meta)
        for name, member in _members().items()
        if member.meta.get("dataset") in TRAINING
    }


def named_spec(name: str, meta: Mapping[str, Any], *, weights_sha256: str = "") -> ModelSpec:
    """The spec of a member from torchgeo's `meta` and TRAINING."""
    training = TRAINING.get(meta.get("dataset", ""))
    if training is None or meta["num_classes"] not in training.classes or len(training.bands) != meta["in_chans"]:
        raise ModelError(
            f"{name} was trained on {meta.get('dataset')!r}, of which this version does not know bands and scaling "
            f"(known: {', '.join(TRAINING)}); load it as a checkpoint with a .spec.json beside it"
        )
    return ModelSpec(
        name=name,
        title=f"{meta['model']} {meta['encoder']} trained on {meta['dataset']} (torchgeo)",
        bands=training.bands,
        outputs=classes(*training.classes[meta["num_classes"]]),
        field_class=training.field_class,
        units=training.units,
        patch=training.patch,
        halo=64,
        stride=32,
        reach="patch",
        upsample=training.upsample,
        resolution_m=training.resolution_m,
        nominal_m=training.nominal_m,
        licence=str(meta.get("license", "")),
        trained_on=str(meta["dataset"]),
        architecture={
            "type": "torchgeo",
            "model": "unet",
            "backbone": meta["encoder"],
            "in_channels": meta["in_chans"],
            "outputs": meta["num_classes"],
        },
        weights_sha256=weights_sha256,
    )


def _members() -> dict[str, Any]:
    from torchgeo.models import Unet_Weights

    return {f"{FAMILY}.{member.name}": member for member in list(Unet_Weights)}


def _member(name: str) -> Any:
    members = _members()
    if name not in members:
        raise ModelError(f"torchgeo has no weights {name!r}; it offers {', '.join(members)}")
    return members[name]


def download(name: str, url: str, *, remedy: str = "pass --weights FILE") -> Path:
    """The weight file in torch's hub cache, fetched once; `remedy` is what the error says to do on a closed network."""
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = torch.hub.HASH_REGEX.search(path.name)
        torch.hub.download_url_to_file(url, str(path), prefix.group(1) if prefix else None, progress=False)
    except (OSError, RuntimeError) as error:
        reason = str(getattr(error, "reason", "")) or type(error).__name__
        raise ModelError(
            f"the weights of {name} could not be downloaded ({reason}); "
            f"fetch {path.name} on a connected machine and {remedy}"
        ) from error
    return path
