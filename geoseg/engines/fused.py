"""One torch module from stored pixels to quantised probabilities: what every engine for networks runs.

This module imports torch; import it only where a segmenter is built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from geoseg.results import PROBABILITY_MAX, InputScaling
from geoseg.spec import ModelSpec


class FusedNetwork(nn.Module):
    """Scaling, network, softmax and quantisation in one graph.

    Everything but the network itself computes in float32, whatever precision the network runs in.
    """

    gain: Tensor
    bias: Tensor
    present: Tensor

    def __init__(
        self,
        network: nn.Module,
        spec: ModelSpec,
        scaling: InputScaling,
        *,
        autocast: tuple[str, torch.dtype] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.upsample = spec.upsample
        self.limit = scaling.limit
        self.autocast = autocast
        present = [float(band is not None) for band in scaling.bands]
        for name, values in (("gain", scaling.gain), ("bias", scaling.bias), ("present", present)):
            column = torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)
            self.register_buffer(name, column > 0.5 if name == "present" else column)
        self.classes = len(spec.class_names)  # they come first, see ModelSpec
        self.others = len(spec.outputs) - self.classes

    def forward(self, pixels: Tensor, valid: Tensor) -> Tensor:
        """Stored values (B, channel, row, col) float32 and validity (B, 1, row, col) to (B, output, row, col) uint8."""
        return self.scaled(pixels, valid, self.gain, self.bias, self.present)

    def scaled(self, pixels: Tensor, valid: Tensor, gain: Tensor, bias: Tensor, present: Tensor) -> Tensor:
        """The same for any scaling; gain, bias and whether a band is present are (1, channel, 1, 1)."""
        x = self.inputs(pixels, valid, gain, bias, present)
        if self.upsample > 1:
            x = functional.interpolate(x, scale_factor=float(self.upsample), mode="bilinear", align_corners=False)
        probabilities = self._probabilities(self._logits(x).float())
        if self.upsample > 1:
            # The mean over the k x k network pixels of a scene pixel: bilinear interpolation with antialiasing at its
            # simplest, and the one form that every engine computes alike.
            probabilities = functional.avg_pool2d(probabilities, self.upsample)
        return torch.floor(probabilities * PROBABILITY_MAX + 0.5).clamp(0, PROBABILITY_MAX).to(torch.uint8)

    def inputs(self, pixels: Tensor, valid: Tensor, gain: Tensor, bias: Tensor, present: Tensor) -> Tensor:
        """(B, channel, row, col) float32: what the network sees, before it is enlarged."""
        x = pixels * gain + bias
        if self.limit is not None:
            x = x.clamp(-self.limit, self.limit)
        return torch.where(valid & present, x, torch.zeros_like(x))

    def _logits(self, x: Tensor) -> Tensor:
        if self.autocast is None:
            logits: Tensor = self.network(x)
            return logits
        device, dtype = self.autocast
        with torch.autocast(device, dtype=dtype):
            logits = self.network(x)
        return logits

    def _probabilities(self, logits: Tensor) -> Tensor:
        if not self.others:
            return torch.softmax(logits, dim=1)
        shared = torch.softmax(logits[:, : self.classes], dim=1)
        single = torch.sigmoid(logits[:, self.classes :])
        return torch.cat([shared, single], dim=1)
