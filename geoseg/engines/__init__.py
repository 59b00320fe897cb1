"""Engines: what brings a model onto hardware.

Importing this package costs milliseconds; torch and OpenVINO are imported when a segmenter is built.
"""

from __future__ import annotations

from geoseg.engines.registry import choose_engine, engines

__all__ = ["choose_engine", "engines"]
