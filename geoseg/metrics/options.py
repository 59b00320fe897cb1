"""Options of an evaluation that decide its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pyproj import CRS

from geoseg.errors import InputError
from geoseg.metrics.comparison import Comparison

STEPS = 4
"""Points along an outline for each tolerance's length."""

SHARE_OF_WIDTH = 0.05
"""Default tolerance between two vector layers, of the median true field's width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    partial: bool
    min_area_m2: float
    pixel_size_m: float | None
    tolerance_m: float | None
    bootstrap: int
    """Draws for the intervals; 0 for no intervals."""

    def __post_init__(self) -> None:
        if self.min_area_m2 < 0 or not math.isfinite(self.min_area_m2):
            raise InputError(f"the minimum area is {self.min_area_m2} m2; give 0 or more")
        if self.tolerance_m is not None and not (self.tolerance_m > 0 and math.isfinite(self.tolerance_m)):
            raise InputError(f"the tolerance is {self.tolerance_m} m; give a number above 0, such as 2 pixels' length")
        if self.bootstrap < 0:
            raise InputError(f"the bootstrap has {self.bootstrap} draws; give 0 for no intervals, or about 1000")

    def check_units(self, crs: CRS | None) -> None:
        """Metres need a CRS: InputError where one is missing."""
        if crs is not None:
            return
        if self.min_area_m2:
            raise InputError("without a CRS an area in m2 is unknown; leave the minimum area out, or georeference both")
        if self.tolerance_m is not None:
            raise InputError(
                "without a CRS there are no metres; leave the tolerance out: it is 2 pixels then, or georeference both"
            )


def default_tolerance(compared: Comparison) -> tuple[float, str]:
    """Tolerance of the boundary scores for polygons, in `compared.unit`, and how it was chosen."""
    import shapely

    if compared.unit == "pixel":
        return 2.0, "2 pixels"
    reference, whose = (compared.true, "true") if compared.true.size else (compared.pred, "predicted")
    if not reference.size:
        return 1.0, "no field to take it from"
    width = math.sqrt(float(np.median(shapely.area(reference)))) * compared.metres
    return float(f"{SHARE_OF_WIDTH * width:.0e}"), f"{100 * SHARE_OF_WIDTH:g} % of the median {whose} field's width"
