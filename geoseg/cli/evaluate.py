"""`geoseg evaluate PRED TRUTH`: object and pixel scores of a prediction against the truth."""

from __future__ import annotations

import json

import click


@click.command("evaluate")
@click.argument("pred")
@click.argument("truth")
@click.option("--partial", is_flag=True, help="TRUTH labels only some of the fields; the rest is unknown.")
@click.option("--field-class", default="field", show_default=True, metavar="NAME|ID", help="Field class of a raster.")
@click.option("--truth-class", metavar="NAME|ID", help="The same for TRUTH, where its legend differs.")
@click.option("--min-area-m2", type=float, default=0.0, metavar="M2", help="Score only objects of at least this area.")
@click.option("--pixel-size-m", type=float, metavar="M", help="Grid for pixel scores of two vector layers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    pred: str,
    truth: str,
    partial: bool,
    field_class: str,
    truth_class: str | None,
    min_area_m2: float,
    pixel_size_m: float | None,
    as_json: bool,
) -> None:
    """Score PRED against TRUTH, by field and by pixel.

    Each is a vector file (GeoPackage, GeoParquet, Shapefile, GeoJSON, ...; 'FILE|layername=NAME' picks a layer) or a
    class mask such as the mask.tif of a run, whose fields are the connected components of the field class. Prefer a
    run's fields.gpkg to its mask.tif: only polygons know where touching fields were divided.

    Two vector layers are compared by polygon area. With a raster everything is compared on a grid: that of TRUTH if
    TRUTH is a raster, else that of PRED. Another CRS is reprojected; without any CRS both are read as pixels.
    """
    from geoseg.metrics import evaluate

    scores = evaluate(
        pred,
        truth,
        partial=partial,
        field_class=field_class,
        truth_class=truth_class,
        min_area_m2=min_area_m2,
        pixel_size_m=pixel_size_m,
    )
    click.echo(json.dumps(scores.to_dict(), indent=2, ensure_ascii=False) if as_json else scores.to_table())
