"""Swin Transformer V2 of torchvision as an encoder: what torchgeo's NAIP, Landsat and Sentinel-2 weights of Satlas fit."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.models.catalogue import UNTRACEABLE

WIDTHS = {"swin_v2_t": 96, "swin_v2_s": 96, "swin_v2_b": 128}
"""Channels of the first of four stages; each next has twice as many."""


class SwinEncoder(nn.Module):
    """Features of strides 1, 2 (none), 4, 8, 16 and 32, as segmentation_models_pytorch wants them of an encoder.

    The names of its tensors are torchvision's.
    """

    def __init__(self, *, name: str, depth: int = 5, output_stride: int = 32) -> None:
        super().__init__()
        import torchvision.models

        if depth != 5 or output_stride != 32:
            raise ModelError(
                f"{UNTRACEABLE}{name} has features of strides 4 to 32 only; use unet, fcn, upernet, segformer or farseg"
            )
        self.features = getattr(torchvision.models, name)(weights=None).features
        self.output_stride = output_stride
        width = WIDTHS[name]
        self.out_channels = [3, 0, width, 2 * width, 4 * width, 8 * width]

    def set_in_channels(self, channels: int, pretrained: bool = False) -> None:  # noqa: ARG002  # smp's signature
        """Another first layer, with random weights, where the number of bands is another."""
        self.out_channels[0] = channels
        old = self.features[0][0]
        if channels != old.in_channels:
            new = nn.Conv2d(channels, old.out_channels, kernel_size=old.kernel_size, stride=old.stride)
            nn.init.kaiming_uniform_(new.weight, a=math.sqrt(5))
            self.features[0][0] = new

    def forward(self, x: Tensor) -> list[Tensor]:
        found = [x, torch.empty(x.shape[0], 0, x.shape[2] // 2, x.shape[3] // 2, dtype=x.dtype, device=x.device)]
        y = x
        for place, stage in enumerate(self.features):
            y = stage(y)
            if place % 2:
                found.append(y.permute(0, 3, 1, 2).contiguous())
        return found


def register() -> None:
    """Lets segmentation_models_pytorch build these encoders by name."""
    import segmentation_models_pytorch as smp

    known: dict[str, Any] = smp.encoders.encoders
    for name in WIDTHS:
        known.setdefault(
            f"{UNTRACEABLE}{name}", {"encoder": SwinEncoder, "pretrained_settings": {}, "params": {"name": name}}
        )
