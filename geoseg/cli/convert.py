"""`geoseg convert`: a vector file in another format."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import geopandas as gpd


@click.command(name="convert", short_help="Write a vector file in another format.")
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option("--layer", metavar="NAME", help="Layer of SRC, where it has several.")
@click.option("--crs", metavar="CRS", help="The CRS of a SRC that does not state one, such as EPSG:32632.")
@click.option("--overwrite", is_flag=True, help="Replace DST where it exists.")
def command(src: Path, dst: Path, layer: str | None, crs: str | None, overwrite: bool) -> None:
    """Write the vector file SRC as DST; the suffix of DST says the format.

    GeoPackage (.gpkg), GeoParquet (.parquet), Shapefile (.shp), FlatGeobuf (.fgb), GeoJSON (.geojson). All columns
    are kept; what a format cannot hold is told.
    """
    from geoseg.errors import InputError
    from geoseg.export import exporter_for

    exporter = exporter_for(dst)
    present = [path for path in (dst, dst.with_name(f"{dst.stem}_1{dst.suffix}")) if path.exists()]
    if present and not overwrite:
        raise InputError(f"{present[0]} exists already; give another name or add --overwrite")
    fields, name = read_vector(src, layer=layer)
    if crs is not None:
        fields = with_crs(fields, crs, src)
    with _told("geoseg.export"):
        files = exporter.write(fields, dst, layer=name)
    main = [path for path in files if path.suffix == dst.suffix]
    click.echo(f"{len(fields)} features written to {', '.join(str(path) for path in main)}")


def read_vector(src: Path, *, layer: str | None = None) -> tuple[gpd.GeoDataFrame, str]:
    """A layer of any vector file that GDAL or pyarrow reads, and its name."""
    import geopandas as gpd
    import pyogrio

    from geoseg.errors import InputError

    if src.suffix.lower() in (".parquet", ".geoparquet"):
        return _read_parquet(src), src.stem
    try:
        name = layer or _only_layer(src)
        table = pyogrio.read_dataframe(src, layer=name)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{src} cannot be read as a vector file ({reason}); check the file and --layer") from error
    if not isinstance(table, gpd.GeoDataFrame):
        raise InputError(f"layer {name} of {src} has no geometry, expected points, lines or polygons; choose another")
    return table, name


def with_crs(fields: gpd.GeoDataFrame, crs: str, src: Path) -> gpd.GeoDataFrame:
    """`fields` with the CRS that the user states for a file without one."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    from geoseg.errors import InputError

    try:
        stated = CRS.from_user_input(int(crs) if crs.isdecimal() else crs)
    except CRSError as error:
        raise InputError(f"--crs {crs} is no CRS that PROJ knows; use a code such as EPSG:32632") from error
    if fields.crs is not None and fields.crs != stated:
        raise InputError(
            f"{src.name} is in {fields.crs.name} already; --crs is for files that do not say: leave it out"
        )
    return fields.set_crs(stated, allow_override=True)


def _only_layer(src: Path) -> str:
    import pyogrio

    from geoseg.errors import InputError

    layers: list[tuple[str, Any]] = [(str(name), kind) for name, kind in pyogrio.list_layers(src)]
    spatial = [name for name, kind in layers if kind is not None]
    if len(spatial) > 1:
        raise InputError(f"{src} has the layers {', '.join(spatial)}; choose one with --layer")
    if not layers:
        raise InputError(f"{src} has no layers; there is nothing to convert")
    return spatial[0] if spatial else layers[0][0]


def _read_parquet(src: Path) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pyarrow as pa

    from geoseg.errors import InputError

    try:
        return gpd.read_parquet(src)
    except (ValueError, pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{src} cannot be read as GeoParquet ({reason}); expected a file with `geo` metadata"
        ) from error


class _Echo(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"note: {record.getMessage()}", err=True)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What the logger `name` warns of reaches the user once, however logging is set up."""
    logger = logging.getLogger(name)
    handler, propagate = _Echo(level=logging.WARNING), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
