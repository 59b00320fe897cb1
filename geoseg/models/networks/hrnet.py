"""HRNetV2: an HRNet of timm with the head that joins its four resolutions (Wang et al. 2020, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.models.networks.encoders import check_scales, encoder_of, enlarged


def hrnet(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """`encoder`, one of timm's tu-hrnet_*."""
    name = architecture["encoder"]
    encoder = encoder_of(name, channels, network="hrnet")
    return HrNet(encoder, widths=check_scales(encoder, name, network="hrnet", count=4), outputs=outputs)


class HrNet(nn.Module):
    """All four resolutions enlarged to the finest (stride 4), put together, and mixed by two 1 x 1 convolutions."""

    def __init__(self, encoder: nn.Module, *, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        width = sum(widths)
        self.head = nn.Sequential(
            nn.Conv2d(width, width // 4, kernel_size=1, bias=False),
            nn.BatchNorm2d(width // 4),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 4, outputs, kernel_size=1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        finest, *others = self.encoder(pixels)[-4:]
        joined = torch.cat([finest, *(enlarged(features, finest) for features in others)], dim=1)
        return enlarged(self.head(joined), pixels)
