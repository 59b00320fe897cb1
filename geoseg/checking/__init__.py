"""What is wrong with a recipe, all of it and before anything runs: `geoseg recipe check`."""

from __future__ import annotations

from geoseg.checking.problems import Problem, Report
from geoseg.checking.recipes import KINDS, check_recipe

__all__ = ["KINDS", "Problem", "Report", "check_recipe"]
