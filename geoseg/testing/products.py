"""Products as agencies deliver them, made small: their layout, names, formats and metadata, with pixels from numbers given.

make_safe(folder, reflectance, ...)      Sentinel-2 L1C or L2A, as a folder or zip
make_landsat(folder, reflectance, ...)   Landsat Collection 2 Level 2, as a folder or tar
make_planet(folder, reflectance, ...)    PlanetScope surface reflectance with UDM2
"""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

JP2 = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO"}
SIDES_M = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
    "B10": 60, "B11": 20, "B12": 20,
}  # fmt: skip
CORNER = (600_000.0, 5_800_020.0)
"""Of every scene that is made, in metres; a multiple of 60 like those of Sentinel-2."""


def make_safe(
    folder: Path,
    reflectance: Mapping[str, NDArray[np.float64]],
    *,
    baseline: str = "05.09",
    level: Literal["L1C", "L2A"] = "L2A",
    classes: NDArray[np.uint8] | None = None,
    taken: str = "20230610T102609",
    epsg: int = 32632,
    zipped: bool = False,
    offset_applied: bool = False,
) -> Path:
    """A SAFE with the given bands; returns its folder or zip.

    Args:
        reflectance: (row, col) by band name (`B04`), each on its own grid: the sides of 20 and 60 m bands are a half and a
            sixth of those of 10 m.
        baseline: processing baseline; since 04.00 stored values are 1000 higher.
        classes: (row, col) scene classification at 20 m (L2A).
        offset_applied: store the values of a new baseline as some distributors do, without the offset that the metadata state.
    """
    stem = f"S2B_MSI{level}_{taken}_N{baseline.replace('.', '')}_R108_T32UPC_{taken}"
    root = folder / f"{stem}.SAFE"
    granule = root / "GRANULE" / f"{level}_T32UPC_A032699_{taken}"
    newer = tuple(int(part) for part in baseline.split(".")) >= (4, 0)
    added = 1000 if newer and not offset_applied else 0
    for band, values in reflectance.items():
        side = SIDES_M[band]
        place = granule / "IMG_DATA" / (f"R{side}m" if level == "L2A" else "")
        name = f"T32UPC_{taken}_{band}" + (f"_{side}m" if level == "L2A" else "") + ".jp2"
        stored = np.where(np.isnan(values), 0, np.round(np.nan_to_num(values) * 10_000) + added)
        _write(place / name, stored[None].astype("uint16"), side_m=side, epsg=epsg, **JP2)
    if classes is not None:
        name = f"T32UPC_{taken}_SCL_20m.jp2"
        _write(granule / "IMG_DATA" / "R20m" / name, classes[None], side_m=20, epsg=epsg, **JP2)
    kind, tag = ("BOA", "BOA_QUANTIFICATION_VALUE") if level == "L2A" else ("RADIO", "QUANTIFICATION_VALUE")
    offsets = "".join(f'<{kind}_ADD_OFFSET band_id="{i}">-1000</{kind}_ADD_OFFSET>' for i in range(13)) if newer else ""
    (root / f"MTD_MSI{level}.xml").write_text(
        f'<?xml version="1.0" encoding="UTF-8"?><n1:User_Product xmlns:n1="urn:safe"><n1:General_Info><Product_Info>'
        f"<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE><Datatake>"
        f"<DATATAKE_SENSING_START>{_iso(taken)}.024Z</DATATAKE_SENSING_START></Datatake></Product_Info>"
        f'<Product_Image_Characteristics><{tag} unit="none">10000</{tag}>'
        f"<{kind}_ADD_OFFSET_VALUES_LIST>{offsets}</{kind}_ADD_OFFSET_VALUES_LIST></Product_Image_Characteristics>"
        f"</n1:General_Info></n1:User_Product>"
    )
    if not zipped:
        return root
    archive = folder / f"{stem}.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(root.rglob("*")):
            file.write(path, path.relative_to(folder))
    return archive


