"""Cloud-optimised GeoTIFFs from the mask store, without holding the raster in memory.

GDAL's COG driver copies from a virtual raster that frames the scene's part of the Zarr array and adds what the array
does not say: georeference, names, colours, scale.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree as ET

import numpy as np

from geoseg.errors import ExportError
from geoseg.export.staging import Stage, staged
from geoseg.export.style import Color, classes_qml
from geoseg.results import NODATA

if TYPE_CHECKING:
    from geoseg.grid import Window
    from geoseg.scene import Scene

Overview = Literal["mode", "average"]

BLOCK = 512
"""Side of a block in pixels."""

CACHE_BYTES = 128 * 2**20
"""GDAL's block cache while copying; what bounds the memory."""

PLAIN_BYTES = 2**32
"""Up to this size the overviews wait on disk uncompressed, which nearly halves the time."""


def write_cog(
    array: Path,
    dst: Path,
    *,
    window: Window,
    scene: Scene,
    names: Sequence[str],
    nodata: int = NODATA,
    scale: float | None = None,
    classes: Sequence[str] | None = None,
    colors: Mapping[int, Color] | None = None,
    tags: Mapping[str, str] | None = None,
    overview: Overview = "average",
    predictor: bool | None = None,
    threads: int | str = "ALL_CPUS",
) -> list[Path]:
    """Write the pixels of `window` (counted from the array's first pixel) as a COG in the scene's georeference.

    `array` is a Zarr array on disk, (row, col) or (band, row, col), uint8; chunks that are missing read as its fill
    value. `names` describes the bands; `scale` is stated, not applied. `classes` and `colors` make a colour table, a
    legend in the tags and a QGIS style beside the file. Returns every file made, the COG first.

    Raises ExportError where the array does not hold the window or the file cannot be written.
    """
    import rasterio

    count, height, width = _array_shape(array)
    if len(names) != count:
        raise ExportError(f"{array.name} has {count} bands, but {len(names)} names ({', '.join(names)}); name each one")
    if window.row < 0 or window.col < 0 or window.row_stop > height or window.col_stop > width or not window:
        raise ExportError(
            f"the window {window} is not inside {array.name} ({height} rows, {width} columns); "
            f"count it from the array's first pixel"
        )
    if window.shape != scene.shape:
        raise ExportError(
            f"the window is {window.shape}, but {scene.name} is {scene.shape} (rows, columns); use its own"
        )
    vrt = _virtual_raster(
        array, window=window, scene=scene, names=names, nodata=nodata, scale=scale, colors=colors,
        tags={**_legend(classes), **(tags or {})},
    )  # fmt: skip
    with staged(dst, *_failures(), companions=_companions(dst)) as stage:
        with rasterio.MemoryFile(vrt.encode(), ext=".vrt") as memory:
            _copy(memory.name, stage, overview=overview, predictor=predictor, threads=threads)
        if classes is not None and colors is not None:
            stage.path.with_suffix(".qml").write_text(classes_qml(classes, colors), encoding="utf-8")
    return stage.files


def copy_cog(
    src: Path,
    dst: Path,
    *,
    overview: Overview = "average",
    predictor: bool | None = None,
    threads: int | str = "ALL_CPUS",
) -> list[Path]:
    """Write any raster that GDAL reads as a COG, in bounded memory. Returns every file made."""
    with staged(dst, *_failures(), companions=_companions(dst)) as stage:
        _copy(str(src), stage, overview=overview, predictor=predictor, threads=threads)
    return stage.files


def _copy(src: str, stage: Stage, *, overview: Overview, predictor: bool | None, threads: int | str) -> None:
    import rasterio
    import rasterio.shutil

    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_PAM_ENABLED="NO"), rasterio.open(src) as raster:
        if predictor is None:
            predictor = overview == "average"
        plain = raster.width * raster.height * raster.count < PLAIN_BYTES
        with rasterio.Env(**{"COG_TMP_COMPRESSION": "NONE"} if plain else {}):
            rasterio.shutil.copy(
                raster,
                stage.path,
                driver="COG",
                BLOCKSIZE=BLOCK,
                COMPRESS="DEFLATE" if predictor else "LZW",  # LZW makes classes smaller, in half the time
                PREDICTOR="YES" if predictor else "NO",
                OVERVIEW_RESAMPLING=overview.upper(),
                BIGTIFF="IF_SAFER",
                NUM_THREADS=threads,
            )
    _check_complete(stage.path)


