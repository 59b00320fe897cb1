"""Common names of bands by sensor: the one table that readers, models and pretrained weights share.

The names are those of STAC (`rededge071` is the red edge at 0.71 micrometres); keys are the sensors' band numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

MSI: Mapping[str, str] = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "rededge071", "6": "rededge075", "7": "rededge078",
    "8": "nir", "8a": "nir08", "9": "nir09", "10": "cirrus", "11": "swir16", "12": "swir22",
}  # fmt: skip
"""Sentinel-2."""

OLI: Mapping[str, str] = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir", "6": "swir16", "7": "swir22", "8": "pan",
    "9": "cirrus", "10": "lwir11", "11": "lwir12",
}  # fmt: skip
"""Landsat 8 and 9."""

TM: Mapping[str, str] = {
    "1": "blue", "2": "green", "3": "red", "4": "nir", "5": "swir16", "6": "lwir", "7": "swir22", "8": "pan",
}  # fmt: skip
"""Landsat 4, 5 and 7."""

DOVE: Mapping[int, tuple[str, ...]] = {
    4: ("blue", "green", "red", "nir"),
    8: ("coastal", "blue", "green05", "green", "yellow", "red", "rededge071", "nir"),
}
"""PlanetScope in file order, by number of bands; green05 is Green I (0.53), green is Green II (0.57)."""

SYNONYMS: Mapping[str, str] = {
    "swir1": "swir16", "swir2": "swir22", "swir": "swir16", "rededge": "rededge071", "rededge1": "rededge071",
    "rededge2": "rededge075", "rededge3": "rededge078", "red edge": "rededge071", "nir narrow": "nir08", "b8a": "nir08",
    "coastal aerosol": "coastal", "coastal blue": "coastal", "coastal_blue": "coastal",
}  # fmt: skip
"""What else people and products call them."""

CLOUD = "cloud"
"""The band that readers of products add: 0 where their quality layer sees the ground, 1 under clouds and their shadows."""