def make_landsat(
    folder: Path,
    reflectance: Mapping[int, NDArray[np.float64]],
    *,
    quality: NDArray[np.uint16] | None = None,
    satellite: str = "LC08",
    taken: str = "20230610",
    metadata: Literal["json", "txt", "xml"] = "json",
    epsg: int = 32632,
    tarred: bool = False,
) -> Path:
    """A bundle with the given bands by number, (row, col) each; returns its folder or tar."""
    title = f"{satellite}_L2SP_193024_{taken}_20230614_02_T1"
    root = folder / title
    for number, values in reflectance.items():
        stored = np.where(np.isnan(values), 0, np.round((np.nan_to_num(values) + 0.2) / 2.75e-5))
        _write(root / f"{title}_SR_B{number}.TIF", stored[None].astype("uint16"), side_m=30, epsg=epsg, driver="GTiff")
    if quality is not None:
        _write(root / f"{title}_QA_PIXEL.TIF", quality[None], side_m=30, epsg=epsg, driver="GTiff")
    groups: dict[str, dict[str, Any]] = {
        "IMAGE_ATTRIBUTES": {
            "DATE_ACQUIRED": f"{taken[:4]}-{taken[4:6]}-{taken[6:]}", "SCENE_CENTER_TIME": "10:09:58.1234560Z",
        },
        "LEVEL1_RADIOMETRIC_RESCALING": {f"REFLECTANCE_MULT_BAND_{number}": "2.0000E-05" for number in reflectance},
        "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": {
            f"REFLECTANCE_{key}_BAND_{number}": value
            for number in reflectance for key, value in (("MULT", "2.75e-05"), ("ADD", "-0.2"))
        },
    }  # fmt: skip
    if metadata == "json":
        text = json.dumps({"LANDSAT_METADATA_FILE": groups}, indent=2)
    elif metadata == "xml":
        inner = (
            f"<{g}>{''.join(f'<{k}>{v}</{k}>' for k, v in entries.items())}</{g}>" for g, entries in groups.items()
        )
        text = f"<LANDSAT_METADATA_FILE>{''.join(inner)}</LANDSAT_METADATA_FILE>"
    else:
        lines = ["GROUP = LANDSAT_METADATA_FILE"]
        for group, entries in groups.items():
            lines += [f"  GROUP = {group}", *(f"    {k} = {v}" for k, v in entries.items()), f"  END_GROUP = {group}"]
        text = "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])
    (root / f"{title}_MTL.{metadata}").write_text(text)
    if not tarred:
        return root
    archive = folder / f"{title}.tar"
    with tarfile.open(archive, "w") as file:
        for path in sorted(root.iterdir()):
            file.add(path, path.name)
    return archive


def make_planet(
    folder: Path, reflectance: NDArray[np.float64], *, mask: NDArray[np.uint8] | None = None, epsg: int = 32632
) -> Path:
    """An image of (4 or 8, row, col) reflectance with its (8, row, col) UDM2; returns the image."""
    kind = "_8b" if len(reflectance) == 8 else ""
    stored = np.where(np.isnan(reflectance), 0, np.round(np.nan_to_num(reflectance) * 10_000)).astype("uint16")
    image = folder / f"20230610_100958_23_2460_3B_AnalyticMS_SR{kind}_clip.tif"
    _write(image, stored, side_m=3, epsg=epsg, driver="GTiff", nodata=0)
    if mask is not None:
        _write(folder / "20230610_100958_23_2460_3B_udm2_clip.tif", mask, side_m=3, epsg=epsg, driver="GTiff")
    return image


def _iso(taken: str) -> str:
    return f"{taken[:4]}-{taken[4:6]}-{taken[6:11]}:{taken[11:13]}:{taken[13:15]}"


def _write(path: Path, pixels: NDArray[Any], *, side_m: float, epsg: int, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, rows, cols = pixels.shape
    place = Affine(side_m, 0, CORNER[0], 0, -side_m, CORNER[1])
    with rasterio.open(
        path,
        "w",
        count=bands,
        height=rows,
        width=cols,
        dtype=pixels.dtype,
        crs=f"EPSG:{epsg}",
        transform=place,
        **options,
    ) as file:
        file.write(pixels)
