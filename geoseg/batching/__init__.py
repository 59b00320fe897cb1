"""Many scenes through one recipe: what fails is set aside with its reason, the rest goes on, and the same call resumes."""

from __future__ import annotations

from geoseg.batching.batch import BatchResult, run_batch
from geoseg.batching.recipe import Batch, BatchScene, load_batch

__all__ = ["Batch", "BatchResult", "BatchScene", "load_batch", "run_batch"]
