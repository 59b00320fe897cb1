"""evaluate(): scores a prediction against the truth, whatever form the two have.

two vector layers      objects by exact polygon areas, pixels by burning both into one grid
a raster among them    everything on a grid: the truth's where the truth is a raster, else the prediction's;
                       the other layer is burnt or warped (nearest) into it, so that the truth is never resampled
                       where it need not be
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.errors import InputError
from geoseg.metrics.areas import AreaScores, score_areas
from geoseg.metrics.bootstrap import REPLICATES, Intervals, intervals
from geoseg.metrics.boundary import BoundaryScores, PairDistances, score_boundaries, score_pairs
from geoseg.metrics.checks import NO_CRS, check_meeting, check_seen, check_together
from geoseg.metrics.comparison import Comparison
from geoseg.metrics.files import open_layer
from geoseg.metrics.grids import (
    burnt_notes,
    common_grid,
    grid_pixel_m2,
    metres_per_unit,
    metric_crs,
    metric_grid_crs,
    pixel_side,
    raster_grid,
)
from geoseg.metrics.layers import FieldPolygons, FieldRaster, Layer, OnGrid, grid_crs
from geoseg.metrics.objects import ObjectScores, score_objects
from geoseg.metrics.options import STEPS, Options, default_tolerance
from geoseg.metrics.overlap import Overlap, overlap_of_labels, overlap_of_polygons
from geoseg.metrics.picture import draw
from geoseg.metrics.pixels import PixelScores, confusion_matrix
from geoseg.metrics.records import GridRecord, LayerRecord
from geoseg.metrics.report import table
from geoseg.metrics.segmentation import SegmentationErrors, score_segmentation
from geoseg.metrics.tracing import ids_of, seen_on, traced
from geoseg.metrics.verdicts import VerdictCounts, Verdicts, judge

SCHEMA = "geoseg-evaluation-1"
"""Of the JSON form; it grows by new entries only, anything else gets a new name."""

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
    segmentation: SegmentationErrors
    boundary: BoundaryScores
    matched_outlines: PairDistances
    areas: AreaScores
    verdict_counts: VerdictCounts
    intervals: Intervals | None
    """None where they were not asked for."""
    compared: Comparison = field(repr=False, compare=False)
    """The objects themselves, in a CRS in which lengths are lengths."""
    verdicts: Verdicts = field(repr=False, compare=False)
    """What became of each object of `compared`."""
    partial: bool = False
    """True where the truth labels a part of the fields only."""
    min_area_m2: float = 0.0
    """Objects below it, predicted or true, were left out of the object scores."""
    notes: tuple[str, ...] = ()
    """What a reader of the scores should know: repairs, assumptions, objects that could not be seen."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form. Scores are numbers (most from 0 to 1), or None where they have no meaning."""
        return {
            "schema": SCHEMA,
            "pred": self.pred.to_dict(),
            "truth": self.truth.to_dict(),
            "partial": self.partial,
            "min_area_m2": self.min_area_m2,
            "objects": {"measured_by": self.measured_by, **self.objects.to_dict()},
            "verdicts": self.verdict_counts.to_dict(),
            "segmentation": self.segmentation.to_dict(),
            "boundary": self.boundary.to_dict(),
            "matched_outlines": self.matched_outlines.to_dict(),
            "areas": self.areas.to_dict(),
            "intervals": None if self.intervals is None else self.intervals.to_dict(),
            "pixels": self.pixels.to_dict(),
            "grid": self.grid.to_dict(),
            "notes": list(self.notes),
        }

    def to_table(self) -> str:
        """The main scores as plain text, no wider than 100 columns but for the names of files and notes."""
        return table(self.to_dict())

    def draw(self, path: str | Path) -> Path:
        """Writes a picture (PNG) of what was matched, missed, false, split and merged; returns its path."""
        return draw(self.compared, self.verdicts, path, title=f"{self.pred.name} against {self.truth.name}")


