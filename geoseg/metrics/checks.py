"""What two layers must have in common to be compared; each raises InputError."""

from __future__ import annotations

import numpy as np
from odc.geo.geobox import GeoBox

from geoseg.errors import InputError
from geoseg.metrics.layers import FieldPolygons, FieldRaster, Layer, OnGrid, grid_crs
from geoseg.metrics.records import crs_text

NO_CRS = "without a CRS coordinates are pixels, (col, -row)"


def check_together(pred: Layer, truth: Layer) -> None:
    """Both have a CRS or neither, and a truth raster has fields."""
    if (pred.crs is None) != (truth.crs is None):
        without, with_crs = (pred, truth) if pred.crs is None else (truth, pred)
        raise InputError(
            f"{without.name} has no CRS, but {with_crs.name} is in {crs_text(with_crs.crs)}; "
            f"write the CRS into {without.name} or compare in pixels on both sides"
        )
    if isinstance(truth, FieldRaster) and not truth.objects:
        found = np.unique(truth.classes[truth.valid]).tolist()
        if found not in ([], [0]):  # a place without fields is a truth, too
            raise InputError(
                f"{truth.name} has no pixel of class {truth.field_id}, but {', '.join(map(str, found[:9]))}; "
                f"say which class is field with --truth-class"
            )


def check_seen(layer: Layer, on: OnGrid, grid: GeoBox) -> None:
    """Some object of the layer lies on the grid."""
    if layer.objects and not on.labels.any():
        bounds = " ".join(f"{value:.7g}" for value in grid.boundingbox.bbox)
        raise InputError(
            f"none of the {layer.objects} objects of {layer.name} falls on the other layer's grid, which spans {bounds} "
            f"({crs_text(grid_crs(grid)) or NO_CRS}); check the CRS of both"
        )


def check_meeting(pred: FieldPolygons, truth: FieldPolygons) -> None:
    """The extents of both, in one CRS, meet."""
    import shapely

    if not (pred.objects and truth.objects):
        return
    a, b = shapely.total_bounds(pred.geometry), shapely.total_bounds(truth.geometry)
    if (a[:2] > b[2:]).any() or (b[:2] > a[2:]).any():
        texts = [" ".join(f"{value:.7g}" for value in bounds) for bounds in (a, b)]
        advice = (
            "check the CRS of both" if truth.crs is not None else f"{NO_CRS}: turn y around where it counts downward"
        )
        raise InputError(f"{pred.name} spans {texts[0]} and {truth.name} {texts[1]}: they do not meet; {advice}")
