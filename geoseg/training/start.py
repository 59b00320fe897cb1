"""Where a training begins: the spec of the model to be, and its first weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from geoseg.errors import InputError, ModelError
from geoseg.models.bundle import BundleModel
from geoseg.models.catalogue import NETWORKS
from geoseg.models.networks import BUILDERS, build_network
from geoseg.models.pruned import read_pruning
from geoseg.models.registry import bundled_names, load
from geoseg.protocols import TorchModel
from geoseg.scene import band_name
from geoseg.spec import BandSpec, Channel, InstanceRule, ModelSpec
from geoseg.training.recipe import TrainRecipe
from geoseg.training.samples import CLIP

USUAL_BANDS = ("red", "green", "blue")
RESOLUTION_SLACK = 1.6
"""A model is meant for pixels from the smallest in training / that much to the largest x that much."""

SMP_DECODER = [256, 128, 64, 32, 16]
"""Decoder of segmentation_models_pytorch's U-Net where nothing is said, as in torchgeo's checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    spec: ModelSpec
    """Of the model to be; its resolution is not settled yet."""
    parent: ModelSpec | None = None
    state: Mapping[str, Tensor] | None = None
    """Weights of the parent's network."""
    fingerprint: str | None = None
    """Of the parent."""
    pruning: Mapping[str, Any] | None = None
    """What the parent's pruning.json holds, where its network was pruned."""

    def network(self, *, seed: int) -> tuple[nn.Module, tuple[str, ...]]:
        """The network with its first weights, and the names of the tensors that are new in spite of a parent."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(
                self.spec.architecture, channels=len(self.spec.bands), outputs=len(self.spec.outputs)
            )
        if self.parent is None or self.state is None:
            return network, ()
        state, fresh = fitted(network.state_dict(), self.state, old=self.parent, new=self.spec)
        network.load_state_dict(state)
        return network, fresh


def starting_point(recipe: TrainRecipe, *, folder: Path = Path()) -> Start:
    """The spec and weights that a recipe begins with; `folder` is what its paths are relative to.

    Raises ModelError or InputError.
    """
    instances = _instances(recipe, folder)
    if instances is not None:
        _check_objects(recipe)
    names = [name for name in recipe.targets.names if name != "boundary" or instances is None]
    outputs = tuple(Channel(name=name) for name in names)
    if recipe.targets.distance:
        outputs = (*outputs, Channel(name="distance", kind="distance"))
    usual: dict[str, Any] = {
        "name": recipe.name,
        "title": recipe.title or recipe.description or f"{recipe.name}, trained by geoseg train",
        "outputs": outputs,
        "field_class": recipe.targets.field_class,
        "min_area_m2": recipe.min_area_m2,
        "licence": recipe.licence,
        "instances": instances,
    }
    if recipe.from_ is None:
        architecture, stride = _asked(recipe.network or {})
        patch = recipe.run_patch or max(512, recipe.patch)
        spec = ModelSpec(
            **usual, bands=_bands(recipe.bands or USUAL_BANDS), scaling="scene", clip=CLIP, architecture=architecture,
            stride=stride, patch=patch, halo=_halo(patch, stride, objects=instances is not None),
        )  # fmt: skip
        _check_patch(recipe, spec)
        return Start(spec=spec)
    model = load(parent_of(recipe.from_, folder))
    if model.runtime != "torch":
        raise ModelError(
            f"`from: {recipe.from_}` is a model for {model.runtime}; only networks of torch can be trained further"
        )
    parent = model.spec
    architecture = _trainable(recipe.from_, parent)
    scaling, asked = recipe.scaling or parent.scaling, recipe.run_patch
    halo = _halo(asked, parent.stride, objects=instances is not None) if asked else parent.halo
    spec = ModelSpec(
        **usual, bands=_inherited_bands(recipe, parent, scaling=scaling), scaling=scaling, units=parent.units,
        clip=CLIP if scaling == "scene" and parent.scaling != "scene" else parent.clip, stride=parent.stride,
        patch=asked or parent.patch, halo=halo,
        reach=parent.reach, upsample=parent.upsample, architecture=architecture,
    )  # fmt: skip
    _check_patch(recipe, spec)
    state = cast(TorchModel, model).network().state_dict()
    pruning = read_pruning(model.folder) if isinstance(model, BundleModel) else None
    return Start(spec=spec, parent=parent, state=state, fingerprint=model.fingerprint(), pruning=pruning)


def _instances(recipe: TrainRecipe, folder: Path) -> InstanceRule | None:
    """Which objects count, where the network finds objects one by one: it then learns of boundaries where they end."""
    if recipe.from_ is not None:
        return load(parent_of(recipe.from_, folder)).spec.instances
    kind = NETWORKS.get(str((recipe.network or {}).get("type")))
    return InstanceRule() if kind is not None and kind.instances else None


def _check_objects(recipe: TrainRecipe) -> None:
    """InputError for what only networks of classes learn."""
    if recipe.schedule.precision == "bf16":
        raise InputError("networks that find objects compute in fp32; leave schedule.precision out")
    if recipe.targets.distance:
        raise InputError("networks that find objects have no distance to learn; leave targets.distance out")
    names = recipe.targets.names
    if "boundary" not in names[-1:]:
        raise InputError(
            f"touching fields would be one object: the classes are {', '.join(names)}; give targets.boundary_px 1 or more, and "
            f"name boundary as the last of targets.classes"
        )


def fitted(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], *, old: ModelSpec, new: ModelSpec
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Weights `given` for the network of `old` as weights of one of `new`, and the names of those that are (partly) new.

    Bands and outputs are taken over by name. A band that the old network did not know gets the mean of those it knew, an
    output keeps its random weights. Raises ModelError where the networks differ otherwise.
    """
    bands = _positions([band.name for band in new.bands], [band.name for band in old.bands])
    outputs = _positions([one.name for one in new.outputs], [one.name for one in old.outputs])
    state, fresh = {}, []
    for name, tensor in wanted.items():
        source = given.get(name)
        if source is None:
            raise ModelError(
                f"the model to go on from has no weights {name}; its network is another one than its spec says"
            )
        same_inputs = tensor.ndim < 2 or tensor.shape[1] == source.shape[1]
        if tensor.shape == source.shape and not _touches(name, tensor, old, new, bands, outputs):
            state[name] = source.clone()
            continue
        out = tensor.clone()
        if tensor.ndim >= 2 and tensor.shape[1] == len(new.bands) and source.shape[1] == len(old.bands) and (
            not same_inputs or bands != list(range(len(old.bands)))
        ):  # fmt: skip
            mean = source.mean(dim=1)
            for i, k in enumerate(bands):
                out[:, i] = mean if k is None else source[:, k]
        elif tensor.shape[0] == len(new.outputs) and source.shape[0] == len(old.outputs):
            for i, k in enumerate(outputs):
                if k is not None:
                    out[i] = source[k]
        else:
            raise ModelError(
                f"weights {name} are {tuple(source.shape)} in the model to go on from, {tuple(tensor.shape)} in the new network"
            )
        state[name] = out
        fresh.append(name)
    return state, tuple(fresh)