def evaluate(
    pred: Any,
    truth: Any,
    *,
    partial: bool = False,
    field_class: str | int = "field",
    truth_class: str | int | None = None,
    pred_instances: bool = False,
    truth_instances: bool = False,
    min_area_m2: float = 0.0,
    pixel_size_m: float | None = None,
    tolerance_m: float | None = None,
    bootstrap: int = REPLICATES,
) -> Evaluation:
    """Scores predicted fields against true ones.

    Args:
        pred: path of a vector file or class mask, a GeoDataFrame, or a layer (FieldPolygons, FieldRaster).
        truth: the same.
        partial: the truth labels only some of the fields, and what it leaves out is not background. Pixels are then
            counted inside labels only (recall), and predictions that lie mostly outside labels do not count.
        field_class: the class of a raster that is field, by name or id.
        truth_class: the same for a truth raster with another legend; None for `field_class`.
        pred_instances: the prediction is a raster of object ids (0 for none) rather than of classes.
        truth_instances: the same for the truth.
        min_area_m2: smaller objects are left out of the object scores on both sides; pixel scores keep them.
        pixel_size_m: pixel of the grid that two vector layers are burnt into for the pixel scores; None for a size
            that suits the median true field.
        tolerance_m: within that many metres an outline counts as right for the boundary scores; None for 2 pixels of
            the raster that objects are compared on, or for two vector layers 5 % of the median true field's width
            (the square root of its area), to one digit
        bootstrap: draws for the 95 % intervals of the object scores; 0 for none.

    Raises:
        InputError: a layer cannot be read or does not meet the other one, or an option does not fit the layers.
    """
    options = Options(
        partial=partial,
        min_area_m2=min_area_m2,
        pixel_size_m=pixel_size_m,
        tolerance_m=tolerance_m,
        bootstrap=bootstrap,
    )
    if truth_class is not None and truth_instances:
        raise InputError(
            f"the truth is said to hold classes ({truth_class} is field) and object ids; it is one or the other"
        )
    if field_class != "field" and pred_instances and (truth_instances or truth_class is not None):
        raise InputError(
            f"no layer is left for the field class {field_class}: object ids have no classes; leave it out"
        )
    layers = (
        open_layer(pred, field_class=field_class, instances=pred_instances, name="prediction"),
        open_layer(
            truth,
            field_class=field_class if truth_class is None else truth_class,
            instances=truth_instances,
            name="truth",
        ),
    )
    check_together(*layers)
    options.check_units(layers[1].crs)
    if isinstance(layers[0], FieldPolygons) and isinstance(layers[1], FieldPolygons):
        result = _by_areas(layers[0], layers[1], options)
    elif pixel_size_m is None:
        result = _by_pixels(*layers, options)
    else:
        raise InputError(
            f"a pixel size ({pixel_size_m:g} m) is for two vector layers; a raster brings its own grid: leave it out"
        )
    notes = (*layers[0].notes, *layers[1].notes, *result.notes)
    return replace(result, min_area_m2=min_area_m2, notes=notes)


def _by_areas(pred: FieldPolygons, truth: FieldPolygons, options: Options) -> Evaluation:
    crs = metric_crs(truth, pred)
    here, there = pred.to_crs(crs), truth.to_crs(crs)
    check_meeting(here, there)
    every = overlap_of_polygons(here.geometry, there.geometry)
    metres = metres_per_unit(crs)
    least = options.min_area_m2 / metres**2
    grid = common_grid(here, there, options.pixel_size_m)
    burnt = here.on(grid), there.on(grid)
    notes = [*burnt_notes(here, burnt[0], grid), *burnt_notes(there, burnt[1], grid)]
    if crs is None:
        notes.append(f"neither layer has a CRS; {NO_CRS}")
    compared = Comparison.of(
        every.at_least(least),
        here.geometry[every.pred_area >= least],
        there.geometry[every.true_area >= least],
        partial=options.partial,
        metres=metres,
        area_m2=metres**2,
        unit="pixel" if crs is None else "metre",
    )
    return _scored(
        compared,
        options,
        default=default_tolerance(compared),
        pred=LayerRecord.of(pred),
        truth=LayerRecord.of(truth),
        measured_by="polygon areas",
        pixels=_pixel_scores(*burnt, field_ids=(1, 1), names=POLYGON_CLASSES, partial=options.partial, bounded=False),
        grid=GridRecord.of(grid, source="default" if options.pixel_size_m is None else "--pixel-size-m"),
        notes=tuple(notes),
    )


