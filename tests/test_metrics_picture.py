"""Pictures, instance rasters and the options around them: what a user of `geoseg evaluate` meets."""

from __future__ import annotations

import doctest
import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from PIL import Image
from pyproj import CRS
from shapely import box

import geoseg.metrics
from geoseg.cli.evaluate import command
from geoseg.errors import InputError
from geoseg.metrics import FieldRaster, evaluate
from geoseg.metrics.picture import COLORS, picture_path
from geoseg.metrics.verdicts import FALSE, IGNORED, MATCHED, MERGED, MISSED, SPLIT

UTM = "EPSG:32633"
X, Y = 500_000, 5_800_000
TRANSFORM = Affine(10, 0, X, 0, -10, Y + 400)

TRUE = [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (50, 0, 60, 10), (0, 30, 10, 40)]
PRED = [(0, 0, 10, 10), (20, 0, 25, 10), (25, 0, 30, 10), (40, 0, 60, 10), (40, 30, 50, 40)]
"""Matched, split in two, merged, missed; and one false."""


def frame(boxes, crs=UTM):
    return gpd.GeoDataFrame(
        geometry=[box(X + 10 * a, Y + 10 * b, X + 10 * c, Y + 10 * d) for a, b, c, d in boxes], crs=crs
    )


def ids_of(boxes):
    """The same boxes as object ids on 10 m pixels."""
    ids = np.zeros((40, 60), np.uint16)
    for i, (a, b, c, d) in enumerate(boxes):
        ids[40 - d : 40 - b, a:c] = 1000 + 7 * i
    return ids


def write_ids(path, ids, *, nodata=None):
    height, width = ids.shape
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": ids.dtype}
    with rasterio.open(path, "w", **profile, crs=UTM, transform=TRANSFORM, nodata=nodata) as dst:
        dst.write(ids, 1)
    return path