def _touches(
    name: str,
    tensor: Tensor,
    old: ModelSpec,
    new: ModelSpec,
    bands: Sequence[int | None],
    outputs: Sequence[int | None],
) -> bool:
    """Whether a tensor of equal shape still belongs to bands or outputs that were exchanged."""
    exchanged = list(bands) != list(range(len(old.bands)))
    if exchanged and tensor.ndim == 4 and tensor.shape[1] == len(new.bands) == len(old.bands):
        return True
    swapped = list(outputs) != list(range(len(old.outputs)))
    return swapped and "head" in name and tensor.shape[0] == len(new.outputs) == len(old.outputs)


def _positions(names: Sequence[str], among: Sequence[str]) -> list[int | None]:
    return [among.index(name) if name in among else None for name in names]


def _bands(names: Sequence[str]) -> tuple[BandSpec, ...]:
    return tuple(BandSpec(name=band_name(name.rstrip("?")), optional=name.endswith("?")) for name in names)


def _inherited_bands(recipe: TrainRecipe, parent: ModelSpec, *, scaling: str) -> tuple[BandSpec, ...]:
    if recipe.bands is None:
        return parent.bands
    known = {band.name: band for band in parent.bands}
    asked = _bands(recipe.bands)
    unknown = [band.name for band in asked if band.name not in known]
    if unknown and scaling == "fixed":
        raise InputError(
            f"{parent.name} scales each band by a mean and a deviation of its own, and knows none for {', '.join(unknown)}; "
            f"add `scaling: scene`, or use its bands: {', '.join(known)}"
        )
    if scaling == "scene":
        return asked
    return tuple(
        BandSpec(name=band.name, mean=known[band.name].mean, std=known[band.name].std, optional=band.optional)
        for band in asked
    )


def _trainable(name: str, parent: ModelSpec) -> dict[str, Any]:
    """The parent's architecture as geoseg builds it."""
    architecture = dict(parent.architecture)
    if (
        architecture.get("type") == "torchgeo"
        and architecture.get("model") == "unet"
        and not architecture.get("paired")
    ):
        architecture = {"type": "unet", "encoder": architecture["backbone"], "decoder_channels": SMP_DECODER}
    if architecture.get("type") not in BUILDERS:
        kind = architecture.get("model") or architecture.get("type")
        raise ModelError(
            f"`from: {name}`: its network ({kind}) cannot be packaged after training; known: {', '.join(sorted(BUILDERS))} "
            f"(and U-Nets of torchgeo with classes)"
        )
    return architecture


def parent_of(name: str, folder: Path) -> str:
    """What `from:` names: a folder or file relative to the recipe's folder where there is one, else the name as it is."""
    path = folder / name
    return str(path) if name not in bundled_names() and path.exists() else name


def _asked(network: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The architecture record of a network, with the usual value of what is not said, and its stride."""
    settings = {str(key): value for key, value in network.items()}
    name, encoder = settings.pop("type", None), settings.pop("encoder", None)
    if not isinstance(name, str) or name not in NETWORKS:
        raise ModelError(f"network.type {name!r} is not known; known: {', '.join(sorted(NETWORKS))}")
    kind = NETWORKS[name]
    architecture = kind.architecture(None if encoder is None else str(encoder), **settings)
    scales = next(
        (v for key in ("decoder_channels", "widths") if isinstance(v := architecture.get(key), list | tuple)), ()
    )
    return architecture, 2 ** len(scales) if scales else kind.stride


def _halo(patch: int, stride: int, *, objects: bool = False) -> int:
    """64 pixels, or an eighth of small patches; where objects are to be seen whole up to 128, a quarter, and never 0."""
    if objects:
        return max(stride, min(128, patch // 4) // stride * stride)
    return min(64, patch // 8) // stride * stride


def _check_patch(recipe: TrainRecipe, spec: ModelSpec) -> None:
    if recipe.patch % spec.stride:
        near = max(1, round(recipe.patch / spec.stride)) * spec.stride
        raise InputError(f"patch {recipe.patch} is no multiple of the network's stride {spec.stride}; use {near}")


def encoder_names(network: nn.Module) -> frozenset[str]:
    """Names of the parameters of a network's encoder."""
    return frozenset(name for name, _ in network.named_parameters() if "encoder" in name.split("."))
