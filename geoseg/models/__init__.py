"""Models: what they are (spec), where they come from (registry) and whether they fit a scene.

Importing this package costs milliseconds; torch and torchgeo are imported when a network is built.
"""

from __future__ import annotations

from geoseg.models.fit import check_fit, resolution_problem
from geoseg.models.registry import ModelInfo, available, choose, load
from geoseg.models.scaling import input_scaling

__all__ = ["ModelInfo", "available", "check_fit", "choose", "input_scaling", "load", "resolution_problem"]
