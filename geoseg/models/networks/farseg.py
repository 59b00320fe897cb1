"""FarSeg (Zheng et al. 2020): torchgeo's parts over any encoder with any number of channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from geoseg.models.networks.encoders import check_scales, encoder_of

WIDTH = 256
"""Channels of the feature pyramid."""


def farseg(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """`encoder`."""
    name = architecture["encoder"]
    encoder = encoder_of(name, channels, network="farseg")
    return FarSegNetwork(encoder, widths=check_scales(encoder, name, network="farseg", count=4), outputs=outputs)


class FarSegNetwork(nn.Module):
    """torchgeo.models.FarSeg takes ResNets of three channels; its relation and its decoder take features of any encoder."""

    def __init__(self, encoder: nn.Module, *, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        from torchgeo.models import FarSeg
        from torchvision.ops import FeaturePyramidNetwork

        parts = FarSeg(backbone="resnet18", classes=outputs, backbone_pretrained=False)
        self.encoder = encoder
        self.fpn = FeaturePyramidNetwork(list(widths), WIDTH)
        self.fsr = type(parts.fsr)(widths[-1], [WIDTH] * len(widths), WIDTH)
        self.decoder = parts.decoder

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.encoder(pixels)[-4:]
        scene = functional.adaptive_avg_pool2d(features[-1], 1)
        pyramid = self.fpn({str(i): each for i, each in enumerate(features)})
        logits: Tensor = self.decoder(self.fsr(scene, list(pyramid.values())))
        return logits
