"""The training loop: one-cycle AdamW, averaged weights, a checkpoint now and then, the same samples for the same seed."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.training.samples import Source
from geoseg.training.targets import BOUNDARY, IGNORE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    steps: int
    batch: int
    """Patches a step."""
    seed: int = 0
    learning_rate: float = 2e-3
    """At its peak, a tenth into the training; it falls as a cosine to nothing."""
    weight_decay: float = 0.01
    class_weights: tuple[float, ...] = (1.0, 1.0, 1.6)
    """Of background, field and boundary in the cross-entropy."""
    dice_share: float = 0.5
    """Weight of the boundary's Dice loss beside the cross-entropy."""
    averaging: float = 0.997
    """Share of the averaged weights that stays from one step to the next."""
    checkpoint_s: float = 180.0
    """Seconds between checkpoints."""

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, see `one_cycle`."""
        return self.learning_rate * one_cycle(step, self.steps)


def one_cycle(step: int, steps: int) -> float:
    """The share of the peak rate at a step: up in a straight line over a tenth, down as half a cosine."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def train(
    network: nn.Module, source: Source, schedule: Schedule, *, checkpoint: Path | None = None, resume: bool = False
) -> nn.Module:
    """Train `network` on `source` and return it with averaged weights, in evaluation mode.

    Sample k of step n is drawn from its own random stream, so a resumed training sees what an unbroken one sees.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    first = 0
    if resume and checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], int(state["step"])
    network.train()
    saved, losses = time.monotonic(), []
    for step, (pixels, target) in enumerate(_batches(source, schedule, first), start=first):
        pixels = pixels.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = network(pixels)
        loss = segmentation_loss(logits.float(), target.to(device), schedule)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(step)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        follow(average, network, keep=min(schedule.averaging, step / (step + 10)))
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            logger.info("step %d of %d: loss %.4f", step + 1, schedule.steps, float(np.mean(losses[-50:])))
        if checkpoint is not None and time.monotonic() - saved > schedule.checkpoint_s:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            _write_checkpoint(checkpoint, {**state, "average": average, "step": step + 1})
            saved = time.monotonic()
    network.load_state_dict(average)
    return network.eval()


def segmentation_loss(logits: Tensor, target: Tensor, schedule: Schedule) -> Tensor:
    """Weighted cross-entropy of (batch, class, row, col) logits, and the Dice loss of the boundary class."""
    weights = torch.tensor(schedule.class_weights, device=logits.device)
    entropy = F.cross_entropy(logits, target, weight=weights, ignore_index=IGNORE)
    counted = (target != IGNORE).float()
    boundary = logits.softmax(dim=1)[:, BOUNDARY] * counted
    truth = (target == BOUNDARY).float()
    dice = 1 - (2 * (boundary * truth).sum() + 1) / (boundary.sum() + truth.sum() + 1)
    return entropy + schedule.dice_share * dice


def _batches(source: Source, schedule: Schedule, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from step `first` on; the next one is made while the last one is learnt."""
    with ThreadPoolExecutor(max_workers=1) as maker:
        following = maker.submit(_batch, source, schedule, first)
        for step in range(first, schedule.steps):
            ready = following.result()
            if step + 1 < schedule.steps:
                following = maker.submit(_batch, source, schedule, step + 1)
            yield ready


def _batch(source: Source, schedule: Schedule, step: int) -> tuple[Tensor, Tensor]:
    streams = (np.random.default_rng((schedule.seed, step, k)) for k in range(schedule.batch))
    samples = [source.sample(rng) for rng in streams]
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples]))
    target = torch.from_numpy(np.stack([sample.target for sample in samples])).long()
    return pixels, target


def follow(average: dict[str, Tensor], network: nn.Module, *, keep: float) -> None:
    """Moves averaged weights towards the network's: `keep` of them stays."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - keep)
            else:
                average[name].copy_(value)


def _write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
