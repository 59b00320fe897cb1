"""evaluate() and `geoseg evaluate`: files in, scores out, whatever form prediction and truth have."""

from __future__ import annotations

import json
import warnings

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from pyproj import CRS
from shapely import box
from shapely.affinity import affine_transform, translate

from geoseg.cli.evaluate import command
from geoseg.errors import InputError
from geoseg.metrics import FieldPolygons, FieldRaster, evaluate

UTM = "EPSG:32633"
ORIGIN = Affine(10, 0, 500_000, 0, -10, 5_800_400)
"""10 m pixels; a 40 x 40 raster reaches from 500000 5800000 to 500400 5800400."""

# Four fields of 15 x 15 pixels with a gap of 2 between them.
FIELDS = [box(500_000 + x, 5_800_000 + y, 500_150 + x, 5_800_150 + y) for x in (20, 190) for y in (20, 190)]


def polygons(shapes=FIELDS, crs=UTM):
    return gpd.GeoDataFrame({"name": [str(i) for i in range(len(shapes))]}, geometry=list(shapes), crs=crs)


def class_mask():
    """The same fields as a class mask: field 1 with a rim of boundary 2."""
    from rasterio.features import rasterize

    inner = rasterize(FIELDS, out_shape=(40, 40), transform=ORIGIN).astype(np.uint8)
    rim = rasterize([shape.buffer(10, join_style="mitre") for shape in FIELDS], out_shape=(40, 40), transform=ORIGIN)
    return np.where(inner == 1, 1, 2 * rim).astype(np.uint8)


def write_mask(path, mask, *, transform=ORIGIN, crs=UTM, nodata=255, **tags):
    height, width = mask.shape
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": mask.dtype}
    if transform is not None:
        profile["transform"] = transform
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        dst = rasterio.open(path, "w", **profile, crs=crs, nodata=nodata)
    with dst:
        dst.write(mask, 1)
        dst.update_tags(**tags)
    return path


def assert_perfect(scores):
    assert scores.objects.f1 == scores.objects.mean_f1 == 1
    assert scores.objects.pq == pytest.approx(1)
    assert scores.pixels.field_scores.iou == 1


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet", ".shp", ".fgb"])
def test_perfect_vectors_score_one(tmp_path, suffix):
    path = tmp_path / f"fields{suffix}"
    frame = polygons(crs="EPSG:32633" if suffix != ".geojson" else None)
    if suffix == ".geojson":
        frame = polygons().to_crs(4326)
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_file(path)
    assert_perfect(evaluate(path, path))


def test_perfect_raster_scores_one(tmp_path):
    path = write_mask(tmp_path / "mask.tif", class_mask())
    scores = evaluate(path, path)
    assert_perfect(scores)
    assert (scores.objects.true, scores.pixels.miou, scores.pixels.accuracy) == (4, 1, 1)
    assert scores.pixels.classes == ("background", "field", "boundary")


@pytest.mark.parametrize("swap", [False, True])
def test_vector_against_raster_uses_the_rasters_grid(tmp_path, swap):
    mask = write_mask(tmp_path / "mask.tif", class_mask())
    pair = (polygons(), mask) if swap else (mask, polygons())
    scores = evaluate(*pair)
    assert_perfect(scores)
    assert (scores.grid.shape, scores.grid.pixel_size, scores.grid.unit) == ((40, 40), 10, "metre")
    assert scores.grid.source == ("truth" if swap else "prediction")
    assert scores.measured_by == "pixels"


def test_three_roads_agree_on_aligned_fields(tmp_path):
    from rasterio.features import rasterize

    # IoU .76, 1, and below one half; none touches another, or its component would hold both
    shifted = [translate(FIELDS[0], -20, 0), FIELDS[1], translate(FIELDS[2], 0, 80)]
    pred = polygons(shifted)
    burnt = rasterize(shifted, out_shape=(40, 40), transform=ORIGIN).astype(np.uint8)
    mask = write_mask(tmp_path / "pred.tif", burnt)
    truth = write_mask(tmp_path / "truth.tif", (class_mask() == 1).astype(np.uint8))
    roads = [evaluate(pred, polygons(), pixel_size_m=10), evaluate(mask, polygons()), evaluate(mask, truth)]
    assert {road.objects.matched for road in roads} == {(2, 2, 2, 2, 2, 2, 1, 1, 1, 1)}
    assert len({round(road.objects.pq, 12) for road in roads}) == 1
    assert len({road.pixels.field_scores.iou for road in roads}) == 1


