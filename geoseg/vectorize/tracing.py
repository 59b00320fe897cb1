"""Third pass: the outlines of a tile's objects, in scene pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.kernels.grow import outline_measures
from geoseg.kernels.outline import Chains, Contour, corners, trace
from geoseg.kernels.runs import decode
from geoseg.pieces import Arrays, Pieces
from geoseg.protocols import ClassSource
from geoseg.results import FieldRules
from geoseg.vectorize.evidence import boundary_evidence
from geoseg.vectorize.rows import LINE_SUMS, PART, WHOLE, part_pieces, whole_pieces
from geoseg.vectorize.seams import Index, TraceItem
from geoseg.vectorize.shapes import SHAPES
from geoseg.vectorize.simplify import CORNERS, corner_pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceTile:
    source: ClassSource
    pieces: Pieces
    rules: FieldRules

    def __call__(self, item: TraceItem) -> Index:
        shape = self.pieces.load(SHAPES, item.index)
        assert shape is not None, "the second pass has left the shapes of every tile"
        grid = self.source.grid
        core = grid.tile(item.index).core
        total, objects = len(shape["number"]) + 1, int(shape["objects"]) + 1
        labels = decode(shape["runs"], core.shape, np.arange(total, dtype=np.int32))
        numbers = np.concatenate([[0], shape["number"]])
        numbers[1:][shape["pixels"] < self.rules.min_pixels] = 0
        rim = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        rim = rim[rim > 0]
        numbers[rim] = item.numbers
        crossing = np.zeros(total, np.bool_)
        crossing[rim] = item.crossing
        framed = item.frame(numbers[labels])
        chains = self._traced(item.index, framed, core)
        near = core.grown(1)
        evidence = boundary_evidence(self.source.probabilities(near), self.source.lines)
        found = outline_measures(labels, total - 1, framed, self.source.classes(near), evidence)
        along = dict(zip(LINE_SUMS, found, strict=True))

        inner = np.flatnonzero(~crossing[:objects] & (numbers[:objects] > 0))
        first = np.stack([(numbers[inner] - 1) // grid.shape[1], (numbers[inner] - 1) % grid.shape[1]], axis=1)
        measures: Arrays = {name: shape[name][inner - 1] for name in ("kind", "pixels", "own", "sums", "touches")}
        measures |= {name: along[name][inner] for name in LINE_SUMS}
        self.pieces.save(WHOLE, item.index, whole_pieces(chains, numbers[inner], measures | {"first": first}))
        beyond = np.flatnonzero(crossing & (numbers > 0))
        self.pieces.save(
            PART, item.index,
            part_pieces(chains, numbers[beyond], {name: values[beyond] for name, values in along.items()}),
        )  # fmt: skip
        return item.index

    def _traced(self, index: Index, framed: NDArray[np.int64], core: Window) -> Chains:
        """Outlines of final numbers (row + 2, col + 2), in scene pixels; kept are vertices that are to be simplified."""
        chains = trace(framed, contour=contour(self.source, core, self.rules) if self.rules.smooth else None)
        if self.rules.tolerance > 0:
            vertices, sides = corners(framed, chains)
            move = np.array([core.row, core.col], np.int32) * np.int32(chains.scale)
            self.pieces.save(CORNERS, index, corner_pieces(vertices + move, sides))
        return chains.shifted(core.row, core.col)


def contour(source: ClassSource, core: Window, rules: FieldRules) -> Contour:
    """What smooth outlines of a core need of its classes and their probabilities."""
    framed = core.grown(1)
    return Contour(classes=source.classes(framed), stored=source.probabilities(framed)[: rules.classes])
