"""Losses of a training: a weighted sum over the classes' softmax, and one for the distance output."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.training.recipe import Loss
from geoseg.training.targets import IGNORE


class SegmentationLoss(nn.Module):
    """Logits (batch, output, row, col), of which the first are classes, against class ids and, beyond them, a distance.

    Dice and Tversky are those of segmentation_models_pytorch, over whole batches and all classes present. The focal loss is
    (1 - p)^gamma times the cross-entropy (Lin et al. 2017, "Focal Loss for Dense Object Detection"), on the softmax that
    the model is read by. The distance is a share from 0 to 1: a cross-entropy with soft targets. Pixels of 255 do not count.
    """

    def __init__(self, loss: Loss, *, class_weights: Tensor) -> None:
        super().__init__()
        self.loss, self.classes = loss, len(class_weights)
        self.register_buffer("class_weights", class_weights.float(), persistent=False)
        self.dice = smp.losses.DiceLoss("multiclass", ignore_index=IGNORE)
        self.tversky = smp.losses.TverskyLoss(
            "multiclass", ignore_index=IGNORE, alpha=loss.tversky_alpha, beta=loss.tversky_beta
        )

    def forward(self, logits: Tensor, mask: Tensor, distance: Tensor | None = None) -> Tensor:
        logits = logits.float()
        of_classes, known = logits[:, : self.classes], mask != IGNORE
        if not bool(known.any()):
            return logits.sum() * 0
        total = logits.new_zeros(())
        if self.loss.cross_entropy:
            weights: Tensor = self.get_buffer("class_weights")
            entropy = F.cross_entropy(of_classes, mask, weight=weights, ignore_index=IGNORE)
            total = total + self.loss.cross_entropy * entropy
        if self.loss.focal:
            total = total + self.loss.focal * self._focal(of_classes, mask, known)
        if self.loss.dice:
            total = total + self.loss.dice * self.dice(of_classes, mask)
        if self.loss.tversky:
            total = total + self.loss.tversky * self.tversky(of_classes, mask)
        if distance is not None and self.loss.distance:
            each = F.binary_cross_entropy_with_logits(logits[:, self.classes], distance, reduction="none")
            total = total + self.loss.distance * (each * known).sum() / known.sum()
        return total

    def _focal(self, logits: Tensor, mask: Tensor, known: Tensor) -> Tensor:
        entropy = F.cross_entropy(logits, mask, ignore_index=IGNORE, reduction="none")
        weights = self.get_buffer("class_weights")[torch.where(known, mask, 0)] * known
        return ((1 - torch.exp(-entropy)) ** self.loss.focal_gamma * entropy * weights).sum() / weights.sum().clamp_min(
            1e-6
        )


def class_weights(loss: Loss, pixels: Tensor) -> Tensor:
    """(class,) weights: as asked, or 1 / sqrt(share) of mean 1, from the labelled pixels (class,)."""
    if isinstance(loss.class_weights, tuple):
        return torch.tensor(loss.class_weights, dtype=torch.float32)
    if loss.class_weights == "none":
        return torch.ones(len(pixels))
    share = pixels.double() / pixels.sum().clamp_min(1)
    weights = torch.where(share > 0, share.clamp_min(1e-4) ** -0.5, 0)
    return (weights / weights[weights > 0].mean()).float()
