"""The Lightning task for networks that find objects one by one: Mask R-CNN's own losses, on objects made of class masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from geoseg.training.augmentation import mixed_seed
from geoseg.training.chips import Item
from geoseg.training.targets import IGNORE
from geoseg.training.task import TrainingTask

SMALLEST = 4
"""Pixels of the smallest object that is learnt: fewer are what a chip's rim has left of one."""


class InstanceTask(TrainingTask):
    """Learns from the objects of a chip: connected pixels of a class, with the halves of the boundaries around them.

    What is unknown of a chip is shown to the network as pixels without data, so that nothing is learnt of it.
    """

    def configure_losses(self) -> None:
        """The network brings its own."""

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:  # noqa: ARG002
        self.check_order(batch)
        torch.manual_seed(
            mixed_seed(self.recipe_.seed, int(batch["step"][0]))
        )  # it draws the boxes that it learns from
        loss = self._loss(batch)
        self._losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        known = int((batch["mask"] != IGNORE).sum())
        mask = batch["mask"]
        self.val_metrics.update(self._classes(batch["image"]), torch.where(mask >= self.classes, IGNORE, mask))
        detector = self.model.detector
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(batch_idx)
            detector.train()  # only then does it tell its losses
            detector.backbone.eval()
            loss = self._loss(batch)
            detector.eval()
        self._val[0] += float(loss) * known
        self._val[1] += known

    def _loss(self, batch: Item) -> Tensor:
        mask = batch["mask"]
        image = torch.where((mask == IGNORE)[:, None], 0, batch["image"])
        reach = self.recipe_.targets.boundary_px / 2
        targets = [self._targets(each, reach) for each in mask.cpu().numpy()]
        losses: dict[str, Tensor] = self.model(image, targets)
        return torch.stack(list(losses.values())).sum()

    def _targets(self, mask: NDArray[np.int64], reach: float) -> dict[str, Tensor]:
        masks, kinds = objects_of(mask, classes=self.classes, reach=reach)
        boxes = np.zeros((len(masks), 4), np.float32)
        for box, each in zip(boxes, masks, strict=True):
            rows, cols = np.flatnonzero(each.any(axis=1)), np.flatnonzero(each.any(axis=0))
            box[:] = cols[0], rows[0], cols[-1] + 1, rows[-1] + 1
        given = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(kinds), "masks": torch.from_numpy(masks)}
        return {name: value.to(self.device) for name, value in given.items()}

    def _classes(self, image: Tensor) -> Tensor:
        """(batch, class, row, col) scores of the objects found; what is no object is background."""
        rule = self.spec_.instances
        assert rule is not None
        out = torch.zeros(len(image), self.classes, *image.shape[-2:], device=image.device)
        for scores, found in zip(out, self.model(image), strict=True):
            for kind, score, mask in zip(found["labels"], found["scores"], found["masks"][:, 0], strict=True):
                if score >= rule.score:
                    scores[kind] = torch.maximum(scores[kind], score * (mask > 0.5))
            scores[0] = 1 - scores[1:].amax(dim=0)
            scores[0][scores[1:].amax(dim=0) > 0] = 0
        return out


def objects_of(mask: NDArray[Any], *, classes: int, reach: float) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The objects of a class mask.

    Args:
        mask: (row, col) class ids: 0 is the background, what lies beyond the classes is a boundary, 255 unknown.
        classes: how many there are, the background among them.
        reach: pixels of a boundary that belong to the object beside it.

    Returns:
        (object, row, col) 0 or 1; and (object,) class ids.
    """
    masks, kinds = [np.empty((0, *mask.shape), np.uint8)], []
    inside = (mask >= 1) & (mask < classes)
    far, (rows, cols) = ndimage.distance_transform_edt(~inside, return_indices=True)
    near = far <= math.sqrt(2) * math.ceil(reach)  # also around corners
    given = (mask >= classes) & (mask != IGNORE) & near & inside.any()
    for kind in range(1, classes):
        labels, count = ndimage.label(mask == kind)
        if not count:
            continue
        labels[given] = labels[rows[given], cols[given]]
        numbers = np.flatnonzero(np.bincount(labels.ravel())[1:] >= SMALLEST) + 1
        masks.append((labels[None] == numbers[:, None, None]).astype(np.uint8))
        kinds += [kind] * len(numbers)
    return np.concatenate(masks), np.array(kinds, np.int64)
