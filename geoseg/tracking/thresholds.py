"""The numbers that decide what became of a field."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError

TOLERANCE = 1e-6
"""A share this little below a threshold still reaches it: reprojecting moves areas of aligned outlines by about that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Shares from 0 to 1; `reached` compares with all of them alike."""

    same_iou: float = 0.5
    """Two fields that are linked one to one are the same from this IoU on."""
    moved_iou: float = 0.2
    """Below `same_iou`, from this IoU on, the field has moved and keeps its id; below that it is another field."""
    inside: float = 0.5
    """Share of its own area from which the smaller of two fields lies in the other."""
    part: float = 0.1
    """Share of the larger of two fields below which the smaller one is a scrap, and no part of it."""
    cover: float = 0.5
    """Share of a field that its parts must cover together, for a split or a merger."""
    shape: float = 0.7
    """IoU after laying centroid on centroid, from which two fields that hardly overlap are one that moved."""
    reach: float = 0.5
    """How far their centroids may then be apart, in sides of a square of their area."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, most = getattr(self, entry.name), math.inf if entry.name == "reach" else 1.0
            if not (0 < value <= most and math.isfinite(value)):
                wanted = "a number above 0" if entry.name == "reach" else "a share above 0, up to 1"
                raise InputError(f"{entry.name} is {value}, expected {wanted}")
        if self.moved_iou > self.same_iou:
            raise InputError(
                f"moved_iou {self.moved_iou} is above same_iou {self.same_iou}; it is the lower limit of what keeps its id"
            )


def reached(values: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """(value,) True from the threshold on, within TOLERANCE."""
    return np.asarray(values >= threshold - TOLERANCE, dtype=np.bool_)
