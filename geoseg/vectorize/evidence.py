"""Evidence of a boundary: 0 where a field goes on, 254 where one ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoseg.results import NODATA, PROBABILITY_MAX, Lines


def boundary_evidence(stored: NDArray[np.uint8], lines: Lines) -> NDArray[np.uint8]:
    """(row, col) stored boundary probability, or what is left of a distance; 254 without data. Empty where there is neither.

    Args:
        stored: (channel, row, col) of a source.
        lines: what they say of boundaries.
    """
    if lines.channel is None:
        return np.empty((0, 0), np.uint8)
    own = stored[lines.channel]
    return _filled(PROBABILITY_MAX - own if lines.inverted else own, own)


def splitting_evidence(stored: NDArray[np.uint8], lines: Lines, wanted: Sequence[int]) -> NDArray[np.uint8]:
    """The same; where a source says nothing of boundaries, what the wanted classes' probabilities leave of 254."""
    if lines.channel is not None:
        return boundary_evidence(stored, lines)
    own = stored[list(wanted)].max(axis=0)
    return _filled(PROBABILITY_MAX - own, own)


def _filled(evidence: NDArray[np.uint8], stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without data everything is a boundary: a line that leads there does not end before it."""
    return np.where(stored == NODATA, np.uint8(PROBABILITY_MAX), evidence)
