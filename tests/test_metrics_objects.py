"""Object scores: torchmetrics and a brute-force matching are the oracles."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geoseg.errors import InputError
from geoseg.metrics import Overlap, match, overlap_of_labels, overlap_of_polygons, score_objects
from geoseg.metrics.objects import THRESHOLDS

SHAPE = (6, 8)


@st.composite
def label_pairs(draw):
    """Two label rasters that resemble each other: the second is the first with some pixels redrawn."""
    first = draw(arrays(np.int32, SHAPE, elements=st.integers(0, 4)))
    coarse = np.kron(draw(arrays(np.int32, (2, 2), elements=st.integers(0, 4))), np.ones((3, 4), np.int32))
    base = coarse if draw(st.booleans()) else first
    redrawn = draw(arrays(np.bool_, SHAPE, elements=st.sampled_from([True, False, False, False])))
    return base, np.where(redrawn, first, base)


def brute_force(pred, truth):
    """IoU of every pair of ids, straight from the definition."""
    return {
        (p, t): ((pred == p) & (truth == t)).sum() / ((pred == p) | (truth == t)).sum()
        for p in np.unique(pred[pred > 0])
        for t in np.unique(truth[truth > 0])
        if ((pred == p) & (truth == t)).any()
    }


def polygons_of(labels):
    """One (multi)polygon of unit squares for each id, in ascending order."""
    rows, cols = np.indices(labels.shape)
    squares = shapely.box(cols, -rows - 1, cols + 1, -rows)
    return np.array([shapely.union_all(squares[labels == i]) for i in np.unique(labels[labels > 0])], dtype=object)


@given(label_pairs())
def test_counts_follow_the_definition(pair):
    pred, truth = pair
    iou = brute_force(pred, truth)
    scores = score_objects(overlap_of_labels(pred, truth))
    assert scores.predicted == len(np.unique(pred[pred > 0]))
    assert scores.true == len(np.unique(truth[truth > 0]))
    assert scores.matched == tuple(sum(value > t for value in iou.values()) for t in THRESHOLDS)
    assert scores.iou_sum == pytest.approx(sum(value for value in iou.values() if value > 0.5))
    best = [max((v for (_, t), v in iou.items() if t == i), default=0) for i in np.unique(truth[truth > 0])]
    assert scores.best_iou_sum == pytest.approx(sum(best))


@settings(max_examples=25, deadline=None)
@given(label_pairs())
def test_torchmetrics_says_the_same(pair):
    import torch
    from torchmetrics.functional.detection import panoptic_quality

    pred, truth = pair
    assume(pred.any() or truth.any())
    # torchmetrics wants (category, instance): category 0 is a stuff class that is left out of the per-class scores
    stacks = [torch.from_numpy(np.stack([(a > 0).astype(np.int64), a], axis=-1))[None] for a in (pred, truth)]
    theirs = panoptic_quality(
        stacks[0], stacks[1], things={1}, stuffs={0}, return_sq_and_rq=True, return_per_class=True
    )
    pq, sq, rq = (float(value) for value in theirs.reshape(-1, 3)[0])
    ours = score_objects(overlap_of_labels(pred, truth))
    assert ours.pq == pytest.approx(pq, abs=1e-6)
    assert (ours.sq or 0.0) == pytest.approx(sq, abs=1e-6)
    assert ours.rq == pytest.approx(rq, abs=1e-6)


@given(label_pairs())
def test_pq_is_sq_times_rq(pair):
    scores = score_objects(overlap_of_labels(*pair))
    if scores.sq is not None:
        assert scores.pq == pytest.approx(scores.sq * scores.rq)
    assert scores.rq == scores.f1


@given(label_pairs())
def test_perfect_prediction_scores_one(pair):
    truth = pair[0]
    assume(truth.any())
    scores = score_objects(overlap_of_labels(truth, truth))
    assert scores.precision == scores.recall == scores.f1 == scores.mean_f1 == scores.pq == scores.sq == 1
    assert scores.mean_best_iou == 1


@given(label_pairs())
def test_swapping_layers_swaps_precision_and_recall(pair):
    there, back = score_objects(overlap_of_labels(*pair)), score_objects(overlap_of_labels(*pair[::-1]))
    assert (there.precision, there.recall, there.f1, there.mean_f1) == (
        back.recall,
        back.precision,
        back.f1,
        back.mean_f1,
    )
    assert there.iou_sum == pytest.approx(back.iou_sum)


@given(label_pairs(), st.permutations(range(1, 5)), st.integers(0, 10**6))
def test_ids_do_not_matter(pair, order, shift):
    pred, truth = pair
    lookup = np.array([0, *(i + shift for i in order)], dtype=np.int64)
    plain, renamed = (score_objects(overlap_of_labels(p, truth)) for p in (pred, lookup[pred]))
    assert plain.matched == renamed.matched
    assert plain.iou_sum == pytest.approx(renamed.iou_sum)


@settings(deadline=None)
@given(label_pairs(), st.booleans())
def test_polygons_and_rasters_agree_on_aligned_shapes(pair, partial):
    raster = score_objects(overlap_of_labels(*pair), partial=partial)
    vector = score_objects(overlap_of_polygons(*map(polygons_of, pair)), partial=partial)
    assert (vector.predicted, vector.true, vector.ignored) == (raster.predicted, raster.true, raster.ignored)
    assert vector.matched == raster.matched
    assert vector.iou_sum == pytest.approx(raster.iou_sum)
    assert vector.best_iou_sum == pytest.approx(raster.best_iou_sum)


@given(label_pairs(), arrays(np.bool_, SHAPE))
def test_invalid_pixels_never_count(pair, valid):
    masked = [np.where(valid, labels, 0) for labels in pair]
    given_validity = score_objects(overlap_of_labels(*pair, valid=valid))
    assert given_validity == score_objects(overlap_of_labels(*masked))


def test_half_is_no_match():
    truth = np.array([[1, 1]])
    assert score_objects(overlap_of_labels(np.array([[5, 0]]), truth)).matched[0] == 0
    wide = score_objects(overlap_of_labels(np.array([[5, 5, 0]]), np.array([[1, 1, 1]])))
    assert wide.matched == (1, 1, 1, 1, 0, 0, 0, 0, 0, 0)


def test_doubled_prediction_is_one_match_and_one_error():
    truth = np.array([shapely.box(0, 0, 10, 10)], dtype=object)
    pred = np.array([shapely.box(0, 0, 10, 9), shapely.box(0, 0, 10, 10)], dtype=object)
    overlap = overlap_of_polygons(pred, truth)
    assert overlap.pred_index[match(overlap)].tolist() == [1]
    scores = score_objects(overlap)
    assert (scores.matched[0], scores.predicted, scores.precision, scores.sq) == (1, 2, 0.5, 1.0)


def test_touching_polygons_share_nothing():
    left, right = (np.array([shapely.box(x, 0, x + 1, 1)], dtype=object) for x in (0, 1))
    assert overlap_of_polygons(left, right).area.size == 0


def test_partial_labels_ignore_what_lies_elsewhere():
    truth = np.zeros((4, 12), int)
    truth[:, :4] = 1
    pred = np.zeros_like(truth)
    pred[:, :4] = 1  # right
    pred[:, 6:8] = 2  # on land that nobody labelled
    scores = score_objects(overlap_of_labels(pred, truth), partial=True)
    assert (scores.recall, scores.precision, scores.ignored) == (1, 1, 1)
    assert score_objects(overlap_of_labels(pred, truth)).precision == 0.5


def test_partial_labels_still_punish_a_split_field():
    truth = np.ones((4, 4), int)
    pred = np.array([[1, 1, 2, 2]] * 4)
    scores = score_objects(overlap_of_labels(pred, truth), partial=True)
    assert (scores.recall, scores.precision, scores.ignored) == (0, 0, 0)


@given(label_pairs(), arrays(np.int32, (3, SHAPE[1]), elements=st.integers(0, 3)))
def test_partial_scores_do_not_depend_on_predictions_elsewhere(pair, elsewhere):
    pred, truth = pair
    beyond = np.where(elsewhere > 0, elsewhere + 100, 0)
    alone = score_objects(overlap_of_labels(pred, truth), partial=True)
    more = score_objects(
        overlap_of_labels(np.vstack([pred, beyond]), np.vstack([truth, np.zeros_like(beyond)])), partial=True
    )
    assert more.ignored - alone.ignored == len(np.unique(beyond[beyond > 0]))
    assert (more.matched, more.predicted, more.recall, more.pq) == (
        alone.matched,
        alone.predicted,
        alone.recall,
        alone.pq,
    )


@given(label_pairs())
def test_matching_is_the_same_with_partial_labels(pair):
    overlap = overlap_of_labels(*pair)
    whole, partial = score_objects(overlap), score_objects(overlap, partial=True)
    assert (whole.matched, whole.recall, whole.sq, whole.true) == (
        partial.matched,
        partial.recall,
        partial.sq,
        partial.true,
    )
    assert partial.predicted + partial.ignored == whole.predicted
    assert partial.predicted >= partial.matched[0]


def test_small_objects_can_be_left_out():
    overlap = overlap_of_labels(np.array([[1, 1, 1, 2, 0]]), np.array([[7, 7, 7, 0, 8]]))
    kept = overlap.at_least(2)
    assert (kept.pred_area.tolist(), kept.true_area.tolist(), kept.area.tolist()) == ([3], [3], [3])
    assert score_objects(kept).f1 == 1


def test_counts_of_images_pool():
    a = score_objects(overlap_of_labels(np.array([[1, 2]]), np.array([[1, 0]])))
    b = score_objects(overlap_of_labels(np.array([[0, 0]]), np.array([[1, 2]])))
    both = a + b
    assert (both.predicted, both.true, both.matched[0], both.f1) == (2, 3, 1, 0.4)
    with pytest.raises(InputError, match="cannot be pooled"):
        _ = a + score_objects(overlap_of_labels(np.array([[1]]), np.array([[1]])), partial=True)


def test_nothing_on_either_side():
    empty = score_objects(overlap_of_labels(np.zeros((2, 2), int), np.zeros((2, 2), int)))
    assert empty.f1 is empty.precision is empty.recall is empty.pq is empty.sq is None
    none = np.empty(0, dtype=object)
    assert score_objects(overlap_of_polygons(none, none)) == empty
    missed = score_objects(overlap_of_polygons(none, np.array([shapely.box(0, 0, 1, 1)], dtype=object)))
    assert (missed.recall, missed.precision, missed.f1, missed.pq) == (0, None, 0, 0)


def test_tall_rasters_are_paired_in_blocks():
    rng = np.random.default_rng(0)
    pred, truth = rng.integers(0, 3, (2, 1300, 4))
    overlap = overlap_of_labels(pred, truth)
    table = np.histogram2d(pred.ravel(), truth.ravel(), bins=(range(4), range(4)))[0]
    assert overlap.pred_area.tolist() == table.sum(axis=1)[1:].tolist()
    assert sorted(overlap.area.tolist()) == sorted(table[1:, 1:].ravel().tolist())


def test_refusals():
    with pytest.raises(InputError, match="one grid"):
        overlap_of_labels(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(InputError, match="found object ids -1 to 0"):
        overlap_of_labels(np.array([[-1, 0]]), np.array([[0, 0]]))
    flat = np.array([shapely.Polygon([(0, 0), (1, 1), (2, 2)])], dtype=object)
    with pytest.raises(InputError, match="1 predicted objects have no area"):
        overlap_of_polygons(flat, flat)
    none = np.empty(0)
    index = np.zeros(1, np.intp)
    with pytest.raises(InputError, match="for every pair"):
        Overlap(pred_area=none, true_area=none, pred_index=index, true_index=index, area=none)
