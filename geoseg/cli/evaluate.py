"""`geoseg evaluate PRED TRUTH`: object, outline and pixel scores of a prediction against the truth."""

from __future__ import annotations

import json

import click


@click.command("evaluate")
@click.argument("pred")
@click.argument("truth")
@click.option("--partial", is_flag=True, help="TRUTH labels only some of the fields; the rest is unknown.")
@click.option("--field-class", default="field", show_default=True, metavar="NAME|ID", help="Field class of a raster.")
@click.option("--truth-class", metavar="NAME|ID", help="The same for TRUTH, where its legend differs.")
@click.option("--pred-instances", is_flag=True, help="PRED is a raster of object ids (0 is none), not of classes.")
@click.option("--truth-instances", is_flag=True, help="The same for TRUTH.")
@click.option("--min-area-m2", type=float, default=0.0, metavar="M2", help="Score only objects of at least this area.")
@click.option("--pixel-size-m", type=float, metavar="M", help="Grid for pixel scores of two vector layers.")
@click.option(
    "--tolerance-m", type=float, metavar="M",
    help="How far an outline may be off.  [default: 2 pixels, or 5 % of a typical field's width]",
)  # fmt: skip
@click.option(
    "--bootstrap", type=int, default=1000, show_default=True, metavar="N",
    help="Draws for the 95 % intervals; 0 for none.",
)  # fmt: skip
@click.option("--picture", metavar="FILE.png", help="Draw what was matched, missed, false, split and merged.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    pred: str,
    truth: str,
    partial: bool,
    field_class: str,
    truth_class: str | None,
    pred_instances: bool,
    truth_instances: bool,
    min_area_m2: float,
    pixel_size_m: float | None,
    tolerance_m: float | None,
    bootstrap: int,
    picture: str | None,
    as_json: bool,
) -> None:
    """Score PRED against TRUTH, by field, by outline and by pixel.

    Each is a vector file (GeoPackage, GeoParquet, Shapefile, GeoJSON, ...; 'FILE|layername=NAME' picks a layer), a
    class mask such as the mask.tif of a run, whose fields are the connected components of the field class, or a raster
    of object ids (--pred-instances, --truth-instances). Prefer a run's fields.gpkg to its mask.tif: only polygons and
    object ids know where touching fields were divided.

    Two vector layers are compared by polygon area. With a raster everything is compared on a grid: that of TRUTH if
    TRUTH is a raster, else that of PRED. Another CRS is reprojected; without any CRS both are read as pixels.
    """
    from geoseg.metrics import evaluate
    from geoseg.metrics.picture import picture_path

    if picture is not None:
        picture_path(picture, sources=(pred, truth))
    scores = evaluate(
        pred,
        truth,
        partial=partial,
        field_class=field_class,
        truth_class=truth_class,
        pred_instances=pred_instances,
        truth_instances=truth_instances,
        min_area_m2=min_area_m2,
        pixel_size_m=pixel_size_m,
        tolerance_m=tolerance_m,
        bootstrap=bootstrap,
    )
    click.echo(json.dumps(scores.to_dict(), indent=2, ensure_ascii=False) if as_json else scores.to_table())
    if picture is not None:
        drawn = scores.draw(picture)
        click.echo(f"\npicture written to {drawn}" if not as_json else f"picture written to {drawn}", err=as_json)
