"""Edges: Sobel, Canny, and the gradient of several bands. What is no edge is field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ModelError
from geoseg.models.methods import filters
from geoseg.models.methods.histogram import Floating, scene_histograms
from geoseg.models.methods.image import AUTO_BANDS, Image, Stack, seen
from geoseg.models.methods.method import Method, spec_of
from geoseg.models.methods.options import between, checked, option
from geoseg.protocols import Reader
from geoseg.results import PROBABILITY_MAX
from geoseg.spec import Hysteresis, ModelSpec, bands

Values = NDArray[np.float64]

LINKED = Hysteresis(channel=2, other=1)
"""Boundary pixels are weak or strong."""

CLASSES = ("background", "field", "boundary")
"""As in the bundled models: background is what there is none of here."""

HALF = PROBABILITY_MAX // 2

EDGE_INDEX = "ndvi, gndvi, ndwi, exg, luminance, or a band by name; auto takes what the scene has"
SIGMA = {"told": "pixels over which is smoothed first (standard deviation); 0 for none", **between(0, 25)}
LOW = "gradient above which a pixel is a weak edge"
HIGH = "gradient above which a pixel is a strong edge"
SHARE = {**between(0, 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sobel(Method):
    """Boundary where the gradient of an index is steep; one half is its probability at the threshold."""

    index: str = option("auto", EDGE_INDEX)
    sigma: float = option(1.0, **SIGMA)
    high: float | None = option(None, "gradient above which a pixel is an edge; auto takes `share`")
    share: float = option(0.85, "share of the scene's gradients below `high`", **SHARE)
    image: Image | None = None

    def __post_init__(self) -> None:
        checked(self, "sobel")
        _ordered("sobel", None, self.high)

    @property
    def spec(self) -> ModelSpec:
        halo = filters.gaussian_reach(self.sigma) + 2
        return spec_of("sobel", "Sobel edges of an index", CLASSES, bands=_bands(self.image), halo=halo)

    def settled(self, reader: Reader, check: Callable[[], None] = lambda: None) -> Sobel:
        """With the threshold: as asked, or from all gradients of the scene."""
        model = replace(self, image=Image.of(reader.scene, self.index, method="sobel", edges=True))
        if self.high is not None:
            return model
        (high,) = _quantiles(model, reader, (self.share,), check)
        return replace(model, high=high)

    def gradient(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Values, NDArray[np.bool_]]:
        """(row, col) magnitudes, and where they are known."""
        found = gradient_of(seen(self.image), pixels, valid, self.sigma)
        return found.magnitude, found.known

    def one(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(3, row, col)."""
        length, known = self.gradient(pixels, valid)
        share = np.where(known, length / _number(self.high), 0.0)
        below, above = np.floor(HALF * np.minimum(share, 1)), HALF + 1 + np.floor((HALF - 1) * np.clip(share - 1, 0, 1))
        return field_and_boundary(np.where(share >= 1, above, below).astype(np.uint8))

    def record(self) -> dict[str, Any]:
        return {"index": seen(self.image).index, "sigma": self.sigma, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Canny(Method):
    """Boundary where an index has a thin edge that is strong somewhere along its way.

    J. Canny, "A computational approach to edge detection", IEEE Trans. PAMI 8 (1986).
    """

    index: str = option("auto", EDGE_INDEX)
    sigma: float = option(1.4, **SIGMA)
    low: float | None = option(None, f"{LOW}; auto takes `weak`")
    high: float | None = option(None, f"{HIGH}; auto takes `strong`")
    weak: float = option(0.8, "share of the scene's gradients below `low`", **SHARE)
    strong: float = option(0.93, "share of the scene's gradients below `high`", **SHARE)
    image: Image | None = None

    def __post_init__(self) -> None:
        checked(self, "canny")
        _ordered("canny", self.low, self.high)

    @property
    def spec(self) -> ModelSpec:
        return spec_of(
            "canny", "Canny edges of an index", CLASSES, bands=_bands(self.image),
            halo=filters.gaussian_reach(self.sigma) + 3, hysteresis=LINKED,
        )  # fmt: skip

    def settled(self, reader: Reader, check: Callable[[], None] = lambda: None) -> Canny:
        """With the thresholds: as asked, or from all gradients of the scene."""
        model = replace(self, image=Image.of(reader.scene, self.index, method="canny", edges=True))
        low, high = _limits(model, reader, check)
        return replace(model, low=low, high=high)

    def gradient(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Values, NDArray[np.bool_]]:
        """(row, col) magnitudes, and where they are known."""
        found = gradient_of(seen(self.image), pixels, valid, self.sigma)
        return found.magnitude, found.known

    def one(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(3, row, col); weak edges are yet to be linked."""
        from geoseg.kernels.edges import ridges

        found, low, high = (
            gradient_of(seen(self.image), pixels, valid, self.sigma),
            _number(self.low),
            _number(self.high),
        )
        stored = graded(np.where(found.known, found.magnitude, 0.0), low, high)
        thin = ridges(found.down, found.right, found.magnitude, low) & found.known
        return field_and_boundary(np.where(thin, stored, np.minimum(stored, np.uint8(LINKED.low - 1))))

    def record(self) -> dict[str, Any]:
        return {"index": seen(self.image).index, "sigma": self.sigma, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient(Method):
    """Boundary where several bands together change steeply, linked like Canny's edges but not thinned.

    The length of the gradient is that of S. Di Zenzo, "A note on the gradient of a multi-image" (1986): the square root of
    the larger eigenvalue of the bands' summed structure tensors. Bands are divided by their spread over the scene.
    """

    bands: str = option("auto", "names of bands, joined by +; auto takes red, green, blue and nir of what there is")
    sigma: float = option(1.0, **SIGMA)
    low: float | None = option(None, f"{LOW}; auto takes `weak`")
    high: float | None = option(None, f"{HIGH}; auto takes `strong`")
    weak: float = option(0.8, "share of the scene's gradients below `low`", **SHARE)
    strong: float = option(0.93, "share of the scene's gradients below `high`", **SHARE)
    stack: Stack | None = None

    def __post_init__(self) -> None:
        checked(self, "gradient")
        _ordered("gradient", self.low, self.high)

    @property
    def spec(self) -> ModelSpec:
        return spec_of(
            "gradient", "Edges of several bands together", CLASSES,
            bands=AUTO_BANDS if self.stack is None else bands(self.stack.bands.names),
            halo=filters.gaussian_reach(self.sigma) + 2, hysteresis=LINKED,
        )  # fmt: skip

    def settled(self, reader: Reader, check: Callable[[], None] = lambda: None) -> Gradient:
        """With the bands' spreads and the thresholds: as asked, or from all gradients of the scene."""
        model = replace(self, stack=Stack.of(reader, self.bands, method="gradient", check=check))
        low, high = _limits(model, reader, check)
        return replace(model, low=low, high=high)

    def gradient(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Values, NDArray[np.bool_]]:
        """(row, col) magnitudes, and where they are known."""
        if self.stack is None:
            raise ModelError("gradient has seen no scene; call its settled(reader) first")
        rows = cols = both = size = np.zeros(valid.shape)
        for values in self.stack.values(pixels, valid):
            smooth = filters.smoothed(values, valid, self.sigma)
            down, right = filters.sobel(smooth)
            rows, cols, both = rows + down * down, cols + right * right, both + down * right
            size = np.maximum(size, np.abs(smooth))
        half = (rows - cols) / 2
        length = np.sqrt((rows + cols) / 2 + np.sqrt(half * half + both * both))
        return np.where(length <= filters.NOISE * size, 0.0, length), filters.surrounded(valid)

    def one(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(3, row, col); weak edges are yet to be linked."""
        length, known = self.gradient(pixels, valid)
        return field_and_boundary(graded(np.where(known, length, 0.0), _number(self.low), _number(self.high)))

    def record(self) -> dict[str, Any]:
        told = {} if self.stack is None else self.stack.record()
        return {**told, "sigma": self.sigma, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    down: Values
    right: Values
    magnitude: Values
    known: NDArray[np.bool_]
    """Where all that the derivatives see is valid."""


def gradient_of(image: Image, pixels: NDArray[Any], valid: NDArray[np.bool_], sigma: float) -> Found:
    """The gradient of an image after smoothing."""
    smooth = filters.smoothed(image.values(pixels, valid), valid, sigma)
    down, right = filters.sobel(smooth)
    length = filters.magnitude(down, right, smooth)
    return Found(down=down, right=right, magnitude=length, known=filters.surrounded(valid))


def field_and_boundary(boundary: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, row, col) stored probabilities of CLASSES, given those of a boundary."""
    return np.stack([np.zeros_like(boundary), PROBABILITY_MAX - boundary, boundary])


def graded(length: Values, low: float, high: float) -> NDArray[np.uint8]:
    """(row, col) stored probabilities of a boundary: up to 127 below `low`, weak from there, strong from `high` on."""
    weak, strong = LINKED.low, LINKED.high
    below = np.floor((weak - 1) * np.minimum(length / low, 1.0))
    between_ = weak + np.floor((strong - 1 - weak) * np.clip((length - low) / ((high - low) or 1.0), 0, 1))
    above = strong + np.floor((PROBABILITY_MAX - strong) * np.clip(length / high - 1, 0, 1))
    return np.where(length >= high, above, np.where(length >= low, between_, below)).astype(np.uint8)


def _limits(model: Canny | Gradient, reader: Reader, check: Callable[[], None]) -> tuple[float, float]:
    """Both thresholds: as asked, or the shares `weak` and `strong` of the scene's gradients."""
    if model.low is not None and model.high is not None:
        return model.low, model.high
    name = model.spec.name
    if model.low is None and model.high is None and model.weak > model.strong:
        raise ModelError(
            f"{name}: weak={model.weak:g} is above strong={model.strong:g}; give the smaller share as `weak`"
        )
    low, high = _quantiles(model, reader, (model.weak, model.strong), check)
    low, high = model.low or min(low, model.high or low), model.high or max(high, model.low or high)
    return low, high


def _quantiles(
    model: Sobel | Canny | Gradient, reader: Reader, shares: Sequence[float], check: Callable[[], None]
) -> list[float]:
    """Gradients that the others of the scene's gradients reach; those of 0 do not count."""
    holder = model.stack if isinstance(model, Gradient) else model.image
    assert holder is not None

    def measure(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Values, NDArray[np.bool_]]:
        length, known = model.gradient(pixels, valid)
        return length[None], known & (length > 0)

    positions = holder.bands.positions(reader.scene)
    (made,) = scene_histograms(reader, positions, measure, [Floating()], halo=model.spec.halo, check=check)
    return [(made.quantile(share) or (1.0, 1.0))[0] for share in shares]


def _ordered(name: str, low: float | None, high: float | None) -> None:
    if (low is not None and low <= 0) or (high is not None and high <= 0) or (low and high and low > high):
        raise ModelError(f"{name}: low={low} and high={high}; expected numbers above 0, the smaller one as `low`")


def _number(value: float | None) -> float:
    if value is None:
        raise ModelError("this method has seen no scene; call its settled(reader) first")
    return value


def _bands(image: Image | None) -> Any:
    return AUTO_BANDS if image is None else bands(image.bands.names)
