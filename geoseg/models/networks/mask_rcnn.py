"""Mask R-CNN (He et al. 2017): torchvision's over any encoder with any number of bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from geoseg.models.networks.encoders import check_scales, encoder_of

ROI = 7
"""Rows and columns in which a box is looked at for its class."""

SHAPES = (0.5, 1.0, 2.0)
"""Height by width of the boxes that the network begins with."""


def mask_rcnn(architecture: Mapping[str, Any], channels: int, outputs: int) -> nn.Module:
    """`encoder`; `anchors`, five sides in pixels of the boxes that it begins with, fine to coarse; `detections`, how many
    objects a patch may have; `width`, channels of the pyramid and of what looks at each box; and `samples`, boxes of a patch
    that it learns from."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.models.detection.rpn import AnchorGenerator

    name, anchors = architecture["encoder"], [(int(side),) for side in architecture["anchors"]]
    width, samples = int(architecture["width"]), int(architecture["samples"])
    if len(anchors) != 5:
        raise ValueError(f"{len(anchors)} anchors; five are expected, one a scale")
    encoder = encoder_of(name, channels, network="mask-rcnn")
    backbone = Pyramid(encoder, widths=check_scales(encoder, name, network="mask-rcnn", count=4), width=width)
    detector = MaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(tuple(anchors), (SHAPES,) * len(anchors)),
        box_head=TwoMLPHead(width * ROI**2, 4 * width), box_predictor=FastRCNNPredictor(4 * width, outputs),
        mask_head=MaskRCNNHeads(width, (width,) * 4, 1), mask_predictor=MaskRCNNPredictor(width, width, outputs),
        box_detections_per_img=int(architecture["detections"]), box_batch_size_per_image=samples,
        rpn_batch_size_per_image=min(256, samples),
    )  # fmt: skip
    detector.transform = AsTheyAre(min_size=1, max_size=1, image_mean=[0.0] * channels, image_std=[1.0] * channels)
    return MaskRcnnNetwork(detector)


class AsTheyAre(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Patches keep their size, in prediction too: torchvision brings images to 800 pixels otherwise."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


class Pyramid(nn.Module):
    """The four coarser scales of an encoder as torchvision's detectors want them, and a fifth one."""

    def __init__(self, encoder: nn.Module, *, widths: tuple[int, ...], width: int) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

        self.encoder = encoder
        self.fpn = FeaturePyramidNetwork(list(widths), width, extra_blocks=LastLevelMaxPool())
        self.out_channels = width

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        features = self.encoder(pixels)[-4:]
        scales: dict[str, Tensor] = self.fpn({str(i): each for i, each in enumerate(features)})
        return scales


class MaskRcnnNetwork(nn.Module):
    """Pixels as they are: patches have one size and are scaled already."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    @property
    def encoder(self) -> nn.Module:
        found = self.detector.backbone.encoder  # type: ignore[union-attr]
        assert isinstance(found, nn.Module)
        return found

    def forward(self, pixels: Tensor, targets: Sequence[dict[str, Tensor]] | None = None) -> Any:
        """(B, channel, row, col) to a dictionary a patch with boxes, labels, scores and masks (n, 1, row, col); in training,
        with targets, to the losses by name."""
        return self.detector(list(pixels), None if targets is None else list(targets))
