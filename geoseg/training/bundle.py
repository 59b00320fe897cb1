"""Train a bundled model and write its bundle: `python -m geoseg.training.bundle fields-rgb --data DIR --out DIR`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from geoseg.errors import GeosegError, ModelError
from geoseg.models.bundle import BundleModel
from geoseg.models.networks import build_network
from geoseg.models.package import read_card, write_package
from geoseg.spec import BandSpec, ModelSpec, classes
from geoseg.training import aerial, library, pool
from geoseg.training.loop import Schedule, train
from geoseg.training.samples import CLIP, Source

NETWORK = {
    "type": "detail-unet",
    "encoder": "tu-mobilenetv3_small_100",
    "decoder_channels": [96, 48, 32, 16, 16],
    "detail_channels": 16,
}

POOL_SCENES = 266
"""Generated scenes of 384 x 384 px at two dates that fields-s2 and fields-s2-2dates are trained on."""

FIRST_LAYERS = ("unet.encoder.model.conv_stem.weight", "detail.0.0.weight")
"""Weights of NETWORK that see the bands: (output, band, row, col)."""

RGB_SPEC = ModelSpec(
    name="fields-rgb",
    title="Fields in aerial RGB images of about 1 m",
    bands=(BandSpec(name="red"), BandSpec(name="green"), BandSpec(name="blue")),
    outputs=classes("background", "field", "boundary"),
    scaling="scene",
    clip=CLIP,
    patch=1024,
    halo=64,
    stride=32,
    reach="patch",
    resolution_m=(0.4, 2.5),
    nominal_m=1.0,
    min_area_m2=1500.0,
    licence="Apache-2.0",
    architecture=NETWORK,
    trained_on="19 USDA NAIP images of the US Midwest (public domain) with hand-drawn fields (MIT); no pretrained weights",
)

S2_SPEC = ModelSpec(
    name="fields-s2",
    title="Fields in Sentinel-2 scenes and others of about 10 m",
    bands=(BandSpec(name="red"), BandSpec(name="green"), BandSpec(name="blue"), BandSpec(name="nir", optional=True)),
    outputs=classes("background", "field", "boundary"),
    scaling="scene",
    clip=CLIP,
    patch=1024,
    halo=64,
    stride=32,
    reach="patch",
    resolution_m=(5.0, 20.0),
    nominal_m=10.0,
    min_area_m2=4000.0,
    licence="Apache-2.0",
    architecture=NETWORK,
    trained_on="generated scenes only, some with real parcel shapes (US: cultionet, Apache-2.0; Azerbaijan: eo-grow, MIT); "
    "no pretrained weights",
)

S2_DATES_SPEC = replace(
    S2_SPEC,
    name="fields-s2-2dates",
    title="Fields in two dates of Sentinel-2 and others of about 10 m",
    bands=(
        *S2_SPEC.bands,
        *(BandSpec(name=f"{band.name}_2", optional=band.optional) for band in S2_SPEC.bands),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """All that makes a bundled model but its data."""

    spec: ModelSpec
    source: Callable[[Path, Path, int], Source]
    """Training samples from the data folder, the output folder (for scenes made once) and the seed."""
    schedule: Schedule
    parts: tuple[ModelSpec, ...] = ()
    """Models that are the same network with only the first of its bands; their weights are cut out of it."""
    favour: tuple[float, float, float]
    """Added to the logits of background, field and boundary after training. A lost piece of edge joins two fields while a
    thick edge costs little; and generated land is farmed less than most of the land that a model is asked about.
    How each value was chosen stands in the model's card."""


def _rgb_source(data: Path, _out: Path, _seed: int) -> Source:
    return aerial.AerialSource(scenes=aerial.read_scenes(data / "naip-us-fields"), patch=384)


def _cells(data: Path) -> pool.Cells:
    return {
        "dense": library.read_cells(data / "vec-usa-cultionet-grids"),
        "sparse": library.read_sparse_cells(data / "vec-azerbaijan-eogrow"),
    }


def _s2_source(data: Path, out: Path, seed: int) -> Source:
    paths = pool.fill(
        out / "fields-s2.scenes-2dates", look=pool.SATELLITE, count=POOL_SCENES, seed=1000 * seed, cells=_cells(data)
    )
    return pool.PoolSource(scenes=pool.read(paths))


