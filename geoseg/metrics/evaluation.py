"""evaluate(): scores a prediction against the truth, whatever form the two have.

two vector layers      objects by exact polygon areas, pixels by burning both into one grid
a raster among them    everything on a grid: the truth's where the truth is a raster, else the prediction's;
                       the other layer is burnt or warped (nearest) into it, so that the truth is never resampled
                       where it need not be
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.errors import InputError
from geoseg.metrics.files import open_layer
from geoseg.metrics.grids import common_grid, grid_pixel_m2, metric_crs, raster_grid, repeated_share
from geoseg.metrics.layers import FieldPolygons, FieldRaster, Layer, OnGrid, grid_crs
from geoseg.metrics.objects import ObjectScores, score_objects
from geoseg.metrics.overlap import overlap_of_labels, overlap_of_polygons
from geoseg.metrics.pixels import PixelScores, confusion_matrix
from geoseg.metrics.records import GridRecord, LayerRecord, crs_text
from geoseg.metrics.report import table

SCHEMA = "geoseg-evaluation-1"
"""Of the JSON form; it grows by new entries only, anything else gets a new name."""

NO_CRS = "without a CRS coordinates are pixels, (col, -row)"

POLYGON_CLASSES = {0: "background", 1: "field"}
"""Class ids of burnt polygons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    pred: LayerRecord
    truth: LayerRecord
    objects: ObjectScores
    measured_by: str
    """How objects were compared: `polygon areas` or `pixels`."""
    pixels: PixelScores
    grid: GridRecord
    """Of the pixel scores, and of the objects where those are measured by pixels."""
    partial: bool = False
    """True where the truth labels a part of the fields only."""
    min_area_m2: float = 0.0
    """Objects below it, predicted or true, were left out of the object scores."""
    notes: tuple[str, ...] = ()
    """What a reader of the scores should know: repairs, assumptions, objects that could not be seen."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form. Scores are numbers from 0 to 1, or None where they have no meaning."""
        return {
            "schema": SCHEMA,
            "pred": self.pred.to_dict(),
            "truth": self.truth.to_dict(),
            "partial": self.partial,
            "min_area_m2": self.min_area_m2,
            "objects": {"measured_by": self.measured_by, **self.objects.to_dict()},
            "pixels": self.pixels.to_dict(),
            "grid": self.grid.to_dict(),
            "notes": list(self.notes),
        }

    def to_table(self) -> str:
        """The main scores as plain text."""
        return table(self.to_dict())


def evaluate(
    pred: Any,
    truth: Any,
    *,
    partial: bool = False,
    field_class: str | int = "field",
    truth_class: str | int | None = None,
    min_area_m2: float = 0.0,
    pixel_size_m: float | None = None,
) -> Evaluation:
    """Scores predicted fields against true ones.

    Args:
        pred: path of a vector file or class mask, a GeoDataFrame, or a layer (FieldPolygons, FieldRaster).
        truth: the same.
        partial: the truth labels only some of the fields, and what it leaves out is not background. Pixels are then
            counted inside labels only (recall), and predictions that lie mostly outside labels do not count.
        field_class: the class of a raster that is field, by name or id.
        truth_class: the same for a truth raster with another legend; None for `field_class`.
        min_area_m2: smaller objects are left out of the object scores on both sides; pixel scores keep them.
        pixel_size_m: pixel of the grid that two vector layers are burnt into for the pixel scores; None for a size
            that suits the median true field.

    Raises:
        InputError: a layer cannot be read or does not meet the other one, or an option does not fit the layers.
    """
    layers = (
        open_layer(pred, field_class=field_class, name="prediction"),
        open_layer(truth, field_class=field_class if truth_class is None else truth_class, name="truth"),
    )
    _check_together(*layers)
    if min_area_m2 < 0 or not math.isfinite(min_area_m2):
        raise InputError(f"the minimum area is {min_area_m2} m2; give 0 or more")
    if min_area_m2 and layers[1].crs is None:
        raise InputError("without a CRS an area in m2 is unknown; leave the minimum area out, or georeference both")
    if isinstance(layers[0], FieldPolygons) and isinstance(layers[1], FieldPolygons):
        result = _by_areas(layers[0], layers[1], partial=partial, min_area_m2=min_area_m2, pixel_size_m=pixel_size_m)
    elif pixel_size_m is None:
        result = _by_pixels(*layers, partial=partial, min_area_m2=min_area_m2)
    else:
        raise InputError(
            f"a pixel size ({pixel_size_m:g} m) is for two vector layers; a raster brings its own grid: leave it out"
        )
    notes = (*layers[0].notes, *layers[1].notes, *result.notes)
    return replace(result, min_area_m2=min_area_m2, notes=notes)


