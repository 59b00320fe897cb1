"""Pixel scores: torchmetrics is the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geoseg.errors import InputError
from geoseg.metrics import PixelScores, confusion_matrix

NAMES = ("background", "field", "boundary")
masks = arrays(np.uint8, (7, 9), elements=st.integers(0, 2))
validity = arrays(np.bool_, (7, 9))


def scores(pred, truth, *, valid=None, **options) -> PixelScores:
    return PixelScores.of(confusion_matrix(pred, truth, classes=3, valid=valid), NAMES, **options)


@settings(max_examples=40, deadline=None)
@given(pred=masks, truth=masks, valid=validity)
def test_torchmetrics_says_the_same(pred, truth, valid):
    import torch
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_confusion_matrix,
        multiclass_f1_score,
        multiclass_jaccard_index,
        multiclass_precision,
        multiclass_recall,
    )

    if not valid.any():
        return
    ours = scores(pred, truth, valid=valid)
    p = torch.from_numpy(pred.astype(np.int64))
    t = torch.from_numpy(np.where(valid, truth, 255).astype(np.int64))
    per_class = {"num_classes": 3, "average": "none", "ignore_index": 255}
    oracle = {
        "iou": multiclass_jaccard_index(p, t, **per_class),
        "dice": multiclass_f1_score(p, t, **per_class),
        "precision": multiclass_precision(p, t, **per_class),
        "recall": multiclass_recall(p, t, **per_class),
    }
    matrix = multiclass_confusion_matrix(p, t, num_classes=3, ignore_index=255)
    assert np.array_equal(ours.confusion, matrix.numpy())
    for i, mine in enumerate(ours.per_class()):
        for key, theirs in oracle.items():
            value = getattr(mine, key)
            # torchmetrics says 0 where there is nothing to divide by
            assert (0.0 if value is None else value) == pytest.approx(float(theirs[i]), abs=1e-6)
    accuracy = multiclass_accuracy(p, t, num_classes=3, average="micro", ignore_index=255)
    assert ours.accuracy == pytest.approx(float(accuracy), abs=1e-6)
    miou = multiclass_jaccard_index(p, t, num_classes=3, average="macro", ignore_index=255)
    assert ours.miou == pytest.approx(float(miou), abs=1e-6)


@given(truth=masks)
def test_perfect_prediction_scores_one(truth):
    result = scores(truth, truth)
    assert result.accuracy == result.miou == 1
    assert {s.iou for s in result.per_class()} <= {1.0, None}


@given(pred=masks, truth=masks)
def test_swapping_layers_swaps_precision_and_recall(pred, truth):
    there, back = scores(pred, truth).field_scores, scores(truth, pred).field_scores
    assert (there.iou, there.dice) == (back.iou, back.dice)
    assert (there.precision, there.recall) == (back.recall, back.precision)


@given(pred=masks, truth=masks, valid=validity, noise=masks)
def test_invalid_pixels_never_count(pred, truth, valid, noise):
    garbled = np.where(valid, pred, noise + np.uint8(100))
    assert scores(garbled, truth, valid=valid) == scores(pred, truth, valid=valid)


@given(pred=masks, truth=masks)
def test_counts_of_parts_add_up(pred, truth):
    whole = scores(pred, truth)
    assert scores(pred[:3], truth[:3]) + scores(pred[3:], truth[3:]) == whole
    assert whole.counted == pred.size


def test_tall_rasters_are_counted_in_blocks():
    rng = np.random.default_rng(0)
    pred, truth = rng.integers(0, 3, (2, 1300, 5), dtype=np.uint8)
    expected = np.histogram2d(truth.ravel(), pred.ravel(), bins=(range(4), range(4)))[0]
    assert np.array_equal(confusion_matrix(pred, truth, classes=3), expected)


def test_partial_labels_give_recall_only():
    truth = np.ones((2, 2), np.uint8)
    pred = np.array([[1, 1], [1, 0]], np.uint8)
    field = scores(pred, truth, partial=True).field_scores
    assert field.recall == 0.75
    assert field.iou is field.precision is field.dice is None


def test_absent_class_has_no_score():
    nothing = scores(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert nothing.field_scores.iou is None
    assert nothing.miou == 1
    empty = scores(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), valid=np.zeros((2, 2), bool))
    assert empty.accuracy is empty.miou is None


def test_refusals_name_both_sides():
    a = np.zeros((2, 2), np.uint8)
    with pytest.raises(InputError, match=r"\(2, 2\), \(2, 3\)"):
        confusion_matrix(a, np.zeros((2, 3), np.uint8), classes=2)
    with pytest.raises(InputError, match="found class ids 0 to 7, expected 0 to 1"):
        confusion_matrix(np.array([[0, 7]]), np.array([[0, 1]]), classes=2)
    with pytest.raises(InputError, match="no class 'crop'"):
        scores(a, a).scores("crop")
    with pytest.raises(InputError, match="not 2 x 2"):
        PixelScores(classes=("a", "b"), confusion=((1,),))
    with pytest.raises(InputError, match="cannot be pooled"):
        _ = scores(a, a) + scores(a, a, partial=True)
