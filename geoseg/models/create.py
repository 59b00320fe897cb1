"""A model of one's own: a network of the suite with random weights, or with a pretrained encoder, as a package.

This module imports torch only inside its functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import ModelError
from geoseg.models.bundle import SPEC, BundleModel
from geoseg.models.catalogue import NetworkKind, network_kind
from geoseg.models.package import count_state, usual_card, write_package
from geoseg.models.pretrained import EncoderWeights, Fitted, describe, find_weights, load_encoder
from geoseg.spec import BandSpec, InstanceRule, ModelSpec, Scaling, classes
from geoseg.spec import bands as band_specs

if TYPE_CHECKING:
    from torch import nn

FIELD_CLASSES = ("field", "fields", "crop", "cropland", "parcel")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
RANDOM = "## Weights\n\nRandom (seed {seed}): this model has learnt nothing. Train it before you use what it says."


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModel:
    """What a new model is to be."""

    name: str
    network: str
    """A name of geoseg.models.catalogue.NETWORKS."""
    encoder: str | None = None
    """None takes the network's usual one, or the one that `weights` fit."""
    bands: tuple[str, ...]
    """Of one date."""
    classes: tuple[str, ...]
    dates: int = 1
    """How many images of these bands are stacked; the second image's bands are called red_2, green_2, ..."""
    weights: str | None = None
    """Of the encoder: torchgeo's name, or a file. None: random."""
    weights_file: Path | None = None
    """A local copy of named weights."""
    resolution_m: tuple[float, float] = (0.1, 1000.0)
    """Pixel sizes that it is meant for; the nominal one is their geometric mean."""
    scaling: Scaling = "scene"
    units: str = "raw"
    """With fixed scaling: see ModelSpec.units."""
    mean: tuple[float, ...] = (0.0,)
    """With fixed scaling: one for all bands, or one a band of a date."""
    std: tuple[float, ...] = (1.0,)
    field_class: str | None = None
    patch: int = 512
    halo: int = 64
    seed: int = 0
    licence: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ModelError(
                f"{self.name!r} is no name for a model; use letters, digits, dots and dashes, such as fields-2026"
            )
        for what, names in (("bands", self.bands), ("classes", self.classes)):
            if not names or len(set(names)) < len(names) or not all(names):
                raise ModelError(
                    f"--{what} {','.join(names)!r} are no different names; give e.g. --{what} {EXAMPLES[what]}"
                )
        if len(self.classes) < 2:
            raise ModelError(
                f"one class ({self.classes[0]}) leaves nothing to tell apart; give e.g. --classes background,field"
            )
        if not 0 < self.resolution_m[0] <= self.resolution_m[1] < float("inf"):
            raise ModelError(
                f"--resolution {self.resolution_m[0]:g},{self.resolution_m[1]:g} is no range of pixel sizes; give e.g. 7,15"
            )
        if self.dates < 1:
            raise ModelError(f"--dates {self.dates} stacks no image; use 1, 2 or 4")
        for what, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, len(self.bands)):
                raise ModelError(
                    f"--{what} has {len(values)} values for {len(self.bands)} bands; give one, or one a band"
                )

    @property
    def stack(self) -> tuple[BandSpec, ...]:
        """All bands in the order of the network's channels, date after date."""
        names = stacked(self.bands, self.dates)
        return band_specs(names, mean=self._spread(self.mean), std=self._spread(self.std))

    def _spread(self, values: tuple[float, ...]) -> list[float]:
        return list(values) * (len(self.bands) * self.dates if len(values) == 1 else self.dates)


EXAMPLES = {"bands": "red,green,blue,nir", "classes": "background,field,boundary"}


def stacked(bands: Sequence[str], dates: int) -> tuple[str, ...]:
    """Names of the bands of several dates: those of the second end in _2 (see geoseg.models.fit.band_index)."""
    return tuple(band if date == 1 else f"{band}_{date}" for date in range(1, dates + 1) for band in bands)


