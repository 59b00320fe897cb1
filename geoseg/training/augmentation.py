"""Augmentation of batches by kornia: decided by (seed, step) alone, and kept within each chip."""

from __future__ import annotations

from typing import Any

import kornia.augmentation as K
import numpy as np
import torch
from kornia.constants import DataKey
from torch import Tensor, nn

from geoseg.training.chips import Item
from geoseg.training.recipe import Augment
from geoseg.training.targets import IGNORE


class Augmentation(nn.Module):
    """Turns, moves and recolours a batch. What comes in from beyond a chip is unknown (255) and zeros, as without data."""

    def __init__(self, augment: Augment, *, seed: int) -> None:
        super().__init__()
        self.seed = seed
        shape, light = _of_shape(augment), _of_light(augment)
        self.shape = K.AugmentationSequential(
            *shape, data_keys=["input", "mask"], extra_args={DataKey.MASK: {"resample": "nearest", "align_corners": None}}
        ) if shape else None  # fmt: skip
        self.light = K.AugmentationSequential(*light, data_keys=["input"]) if light else None

    @torch.no_grad()
    def forward(self, batch: Item) -> Item:
        """`image` (batch, channel, row, col), `mask` (batch, row, col), `distance` alike; and the `step`."""
        batch = dict(batch)
        device = batch["image"].device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(mixed_seed(self.seed, int(batch["step"][0])))
            if self.shape is not None:
                batch = self._moved(batch, self.shape)
            if self.light is not None:
                image = batch["image"]
                seen = (image != 0).any(dim=1, keepdim=True) & (image != 0).flatten(2).any(dim=2)[:, :, None, None]
                batch["image"] = torch.where(seen, self.light(image), image)
        return batch

    @staticmethod
    def _moved(batch: Item, shape: nn.Module) -> Item:
        mask = batch["mask"]
        # Kornia fills with zeros, so zero is to mean unknown.
        layers = [torch.where(mask == IGNORE, 0, mask + 1).float()]
        if "distance" in batch:
            layers.append(batch["distance"])
        image, moved = shape(batch["image"], torch.stack(layers, dim=1))
        ids = moved[:, 0].round().long()
        batch |= {"image": image, "mask": torch.where(ids == 0, IGNORE, ids - 1)}
        if "distance" in batch:
            batch["distance"] = moved[:, 1]
        return batch


def limited(image: Tensor, limit: float | None) -> Tensor:
    """As engines limit what the network sees."""
    return image if limit is None else image.clamp(-limit, limit)


def _of_shape(augment: Augment) -> list[Any]:
    steps: list[Any] = []
    if augment.flip:
        steps.append(K.RandomHorizontalFlip(p=0.5))
    if augment.turn:
        steps.append(K.RandomRotation90(times=(0, 3), p=1.0))
    if augment.rotate_deg or augment.translate or augment.zoom > 1:
        steps.append(
            K.RandomAffine(
                degrees=augment.rotate_deg,
                translate=(augment.translate, augment.translate) if augment.translate else None,
                scale=(1 / augment.zoom, augment.zoom) if augment.zoom > 1 else None,
                p=0.7,
            )
        )
    return steps


def _of_light(augment: Augment) -> list[Any]:
    steps: list[Any] = []
    if augment.contrast:
        steps.append(K.RandomContrast((1 - augment.contrast, 1 + augment.contrast), clip_output=False, p=1.0))
    if augment.brightness:
        spread = augment.brightness
        steps.append(K.RandomBrightness((1 - spread, 1 + spread), clip_output=False, p=1.0))
    if augment.shuffle_bands:
        steps.append(K.RandomChannelShuffle(p=augment.shuffle_bands))
    if augment.blur:
        steps.append(K.RandomGaussianBlur((5, 5), (0.3, 1.2), p=augment.blur))
    if augment.noise:
        steps.append(K.RandomGaussianNoise(std=augment.noise, p=0.5))
    return steps


def mixed_seed(seed: int, step: int) -> int:
    """A seed for torch of two numbers, well apart for neighbours."""
    return int(np.random.SeedSequence((seed, step, 1)).generate_state(1, np.uint64)[0] >> 1)
