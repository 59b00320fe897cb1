"""Specs of torch files, kept between runs: reading them takes torch, knowing the file's hash does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

from geoseg import cache
from geoseg.errors import ModelError
from geoseg.spec import ModelSpec

KIND = "specs"
"""The folder in the cache."""


def kept_spec(find: Callable[[], ModelSpec], *told: object) -> ModelSpec:
    """What `find` gave for the same `told`, in this or an earlier run."""
    name = cache.cache_name(*told)
    held = cache.load(KIND, name)
    if held is not None:
        with suppress(ValueError, TypeError, KeyError, ModelError):  # whatever is damaged is found again
            return ModelSpec.from_dict(json.loads(held))
    text = find().to_json()
    cache.save(KIND, name, text.encode())
    return ModelSpec.from_dict(json.loads(text))
