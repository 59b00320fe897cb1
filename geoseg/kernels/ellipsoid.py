"""Areas and lengths of small rings on WGS 84, from longitude and latitude."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

A = 6378137.0
"""Semi-major axis of WGS 84 in metres."""
E2 = (2 - 1 / 298.257223563) / 298.257223563
"""Its eccentricity squared."""
E = math.sqrt(E2)

LONGEST_M = 500.0
"""Rings with longer edges are left to others: on theirs an edge is not as good as straight."""


@numba.njit(nogil=True, cache=True)
def _authalic(sine: float) -> float:
    """The function q of the latitude: a zone's area is proportional to its difference. Snyder, Map Projections (1987), 3-12."""
    return (1 - E2) * (sine / (1 - E2 * sine * sine) + math.atanh(E * sine) / E)


@numba.njit(nogil=True, cache=True)
def ring_measures(
    lon: NDArray[np.float64], lat: NDArray[np.float64], rings: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Areas and lengths of closed rings.

    Under an edge lies the trapezoid of an equal-area cylindrical projection, and what a great circle has more than a straight
    line there: its first term, from the spherical excess 2 atan(tan(dlon / 2) sin(mid lat) / cos(dlat / 2)). With edges up to
    LONGEST_M areas differ from geodesic ones by less than 1e-6. Lengths follow from the radii of curvature at an edge's middle
    latitude.

    Args:
        lon, lat: (vertex,) in degrees; the first vertex of a ring is repeated at its end.
        rings: (ring + 1,) where each begins.

    Returns:
        areas in m2: (ring,); lengths in m: (ring,); fine: (ring,) False where an edge is too long or no number.
    """
    count = rings.size - 1
    areas = np.zeros(count)
    lengths = np.zeros(count)
    fine = np.ones(count, np.bool_)
    for i in range(count):
        begin = rings[i]
        base = _authalic(math.sin(math.radians(lat[begin])))
        before = 0.0
        area, length = 0.0, 0.0
        for j in range(begin + 1, rings[i + 1]):
            here = _authalic(math.sin(math.radians(lat[j]))) - base
            degrees = (lon[j] - lon[j - 1] + 180.0) % 360.0 - 180.0
            step = math.radians(degrees)
            middle, rise = math.radians((lat[j] + lat[j - 1]) / 2), math.radians(lat[j] - lat[j - 1])
            sine, cosine = math.sin(middle), math.cos(middle)
            area += step * (before + here + sine * ((step * cosine) ** 2 / 3 + rise * rise))
            before = here
            w = 1 - E2 * sine * sine
            north = A * (1 - E2) / (w * math.sqrt(w)) * rise
            east = A / math.sqrt(w) * cosine * step
            edge = math.sqrt(north * north + east * east)
            length += edge
            if not (edge <= LONGEST_M and abs(lat[j]) < 80.0):
                fine[i] = False
        areas[i] = abs(area) * A * A / 4
        lengths[i] = length
    return areas, lengths, fine
