"""FCN-8s over any encoder (Long, Shelhamer, Darrell 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from geoseg.models.networks.encoders import check_scales, encoder_of, enlarged


def fcn(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """`encoder`."""
    name = architecture["encoder"]
    encoder = encoder_of(name, channels, network="fcn")
    return Fcn8(encoder, widths=check_scales(encoder, name, network="fcn", count=3), outputs=outputs)


class Fcn8(nn.Module):
    """Scores of strides 8, 16 and 32, each enlarged onto the next finer and added to it; bilinear in place of transposed
    convolutions that the paper starts as bilinear."""

    def __init__(self, encoder: nn.Module, *, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.scores = nn.ModuleList(nn.Conv2d(width, outputs, kernel_size=1) for width in widths)

    def forward(self, pixels: Tensor) -> Tensor:
        fine, middle, coarse = (
            score(features) for score, features in zip(self.scores, self.encoder(pixels)[-3:], strict=True)
        )
        middle = middle + enlarged(coarse, middle)
        return enlarged(fine + enlarged(middle, fine), pixels)