def create_model(new: NewModel, folder: Path, *, overwrite: bool = False) -> BundleModel:
    """Writes the package of a new model into `folder` and opens it. Raises ModelError."""
    import torch

    from geoseg.models.networks import build_network

    if (folder / SPEC).exists() and not overwrite:
        raise ModelError(f"{folder} already holds a model; choose another folder, or pass --overwrite")
    kind = network_kind(new.network)
    weights = find_weights(new.weights, file=new.weights_file) if new.weights else None
    architecture = kind.architecture(new.encoder or _suggested(kind, weights))
    spec = _spec(new, kind, architecture, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(new.seed)
        network = build_network(architecture, channels=len(spec.bands), outputs=len(spec.outputs))
    fitted = load_encoder(network, weights, [band.name for band in spec.bands]) if weights else None
    check_network(network, spec)
    state = network.state_dict()
    card = usual_card(spec, count_state(state), more=_more(new, weights, fitted))
    write_package(state, spec, folder, card=card, pretrained_source=weights.source if weights else None)
    return BundleModel.open(folder)


def check_network(network: nn.Module, spec: ModelSpec) -> None:
    """ModelError unless patches of two sizes go through, and come out with a row and a column for each that went in."""
    import torch

    network.eval()
    side = max(64, spec.stride)
    for rows, cols in ((side, side), (side, side + 2 * spec.stride)):
        try:
            with torch.inference_mode():
                made = network(torch.zeros(1, len(spec.bands), rows, cols))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"network {spec.architecture['type']!r} with encoder {spec.architecture.get('encoder')!r} cannot take patches of "
                f"{rows} x {cols} pixels ({reason[:200]}); use another --encoder, such as resnet34"
            ) from error
        if spec.instances is not None:
            fits, shape = made[0]["masks"].shape[1:] == (1, rows, cols), list(made[0]["masks"].shape)
        else:
            fits, shape = made.shape == (1, len(spec.outputs), rows, cols), list(made.shape)
        if not fits:
            raise ModelError(
                f"network {spec.architecture['type']!r} with encoder {spec.architecture.get('encoder')!r} makes {shape} of "
                f"{rows} x {cols} pixels; use another --encoder, such as resnet34"
            )


def _suggested(kind: NetworkKind, weights: EncoderWeights | None) -> str | None:
    return weights.encoder if weights and kind.encoder else None


def _spec(new: NewModel, kind: NetworkKind, architecture: dict[str, Any], weights: EncoderWeights | None) -> ModelSpec:
    low, high = new.resolution_m
    told = f"{kind.title}, {architecture['encoder']}" if kind.encoder else kind.title
    field = new.field_class or next((name for name in FIELD_CLASSES if name in new.classes), new.classes[1])
    return ModelSpec(
        name=new.name,
        title=f"{told}; " + ("pretrained encoder, else untrained" if weights else "untrained"),
        bands=new.stack,
        outputs=classes(*new.classes),
        field_class=field,
        scaling=new.scaling,
        units=new.units,  # type: ignore[arg-type]  # a choice of the command line
        clip=4.0 if new.scaling == "scene" else None,
        patch=new.patch,
        halo=new.halo,
        stride=kind.stride,
        reach=kind.reach,
        resolution_m=new.resolution_m,
        nominal_m=round((low * high) ** 0.5, 3),
        licence=new.licence,
        architecture=architecture,
        instances=InstanceRule() if kind.instances else None,
        trained_on=f"encoder: {weights.source}; the rest is random" if weights else "",
    )


def _more(new: NewModel, weights: EncoderWeights | None, fitted: Fitted | None) -> str:
    said = RANDOM.format(seed=new.seed)
    if weights is None or fitted is None:
        return said
    return f"{describe(weights, fitted)}\n\n{said.replace('Random', 'All but the encoder is random')}"
