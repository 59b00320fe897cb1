"""Scores of a prediction against the truth: by pixel, by field and by outline.

>>> import geopandas as gpd
>>> from shapely import box
>>> from geoseg.metrics import evaluate
>>> truth = gpd.GeoDataFrame(geometry=[box(0, 0, 100, 100), box(100, 0, 200, 100)], crs="EPSG:32633")
>>> pred = gpd.GeoDataFrame(geometry=[box(0, 0, 100, 90), box(100, 0, 140, 100)], crs="EPSG:32633")
>>> scores = evaluate(pred, truth)
>>> scores.objects.f1, scores.objects.sq
(0.5, 0.9)
>>> scores.boundary.tolerance, round(scores.boundary.recall, 2)
(5.0, 0.61)
>>> scores.verdict_counts.to_dict()["true"]
{'matched': 1, 'split': 0, 'merged': 0, 'missed': 1}
"""

from geoseg.metrics.areas import AreaScores, score_areas
from geoseg.metrics.bootstrap import Intervals, intervals
from geoseg.metrics.boundary import BoundaryScores, PairDistances, score_boundaries, score_pairs
from geoseg.metrics.comparison import Comparison
from geoseg.metrics.evaluation import Evaluation, evaluate
from geoseg.metrics.layers import FieldPolygons, FieldRaster
from geoseg.metrics.objects import ObjectScores, match, score_objects
from geoseg.metrics.overlap import Overlap, overlap_of_labels, overlap_of_polygons
from geoseg.metrics.pixels import ClassScores, PixelScores, confusion_matrix
from geoseg.metrics.segmentation import SegmentationErrors, score_segmentation
from geoseg.metrics.verdicts import VerdictCounts, Verdicts, judge

__all__ = [
    "AreaScores",
    "BoundaryScores",
    "ClassScores",
    "Comparison",
    "Evaluation",
    "FieldPolygons",
    "FieldRaster",
    "Intervals",
    "ObjectScores",
    "Overlap",
    "PairDistances",
    "PixelScores",
    "SegmentationErrors",
    "VerdictCounts",
    "Verdicts",
    "confusion_matrix",
    "evaluate",
    "intervals",
    "judge",
    "match",
    "overlap_of_labels",
    "overlap_of_polygons",
    "score_areas",
    "score_boundaries",
    "score_objects",
    "score_pairs",
    "score_segmentation",
]
