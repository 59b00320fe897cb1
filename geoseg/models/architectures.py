"""Networks that torchgeo's SemanticSegmentationTask builds, from its hyper-parameters and without downloads.

This module imports torch; import it only where a network is really built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.errors import ModelError


class PairedLogits(nn.Module):
    """Turns a first logit that stands for "field or not" into two class logits; later ones pass unchanged.

    softmax(0, z) is sigmoid(z): probabilities stay what the binary task trained.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits = self.network(pixels)
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


def build_torchgeo_network(architecture: Mapping[str, Any]) -> nn.Module:
    """The bare network (without PairedLogits) behind `architecture`, with random weights.

    Entries: `model` (a name of BUILDERS), `backbone`, `in_channels`, `outputs`, `num_filters`, `model_kwargs`.
    """
    name = architecture["model"]
    if name not in BUILDERS:
        raise ModelError(
            f"the checkpoint's network is {name!r}, which torchgeo's SemanticSegmentationTask does not build; "
            f"known: {', '.join(sorted(BUILDERS))}"
        )
    try:
        return BUILDERS[name](architecture)
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"cannot build {name!r} with backbone {architecture.get('backbone')!r}: {str(error).splitlines()[0]}; "
            f"check that the installed segmentation_models_pytorch and timm know this backbone"
        ) from error


def _smp(class_name: str, **fixed: Any) -> Callable[[Mapping[str, Any]], nn.Module]:
    def build(architecture: Mapping[str, Any]) -> nn.Module:
        import segmentation_models_pytorch as smp

        network: nn.Module = getattr(smp, class_name)(
            encoder_name=architecture["backbone"],
            encoder_weights=None,
            in_channels=architecture["in_channels"],
            classes=architecture["outputs"],
            **{**fixed, **architecture.get("model_kwargs", {})},
        )
        return network

    return build


def _fcn(architecture: Mapping[str, Any]) -> nn.Module:
    from torchgeo.models import FCN

    network: nn.Module = FCN(
        in_channels=architecture["in_channels"],
        classes=architecture["outputs"],
        num_filters=architecture["num_filters"],
    )
    return network


BUILDERS: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "unet": _smp("Unet"),
    "deeplabv3+": _smp("DeepLabV3Plus"),
    "fcn": _fcn,
    "upernet": _smp("UPerNet"),
    "segformer": _smp("Segformer"),
    "dpt": _smp("DPT"),
}