def _check_complete(file: Path) -> None:
    """GDAL does not report a disk that fills while the last bytes are flushed: see that every block is there."""
    import rasterio

    size = file.stat().st_size
    with rasterio.open(file) as raster:
        for (row, col), _ in raster.block_windows(1):
            offset, length = (
                int(raster.get_tag_item(f"BLOCK_{item}_{col}_{row}", "TIFF", bidx=1) or 0)
                for item in ("OFFSET", "SIZE")
            )
            if not 0 < offset <= size - length:
                raise OSError(errno.ENOSPC, f"{file.name} was cut short")


def _array_shape(array: Path) -> tuple[int, int, int]:
    """Bands, rows and columns of a Zarr array of bytes."""
    try:
        told = json.loads((array / ".zarray").read_bytes())
        sizes, dtype = [int(size) for size in told["shape"]], np.dtype(told["dtype"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{array} is no Zarr array that GDAL opens ({error}); expected a folder with .zarray in it"
        ) from error
    if dtype != np.uint8:
        raise ExportError(f"{array} holds {dtype}, expected uint8; write it with copy_cog instead")
    if len(sizes) not in (2, 3):
        raise ExportError(f"{array} has {len(sizes)} axes; expected (row, col) or (band, row, col)")
    count, height, width = [1, *sizes][-3:]
    return count, height, width


def _dataset_name(array: Path) -> str:
    return f'ZARR:"{Path(array).resolve()}"'


def _virtual_raster(
    array: Path,
    *,
    window: Window,
    scene: Scene,
    names: Sequence[str],
    nodata: int,
    scale: float | None,
    colors: Mapping[int, Color] | None,
    tags: Mapping[str, str],
) -> str:
    """The VRT document; https://gdal.org/drivers/raster/vrt.html."""
    rows, cols = window.shape
    root = ET.Element("VRTDataset", rasterXSize=str(cols), rasterYSize=str(rows))
    if scene.crs is not None:
        srs = ET.SubElement(root, "SRS", dataAxisToSRSAxisMapping="1,2")
        srs.text = scene.crs.to_wkt()
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(float(part)) for part in scene.transform.to_gdal())
    metadata = ET.SubElement(root, "Metadata")
    for key, value in tags.items():
        ET.SubElement(metadata, "MDI", key=key).text = str(value)
    for index, name in enumerate(names, start=1):
        band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band=str(index))
        ET.SubElement(band, "Description").text = name
        ET.SubElement(band, "NoDataValue").text = str(nodata)
        if scale is not None:
            ET.SubElement(band, "Offset").text = "0"
            ET.SubElement(band, "Scale").text = repr(scale)
        if colors is not None:
            _color_table(band, colors)
        source = ET.SubElement(band, "SimpleSource")
        ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = _dataset_name(array)
        ET.SubElement(source, "SourceBand").text = str(index)
        size = {"xSize": str(cols), "ySize": str(rows)}
        ET.SubElement(source, "SrcRect", {"xOff": str(window.col), "yOff": str(window.row), **size})
        ET.SubElement(source, "DstRect", {"xOff": "0", "yOff": "0", **size})
    return ET.tostring(root, encoding="unicode")


def _color_table(band: ET.Element, colors: Mapping[int, Color]) -> None:
    ET.SubElement(band, "ColorInterp").text = "Palette"
    table = ET.SubElement(band, "ColorTable")
    for value in range(256):
        red, green, blue, alpha = colors.get(value, (0, 0, 0, 0))
        ET.SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4=str(alpha))


def _legend(classes: Sequence[str] | None) -> dict[str, str]:
    """Class names as tags: GeoTIFF has no place of its own for them."""
    return {} if classes is None else {f"CLASS_{value}": name for value, name in enumerate(classes)}


def _companions(dst: Path) -> tuple[str, ...]:
    """Statistics, overviews and masks that GDAL keeps beside a file and would believe."""
    return tuple(f"{Path(dst).name}{suffix}" for suffix in (".aux.xml", ".ovr", ".msk"))


def _failures() -> tuple[type[Exception], ...]:
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    return RasterioError, CPLE_BaseError