def test_other_crs_is_reprojected():
    scores = evaluate(polygons().to_crs(4326), polygons())
    assert scores.objects.f1 == 1
    assert scores.objects.sq == pytest.approx(1, abs=1e-6)
    assert scores.grid.crs == UTM


@pytest.mark.parametrize("crs", [4326, 3857])
def test_areas_are_metric_where_the_truths_crs_is_not(crs):
    there = polygons().to_crs(crs)
    scores = evaluate(there, there, min_area_m2=22_000)  # fields have 22500 m2, in Web Mercator 2.7 times as much
    assert scores.objects.true == 4
    assert evaluate(there, there, min_area_m2=23_000).objects.true == 0
    assert scores.grid.crs == "equal-area around 15.0, 52.4"


def test_min_area_by_pixels_and_by_area_agree(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", class_mask())
    for least, left in ((22_000, 4), (23_000, 0)):
        assert evaluate(mask, mask, min_area_m2=least).objects.true == left
        assert evaluate(polygons(), polygons(), min_area_m2=least).objects.true == left


def test_feet_are_not_metres():
    feet = polygons([box(1_000_000, 200_000, 1_000_100, 200_100)], crs="EPSG:2263")
    assert evaluate(feet, feet, min_area_m2=900).objects.true == 1
    assert evaluate(feet, feet, min_area_m2=950).objects.true == 0
    assert evaluate(feet, feet, pixel_size_m=0.3048006096).grid.pixel_size == pytest.approx(1)


def test_raster_on_another_grid_is_warped_to_the_truths(tmp_path):
    fine = write_mask(
        tmp_path / "fine.tif", np.kron(class_mask(), np.ones((5, 5), np.uint8)), transform=ORIGIN @ Affine.scale(0.2)
    )
    coarse = write_mask(tmp_path / "coarse.tif", class_mask())
    for pair, shape in (((fine, coarse), (40, 40)), ((coarse, fine), (200, 200))):
        scores = evaluate(*pair)
        assert_perfect(scores)
        assert scores.grid.shape == shape


def test_components_are_found_before_the_warp(tmp_path):
    # A gap of one fine pixel vanishes in the coarse grid; the two fields must not.
    fine = np.ones((40, 40), np.uint8)
    fine[:, 20] = 0
    pred = write_mask(tmp_path / "fine.tif", fine, transform=ORIGIN)
    truth = write_mask(tmp_path / "truth.tif", np.ones((10, 10), np.uint8), transform=ORIGIN @ Affine.scale(4))
    assert evaluate(pred, truth).objects.predicted == 2


def test_nodata_never_counts(tmp_path):
    mask = class_mask()
    holed = mask.copy()
    holed[:, :20] = 255
    pred = write_mask(tmp_path / "pred.tif", holed)
    scores = evaluate(pred, write_mask(tmp_path / "truth.tif", mask))
    assert_perfect(scores)
    assert scores.objects.true == 2
    assert scores.pixels.counted == 40 * 20
    assert any("2 of 4 objects have no pixel that counts" in note for note in scores.notes)


def test_classes_only_the_prediction_knows_are_background(tmp_path):
    pred = write_mask(tmp_path / "pred.tif", class_mask())
    truth = write_mask(tmp_path / "truth.tif", (class_mask() == 1).astype(np.uint8))
    scores = evaluate(pred, truth)
    assert scores.pixels.classes == ("background", "field")
    assert scores.pixels.accuracy == 1


def test_field_class_by_id_name_and_legend(tmp_path):
    truth = write_mask(tmp_path / "truth.tif", (class_mask() == 1).astype(np.uint8) * 255, nodata=None)
    pred = write_mask(tmp_path / "pred.tif", (class_mask() == 1) * np.uint8(3), CLASS_0="none", CLASS_3="parcel")
    assert_perfect(evaluate(pred, truth, field_class="parcel", truth_class=255))
    assert_perfect(evaluate(pred, polygons(), field_class=3))
    listed = write_mask(tmp_path / "listed.tif", (class_mask() == 1) * np.uint8(2), GEOSEG_CLASSES="none,road,parcel")
    assert_perfect(evaluate(listed, polygons(), field_class="parcel"))
    with pytest.raises(InputError, match=r"'crop' cannot be the field class; give a name, parcel \(3\)"):
        evaluate(pred, truth, field_class="crop")
    with pytest.raises(InputError, match="no pixel of class 1, but 0, 3; say which"):
        evaluate(polygons(), pred, field_class=1)


def test_partial_labels_count_inside_only(tmp_path):
    labelled = polygons(FIELDS[:2])
    for pred in (polygons(), write_mask(tmp_path / "mask.tif", class_mask())):
        scores = evaluate(pred, labelled, partial=True)
        assert (scores.objects.recall, scores.objects.precision, scores.objects.ignored) == (1, 1, 2)
        assert scores.pixels.field_scores.recall == 1
        assert scores.pixels.field_scores.iou is scores.pixels.accuracy is None


def test_pixels_without_a_crs(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", class_mask(), transform=None, crs=None)
    to_pixels = ~ORIGIN
    flipped = [affine_transform(shape, _shapely(Affine.scale(1, -1) @ to_pixels)) for shape in FIELDS]
    scores = evaluate(mask, polygons(flipped, crs=None))
    assert_perfect(scores)
    assert scores.grid.unit == "pixel"
    assert any("(col, -row)" in note for note in scores.notes)
    downward = polygons([affine_transform(shape, _shapely(to_pixels)) for shape in FIELDS], crs=None)
    with pytest.raises(InputError, match="none of the 4 objects of truth falls on"):
        evaluate(mask, downward)
    with pytest.raises(InputError, match="turn y around"):
        evaluate(polygons(flipped, crs=None), downward)


def _shapely(transform):
    return [transform.a, transform.b, transform.d, transform.e, transform.c, transform.f]


def test_hand_drawn_flaws_are_repaired_and_told(tmp_path):
    bow_tie = shapely.Polygon([(500_000, 5_800_000), (500_100, 5_800_100), (500_100, 5_800_000), (500_000, 5_800_100)])
    frame = polygons([FIELDS[3], bow_tie, shapely.Polygon(), None])
    scores = evaluate(frame, frame)
    assert scores.objects.true == 2
    assert any("1 invalid polygons were repaired" in note for note in scores.notes)
    assert any("2 of 4 geometries are empty" in note for note in scores.notes)


def test_overlapping_polygons_are_told():
    scores = evaluate(polygons([*FIELDS, FIELDS[0]]), polygons())
    assert (scores.objects.matched[0], scores.objects.predicted) == (4, 5)
    assert any("overlap each other" in note for note in scores.notes)


def test_empty_prediction_scores_zero(tmp_path):
    empty = polygons([])
    scores = evaluate(empty, polygons())
    assert (scores.objects.f1, scores.objects.precision, scores.pixels.field_scores.iou) == (0, None, 0)
    scores = evaluate(empty, write_mask(tmp_path / "mask.tif", class_mask()))
    assert (scores.objects.f1, scores.pixels.field_scores.iou) == (0, 0)
    assert evaluate(empty, empty).objects.f1 is None


def test_layer_is_chosen_by_name(tmp_path):
    path = tmp_path / "many.gpkg"
    polygons().to_file(path, layer="2023")
    polygons(FIELDS[:1]).to_file(path, layer="2024")
    with pytest.raises(InputError, match="layers 2023, 2024"):
        evaluate(path, path)
    assert evaluate(f"{path}|layername=2024", polygons(), partial=True).objects.predicted == 1
    polygons().to_file(path, layer="fields")
    assert_perfect(evaluate(path, polygons()))


def test_geopackage_without_crs_is_pixel_space(tmp_path):
    path = tmp_path / "pixels.gpkg"
    with pytest.warns(UserWarning, match="crs"):
        polygons(crs=None).to_file(path)
    assert FieldPolygons.of(gpd.read_file(path), name="pixels").crs is None


def test_layers_can_be_given_as_values():
    raster = FieldRaster.of(class_mask(), name="array", transform=ORIGIN, crs=CRS(UTM))
    assert_perfect(evaluate(raster, polygons()))
    labels = np.zeros((40, 40), np.int32)
    labels[:, :20], labels[:, 20:] = 1, 2
    touching = FieldRaster.of(np.ones((40, 40), np.uint8), name="split", transform=ORIGIN, crs=CRS(UTM), labels=labels)
    assert evaluate(touching, touching).objects.true == 2


def test_refusals_say_what_to_do(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", class_mask())
    cases = [
        ((tmp_path / "no.gpkg", mask), {}, "does not exist"),
        ((polygons(crs=None), polygons()), {}, "prediction has no CRS, but truth is in EPSG:32633"),
        ((polygons(), mask), {"pixel_size_m": 5}, "leave it out"),
        ((polygons(), polygons()), {"pixel_size_m": 0}, "give a number above 0"),
        ((polygons(), polygons()), {"pixel_size_m": 1e-4}, "larger --pixel-size-m"),
        ((polygons(), polygons()), {"min_area_m2": -1}, "give 0 or more"),
        ((polygons(crs=None), polygons(crs=None)), {"min_area_m2": 5}, "without a CRS an area"),
        ((polygons(crs=None), polygons(crs=None)), {"pixel_size_m": 5}, "without a CRS there are no metres"),
        ((polygons(crs="EPSG:32634"), polygons()), {}, "they do not meet; check the CRS"),
        ((polygons(crs="EPSG:32634"), mask), {}, "check the CRS of both"),
        ((polygons([shapely.Point(500_000, 5_800_000)]), polygons()), {}, "holds Point geometries"),
    ]
    for pair, options, message in cases:
        with pytest.raises(InputError, match=message):
            evaluate(*pair, **options)
    text = tmp_path / "notes.txt"
    text.write_text("not a map")
    with pytest.raises(InputError, match="neither as a vector file nor as a raster"):
        evaluate(text, mask)
    (tmp_path / "broken.parquet").write_text("not a table")
    with pytest.raises(InputError, match="GeoParquet"):
        evaluate(tmp_path / "broken.parquet", mask)
    probability = write_mask(tmp_path / "p.tif", class_mask().astype(np.float32))
    with pytest.raises(InputError, match="1 bands of float32"):
        evaluate(probability, mask)
    ids = write_mask(tmp_path / "ids.tif", class_mask().astype(np.int32) * 900, nodata=None)
    with pytest.raises(InputError, match="class ids go from 0 to 255"):
        evaluate(ids, mask)
    small = write_mask(tmp_path / "small.tif", class_mask()[:20], transform=None, crs=None)
    large = write_mask(tmp_path / "large.tif", class_mask(), transform=None, crs=None)
    with pytest.raises(InputError, match="40 x 20 pixels, but the other raster has 40 x 40"):
        evaluate(small, large)


def test_background_as_nodata_is_told(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", class_mask(), nodata=0)
    assert any("0 is nodata" in note for note in evaluate(mask, polygons()).notes)


def test_command_prints_a_table_and_json(tmp_path):
    path = tmp_path / "fields.gpkg"
    polygons().to_file(path)
    table = CliRunner().invoke(command, [str(path), str(path)], catch_exceptions=False)
    assert "field: inside polygons" in table.output
    assert "F1" in table.output
    mask = write_mask(tmp_path / "mask.tif", class_mask())
    options = ["--json", "--partial", "--field-class", "1", "--min-area-m2", "100"]
    result = CliRunner().invoke(command, [str(mask), str(path), *options], catch_exceptions=False)
    record = json.loads(result.output)
    assert list(record) == [
        "schema", "pred", "truth", "partial", "min_area_m2", "objects", "verdicts", "segmentation", "boundary",
        "matched_outlines", "areas", "intervals", "pixels", "grid", "notes",
    ]  # fmt: skip
    assert record["schema"] == "geoseg-evaluation-1"
    assert record["partial"] is True
    assert record["objects"]["recall"] == 1
    assert record["objects"]["sweep"][0] == {"iou_above": 0.5, "matched": 4, "precision": 1, "recall": 1, "f1": 1}
    assert record["pixels"]["field"]["recall"] == 1
    assert record["grid"]["source"] == "prediction"
    assert json.loads(json.dumps(record)) == record


def test_table_tells_partial_labels_and_dashes(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", class_mask())
    table = evaluate(mask, polygons(), partial=True, min_area_m2=10).to_table()
    assert "labels      partial" in table
    assert "predicted elsewhere, not counted" in table
    assert "field IoU                                  -" in table
    both = evaluate(mask, mask).to_table()
    assert "boundary IoU                           1.000" in both
