"""Spectral indices: one value a pixel from a few bands, by the formulas of their authors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    bands: tuple[str, ...]
    of: Callable[[Values, float], Values]
    """(band, ...) physical values, and what stands where nothing is to be divided by, to (...)."""
    range: tuple[float, float] | None
    """Of reflectances of 0 to 1; None where it follows the bands' own, or has no ends."""
    source: str
    reflectance: bool = False
    """True where the bands must be reflectances of 0 to 1; ratios come out alike from any scale."""


def _ratio(above: Values, below: Values, undefined: float) -> Values:
    return np.asarray(np.divide(above, below, out=np.full_like(above, undefined), where=below != 0))


def _normalised(values: Values, undefined: float) -> Values:
    return _ratio(values[0] - values[1], values[0] + values[1], undefined)


def _excess_green(values: Values, undefined: float) -> Values:
    red, green, blue = values
    return _ratio(2 * green - red - blue, red + green + blue, undefined)


def _luminance(values: Values, undefined: float) -> Values:  # noqa: ARG001
    return np.asarray(0.299 * values[0] + 0.587 * values[1] + 0.114 * values[2])


def _enhanced(values: Values, undefined: float) -> Values:
    nir, red, blue = values
    return 2.5 * _ratio(nir - red, nir + 6 * red - 7.5 * blue + 1, undefined)


def _soil_adjusted(values: Values, undefined: float) -> Values:
    nir, red = values
    return 1.5 * _ratio(nir - red, nir + red + 0.5, undefined)


INDICES = {
    "ndvi": Formula(bands=("nir", "red"), of=_normalised, range=(-1, 1), source="Rouse et al. 1974"),
    "gndvi": Formula(bands=("nir", "green"), of=_normalised, range=(-1, 1), source="Gitelson et al. 1996"),
    "ndwi": Formula(bands=("green", "nir"), of=_normalised, range=(-1, 1), source="McFeeters 1996"),
    "exg": Formula(bands=("red", "green", "blue"), of=_excess_green, range=(-1, 2), source="Woebbecke et al. 1995"),
    "luminance": Formula(bands=("red", "green", "blue"), of=_luminance, range=None, source="ITU-R BT.601"),
    "evi": Formula(
        bands=("nir", "red", "blue"), of=_enhanced, range=None, source="Huete et al. 2002", reflectance=True
    ),
    "savi": Formula(bands=("nir", "red"), of=_soil_adjusted, range=None, source="Huete 1988", reflectance=True),
    "ndre": Formula(bands=("nir", "rededge071"), of=_normalised, range=(-1, 1), source="Barnes et al. 2000"),
    "ndmi": Formula(bands=("nir", "swir16"), of=_normalised, range=(-1, 1), source="Gao 1996"),
    "nbr": Formula(bands=("nir", "swir22"), of=_normalised, range=(-1, 1), source="Key and Benson 2006"),
}