MAKINGS: Mapping[str, Making] = {
    "fields-rgb": Making(
        spec=RGB_SPEC, source=_rgb_source, schedule=Schedule(steps=1000, batch=4, seed=1), favour=(0.0, 0.0, 1.5)
    ),
    "fields-s2-2dates": Making(
        spec=S2_DATES_SPEC,
        source=_s2_source,
        schedule=Schedule(steps=2600, batch=8, learning_rate=1.5e-3, seed=1),
        parts=(S2_SPEC,),
        favour=(-0.5, 0.0, 0.5),
    ),
}

MADE_WITH = {part.name: name for name, making in MAKINGS.items() for part in making.parts}
"""The making that brings a model which has none of its own."""


def make(
    name: str,
    *,
    data: Path,
    out: Path,
    steps: int | None = None,
    seed: int | None = None,
    start: Path | None = None,
    resume: bool = False,
) -> Path:
    """Train the model `name` and write OUT/name/spec.json and weights.safetensors; returns that folder.

    `start` is the folder of a model to begin with, of as many bands or fewer; without it weights are random. Parts with
    the bands of `start` become the mean of their weights and its own, which is better on other land than either.
    """
    making = MAKINGS.get(MADE_WITH.get(name, name))
    if making is None:
        raise ModelError(f"no bundled model {name!r}; known: {', '.join(sorted([*MAKINGS, *MADE_WITH]))}")
    usual = making.schedule
    schedule = replace(usual, steps=usual.steps if steps is None else steps, seed=usual.seed if seed is None else seed)
    torch.manual_seed(schedule.seed)
    spec = making.spec
    network = build_network(spec.architecture, channels=len(spec.bands), outputs=len(spec.outputs))
    first = None if start is None else BundleModel.open(start)
    if first is not None:
        network.load_state_dict(widened(first.network().state_dict(), channels=len(spec.bands)))
    checkpoint = out / f"{spec.name}.checkpoint"
    source = making.source(data, out, schedule.seed)
    trained = train(network, source, schedule, checkpoint=checkpoint, resume=resume)
    favour_classes(trained, by=making.favour)
    write_bundle(trained.state_dict(), spec, out / spec.name)
    for part in making.parts:
        state = narrowed(trained.state_dict(), channels=len(part.bands))
        if first is not None and first.spec.bands == part.bands:
            state = mean_of(state, first.network().state_dict())
        write_bundle(state, part, out / part.name)
    return out / name


def mean_of(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The mean of two sets of weights, one trained from the other (Wortsman et al. 2022, "Robust fine-tuning")."""
    return {
        name: (value.cpu() + second[name].cpu()) / 2 if value.is_floating_point() else value
        for name, value in first.items()
    }


def widened(state: Mapping[str, torch.Tensor], *, channels: int) -> dict[str, torch.Tensor]:
    """Weights of NETWORK for so many bands: later bands begin as a tenth of the first ones, in their order."""
    wide = dict(state)
    for name in FIRST_LAYERS:
        weight = state[name]
        copies = -(-channels // weight.shape[1]) - 1
        wide[name] = torch.cat([weight, *[weight * 0.1] * copies], dim=1)[:, :channels]
    return wide


def narrowed(state: Mapping[str, torch.Tensor], *, channels: int) -> dict[str, torch.Tensor]:
    """Weights of NETWORK for the first bands only: the same function as with zeros in the others."""
    return {name: value[:, :channels] if name in FIRST_LAYERS else value for name, value in state.items()}


def favour_classes(network: torch.nn.Module, *, by: tuple[float, float, float]) -> None:
    """Raise the logits of background, field and boundary everywhere."""
    bias = network.get_parameter("head.bias")
    with torch.no_grad():
        bias.add_(torch.tensor(by, device=bias.device))


def write_bundle(state: Mapping[str, torch.Tensor], spec: ModelSpec, folder: Path) -> Path:
    """Write a package with the card that is already there, or a new one; refuses weights that half precision cannot hold."""
    return write_package(state, spec, folder, card=read_card(folder))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m geoseg.training.bundle", description=__doc__)
    parser.add_argument("name", choices=sorted([*MAKINGS, *MADE_WITH]))
    parser.add_argument("--data", type=Path, required=True, help="folder with the training data")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets a folder named after the model")
    parser.add_argument("--steps", type=int, help="training steps; the model's own number if not given")
    parser.add_argument("--seed", type=int, help="of weights and samples; the model's own if not given")
    parser.add_argument(
        "--start", type=Path, metavar="FOLDER", help="a model to begin with; random weights if not given"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0: its own choice")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        make(
            options.name,
            data=options.data,
            out=options.out,
            steps=options.steps,
            seed=options.seed,
            start=options.start,
            resume=options.resume,
        )
    except GeosegError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
