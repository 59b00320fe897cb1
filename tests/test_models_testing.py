"""The hand-checked models of geoseg.testing."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from geoseg.engines import choose_engine
from geoseg.errors import ModelError
from geoseg.protocols import Model
from geoseg.results import Batch, InputScaling
from geoseg.testing.models import IdentityModel, LocalMeanModel, ThresholdModel

NEUTRAL = InputScaling(bands=(0,), gain=(1.0,), bias=(0.0,), limit=None)


def predict(model: Any, pixels: Any, valid: Any = None) -> Any:
    segmenter = choose_engine(model).build(model, NEUTRAL, precision="auto", threads=None)
    valid = np.ones((len(pixels), *pixels.shape[2:]), np.bool_) if valid is None else valid
    return segmenter.predict(Batch(pixels=pixels, valid=valid))


@pytest.mark.parametrize("model", [IdentityModel(), LocalMeanModel(), ThresholdModel()])
def test_models_are_models_and_travel(model: Any) -> None:
    assert isinstance(model, Model)
    again = pickle.loads(pickle.dumps(model))
    assert again == model
    assert again.fingerprint() == model.fingerprint()
    assert model.spec.reach == "local"


def test_identity_model_says_what_it_sees() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    found = predict(IdentityModel(), pixels)
    assert np.array_equal(found[0, 1].ravel(), np.minimum(np.arange(256), 254))
    assert (found.sum(axis=1, dtype=int) == 254).all()
    ids = predict(IdentityModel(classes=("background", "field", "boundary")), pixels % 4)
    assert np.array_equal(ids.argmax(1)[0], np.where(pixels[0, 0] % 4 < 3, pixels[0, 0] % 4, 0))


def test_local_mean_is_the_mean() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1, 1, 30, 40)).astype(np.uint8)
    found = predict(LocalMeanModel(radius=2), pixels)[0, 1]
    sums = np.rint(ndimage.uniform_filter(pixels[0, 0].astype(float), 5, mode="mirror") * 25).astype(int)
    assert np.array_equal(found, (2 * sums + 25) // 50)


def test_local_mean_of_a_part_equals_the_whole_inside_its_halo() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1, 1, 60, 60)).astype(np.uint8)
    model = LocalMeanModel(radius=3, halo=3)
    whole, part = predict(model, pixels), predict(model, pixels[..., 10:40, 0:30])
    assert np.array_equal(part[..., 3:-3, :-3], whole[..., 13:37, 0:27])


def test_threshold_model_cuts_at_its_threshold() -> None:
    pixels = np.array([[[[99, 100, 101]]]], np.uint16)
    valid = np.array([[[True, True, False]]])
    assert predict(ThresholdModel(threshold=100), pixels, valid)[0, 1].tolist() == [[0, 254, 0]]


def test_radius_beyond_the_halo_is_refused() -> None:
    with pytest.raises(ModelError, match="radius 9 reaches beyond the halo 8"):
        LocalMeanModel(radius=9)
