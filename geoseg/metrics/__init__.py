"""Scores of a prediction against the truth: by pixel and by field.

>>> import geopandas as gpd
>>> from shapely import box
>>> from geoseg.metrics import evaluate
>>> truth = gpd.GeoDataFrame(geometry=[box(0, 0, 100, 100), box(100, 0, 200, 100)], crs="EPSG:32633")
>>> pred = gpd.GeoDataFrame(geometry=[box(0, 0, 100, 90), box(100, 0, 140, 100)], crs="EPSG:32633")
>>> scores = evaluate(pred, truth)
>>> scores.objects.f1, scores.objects.sq
(0.5, 0.9)
"""

from geoseg.metrics.evaluation import Evaluation, evaluate
from geoseg.metrics.layers import FieldPolygons, FieldRaster
from geoseg.metrics.objects import ObjectScores, match, score_objects
from geoseg.metrics.overlap import Overlap, overlap_of_labels, overlap_of_polygons
from geoseg.metrics.pixels import ClassScores, PixelScores, confusion_matrix

__all__ = [
    "ClassScores",
    "Evaluation",
    "FieldPolygons",
    "FieldRaster",
    "ObjectScores",
    "Overlap",
    "PixelScores",
    "confusion_matrix",
    "evaluate",
    "match",
    "overlap_of_labels",
    "overlap_of_polygons",
    "score_objects",
]
