"""Over- and under-segmentation, verdicts, areas and intervals: definitions written out are the oracles."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely import box

from geoseg.metrics import (
    Comparison,
    intervals,
    judge,
    overlap_of_labels,
    overlap_of_polygons,
    score_areas,
    score_boundaries,
    score_objects,
    score_pairs,
    score_segmentation,
)
from geoseg.metrics.verdicts import FALSE, IGNORED, MATCHED, MERGED, MISSED, NAMES, SPLIT, VerdictCounts

SHAPE = (6, 8)
labels = arrays(np.int32, SHAPE, elements=st.integers(0, 4))
coarse = arrays(np.int32, (2, 2), elements=st.integers(0, 4)).map(lambda a: np.kron(a, np.ones((3, 4), np.int32)))
rasters = st.one_of(labels, coarse)


def polygons_of(raster):
    """One (multi)polygon of unit squares for each id, in ascending order."""
    rows, cols = np.indices(raster.shape)
    squares = shapely.box(cols, -rows - 1, cols + 1, -rows)
    return np.array([shapely.union_all(squares[raster == i]) for i in np.unique(raster[raster > 0])], dtype=object)


def on_raster(pred, true, **options):
    return Comparison.of(overlap_of_labels(pred, true), polygons_of(pred), polygons_of(true), **options)


def of(pred, true, **options):
    pred, true = (np.array(shapes, dtype=object) for shapes in (pred, true))
    return Comparison.of(overlap_of_polygons(pred, true), pred, true, **options)


def names(codes):
    return [NAMES[code] for code in codes]


def bootstrapped(compared, replicates=200):
    _, lengths = score_boundaries(compared, tolerance=1, source="", step=0.5)
    return intervals(compared, lengths, score_pairs(compared, step=0.5), score_areas(compared), replicates=replicates)


@given(rasters, rasters)
def test_global_errors_follow_the_definition(pred, true):
    total = over = under = both = alone = 0.0
    for i in np.unique(pred[pred > 0]):
        size = (pred == i).sum()
        shared = {int(j): int(((pred == i) & (true == j)).sum()) for j in np.unique(true[true > 0])}
        most = max(shared.values(), default=0)
        total += size
        if not most:
            alone += 1
            over, under, both = over + size, under + size, both + size
            continue
        # of several references that share as much, any is the one that overlaps most
        candidates = []
        for j in (j for j, value in shared.items() if value == most):
            oc, uc = 1 - most / (true == j).sum(), 1 - most / size
            candidates.append((oc, uc, np.sqrt((oc**2 + uc**2) / 2)))
        if len(candidates) > 1 and len(set(candidates)) > 1:
            return
        over, under, both = (a + size * b for a, b in zip((over, under, both), candidates[0], strict=True))
    scores = score_segmentation(on_raster(pred, true))
    if total:
        assert (scores.goc, scores.guc, scores.gtc) == pytest.approx((over / total, under / total, both / total))
    assert scores.predictions_without_overlap == alone
    missed = [j for j in np.unique(true[true > 0]) if not (pred[true == j] > 0).any()]
    assert scores.references_without_overlap == len(missed)
    assert scores.missed_area == np.isin(true, missed).sum()


@given(rasters)
def test_perfect_segmentation_has_no_error(true):
    scores = score_segmentation(on_raster(true, true))
    assert scores.goc == scores.guc == scores.gtc == (0 if true.any() else None)


def test_what_common_code_skips_is_counted():
    true = [box(0, 0, 10, 10), box(50, 0, 60, 10)]
    exact = of([true[0]], true)
    assert score_segmentation(exact).to_dict() == {
        "goc": 0, "guc": 0, "gtc": 0, "predictions_without_overlap": 0, "references_without_overlap": 1,
        "references_without_overlap_area_share": 0.5,
    }  # fmt: skip
    beside = score_segmentation(of([true[0], box(20, 0, 30, 10)], true))
    assert (beside.goc, beside.guc, beside.gtc, beside.predictions_without_overlap) == (0.5, 0.5, 0.5, 1)
    halves = score_segmentation(of([box(0, 0, 5, 10), box(5, 0, 10, 10)], true[:1]))
    assert (halves.goc, halves.guc) == (0.5, 0)
    swallowing = score_segmentation(of([box(0, 0, 20, 10)], true[:1]))
    assert (swallowing.goc, swallowing.guc) == (0, 0.5)
    assert (beside + halves).goc == pytest.approx((100 + 50) / 300)


@given(rasters, rasters, st.booleans())
def test_every_object_has_one_verdict(pred, true, partial):
    compared = on_raster(pred, true, partial=partial)
    verdicts, scores = judge(compared), score_objects(compared.overlap, partial=partial)
    counts = VerdictCounts.of(verdicts).to_dict()
    assert sum(counts["true"].values()) == scores.true
    assert sum(counts["predicted"].values()) - counts["predicted"]["ignored"] == scores.predicted
    assert counts["predicted"]["ignored"] == scores.ignored
    assert counts["true"]["matched"] == counts["predicted"]["matched"] == scores.matched[0]
    if counts["true"]["split"]:  # a piece may itself swallow smaller fields
        assert counts["predicted"]["split"] + counts["predicted"]["merged"] >= 2
    assert not np.isin(verdicts.true, (FALSE, IGNORED)).any()
    assert not (verdicts.pred == MISSED).any()


@given(rasters, rasters)
def test_split_and_merged_are_one_thing_seen_from_two_sides(pred, true):
    there, back = judge(on_raster(pred, true)), judge(on_raster(true, pred))
    # A split field has pieces that cover more than half of it; a merging prediction need not be covered.
    assert set(np.flatnonzero(there.true == SPLIT)) <= set(np.flatnonzero(back.pred == MERGED))
    assert np.array_equal(there.true == MATCHED, back.pred == MATCHED)


def test_verdicts_by_example():
    true = [
        box(0, 0, 10, 10),  # matched
        box(20, 0, 30, 10),  # cut in three
        box(40, 0, 50, 10), box(50, 0, 60, 10),  # swallowed by one
        box(70, 0, 80, 10),  # two specks in it
        box(90, 0, 100, 10),  # nothing there
    ]  # fmt: skip
    pred = [
        box(0, 0, 10, 9),
        box(20, 0, 24, 10), box(24, 0, 28, 10), box(28, 0, 31, 10),
        box(39, 0, 61, 10),
        box(71, 1, 72, 2), box(73, 1, 74, 2),
        box(200, 0, 210, 10),
    ]  # fmt: skip
    compared = of(pred, true)
    verdicts = judge(compared)
    assert names(verdicts.true) == ["matched", "split", "merged", "merged", "missed", "missed"]
    assert names(verdicts.pred) == ["matched", "split", "split", "split", "merged", "false", "false", "false"]
    both = VerdictCounts.of(verdicts) + VerdictCounts.of(verdicts)
    assert both.to_dict()["true"] == {"matched": 2, "split": 2, "merged": 4, "missed": 4}
    loose = judge(of([box(0, 0, 30, 10)], true[:1]))  # it swallows one field only, and much beside it
    assert (names(loose.pred), names(loose.true)) == (["false"], ["missed"])
    partial = judge(of([box(30, -40, 70, 50)], true[2:4], partial=True))
    assert (names(partial.pred), names(partial.true)) == (["ignored"], ["merged", "merged"])


def test_counts_and_areas():
    true = [box(0, 0, 10, 10), box(20, 0, 30, 10), box(40, 0, 50, 10)]
    pred = [box(0, 0, 10, 8), box(20, 0, 31, 10)]
    areas = score_areas(of(pred, true, metres=2, area_m2=4))
    assert (areas.predicted_area, areas.true_area) == (760, 1200)
    assert areas.bias == pytest.approx((190 - 300) / 300)
    assert areas.count_ratio == pytest.approx(2 / 3)
    assert areas.pair_error == pytest.approx((0.2 + 0.1) / 2)
    assert areas.to_dict()["matched_mean_bias"] == pytest.approx((-0.2 + 0.1) / 2)
    assert (areas + areas).bias == pytest.approx(areas.bias)
    assert score_areas(of(pred, true, partial=True)).bias is None
    nothing = score_areas(of([], true))
    assert (nothing.bias, nothing.count_ratio, nothing.pair_error) == (-1, 0, None)


@settings(deadline=None, max_examples=30)
@given(rasters, rasters, st.booleans())
def test_intervals_are_of_the_scores_that_are_reported(pred, true, partial):
    compared = on_raster(pred, true, partial=partial, unit="pixel")
    boundary, lengths = score_boundaries(compared, tolerance=1, source="", step=0.5)
    pairs, areas = score_pairs(compared, step=0.5), score_areas(compared)
    found = intervals(compared, lengths, pairs, areas, replicates=50)
    reported = {
        "objects": score_objects(compared.overlap, partial=partial).to_dict(),
        "segmentation": score_segmentation(compared).to_dict(),
        "boundary": boundary.to_dict(),
        "matched_outlines": pairs.to_dict(),
        "areas": areas.to_dict(),
    }
    from geoseg.metrics.bootstrap import _scores, _sums

    totals, units = _sums(compared, lengths, pairs, areas)
    whole = _scores({name: np.array([column.sum()]) for name, column in totals.items()})
    for name, ends in found.scores.items():
        section, key = name.split(".")
        value = reported[section][key]
        if value is None:
            assert ends is None
        else:
            assert whole[name][0] == pytest.approx(value, abs=1e-9)
            assert (ends is None) == (units < 2) or ends is None
        if ends is not None:
            assert ends[0] <= ends[1]


def test_intervals_of_a_perfect_prediction_have_no_width():
    true = [box(20 * i, 0, 20 * i + 10, 10) for i in range(9)]
    scores = bootstrapped(of(true, true)).scores
    assert scores["objects.f1"] == scores["objects.pq"] == scores["boundary.f1"] == (1, 1)
    assert scores["matched_outlines.mean_boundary_distance"] == pytest.approx((0, 0), abs=1e-9)


def test_intervals_of_recall_are_binomial():
    from scipy.stats import binom

    n, share = 400, 0.7
    true = [box(20 * i, 0, 20 * i + 10, 10) for i in range(n)]
    compared = of(true[: int(n * share)], true)
    low, high = bootstrapped(compared, replicates=4000).scores["objects.recall"]
    assert low * n == pytest.approx(binom.ppf(0.025, n, share), abs=3)
    assert high * n == pytest.approx(binom.ppf(0.975, n, share), abs=3)


def test_intervals_come_out_the_same_again_and_narrow_with_more_fields():
    rng = np.random.default_rng(0)

    def place(n):
        true = [box(20 * i, 0, 20 * i + 10, 10) for i in range(n)]
        return of([box(s.bounds[0], 0, s.bounds[2], h) for s, h in zip(true, rng.uniform(2, 10, n), strict=True)], true)

    few, many = place(30), place(600)
    assert bootstrapped(few).to_dict() == bootstrapped(few).to_dict()
    width = [np.diff(bootstrapped(one).scores["objects.pq"])[0] for one in (few, many)]
    assert width[1] < width[0] / 3
    lone = bootstrapped(of([box(0, 0, 9, 9)], [box(0, 0, 9, 9)]))
    assert set(lone.scores.values()) == {None}


def test_a_field_is_drawn_with_all_that_was_predicted_of_it():
    from geoseg.metrics.bootstrap import units_of

    true = [box(0, 0, 10, 10), box(20, 0, 30, 10)]
    pred = [box(0, 0, 10, 9), box(20, 0, 24, 10), box(24, 0, 29, 10), box(40, 0, 50, 10)]
    compared = of(pred, true)
    _, lengths = score_boundaries(compared, tolerance=1, source="", step=0.5)
    unit, units = units_of(compared, lengths)
    assert (unit.tolist(), units) == ([0, 1, 1, 2], 3)
    within = of(
        [box(0, 0, 11, 10)], [box(0, 0, 10, 10), box(-50, -50, 50, 50)]
    )  # the larger shares more, but is no match
    assert units_of(within, score_boundaries(within, tolerance=1, source="", step=1)[1])[0].tolist() == [0]
