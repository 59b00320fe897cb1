"""Graph cut: background and field on superpixels, by the least cut of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from geoseg.errors import ModelError
from geoseg.models.methods.image import AUTO_BANDS, Image, seen
from geoseg.models.methods.method import Method, spec_of, two_classes
from geoseg.models.methods.options import between, checked, one_of, option
from geoseg.models.methods.thresholds import INDEX, image_histogram
from geoseg.protocols import Reader
from geoseg.results import PROBABILITY_MAX
from geoseg.spec import ModelSpec, bands

Values = NDArray[np.float64]

SCALE = 1000
"""Costs are whole numbers for the flow: thousandths."""

MOST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCut(Method):
    """Field by the least cut of a graph of superpixels (Y. Boykov and M.-P. Jolly, "Interactive graph cuts", 2001).

    The superpixels are SLIC's (R. Achanta et al., 2012). One costs what its mean says against a class, a pixel
    at a time (the negative logarithm of a normal density, with mean and variance of the scene's pixels on either side of Otsu's
    threshold); two neighbours in different classes cost `strength` x their common border x exp(-(difference of means)^2 /
    (2 x both variances)). Superpixels belong to a patch: results are the same for any tiles, but not those of a graph over the
    whole scene.
    """

    index: str = option("auto", INDEX)
    field: str = option("above", "where fields lie: above or below the threshold", **one_of("above", "below"))
    size: int = option(8, "side of a superpixel in pixels", **between(2, 100))
    compactness: float = option(0.1, "how compact superpixels are; larger is squarer", **between(1e-4, 100))
    strength: float = option(8.0, "what a pixel side between the classes costs", **between(0, 1e4))
    image: Image | None = None
    threshold: float = 0.0
    means: tuple[float, float] = (0.0, 0.0)
    """Of the scene's values up to the threshold, and above it."""
    variances: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        checked(self, "graph-cut")

    @property
    def libraries(self) -> tuple[str, ...]:
        return ("scipy", "scikit-image")

    @property
    def spec(self) -> ModelSpec:
        return spec_of(
            "graph-cut", "Least cut of a graph of superpixels", ("background", "field"),
            bands=AUTO_BANDS if self.image is None else bands(self.image.bands.names), patch=512, halo=64, reach="patch",
        )  # fmt: skip

    def settled(self, reader: Reader, check: Callable[[], None] = lambda: None) -> GraphCut:
        """With the statistics of two classes over all of the scene."""
        from geoseg.kernels.otsu import otsu

        _slic()  # what is missing is said before the pass
        image = Image.of(reader.scene, self.index, method="graph-cut")
        made = image_histogram(reader, image, check)
        code = otsu(made.counts, made.binning.centers())
        low, high = made.moments(0, code), made.moments(code + 1, len(made.counts) - 1)
        least = max(1e-6 * (high[0] - low[0]) ** 2, 1e-30)
        return replace(
            self, image=image, threshold=made.upper(code), means=(low[0], high[0]),
            variances=(max(low[1], least), max(high[1], least)),
        )  # fmt: skip

    def one(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(2, row, col), every probability 0 or 254."""
        values = seen(self.image).values(pixels, valid)
        labels = self._superpixels(values, valid)
        count = int(labels.max()) + 1
        sizes = np.bincount(labels[valid], minlength=count)
        sums = np.bincount(labels[valid], values[valid], minlength=count)
        means = sums / np.maximum(sizes, 1)
        above = least_cut(self._costs(means, sizes), *self._borders(labels, valid, means))
        field = above if self.field == "above" else ~above
        return two_classes(np.where(field[labels], np.uint8(PROBABILITY_MAX), np.uint8(0)))

    def _superpixels(self, values: Values, valid: NDArray[np.bool_]) -> NDArray[np.int64]:
        (low, high), (a, b) = self.means, np.sqrt(self.variances)
        bottom, top = low - 2 * a, high + 2 * b
        shown = np.clip((np.where(valid, values, (low + high) / 2) - bottom) / (top - bottom), 0, 1)
        wanted = max(1, round(values.size / self.size**2))
        return np.asarray(
            _slic()(shown, n_segments=wanted, compactness=self.compactness, channel_axis=None, start_label=0), np.int64
        )

    def _costs(self, means: Values, sizes: NDArray[np.int64]) -> Values:
        """(superpixel, 2) of being below and above the threshold."""
        spread = np.array(self.variances)
        away = (means[:, None] - np.array(self.means)) ** 2 / (2 * spread) + np.log(spread) / 2
        away -= away.min(axis=1, keepdims=True)
        return np.asarray(sizes[:, None] * np.minimum(away, 50.0))

    def _borders(
        self, labels: NDArray[np.int64], valid: NDArray[np.bool_], means: Values
    ) -> tuple[NDArray[np.int64], Values]:
        """(pair, 2) neighbours, and what it costs to part them."""
        pairs = []
        for a, b in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
            side = (labels[a] != labels[b]) & valid[a] & valid[b]
            pairs.append(np.sort(np.stack([labels[a][side], labels[b][side]], axis=1), axis=1))
        found, lengths = np.unique(np.concatenate(pairs), axis=0, return_counts=True)
        contrast = (means[found[:, 0]] - means[found[:, 1]]) ** 2 / (2 * sum(self.variances))
        return found, self.strength * lengths * np.exp(-contrast)

    def record(self) -> dict[str, Any]:
        return {
            "index": seen(self.image).index, "threshold": self.threshold, "field": self.field,
            "means": list(self.means), "variances": list(self.variances),
            "size": self.size, "compactness": self.compactness, "strength": self.strength,
        }  # fmt: skip


def least_cut(costs: Values, pairs: NDArray[np.int64], weights: Values) -> NDArray[np.bool_]:
    """The labelling of nodes that costs least.

    Args:
        costs: (node, 2) of False and True.
        pairs: (pair, 2) nodes.
        weights: (pair,) what it costs that two nodes differ.

    Returns:
        (node,) of all labellings that cost least, to a thousandth, the one with the fewest True.
    """
    count = len(costs)
    whole = np.rint(np.clip((costs - costs.min(axis=1, keepdims=True)) * SCALE, 0, MOST)).astype(np.int32)
    between_ = np.rint(np.clip(weights * SCALE, 0, MOST)).astype(np.int32)
    source, sink, nodes = count, count + 1, np.arange(count)
    tails = np.concatenate([np.full(count, source), nodes, pairs[:, 0], pairs[:, 1]])
    heads = np.concatenate([nodes, np.full(count, sink), pairs[:, 1], pairs[:, 0]])
    # A node on the source's side is True and pays its edge to the sink.
    capacity = np.concatenate([whole[:, 0], whole[:, 1], between_, between_])
    graph = sparse.csr_array((capacity, (tails, heads)), shape=(count + 2, count + 2))
    graph.eliminate_zeros()
    flow = csgraph.maximum_flow(sparse.csr_matrix(graph), source, sink).flow
    left = sparse.csr_matrix(graph - flow)
    left.eliminate_zeros()
    reached = csgraph.breadth_first_order(left, source, return_predecessors=False)
    out = np.zeros(count + 2, np.bool_)
    out[reached] = True
    return out[:count]


def _slic() -> Any:
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ModelError(
            "graph-cut needs scikit-image, which is not installed; pip install 'geoseg[methods]'"
        ) from error
    return slic
