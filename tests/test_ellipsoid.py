"""Areas and lengths on the ellipsoid against GeographicLib."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from geoseg.kernels.ellipsoid import LONGEST_M, ring_measures

WGS84 = Geod(ellps="WGS84")


def ring(lon: float, lat: float, size_m: float, *, seed: int, corners: int) -> tuple[np.ndarray, np.ndarray]:
    """A star-shaped ring about a place, closed; sides of about size_m."""
    rng = np.random.default_rng(seed)
    around = np.sort(rng.uniform(0, 360, corners))
    reach = size_m * corners / 8 * rng.uniform(0.3, 1, corners)
    x, y, _ = WGS84.fwd(np.full(corners, lon), np.full(corners, lat), around, reach)
    return np.append(x, x[0]), np.append(y, y[0])


@settings(deadline=None)
@given(
    lon=st.floats(-180, 180), lat=st.floats(-79, 79), size=st.floats(2, 120), seed=st.integers(0, 10**6),
    corners=st.integers(4, 12),
)  # fmt: skip
def test_small_rings_are_geodesic_to_one_in_a_million(
    lon: float, lat: float, size: float, seed: int, corners: int
) -> None:
    x, y = ring(lon, lat, size, seed=seed, corners=corners)
    areas, lengths, fine = ring_measures(x, y, np.array([0, len(x)]))
    area, length = WGS84.polygon_area_perimeter(x[:-1], y[:-1])
    assert fine[0] == (WGS84.line_lengths(x, y).max() <= LONGEST_M)
    if fine[0]:
        assert lengths[0] == pytest.approx(length, rel=1e-6)
        scale = max(abs(area), (length / 10) ** 2)  # slivers of no area have no relative error
        assert abs(areas[0] - abs(area)) < 1e-6 * scale + 1e-3  # square metres: GeographicLib rounds, too


def test_long_edges_high_latitudes_and_no_numbers_are_left_to_others() -> None:
    far = np.array([10.0, 10.1, 10.1, 10.0])
    near = np.array([10.0, 10.001, 10.001, 10.0])
    rings = np.array([0, 4])
    assert not ring_measures(far, np.array([50.0, 50.0, 50.1, 50.0]), rings)[2][0]
    assert not ring_measures(near, np.array([81.0, 81.0, 81.001, 81.0]), rings)[2][0]
    assert not ring_measures(near, np.array([50.0, np.nan, 50.001, 50.0]), rings)[2][0]
    assert ring_measures(near, np.array([50.0, 50.0, 50.001, 50.0]), rings)[2][0]
