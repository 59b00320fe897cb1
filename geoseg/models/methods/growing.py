"""Region growing: from very homogeneous pixels through those that are homogeneous enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ModelError
from geoseg.models.methods import filters
from geoseg.models.methods.histogram import Floating, scene_histograms
from geoseg.models.methods.image import AUTO_BANDS, Stack
from geoseg.models.methods.method import Method, spec_of, two_classes
from geoseg.models.methods.options import between, checked, option
from geoseg.protocols import Reader
from geoseg.results import PROBABILITY_MAX
from geoseg.spec import Hysteresis, ModelSpec, bands

Values = NDArray[np.float64]

GROWN = Hysteresis(channel=1, other=0, diagonal=False)
"""Field pixels are seeds or may be grown over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionGrowing(Method):
    """Field where a region of homogeneous pixels holds a seed.

    The heterogeneity of a pixel is the standard deviation of the bands in the square around it: the root of the mean of
    their variances, each band divided by its spread over the scene. Pixels up to `seed` are seeds; a region grows through
    all pixels up to `limit` that are connected by their sides. The criterion is the pixel's own, not its difference from a
    region's mean, so that the order in which pixels are visited cannot matter (compare R. Adams and L. Bischof, "Seeded
    region growing", 1994, where it does).
    """

    bands: str = option("auto", "names of bands, joined by +; auto takes red, green, blue and nir of what there is")
    radius: int = option(2, "pixels on each side of the square in which homogeneity is measured", **between(1, 50))
    sigma: float = option(1.0, "pixels over which is smoothed first (standard deviation); 0 for none", **between(0, 25))
    seed: float | None = option(None, "heterogeneity up to which a pixel is a seed; auto takes `seeds`")
    limit: float | None = option(None, "heterogeneity up to which a region grows; auto takes `grown`")
    seeds: float = option(0.3, "share of the scene's pixels that are seeds", **between(0, 1))
    grown: float = option(0.7, "share of the scene's pixels that a region may grow over", **between(0, 1))
    stack: Stack | None = None

    def __post_init__(self) -> None:
        checked(self, "region-growing")
        if (self.seed is not None and self.seed <= 0) or (self.limit is not None and self.limit <= 0):
            raise ModelError(f"region-growing: seed={self.seed} and limit={self.limit}; expected numbers above 0")
        if self.seed is not None and self.limit is not None and self.seed > self.limit:
            raise ModelError(
                f"region-growing: seed={self.seed:g} is above limit={self.limit:g}; a seed is more homogeneous"
            )
        if self.seeds > self.grown:
            raise ModelError(
                f"region-growing: seeds={self.seeds:g} is above grown={self.grown:g}; seeds are among the grown"
            )

    @property
    def spec(self) -> ModelSpec:
        return spec_of(
            "region-growing", "Regions of homogeneous pixels", ("background", "field"),
            bands=AUTO_BANDS if self.stack is None else bands(self.stack.bands.names),
            halo=filters.gaussian_reach(self.sigma) + self.radius + 1, hysteresis=GROWN,
        )  # fmt: skip

    def settled(self, reader: Reader, check: Callable[[], None] = lambda: None) -> RegionGrowing:
        """With the bands' spreads and the limits: as asked, or from all pixels of the scene."""
        model = replace(self, stack=Stack.of(reader, self.bands, method="region-growing", check=check))
        if self.seed is not None and self.limit is not None:
            return model
        assert model.stack is not None

        def measure(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Values, NDArray[np.bool_]]:
            return model.heterogeneity(pixels, valid)[None], valid

        positions = model.stack.bands.positions(reader.scene)
        (made,) = scene_histograms(reader, positions, measure, [Floating()], halo=model.spec.halo, check=check)
        seed, limit = (max((made.quantile(share) or (0.0, 0.0))[1], TINY) for share in (self.seeds, self.grown))
        return replace(
            model, seed=self.seed or min(seed, self.limit or seed), limit=self.limit or max(limit, self.seed or limit)
        )

    def heterogeneity(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> Values:
        """(row, col) of stored pixels (band, row, col); of no meaning where not valid."""
        if self.stack is None:
            raise ModelError("region-growing has seen no scene; call its settled(reader) first")
        total = np.zeros(valid.shape)
        for values in self.stack.values(pixels, valid):
            smooth = filters.smoothed(values, valid, self.sigma) if self.sigma else values
            total = total + filters.spread(smooth, valid, self.radius)
        return np.asarray(np.sqrt(total / len(self.stack.spreads)))

    def one(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(2, row, col) background and field; what is no seed is yet to be linked to one."""
        if self.seed is None or self.limit is None:
            raise ModelError("region-growing has seen no scene; call its settled(reader) first")
        found, seed, limit = self.heterogeneity(pixels, valid), self.seed, self.limit
        weak, strong = GROWN.low, GROWN.high
        sure = strong + np.floor((PROBABILITY_MAX - strong) * (1 - np.minimum(found / seed, 1)))
        part = np.clip((limit - found) / max(limit - seed, TINY), 0, 1)
        grown = weak + np.floor((strong - 1 - weak) * part)
        other = np.floor((weak - 1) * (limit / np.maximum(found, limit)))
        return two_classes(np.where(found <= seed, sure, np.where(found <= limit, grown, other)).astype(np.uint8))

    def record(self) -> dict[str, Any]:
        told = {} if self.stack is None else self.stack.record()
        return {**told, "radius": self.radius, "sigma": self.sigma, "seed": self.seed, "limit": self.limit}


TINY = 1e-9
"""The least heterogeneity that counts for one: a scene without noise has pixels of 0."""
