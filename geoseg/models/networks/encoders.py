"""Encoders by name: those of segmentation_models_pytorch, and timm's as `tu-NAME`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.models.catalogue import nearest_first


def encoder_of(name: str, channels: int, *, network: str, depth: int = 5) -> nn.Module:
    """An encoder with random weights for so many input channels: a tensor to `depth` + 1 feature maps, fine to coarse.

    Its `out_channels` says how many channels each has; the first is the input itself. Raises ModelError.
    """
    import segmentation_models_pytorch as smp

    with known_encoder(network, name):
        encoder: nn.Module = smp.encoders.get_encoder(name, in_channels=channels, depth=depth, weights=None)
    return encoder


def check_scales(encoder: nn.Module, name: str, *, network: str, count: int) -> tuple[int, ...]:
    """Channels of the last `count` scales of an encoder; ModelError where it has fewer."""
    widths = tuple(int(width) for width in encoder.out_channels[-count:])  # type: ignore[index]
    if len(widths) < count or not all(widths):
        raise ModelError(
            f"network {network!r} needs {count} scales, and the encoder {name!r} has fewer; use another --encoder"
        )
    return widths


@contextmanager
def known_encoder(network: str, name: str) -> Iterator[None]:
    """What the libraries raise about an encoder becomes a ModelError that names what there is."""
    try:
        yield
    except ModelError:
        raise
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError, IndexError) as error:
        import segmentation_models_pytorch as smp

        known = set(smp.encoders.get_encoder_names())
        if name.startswith("tu-"):
            import timm

            known = {f"tu-{each}" for each in timm.list_models()}
        if name.split(".")[0] not in known:
            near = ", ".join(nearest_first(name, known, most=8))
            raise ModelError(
                f"no encoder {name!r}; nearest: {near}; tu-NAME takes timm's NAME (timm.list_models() lists them)"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"network {network!r} cannot take the encoder {name!r} ({reason[:200]}); use another --encoder, such as resnet34"
        ) from error


def enlarged(features: Tensor, like: Tensor) -> Tensor:
    """Features brought to the rows and columns of another tensor, bilinear."""
    from torch.nn import functional

    return functional.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)
