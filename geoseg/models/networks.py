"""Networks by architecture record: what `ModelSpec.architecture` says becomes a torch module.

This module imports torch; import it only where a network is really built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.errors import ModelError


def build_network(architecture: Mapping[str, Any], *, channels: int, outputs: int) -> nn.Module:
    """A network with random weights: (batch, channels, row, col) -> (batch, outputs, row, col) logits.

    `architecture["type"]` names the kind, the other entries are its settings:

    - `unet`: `encoder` (a segmentation_models_pytorch encoder name), `decoder_channels` (from coarse to fine).
    - `detail-unet`: a `unet` with a shallow branch of `detail_channels` at full resolution beside it. Encoders
      that begin with a stride of 2 blur lines of one pixel; the branch hands them to the last layer unblurred.
    """
    kind = str(architecture.get("type"))
    if kind not in BUILDERS:
        raise ModelError(f"no network type {kind!r}; known: {', '.join(sorted(BUILDERS))}")
    try:
        return BUILDERS[kind](architecture, channels, outputs)
    except KeyError as error:
        raise ModelError(
            f"network type {kind!r} needs the setting {error.args[0]!r}; found {sorted(architecture)}; complete the model's spec"
        ) from error


class DetailUnet(nn.Module):
    """A U-Net whose last features are joined by features of a shallow branch at full resolution."""

    def __init__(self, unet: nn.Module, *, channels: int, decoded: int, detail: int, outputs: int) -> None:
        super().__init__()
        self.unet = unet
        self.detail = nn.Sequential(_convolution(channels, detail), _convolution(detail, detail))
        self.join = _convolution(decoded + detail, decoded)
        self.head = nn.Conv2d(decoded, outputs, kernel_size=3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        decoded = self.unet(pixels)
        logits: Tensor = self.head(self.join(torch.cat([decoded, self.detail(pixels)], dim=1)))
        return logits


def _unet(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    import segmentation_models_pytorch as smp

    decoder_channels = tuple(int(width) for width in architecture["decoder_channels"])
    network: nn.Module = smp.Unet(
        encoder_name=architecture["encoder"],
        encoder_depth=len(decoder_channels),
        encoder_weights=None,
        decoder_channels=decoder_channels,
        in_channels=channels,
        classes=outputs,
    )
    return network


def _detail_unet(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    decoded = int(architecture["decoder_channels"][-1])
    unet = _unet(architecture, channels, outputs)
    unet.segmentation_head = nn.Identity()
    detail = int(architecture["detail_channels"])
    return DetailUnet(unet, channels=channels, decoded=decoded, detail=detail, outputs=outputs)


def _convolution(incoming: int, outgoing: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(incoming, outgoing, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(outgoing),
        nn.ReLU(inplace=True),
    )


BUILDERS: Mapping[str, Callable[[Mapping[str, Any], int, int], nn.Module]] = {
    "unet": _unet,
    "detail-unet": _detail_unet,
}
