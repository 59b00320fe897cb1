"""Objects of a map of 3,000 pixels square with the texture of a real image, in tiles of many sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_instances import objects, same

import geoseg
from geoseg.results import FieldRules, Outlines
from geoseg.vectorize.instances import Components, Watershed

SIDE = 3000
DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """(3, 3000, 3000) what fields-rgb says of an aerial image, laid side by side with its mirror images."""
    real = DATA / "naip-us-fields" / "43.044133--90.364267.png"
    options = {"pixel_size_m": 1.0}
    if not real.is_file():
        real, options = Path(__file__).parent.parent / "sample_tiles" / "rgb_farmland_1m.tif", {}
    out = tmp_path_factory.mktemp("wide")
    geoseg.run(real, out=out / "run", probabilities=True, **options)
    import rasterio

    with rasterio.open(out / "run" / "probabilities.tif") as file:
        one = file.read()
    times = -(-SIDE // min(one.shape[1:]))
    return np.ascontiguousarray(
        np.pad(one, ((0, 0), *((0, (times - 1) * n) for n in one.shape[1:])), mode="symmetric")[:, :SIDE, :SIDE]
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", [Watershed, Components])
def test_tiles_of_256_pixels_to_the_whole_make_the_same_objects(stored: NDArray[np.uint8], method: type) -> None:
    for smooth, tolerance in ((False, 0.0), (True, 4.0)):
        rules = FieldRules(
            min_pixels=1500, hole_pixels=500, reach=2.5, fragment=3500, smooth=smooth, tolerance=tolerance, classes=3
        )
        whole = objects(stored, rules, method=method, tile=4096)
        assert isinstance(whole, Outlines)
        assert len(whole) > 200
        for tile, phase in ((256, (0, 0)), (700, (13, 299)), (1024, (0, 0))):
            assert same(objects(stored, rules, method=method, tile=tile, phase=phase), whole), (tile, smooth)
