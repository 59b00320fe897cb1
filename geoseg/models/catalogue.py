"""The networks that geoseg builds: one name each, and what is known of them without building one.

This module needs no torch; `geoseg.models.networks` builds what it describes.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from geoseg.errors import ModelError
from geoseg.spec import Reach

UNTRACEABLE = "tv-"
"""Encoders whose names begin so (torchvision's Swin) choose their way by the size of the image: only torch itself runs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkKind:
    name: str
    """What `--network` and `geoseg models list` call it, and `type` of its architecture record."""
    title: str
    """What it is, and who described it."""
    encoder: str | None
    """The usual one, as segmentation_models_pytorch calls it (`tu-NAME` takes timm's NAME); None where it has one of its own."""
    stride: int
    """Sides of patches are multiples of it."""
    reach: Reach = "patch"
    """See ModelSpec.reach."""
    encoders: tuple[str, ...] = ("*",)
    """Patterns of encoder names that it can take."""
    instances: bool = False
    """Whether it finds objects one by one, see ModelSpec.instances."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The other entries of its architecture record, with their usual values."""

    def architecture(self, encoder: str | None = None, **settings: Any) -> dict[str, Any]:
        """The architecture record with another encoder or other settings. Raises ModelError where it cannot take them."""
        if encoder is not None and self.encoder is None:
            raise ModelError(
                f"network {self.name!r} has an encoder of its own and takes no {encoder!r}; leave --encoder out"
            )
        unknown = sorted(settings.keys() - self.settings.keys())
        if unknown:
            raise ModelError(
                f"network {self.name!r} has no setting {unknown[0]!r}; it has {', '.join(self.settings) or 'none'}"
            )
        record = {"type": self.name, **self.settings, **settings}
        if self.encoder is not None:
            record["encoder"] = encoder or self.encoder
            self.check_encoder(record["encoder"])
        return record

    def check_encoder(self, encoder: str) -> None:
        """ModelError where the network cannot take this encoder by its design."""
        if not any(fnmatch.fnmatch(encoder, pattern) for pattern in self.encoders):
            raise ModelError(
                f"network {self.name!r} cannot take the encoder {encoder!r}; it takes {', '.join(self.encoders)}, "
                f"usually {self.encoder}"
            )


NETWORKS: Mapping[str, NetworkKind] = {
    kind.name: kind
    for kind in (
        NetworkKind(
            name="unet", title="U-Net (Ronneberger 2015)", encoder="resnet34", stride=32,
            settings={"decoder_channels": (256, 128, 64, 32, 16)},
        ),
        NetworkKind(
            name="detail-unet", title="U-Net with a shallow branch at full resolution, as in the bundled models",
            encoder="tu-mobilenetv3_small_100", stride=32,
            settings={"decoder_channels": (96, 48, 32, 16, 16), "detail_channels": 16},
        ),
        NetworkKind(name="fcn", title="FCN-8s: scores of three scales added up (Long 2015)", encoder="resnet34", stride=32),
        NetworkKind(
            name="segnet", title="SegNet: VGG with unpooling by the places of the maxima (Badrinarayanan 2017)",
            encoder=None, stride=32,
            settings={"widths": (64, 128, 256, 512, 512), "depths": (2, 2, 3, 3, 3)},
        ),
        NetworkKind(
            name="deeplabv3+", title="DeepLabV3+: atrous pyramid over a dilated encoder (Chen 2018)",
            encoder="resnet34", stride=16, settings={"decoder_channels": 256},
        ),
        NetworkKind(
            name="pspnet", title="PSPNet: pyramid pooling (Zhao 2017)", encoder="resnet34", stride=8,
            settings={"psp_channels": 512},
        ),
        NetworkKind(
            name="hrnet", title="HRNetV2: four resolutions side by side (Wang 2020)", encoder="tu-hrnet_w18", stride=32,
            encoders=("tu-hrnet_*",),
        ),
        NetworkKind(
            name="upernet", title="UPerNet: pyramid pooling and a feature pyramid (Xiao 2018)",
            encoder="resnet34", stride=32, settings={"decoder_channels": 256},
        ),
        NetworkKind(
            name="segformer", title="SegFormer: a hierarchical transformer with a light decoder (Xie 2021)",
            encoder="mit_b0", stride=32, settings={"decoder_channels": 256},
        ),
        NetworkKind(
            name="farseg", title="FarSeg: foreground-scene relation over a feature pyramid (Zheng 2020)",
            encoder="resnet50", stride=32,
        ),
        NetworkKind(
            name="mask-rcnn", title="Mask R-CNN: objects one by one, each with its mask and score (He 2017)",
            encoder="resnet50", stride=32, instances=True,
            settings={"anchors": (8, 16, 32, 64, 128), "detections": 200, "width": 256, "samples": 512},
        ),
    )
}  # fmt: skip


def network_kind(name: str) -> NetworkKind:
    """The network of a name; ModelError lists the known ones, the nearest first."""
    if name not in NETWORKS:
        raise ModelError(f"no network type {name!r}; known: {', '.join(nearest_first(name, NETWORKS))}")
    return NETWORKS[name]


def nearest_first(name: str, known: Iterable[str], *, most: int | None = None) -> list[str]:
    """The known names, those first that look like `name`; the others in order."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    return [*near, *(other for other in names if other not in near)][:most]


def settings_of(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an architecture record as people read them: of narrower layers only how many they are."""
    settings = {str(name): value for name, value in architecture.items() if name != "type"}
    if isinstance(pruned := settings.get("pruned"), Mapping):
        settings["pruned"] = f"in {len(pruned)} layers"
    return settings
