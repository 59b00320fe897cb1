"""Networks by architecture record: what `ModelSpec.architecture` says becomes a torch module.

This package imports torch; import it only where a network is really built. `geoseg.models.catalogue` lists the networks
without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from geoseg.errors import ModelError
from geoseg.models.catalogue import NETWORKS, network_kind
from geoseg.models.networks.farseg import farseg
from geoseg.models.networks.fcn import fcn
from geoseg.models.networks.hrnet import hrnet
from geoseg.models.networks.library import deeplabv3_plus, pspnet, segformer, upernet
from geoseg.models.networks.mask_rcnn import mask_rcnn
from geoseg.models.networks.narrow import narrow
from geoseg.models.networks.segnet import segnet
from geoseg.models.networks.swin import register
from geoseg.models.networks.unet import detail_unet, unet

BUILDERS: Mapping[str, Callable[[Mapping[str, Any], int, int], nn.Module]] = {
    "unet": unet,
    "detail-unet": detail_unet,
    "fcn": fcn,
    "segnet": segnet,
    "deeplabv3+": deeplabv3_plus,
    "pspnet": pspnet,
    "hrnet": hrnet,
    "upernet": upernet,
    "segformer": segformer,
    "farseg": farseg,
    "mask-rcnn": mask_rcnn,
}


def build_network(architecture: Mapping[str, Any], *, channels: int, outputs: int) -> nn.Module:
    """A network with random weights: (batch, channels, row, col) -> (batch, outputs, row, col) logits, or what InstanceModel
    says for kinds that find objects one by one.

    `architecture["type"]` names the kind (see geoseg.models.catalogue), the other entries are its settings: `encoder` is a
    name of segmentation_models_pytorch (`tu-NAME` takes timm's NAME), `pruned` the layers that are narrower than usual.
    Rows and columns are multiples of the network's stride. Raises ModelError.
    """
    kind = network_kind(str(architecture.get("type")))
    if NETWORKS[kind.name].encoder is not None and "encoder" in architecture:
        kind.check_encoder(str(architecture["encoder"]))
    register()
    try:
        network = BUILDERS[kind.name](architecture, channels, outputs)
    except KeyError as error:
        raise ModelError(
            f"network type {kind.name!r} needs the setting {error.args[0]!r}; found {sorted(architecture)}; "
            f"complete the model's spec"
        ) from error
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"network {kind.name!r} cannot be built of {dict(architecture)} ({reason[:200]}); `geoseg models show {kind.name}` "
            f"prints its settings"
        ) from error
    return narrow(network, architecture["pruned"]) if "pruned" in architecture else network