def _by_pixels(pred: Layer, truth: Layer, options: Options) -> Evaluation:
    grid, source = raster_grid(pred, truth)
    here, there = pred.on(grid), truth.on(grid)
    check_seen(pred, here, grid)
    check_seen(truth, there, grid)
    valid = here.valid & there.valid
    every = overlap_of_labels(here.labels, there.labels, valid=valid)
    notes = [
        f"{layer.name}: {unseen} of {layer.objects} objects have no pixel that counts "
        f"(outside the grid, on nodata, or smaller than a pixel) and were left out"
        for layer, seen in ((pred, every.pred_area.size), (truth, every.true_area.size))
        if (unseen := layer.objects - seen)
    ]
    if grid.crs is None:
        notes.append(f"neither layer has a CRS; {NO_CRS}")
    compared = _on_grid(every, here, there, grid, valid, options)

    field_ids = tuple(layer.field_id if isinstance(layer, FieldRaster) else 1 for layer in (pred, truth))
    names = {0: "background", field_ids[1]: "field"}
    if isinstance(pred, FieldRaster) and isinstance(truth, FieldRaster) and field_ids[0] == field_ids[1]:
        names |= _more_classes(there.classes[valid], truth)
    return _scored(
        compared,
        options,
        default=(2 * pixel_side(grid), f"2 pixels of the {source}"),
        pred=LayerRecord.of(pred),
        truth=LayerRecord.of(truth),
        measured_by="pixels",
        pixels=_pixel_scores(
            replace(here, valid=valid),
            there,
            field_ids=(field_ids[0], field_ids[1]),
            names=names,
            partial=options.partial,
        ),
        grid=GridRecord.of(grid, source=source),
        notes=tuple(notes),
    )


def _on_grid(
    every: Overlap, pred: OnGrid, truth: OnGrid, grid: GeoBox, valid: NDArray[np.bool_], options: Options
) -> Comparison:
    """The objects on a grid, with the outlines of their valid pixels."""
    crs = grid_crs(grid)
    metric = metric_grid_crs(grid)
    pixel_m2 = 1.0 if crs is None else grid_pixel_m2(grid)
    least = options.min_area_m2 / pixel_m2

    def outlines(on: OnGrid, areas: NDArray[np.float64]) -> NDArray[Any]:
        ids = ids_of(on.labels, valid)[areas >= least]
        shapes = traced(np.where(valid, on.labels, 0).astype(np.int32), ids, grid.transform)
        return FieldPolygons(name="outlines", geometry=shapes, crs=crs).to_crs(metric).geometry

    return Comparison.of(
        every.at_least(least),
        outlines(pred, every.pred_area),
        outlines(truth, every.true_area),
        partial=options.partial,
        metres=metres_per_unit(metric),
        area_m2=pixel_m2,
        unit="pixel" if crs is None else "metre",
        seen=seen_on(valid, grid.transform, crs=metric, grid_crs=crs),
    )


def _scored(compared: Comparison, options: Options, *, default: tuple[float, str], **rest: Any) -> Evaluation:
    """All that is scored by object; `rest` are the other entries of Evaluation."""
    usual, source = default
    tolerance = usual if options.tolerance_m is None else options.tolerance_m
    if options.tolerance_m is not None:
        source = "--tolerance-m"
    step = min(tolerance, usual) / STEPS
    boundary, lengths = score_boundaries(compared, tolerance=tolerance, source=source, step=step)
    outlines, areas = score_pairs(compared, step=step), score_areas(compared)
    verdicts = judge(compared)
    return Evaluation(
        objects=score_objects(compared.overlap, partial=options.partial),
        segmentation=score_segmentation(compared),
        boundary=boundary,
        matched_outlines=outlines,
        areas=areas,
        verdict_counts=VerdictCounts.of(verdicts),
        verdicts=verdicts,
        intervals=intervals(compared, lengths, outlines, areas, replicates=options.bootstrap)
        if options.bootstrap
        else None,
        compared=compared,
        partial=options.partial,
        **rest,
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
