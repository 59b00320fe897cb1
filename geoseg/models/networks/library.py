"""Networks that segmentation_models_pytorch brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from geoseg.models.networks.encoders import known_encoder


def deeplabv3_plus(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """`encoder`, which must allow dilation, and `decoder_channels`."""
    return _made(
        "DeepLabV3Plus", architecture, channels, outputs, decoder_channels=int(architecture["decoder_channels"])
    )


def pspnet(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """`encoder`, of which three scales are used, and `psp_channels`."""
    return _made("PSPNet", architecture, channels, outputs, psp_out_channels=int(architecture["psp_channels"]))


def upernet(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """`encoder` and `decoder_channels`."""
    return _made("UPerNet", architecture, channels, outputs, decoder_channels=int(architecture["decoder_channels"]))


def segformer(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """`encoder`, a mit_b0 to mit_b5 or any other of four scales, and `decoder_channels`."""
    return _made(
        "Segformer",
        architecture,
        channels,
        outputs,
        decoder_segmentation_channels=int(architecture["decoder_channels"]),
    )


def _made(kind: str, architecture: Mapping[str, Any], channels: int, outputs: int, **settings: Any) -> nn.Module:
    import segmentation_models_pytorch as smp

    with known_encoder(str(architecture["type"]), architecture["encoder"]):
        network: nn.Module = getattr(smp, kind)(
            encoder_name=architecture["encoder"],
            encoder_weights=None,
            in_channels=channels,
            classes=outputs,
            **settings,
        )
    return network