def invoke(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def test_doctests_of_the_package():
    assert doctest.testmod(geoseg.metrics).failed == 0


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def colors_at(path, places):
    """Colours of the picture at places given in tens of metres, from the lower left corner of all fields."""
    page = pixels_of(path)
    rows, cols = 40 / 60 * 1584, 1584  # fields are 600 m x 400 m, and fill the map but for 8 pixels around
    bottom, left = page.shape[0] - 24 - 8, (page.shape[1] - (cols + 16)) // 2 + 8
    return [tuple(page[int(bottom - y / 40 * rows), int(left + x / 60 * cols)].tolist()) for x, y in places]


def test_picture_shows_each_verdict_in_its_colour(tmp_path):
    scores = evaluate(frame(PRED), frame(TRUE))
    assert scores.verdict_counts.to_dict() == {
        "true": {"matched": 1, "split": 1, "merged": 2, "missed": 1},
        "predicted": {"matched": 1, "split": 2, "merged": 1, "false": 1, "ignored": 0},
    }
    path = scores.draw(tmp_path / "scores.png")
    found = colors_at(path, [(5, 5), (23, 5), (27, 5), (45, 5), (55, 5), (5, 35), (45, 35), (30, 35)])
    wanted = [COLORS[code] for code in (MATCHED, SPLIT, SPLIT, MERGED, MERGED, MISSED, FALSE)] + [(255, 255, 255)]
    for color, expected in zip(found, wanted, strict=True):
        assert color == expected


def test_same_layers_give_the_same_picture(tmp_path):
    for name in "ab":
        evaluate(frame(PRED), frame(TRUE)).draw(tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pictures_of_little_and_of_partial_labels(tmp_path):
    evaluate(frame([]), frame([])).draw(tmp_path / "none.png")
    evaluate(frame([]), frame(TRUE)).draw(tmp_path / "missed.png")
    evaluate(frame([(0, 0, 60, 1)]), frame([(0, 0, 60, 1)])).draw(tmp_path / "flat.png")
    assert pixels_of(tmp_path / "flat.png").shape[0] < 400
    partial = evaluate(frame(PRED), frame(TRUE[:1]), partial=True)
    partial.draw(tmp_path / "partial.png")
    page = pixels_of(tmp_path / "partial.png").reshape(-1, 3)
    assert (np.abs(page.astype(int) - COLORS[IGNORED]).max(axis=1) <= 10).mean() > 0.1
    plain = evaluate(frame(PRED, None), frame(TRUE, None))
    plain.draw(tmp_path / "pixels.png")
    ids = FieldRaster.of_instances(ids_of(TRUE), name="ids", transform=TRANSFORM, crs=CRS(UTM))
    evaluate(ids, frame(TRUE)).draw(tmp_path / "raster.png")
    assert all(pixels_of(path).shape[1] >= 700 for path in tmp_path.glob("*.png"))


def test_pictures_are_refused_where_they_cannot_be(tmp_path):
    with pytest.raises(InputError, match=r"suffix \.jpg; pictures are PNG"):
        picture_path(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="does not exist; make it"):
        picture_path(tmp_path / "no" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        picture_path(tmp_path / "folder.png")
    layer = tmp_path / "truth.png"
    layer.write_bytes(b"a layer")
    with pytest.raises(InputError, match="one of the layers"):
        invoke(tmp_path / "pred.gpkg", layer, "--picture", layer)
    assert layer.read_bytes() == b"a layer"


def test_instances_keep_fields_apart_that_touch(tmp_path):
    pred, true = (write_ids(tmp_path / f"{name}.tif", ids_of(boxes)) for name, boxes in (("p", PRED), ("t", TRUE)))
    vector = evaluate(frame(PRED), frame(TRUE), pixel_size_m=10)
    for scores in (
        evaluate(pred, true, pred_instances=True, truth_instances=True),
        evaluate(pred, frame(TRUE), pred_instances=True),
        evaluate(frame(PRED), true, truth_instances=True),
    ):
        assert scores.objects == vector.objects
        assert scores.verdict_counts == vector.verdict_counts
        assert scores.pixels.field_scores == vector.pixels.field_scores
        assert scores.segmentation.goc == pytest.approx(vector.segmentation.goc)
    assert "each id is an object" in scores.truth.field
    classes = (ids_of(PRED) > 0).astype(np.uint8)
    as_classes = evaluate(write_ids(tmp_path / "c.tif", classes), frame(TRUE))
    assert as_classes.objects.predicted == 4, "connected components join the two halves"


def test_ids_of_any_kind_are_instances(tmp_path):
    ids = ids_of(TRUE)
    for name, values, nodata in (
        ("wide", ids.astype(np.int32) * 100_000, None),
        ("bytes", np.where(ids > 0, ids % 251 + 1, 0).astype(np.uint8), None),
        ("top", np.where(ids == 1000, 255, ids % 200).astype(np.uint8), None),
        ("negative", np.where(ids > 0, ids, -1).astype(np.int32), -1),
    ):
        scores = evaluate(write_ids(tmp_path / f"{name}.tif", values, nodata=nodata), frame(TRUE), pred_instances=True)
        assert scores.objects.matched[-1] == 5, name
    apart = ids.copy()
    apart[apart == 1007] = 1000  # one id, two places: one object
    assert evaluate(write_ids(tmp_path / "a.tif", apart), frame(TRUE), pred_instances=True).objects.predicted == 4
    zero = write_ids(tmp_path / "zero.tif", ids, nodata=0)
    assert any("0 is nodata" in note for note in evaluate(zero, frame(TRUE), pred_instances=True).notes)


def test_a_placeholder_is_no_crs(tmp_path):
    path = tmp_path / "local.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 40, "width": 60, "dtype": "uint16", "transform": TRANSFORM}
    with rasterio.open(path, "w", **profile, crs='LOCAL_CS["somewhere",UNIT["metre",1]]') as dst:
        dst.write(ids_of(TRUE), 1)
    scores = evaluate(path, path, pred_instances=True, truth_instances=True)
    assert (scores.truth.crs, scores.boundary.unit) == (None, "pixel")
    assert scores.objects.f1 == scores.boundary.f1 == 1


def test_refusals_around_instances(tmp_path):
    path = tmp_path / "fields.gpkg"
    frame(TRUE).to_file(path)
    with pytest.raises(InputError, match="holds polygons, but a raster of object ids was expected"):
        evaluate(path, path, pred_instances=True)
    mask = FieldRaster.of(np.ones((4, 4), np.uint8), name="mask", transform=TRANSFORM, crs=CRS(UTM))
    with pytest.raises(InputError, match="holds classes, but a raster of object ids"):
        evaluate(mask, path, pred_instances=True)
    ids = write_ids(tmp_path / "ids.tif", ids_of(TRUE))
    with pytest.raises(InputError, match=r"class ids go from 0 to 255; .* --truth-instances"):
        evaluate(path, ids)
    with pytest.raises(InputError, match="one or the other"):
        evaluate(path, ids, truth_instances=True, truth_class=3)
    with pytest.raises(InputError, match="no layer is left for the field class"):
        evaluate(ids, ids, pred_instances=True, truth_instances=True, field_class=3)
    negative = write_ids(tmp_path / "n.tif", ids_of(TRUE).astype(np.int16) - 5)
    with pytest.raises(InputError, match="holds the object id -5"):
        evaluate(negative, path, pred_instances=True)
    floats = write_ids(tmp_path / "f.tif", ids_of(TRUE).astype(np.float32))
    with pytest.raises(InputError, match="1 bands of float32; give one band of integers, object ids"):
        evaluate(floats, path, pred_instances=True)


def test_refusals_around_tolerance_and_bootstrap():
    for value in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="give a number above 0"):
            evaluate(frame(PRED), frame(TRUE), tolerance_m=value)
    with pytest.raises(InputError, match="without a CRS there are no metres; leave the tolerance out"):
        evaluate(frame(PRED, None), frame(TRUE, None), tolerance_m=5)
    with pytest.raises(InputError, match="-1 draws; give 0"):
        evaluate(frame(PRED), frame(TRUE), bootstrap=-1)


def test_command_takes_the_new_options(tmp_path):
    pred, true = tmp_path / "pred.tif", tmp_path / "true.gpkg"
    write_ids(pred, ids_of(PRED))
    frame(TRUE).to_file(true)
    options = ("--pred-instances", "--tolerance-m", "12", "--bootstrap", "50", "--picture", tmp_path / "a.png")
    shown = invoke(pred, true, *options)
    assert f"picture written to {tmp_path / 'a.png'}" in shown.output
    assert "right within 12.0 m: --tolerance-m" in shown.output
    assert "matched 1, split 1, merged 2, missed 1" in shown.output
    assert "95 % interval" in shown.output
    assert max(map(len, shown.output.splitlines())) <= 100 + len(str(tmp_path))
    result = invoke(pred, true, *options, "--json")
    record = json.loads(result.stdout)
    assert record["intervals"]["replicates"] == 50
    assert record["intervals"]["units"] == 6
    assert len(record["intervals"]["scores"]["objects.pq"]) == 2
    assert record["boundary"]["tolerance"] == 12
    assert record["verdicts"]["predicted"]["split"] == 2
    assert record["segmentation"]["references_without_overlap"] == 1
    assert record["segmentation"]["references_without_overlap_area_share"] == 0.2
    assert record["areas"]["count_ratio"] == 1
    quiet = invoke(pred, true, "--pred-instances", "--bootstrap", "0")
    assert "interval" not in quiet.output
    assert evaluate(pred, true, pred_instances=True, bootstrap=0).intervals is None


@pytest.mark.parametrize("partial", [False, True])
def test_tables_are_no_wider_than_a_terminal(partial):
    for pred, true in ((PRED, TRUE), ([], TRUE), (PRED, []), ([], [])):
        table = evaluate(frame(pred), frame(true), partial=partial).to_table()
        assert max(map(len, table.splitlines())) <= 100
