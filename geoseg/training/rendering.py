"""geoseg train RECIPE --renderer: the scenes of a recipe in, a renderer of such scenes out.

The painter learns against a discriminator of patches (hinge loss, spectral norm: Miyato et al. 2018,
https://arxiv.org/abs/1802.05957) and from the distance to the real image. It sees the chips that a model of the same recipe
learns from, and no others.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from geoseg.disk import flush, room_for
from geoseg.errors import InputError, ModelError
from geoseg.models.weights import read_torch_file
from geoseg.runtime.events import Events
from geoseg.runtime.stop import Stop, signals_set
from geoseg.runtime.workspace import Workspace, read_json
from geoseg.training.apart import learnt_place
from geoseg.training.augmentation import limited
from geoseg.training.chips import TrainingChips
from geoseg.training.folder import begin
from geoseg.training.generated import pixel_sizes
from geoseg.training.loop import follow
from geoseg.training.preparation import Preparation, prepare_training
from geoseg.training.recipe import TrainRecipe
from geoseg.training.renderer import (
    RECORD,
    SCHEMA,
    STRIDE,
    WEIGHTS,
    Image,
    Painter,
    Renderer,
    channels,
    colours_of,
    inputs_of,
    looks_of,
)
from geoseg.training.rendering_preview import PREVIEW, draw_preview
from geoseg.training.samples import CLIP, turned
from geoseg.training.session import as_training, settled_precision
from geoseg.training.targets import BACKGROUND, IGNORE
from geoseg.version import VERSION

FILES = (PREVIEW, WEIGHTS, RECORD)
"""In the order of their move into OUT."""

STATE = "state.ckpt"
KEPT_STEPS = 100
"""Steps after which the state is kept."""

AVERAGING = 0.995
"""Share of the averaged weights that stays from one step to the next."""

LOOKED_AT = 64
"""Chips a scene, at most, whose colours the renderer remembers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A real chip as the renderer learns from it."""

    inputs: Image
    image: Image
    known: NDArray[np.bool_]


class Judge(nn.Module):
    """(batch, inputs + bands, row, col) -> (batch, 1, ...) above 0 where a patch of about 40 pixels looks real."""

    def __init__(self, inputs: int, *, width: int) -> None:
        super().__init__()
        sizes = (inputs, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        layers.append(spectral_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1)))
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor, image: Tensor) -> Tensor:
        told: Tensor = self.layers(torch.cat([inputs, image], dim=1))
        return told


class Duel:
    """The painter, its judge, and all that one step of both changes."""

    def __init__(self, bands: int, recipe: TrainRecipe) -> None:
        self.wanted = recipe.renderer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.painter = Painter(bands, width=self.wanted.width)
            self.judge = Judge(channels(bands) + bands, width=self.wanted.width)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for network in (self.painter, self.judge):
            network.to(self.device).to(memory_format=torch.channels_last)
        usual: dict[str, Any] = {"lr": self.wanted.learning_rate, "betas": (0.5, 0.99)}
        self.paints = torch.optim.Adam(self.painter.parameters(), **usual)
        self.judges = torch.optim.Adam(self.judge.parameters(), **usual)
        self.average = {name: value.detach().clone() for name, value in self.painter.state_dict().items()}
        self.half = settled_precision(recipe.schedule) == "bf16"

    def step(self, number: int, shown: Sequence[Shown]) -> tuple[float, float, float]:
        """One step of both on a batch: mean distance from the real image, the painter's loss, the judge's."""
        batch = [np.stack(parts) for parts in zip(*((o.inputs, o.image, o.known) for o in shown), strict=True)]
        inputs, real, known = (torch.from_numpy(part).to(self.device) for part in batch)
        seen = known[:, None].float()
        late = max(0.0, 2 * number / self.wanted.steps - 1)  # the second half slows down
        for optimizer in (self.paints, self.judges):
            optimizer.param_groups[0]["lr"] = self.wanted.learning_rate * (1 - 0.9 * late)
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if self.half else nullcontext():
            made = self.painter(inputs)
            good, bad = self.judge(inputs, real * seen), self.judge(inputs, (made * seen).detach())
            judged = (F.relu(1 - good.float()) + F.relu(1 + bad.float())).mean()
        self._follow(self.judges, self.judge, judged)
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if self.half else nullcontext():
            praise = self.judge(inputs, made * seen).float().mean()
        distance = ((made.float() - real).abs() * seen).sum() / (seen.sum() * real.shape[1]).clamp(min=1)
        loss = self.wanted.l1 * distance - praise
        self._follow(self.paints, self.painter, loss)
        follow(self.average, self.painter, keep=min(AVERAGING, number / (number + 10)))
        return float(distance.detach()), float(loss.detach()), float(judged.detach())

    @staticmethod
    def _follow(optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()

    def state(self) -> dict[str, Any]:
        parts = (self.painter, self.judge, self.paints, self.judges)
        return {"parts": [part.state_dict() for part in parts], "average": self.average}

    def go_on(self, state: Mapping[str, Any]) -> None:
        parts: tuple[Any, ...] = (self.painter, self.judge, self.paints, self.judges)
        for part, kept in zip(parts, state["parts"], strict=True):
            part.load_state_dict(kept)
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}

    def settled(self) -> Painter:
        """The painter with averaged weights, on the CPU."""
        self.painter.load_state_dict(self.average)
        return self.painter.cpu().to(memory_format=torch.contiguous_format).eval()


def train_renderer(
    recipe: TrainRecipe,
    *,
    out: str | Path,
    folder: str | Path = ".",
    restart: bool = False,
    events: Events | None = None,
) -> Renderer:
    """Trains a renderer on what the recipe's model would learn from, and writes it to `out`; the same call again resumes.

    Args as of `geoseg.teaching.train`. Raises GeosegError; Interrupted after Ctrl-C.
    """
    events, stop, workspace = events or Events(), Stop(), Workspace(Path(out).absolute())
    recipe = recipe.model_copy(update={"generated": None})
    with signals_set(stop):
        made = prepare_training(recipe, folder=Path(folder))
        bands = painted_bands(made)
        size = float(median(pixel_sizes(recipe, made.scenes, made.division)))
        identity = _identity(made, bands)
        for note in made.notes:
            events.note(note)
        with workspace.locked():
            done = begin(workspace, identity, record=RECORD, whole=(RECORD, WEIGHTS), written=FILES, restart=restart)
            if done is not None:
                events.note(f"{out} already holds this renderer; nothing to do (--restart trains it anew)")
                return Renderer.open(workspace.out)
            chips = made.data().training
            state = workspace.partial / STATE
            with as_training(_threads(recipe, state)):
                duel, told = _taught(chips, bands, recipe, state=state, events=events, stop=stop)
                renderer = Renderer(
                    record=_record(made, identity, [made.start.spec.bands[k].name for k in bands], size, told),
                    painter=duel.settled(),
                    looks=_looks(chips, bands, recipe),
                )
                with room_for(workspace.making):
                    renderer.write(workspace.making)
                    shown = [_shown(chips, bands, recipe, step=-1, number=k) for k in range(6)]
                    draw_preview(renderer, shown, workspace.making / PREVIEW)
                    for name in FILES:
                        os.replace(workspace.making / name, workspace.out / name)
            workspace.clear()
    return Renderer.open(workspace.out)


def painted_bands(made: Preparation) -> tuple[int, ...]:
    """Channels that all scenes have which are learnt from. Raises InputError for a recipe that no renderer can be made of."""
    if made.start.spec.scaling != "scene":
        raise InputError("a renderer learns scenes that are scaled by their percentiles; add `scaling: scene`")
    if made.recipe.targets.boundary_px < 1 or made.recipe.targets.classes != ("background", "field", "boundary"):
        raise InputError(
            "a renderer learns layouts of background, field and boundary; give these classes, and targets.boundary_px of 1 "
            "or more"
        )
    if (side := made.recipe.renderer.patch) is not None and side > made.recipe.patch:
        raise InputError(
            f"renderer.patch {side} is larger than the patch of {made.recipe.patch}, within which chips keep away from what "
            f"is scored; leave it out"
        )
    present = [made.scenes[k].scaling.bands for k in made.learnt]
    return tuple(k for k, one in enumerate(zip(*present, strict=True)) if None not in one)


def side_px(recipe: TrainRecipe) -> int:
    """Side of what the renderer learns from."""
    return recipe.renderer.patch or min(128, recipe.patch // STRIDE * STRIDE)


def _taught(
    chips: TrainingChips, bands: Sequence[int], recipe: TrainRecipe, *, state: Path, events: Events, stop: Stop
) -> tuple[Duel, dict[str, float]]:
    """The duel fought to its end, from the kept state if there is one, and its last losses."""
    wanted, duel, first = recipe.renderer, Duel(len(bands), recipe), 0
    losses: list[tuple[float, ...]] = []
    if state.is_file():
        kept = read_torch_file(state)
        duel.go_on(kept)
        first, losses = int(kept["step"]), [tuple(step) for step in kept["losses"]]
    events.stage_started("train", total=wanted.steps, done=first)
    for step in range(first, wanted.steps):
        stop.check()
        shown = [_shown(chips, bands, recipe, step=step, number=k) for k in range(wanted.batch)]
        losses.append(duel.step(step, shown))
        if not all(map(math.isfinite, losses[-1])):
            raise ModelError(
                f"the training diverged in step {step + 1}: its loss is no number; give a lower renderer.learning_rate "
                f"(it is {wanted.learning_rate:g})"
            )
        events.stage_advanced("train")
        if (step + 1) % KEPT_STEPS == 0 or step + 1 == wanted.steps:
            distance, painter, judge = (mean(column) for column in zip(*losses[-KEPT_STEPS:], strict=True))
            events.note(f"step {step + 1}: distance {distance:.3f}, painter {painter:.3f}, judge {judge:.3f}")
            with room_for(state.parent):
                part = state.with_suffix(".part")
                torch.save({**duel.state(), "step": step + 1, "losses": losses[-KEPT_STEPS:]}, part)
                flush(part)
                os.replace(part, state)
    events.stage_finished("train")
    last = zip(*losses[-KEPT_STEPS:], strict=True)
    names = ("distance", "painter_loss", "judge_loss")
    return duel, {name: mean(column) for name, column in zip(names, last, strict=False)}


def _shown(chips: TrainingChips, bands: Sequence[int], recipe: TrainRecipe, *, step: int, number: int) -> Shown:
    """Chip `number` of a step: decided by them and the seed alone."""
    rng = np.random.default_rng((recipe.seed, 13, step + 1, number))
    _, pixels, mask = _real(chips, bands, side_px(recipe), rng)
    pixels, mask = turned(pixels, mask, rng)
    drawn = np.where(mask == IGNORE, BACKGROUND, mask).astype(np.uint8)
    colours, _, _ = colours_of(pixels, drawn, mask != IGNORE)
    noise = rng.standard_normal(mask.shape, dtype=np.float32)
    return Shown(inputs=inputs_of(drawn, colours, noise), image=pixels, known=mask != IGNORE)


def _real(
    chips: TrainingChips, bands: Sequence[int], side: int, rng: np.random.Generator
) -> tuple[int, Image, NDArray[np.uint8]]:
    """A part of a chip that a model may learn from: scene, pixels as models see them, class map."""
    number, window = chips.window(rng)
    row, col = (int(rng.integers(length - side + 1)) for length in window.shape)
    piece = chips.scenes.read(number, window)
    inner = (slice(row, row + side), slice(col, col + side))
    pixels = limited(torch.from_numpy(piece.pixels[list(bands)][:, *inner]), CLIP).numpy()
    return number, pixels, piece.mask[inner]


def _looks(chips: TrainingChips, bands: Sequence[int], recipe: TrainRecipe) -> Any:
    found = []
    learnt = sum(len(plot.corners) > 0 for plot in chips.division.plots)
    for k in range(LOOKED_AT * learnt):
        rng = np.random.default_rng((recipe.seed, 17, k))
        number, pixels, mask = _real(chips, bands, side_px(recipe), rng)
        if (mask == IGNORE).mean() < 0.5:
            drawn = np.where(mask == IGNORE, BACKGROUND, mask).astype(np.uint8)
            _, fields, soft = colours_of(pixels, drawn, mask != IGNORE)
            found.append((number, fields, soft))
    return looks_of(found)


def _identity(made: Preparation, bands: Sequence[int]) -> dict[str, Any]:
    """What decides a renderer; how long the model of the same recipe trains does not."""
    values = made.recipe.decisive()
    return {
        "recipe": {name: values[name] for name in ("scenes", "split", "targets", "resolution_m", "patch", "seed")},
        "renderer": made.recipe.renderer.model_dump(mode="json"),
        "bands": [made.start.spec.bands[k].name for k in bands],
        "precision": made.recipe.schedule.precision,
        "data": [one.fingerprint() for one in made.scenes],
        "geoseg": VERSION,
    }


def _record(
    made: Preparation, identity: Mapping[str, Any], names: Sequence[str], size: float, told: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "bands": list(names),
        "pixel_size_m": size,
        "boundary_px": made.recipe.targets.boundary_px,
        "width": made.recipe.renderer.width,
        "identity": identity,
        "learnt": [learnt_place(made.scenes[k], made.division.plots[k]) for k in made.learnt],
        "losses": {name: round(value, 5) for name, value in told.items()},
        "versions": {"geoseg": VERSION, "torch": torch.__version__},
    }


def _threads(recipe: TrainRecipe, state: Path) -> int:
    """Threads of torch: those that it was begun with."""
    kept = state.with_name("threads.json")
    found = int(read_json(kept).get("threads", 0)) or recipe.schedule.threads or torch.get_num_threads()
    with room_for(kept.parent):
        kept.write_text(f'{{"threads": {found}}}')
    return found
