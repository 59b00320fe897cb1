"""SegNet (Badrinarayanan, Kendall, Cipolla 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from geoseg.errors import ModelError


def segnet(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """`widths` of the stages and `depths`, their number of convolutions; VGG-16's in the paper."""
    widths, depths = ([int(each) for each in architecture[name]] for name in ("widths", "depths"))
    if len(widths) != len(depths) or not widths:
        raise ModelError(
            f"network 'segnet' has {len(widths)} widths and {len(depths)} depths; give one each for every stage"
        )
    return SegNet(channels, widths=widths, depths=depths, outputs=outputs)


class SegNet(nn.Module):
    """Convolutions and poolings down, unpooling by the places of the maxima and convolutions up."""

    def __init__(self, channels: int, *, widths: Sequence[int], depths: Sequence[int], outputs: int) -> None:
        super().__init__()
        before = [channels, *widths[:-1]]
        self.down = nn.ModuleList(
            _stage([incoming, *[width] * depth]) for incoming, width, depth in zip(before, widths, depths, strict=True)
        )
        after = [widths[0], *widths[:-1]]
        self.up = nn.ModuleList(
            _stage([*[width] * depth, outgoing])
            for outgoing, width, depth in reversed(list(zip(after, widths, depths, strict=True)))
        )
        self.head = nn.Conv2d(widths[0], outputs, kernel_size=3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        features, places = pixels, []
        for stage in self.down:
            features, place = pooled(stage(features))
            places.append(place)
        for stage in self.up:
            features = stage(unpooled(features, places.pop()))
        logits: Tensor = self.head(features)
        return logits


def pooled(features: Tensor) -> tuple[Tensor, Tensor]:
    """The maxima over 2 x 2 pixels, and where they are: ones and zeros in the shape of `features`.

    The first of equal maxima counts, row by row, as in torch's MaxPool2d. Places are no indices, because unpooling by
    indices is a scatter, which OpenVINO and ONNX have no form of for open rows and columns.
    """
    batch, width, rows, cols = features.shape
    cells = functional.pixel_unshuffle(features, 2).reshape(batch, width, 4, rows // 2, cols // 2)
    most = functional.max_pool2d(features, 2)
    hits = (cells >= most.unsqueeze(2)).to(features.dtype)
    free = torch.ones_like(most)
    first = []
    for hit in hits.unbind(2):
        first.append(hit * free)
        free = free * (1 - hit)
    place = torch.stack(first, dim=2).reshape(batch, 4 * width, rows // 2, cols // 2)
    return most, functional.pixel_shuffle(place, 2)


def unpooled(features: Tensor, place: Tensor) -> Tensor:
    """Features at the places of the maxima, zeros elsewhere: MaxUnpool2d."""
    return functional.interpolate(features, scale_factor=2.0, mode="nearest") * place


def _stage(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for incoming, outgoing in pairwise(widths):
        layers += [
            nn.Conv2d(incoming, outgoing, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(outgoing),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
