"""Networks with fewer channels than their architecture says: what `geoseg models prune` leaves, written down and built again.

`architecture["pruned"]` holds an entry for each layer that became narrower, by its name in the network: `{"out": 24}`,
`{"in": 8}` or both; a side that is not named has its usual width. So bands and classes may still be exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.errors import ModelError

Width = Mapping[str, int]
"""Channels by side, "out" and "in"; of a normalisation only "out"."""

LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm)
"""What can become narrower."""


def widths(network: nn.Module, *, than: nn.Module) -> dict[str, dict[str, int]]:
    """The layers of `network` that are narrower than those of `than`, which was built of the same architecture."""
    found = {}
    usual = dict(than.named_modules())
    for name, layer in network.named_modules():
        if isinstance(layer, LAYERS):
            own, full = _sides(layer), _sides(usual[name])
            if changed := {side: own[side] for side in own if own[side] != full[side]}:
                found[name] = changed
    return found


def narrow(network: nn.Module, record: Any) -> nn.Module:
    """A network, in place, with layers of the widths in `record`: of each the first channels stay.

    Raises ModelError where the record does not fit the network.
    """
    if not isinstance(record, Mapping):
        raise ModelError(
            f"`pruned` is {record!r}, expected an object of layers and their widths; fetch the model again"
        )
    layers = dict(network.named_modules())
    for name, width in record.items():
        layer = layers.get(name)
        if not isinstance(layer, LAYERS):
            raise ModelError(f"`pruned` names {name!r}, which is no layer that can be narrower; fetch the model again")
        _check(name, width, _sides(layer))
        _shrink(layer, width)
    return network


def _sides(layer: nn.Module) -> dict[str, int]:
    if isinstance(layer, nn.Conv2d):
        return {"out": layer.out_channels, "in": layer.in_channels}
    if isinstance(layer, nn.Linear):
        return {"out": layer.out_features, "in": layer.in_features}
    if isinstance(layer, nn.LayerNorm):
        return {"out": int(layer.normalized_shape[-1])}
    assert isinstance(layer, nn.BatchNorm2d)
    return {"out": layer.num_features}


def _check(name: str, width: Any, full: Mapping[str, int]) -> None:
    if not isinstance(width, Mapping) or not width or not width.keys() <= full.keys():
        raise ModelError(
            f"`pruned` says {width!r} of {name!r}, expected widths of {' and '.join(full)}; fetch the model again"
        )
    for side, count in width.items():
        if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= full[side]:
            raise ModelError(
                f"`pruned` says {side} {count!r} of {name!r}, expected 1 to {full[side]} channels; fetch the model again"
            )


def _shrink(layer: nn.Module, width: Width) -> None:
    out, into = width.get("out"), width.get("in")
    if isinstance(layer, nn.Conv2d):
        if layer.groups > 1 and layer.groups == layer.in_channels:  # a filter or more a channel
            layer.groups = into or layer.in_channels
        layer.out_channels, layer.in_channels = out or layer.out_channels, into or layer.in_channels
        if layer.in_channels % layer.groups or layer.out_channels % layer.groups:
            raise ModelError(
                f"`pruned` leaves {layer.in_channels} to {layer.out_channels} channels in {layer.groups} groups; fetch the "
                f"model again"
            )
        _cut(layer, "weight", layer.out_channels, layer.in_channels // layer.groups)
        _cut(layer, "bias", layer.out_channels)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = out or layer.out_features, into or layer.in_features
        _cut(layer, "weight", layer.out_features, layer.in_features)
        _cut(layer, "bias", layer.out_features)
    elif out is not None:
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_features = out
        elif isinstance(layer, nn.LayerNorm):
            layer.normalized_shape = (out,)
        for name in ("weight", "bias", "running_mean", "running_var"):
            _cut(layer, name, out)


def _cut(layer: nn.Module, name: str, *counts: int) -> None:
    """A parameter or statistic with as many entries along its first sides."""
    old: Tensor | None = getattr(layer, name, None)
    if old is None:
        return
    with torch.no_grad():
        new = old[tuple(slice(count) for count in counts)].clone()
    setattr(layer, name, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)