def _by_areas(
    pred: FieldPolygons, truth: FieldPolygons, *, partial: bool, min_area_m2: float, pixel_size_m: float | None
) -> Evaluation:
    crs = metric_crs(truth)
    here, there = pred.to_crs(crs), truth.to_crs(crs)
    _check_meeting(here, there)
    overlap = overlap_of_polygons(here.geometry, there.geometry)
    if crs is not None:
        overlap = overlap.at_least(min_area_m2 / float(crs.axis_info[0].unit_conversion_factor) ** 2)
    grid = common_grid(here, there, pixel_size_m)
    burnt = here.on(grid), there.on(grid)
    notes = [
        f"{layer.name}: polygons overlap each other ({share:.1%} of their area is covered twice or more)"
        for layer, on in ((here, burnt[0]), (there, burnt[1]))
        if (share := repeated_share(layer, on, grid)) > 0.02
    ]
    if crs is None:
        notes.append(f"neither layer has a CRS; {NO_CRS}")
    return Evaluation(
        pred=LayerRecord.of(pred),
        truth=LayerRecord.of(truth),
        objects=score_objects(overlap, partial=partial),
        measured_by="polygon areas",
        pixels=_pixel_scores(*burnt, field_ids=(1, 1), names=POLYGON_CLASSES, partial=partial, bounded=False),
        grid=GridRecord.of(grid, source="default" if pixel_size_m is None else "--pixel-size-m"),
        partial=partial,
        notes=tuple(notes),
    )


def _by_pixels(pred: Layer, truth: Layer, *, partial: bool, min_area_m2: float) -> Evaluation:
    grid, source = raster_grid(pred, truth)
    here, there = pred.on(grid), truth.on(grid)
    _check_seen(pred, here, grid)
    _check_seen(truth, there, grid)
    valid = here.valid & there.valid
    overlap = overlap_of_labels(here.labels, there.labels, valid=valid)
    notes = [
        f"{layer.name}: {unseen} of {layer.objects} objects have no pixel that counts "
        f"(outside the grid, on nodata, or smaller than a pixel) and were left out"
        for layer, seen in ((pred, overlap.pred_area.size), (truth, overlap.true_area.size))
        if (unseen := layer.objects - seen)
    ]
    if grid.crs is None:
        notes.append(f"neither layer has a CRS; {NO_CRS}")
    elif min_area_m2:
        overlap = overlap.at_least(min_area_m2 / grid_pixel_m2(grid))

    field_ids = tuple(layer.field_id if isinstance(layer, FieldRaster) else 1 for layer in (pred, truth))
    names = {0: "background", field_ids[1]: "field"}
    if isinstance(pred, FieldRaster) and isinstance(truth, FieldRaster) and field_ids[0] == field_ids[1]:
        names |= _more_classes(there.classes[valid], truth)
    return Evaluation(
        pred=LayerRecord.of(pred),
        truth=LayerRecord.of(truth),
        objects=score_objects(overlap, partial=partial),
        measured_by="pixels",
        pixels=_pixel_scores(
            replace(here, valid=valid), there, field_ids=(field_ids[0], field_ids[1]), names=names, partial=partial
        ),
        grid=GridRecord.of(grid, source=source),
        partial=partial,
        notes=tuple(notes),
    )


def _pixel_scores(
    pred: OnGrid,
    truth: OnGrid,
    *,
    field_ids: tuple[int, int],
    names: dict[int, str],
    partial: bool,
    bounded: bool = True,
) -> PixelScores:
    """Scores over the classes in `names`, ids of the truth; other ids count as background."""
    index = {id_: i for i, id_ in enumerate(sorted(names))}
    legend = np.zeros((2, 256), dtype=np.uint8)
    for id_, i in index.items():
        if id_ != 0:
            legend[:, id_] = i
    if field_ids[0] != field_ids[1]:
        legend[0] = 0
        legend[0, field_ids[0]] = index[field_ids[1]]
    valid = pred.valid & truth.valid
    if partial:
        valid = valid & (truth.classes == field_ids[1])
    matrix = confusion_matrix(legend[0][pred.classes], legend[1][truth.classes], classes=len(index), valid=valid)
    return PixelScores.of(matrix, [names[i] for i in sorted(names)], partial=partial, bounded=bounded)


def _more_classes(true_ids: NDArray[np.uint8], truth: FieldRaster) -> dict[int, str]:
    """Classes of the truth beside background and field. Those that only the prediction has count as background."""
    by_id = {i: name for name, i in truth.class_names.items() if name not in ("background", "field")}
    found = np.flatnonzero(np.bincount(true_ids, minlength=256)).tolist()
    return {i: by_id.get(i, f"class {i}") for i in found if i not in (0, truth.field_id)}


def _check_together(pred: Layer, truth: Layer) -> None:
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


def _check_seen(layer: Layer, on: OnGrid, grid: GeoBox) -> None:
    if layer.objects and not on.labels.any():
        bounds = " ".join(f"{value:.7g}" for value in grid.boundingbox.bbox)
        raise InputError(
            f"none of the {layer.objects} objects of {layer.name} falls on the other layer's grid, which spans {bounds} "
            f"({crs_text(grid_crs(grid)) or NO_CRS}); check the CRS of both"
        )


def _check_meeting(pred: FieldPolygons, truth: FieldPolygons) -> None:
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
