"""U-Net, and a U-Net with a shallow branch at full resolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from geoseg.models.networks.encoders import known_encoder


def unet(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """`encoder`, and `decoder_channels` from coarse to fine."""
    import segmentation_models_pytorch as smp

    decoder_channels = tuple(int(width) for width in architecture["decoder_channels"])
    with known_encoder("unet", architecture["encoder"]):
        network: nn.Module = smp.Unet(
            encoder_name=architecture["encoder"],
            encoder_depth=len(decoder_channels),
            encoder_weights=None,
            decoder_channels=decoder_channels,
            in_channels=channels,
            classes=outputs,
        )
    return network


def detail_unet(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """A `unet` with a shallow branch of `detail_channels` at full resolution beside it.

    Encoders that begin with a stride of 2 blur lines of one pixel; the branch hands them to the last layer unblurred.
    """
    decoded = int(architecture["decoder_channels"][-1])
    inner = unet(architecture, channels, outputs)
    inner.segmentation_head = nn.Identity()
    detail = int(architecture["detail_channels"])
    return DetailUnet(inner, channels=channels, decoded=decoded, detail=detail, outputs=outputs)


class DetailUnet(nn.Module):
    """A U-Net whose last features are joined by features of a shallow branch at full resolution."""

    def __init__(self, unet: nn.Module, *, channels: int, decoded: int, detail: int, outputs: int) -> None:
        super().__init__()
        self.unet = unet
        self.detail = nn.Sequential(_convolution(channels, detail), _convolution(detail, detail))
        self.join = _convolution(decoded + detail, decoded)
        self.head = nn.Conv2d(decoded, outputs, kernel_size=3, padding=1)

    @property
    def encoder(self) -> nn.Module:
        """The U-Net's."""
        return cast(nn.Module, self.unet.encoder)

    def forward(self, pixels: Tensor) -> Tensor:
        decoded = self.unet(pixels)
        logits: Tensor = self.head(self.join(torch.cat([decoded, self.detail(pixels)], dim=1)))
        return logits


def _convolution(incoming: int, outgoing: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(incoming, outgoing, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(outgoing),
        nn.ReLU(inplace=True),
    )
