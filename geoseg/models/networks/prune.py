"""Whole channels taken out of a network (structured pruning), by the dependency graph of torch-pruning.

Layers that must keep equal channels (the two ends of an addition, a normalisation after a convolution, what is
concatenated) are one group, and lose the same channels (Fang et al. 2023, DepGraph). torch-pruning is needed here only: what
comes out is written down and built again by geoseg.models.networks.narrow.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.models.networks.narrow import LAYERS
from geoseg.models.pruned import Importance, Measure, PruneOptions

LEAST_LEFT = 0.1
"""Share of a group's channels that always stays."""

TRIES = 9
"""Networks that are pruned to find the one nearest to the wanted share."""

NEAR_ENOUGH = 0.01
FARTHEST = 0.1
"""By how much the share may miss what was wanted before it is an error: channels go in steps."""


def pruned(network: nn.Module, options: PruneOptions, *, bands: int, outputs: int, stride: int) -> nn.Module:
    """A copy of a network without the channels that matter least; bands and outputs stay.

    Args:
        network: (batch, bands, row, col) -> (batch, outputs, row, col), of convolutions.
        options: what is taken away.
        bands: input channels.
        outputs: output channels.
        stride: rows and columns are multiples of it.

    Raises ModelError where the network cannot be pruned, or not by about so much.
    """
    if importlib.util.find_spec("torch_pruning") is None:
        raise ModelError(
            "torch-pruning is not installed, which finds the channels to prune; pip install 'geoseg[prune]'"
        )
    check_prunable(network)
    side = stride * max(2, 64 // stride)
    pixels = torch.randn(1, bands, side, side, generator=torch.Generator().manual_seed(0))
    whole = measured(network, pixels, options.of)
    low, high, nearest = 0.0, 1.0, (math.inf, 0.0, network)
    for _ in range(TRIES):
        ratio = (low + high) / 2
        tried = _without(network, pixels, ratio, options, outputs=outputs)
        share = 1 - measured(tried, pixels, options.of) / whole
        nearest = min(nearest, (abs(share - options.share), share, tried), key=lambda each: each[0])
        if nearest[0] <= NEAR_ENOUGH:
            break
        low, high = (ratio, high) if share < options.share else (low, ratio)
    off, share, found = nearest
    if off > FARTHEST or found is network:
        raise ModelError(
            f"the nearest to a share of {options.share:g} that can be taken away of the {options.of} is {share:.2f}; give that, "
            f"a smaller --round-to than {options.round_to}, or another --ranking"
        )
    return found


def check_prunable(network: nn.Module) -> None:
    """ModelError for networks with other parameters than those of convolutions and what goes with them."""
    owners = [layer for layer in network.modules() if list(layer.parameters(recurse=False))]
    strange = sorted({type(layer).__name__ for layer in owners if not isinstance(layer, LAYERS)})
    if any(isinstance(layer, nn.LayerNorm) for layer in owners) and any(
        isinstance(layer, nn.Linear) for layer in owners
    ):
        strange = ["attention", *strange]
    if strange:
        raise ModelError(
            f"the network cannot be pruned: it has parts ({', '.join(strange[:3])}) whose channels are tied to its design; "
            f"networks of convolutions can be, e.g. unet, detail-unet, fcn, deeplabv3+ with a resnet, mobilenet or efficientnet"
        )


def measured(network: nn.Module, pixels: Tensor, what: Measure) -> int:
    """Multiply-adds of a forward pass, or channels of all convolutions."""
    if what == "channels":
        return sum(layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d))
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(pixels)
    return int(counter.get_total_flops()) // 2


class _Ended(nn.Module):
    """A network and one convolution more, so that what ends in the outputs is known by the group that it is in."""

    def __init__(self, network: nn.Module, outputs: int) -> None:
        super().__init__()
        self.network = network
        self.end = nn.Conv2d(outputs, 1, kernel_size=1)

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.end(self.network(pixels))
        return found


def _without(network: nn.Module, pixels: Tensor, ratio: float, options: PruneOptions, *, outputs: int) -> nn.Module:
    """A copy without about `ratio` of the channels that may go."""
    import torch_pruning

    ended = _Ended(copy.deepcopy(network).requires_grad_(True), outputs).eval()
    try:
        with torch.enable_grad(), _places_in_the_graph():
            graph = torch_pruning.DependencyGraph().build_dependency(ended, pixels)
        groups = [group for group in graph.get_all_groups() if _may_go(group, graph, ended.end)]
        scores = [_score(group, options.importance) for group in groups]
        for group, score, count in zip(groups, scores, _counts(scores, ratio, options), strict=True):
            if count:
                root = group[0].dep
                graph.get_pruning_group(root.target.module, root.handler, score.argsort()[:count].tolist()).prune()
        slim = ended.network
        with torch.inference_mode():
            shape = tuple(slim(pixels).shape)
    except (RuntimeError, ValueError, IndexError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"the network cannot be pruned: its layers depend on each other in a way that is not understood ({reason[:200]}); "
            f"use another network"
        ) from error
    if shape != (1, outputs, *pixels.shape[2:]):
        raise ModelError(f"the network cannot be pruned: it would make {list(shape)}; use another network")
    return slim


def _may_go(group: Any, graph: Any, end: nn.Module) -> bool:
    """Whether a group's channels are neither outputs, nor in groups of their own, nor the last few."""
    for dep, _ in group:
        layer = dep.target.module
        if layer is end:
            return False
        if isinstance(layer, nn.Conv2d) and 1 < layer.groups != layer.in_channels:
            return False
    return int(graph.get_out_channels(group[0].dep.target.module)) > 1


def _score(group: Any, importance: Importance) -> Tensor:
    """(channel,) how much each channel of a group matters, about 1 in the mean of a group."""
    from torch_pruning.pruner import importance as known

    if importance == "batch-norm":
        found = known.BNScaleImportance()(group)
        if found is not None:
            return torch.as_tensor(found)
    return torch.as_tensor(known.GroupMagnitudeImportance(p=1 if importance == "l1" else 2)(group))


def _counts(scores: Sequence[Tensor], ratio: float, options: PruneOptions) -> list[int]:
    """How many channels go from each group."""
    if options.ranking == "global":
        everything = torch.cat(list(scores)).sort().values
        limit = everything[min(len(everything) - 1, int(ratio * len(everything)))]
        wanted = [int((score < limit).sum()) for score in scores]
    else:
        wanted = [round(ratio * len(score)) for score in scores]
    return [_rounded(len(score), count, options.round_to) for score, count in zip(scores, wanted, strict=True)]


def _rounded(channels: int, going: int, step: int) -> int:
    """Channels that go so that what stays is a multiple of `step`, and no less than LEAST_LEFT."""
    least = math.ceil(max(1, LEAST_LEFT * channels) / step)
    stays = max(least, round((channels - going) / step)) * step
    return max(0, channels - stays)


@contextmanager
def _places_in_the_graph() -> Iterator[None]:
    """SegNet's places of maxima come from comparisons, which leave no trace in torch's graph; features stand in for them."""
    segnet: Any = importlib.import_module("geoseg.models.networks.segnet")  # the package's own `segnet` is the builder
    usual = segnet.pooled
    segnet.pooled = lambda features: (nn.functional.max_pool2d(features, 2), features)
    try:
        yield
    finally:
        segnet.pooled = usual
