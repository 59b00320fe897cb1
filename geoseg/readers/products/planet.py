"""PlanetScope analytic images of four or eight bands, with the usable data mask (UDM2) beside them.

Surface reflectance is stored * 0.0001; top-of-atmosphere radiance becomes reflectance by the coefficients of the metadata file.
Source: Planet Imagery Product Specifications.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path, PurePosixPath

from geoseg.errors import InputError
from geoseg.protocols import Reader
from geoseg.readers.places import local_path
from geoseg.readers.products.package import Package, texts
from geoseg.readers.raster import RasterReader
from geoseg.readers.stack import CloudRule, Layer, StackReader
from geoseg.reading import ReadOptions, utc
from geoseg.sensors import DOVE

IMAGE = re.compile(r"_AnalyticMS(?!\w*_udm)((?:_[a-z0-9]+)*)\.tiff?$", re.IGNORECASE)
MASK = re.compile(r"_udm2(_clip)?\.tiff?$", re.IGNORECASE)
TAKEN = re.compile(r"(\d{8})_(\d{6})")

SCALE = 1e-4
CLOUDY = (2, 4, 5)
"""Bands of UDM2, from 0: shadow, heavy haze, cloud. Light haze and snow count as seen."""


def recognises(path: str) -> bool:
    """True for an analytic image by its name, and for a folder that holds one."""
    name = PurePosixPath(path.replace("\\", "/")).name
    if IMAGE.search(name):
        return True
    local = local_path(path)
    return local is not None and local.is_dir() and any(IMAGE.search(one.name) for one in local.iterdir())


def opened(path: str, options: ReadOptions) -> Reader:
    """The image at `path` with its bands named, as reflectance, and `cloud` from UDM2. Raises InputError.

    An image whose bands the user names is a raster like others.
    """
    if options.bands is not None and Path(path).is_file():
        return RasterReader(
            paths=(path,), band_names=options.bands, crs=options.crs, scale=options.scale, offset=options.offset,
            nodata=options.nodata, on_read_error=options.on_read_error,
        )  # fmt: skip
    options.refuse("a PlanetScope image", ("bands", "crs", "pixel_size_m"))
    local = Path(path)
    images = (
        sorted(file.name for file in local.iterdir() if IMAGE.search(file.name)) if local.is_dir() else [local.name]
    )
    if len(images) != 1:
        raise InputError(f"{path!r} holds {len(images)} PlanetScope images; give one of them")
    image, folder = images[0], local if local.is_dir() else local.parent
    match = IMAGE.search(image)
    assert match is not None
    stem = image[: match.start()]
    beside = sorted(file.name for file in folder.glob(f"{glob.escape(stem)}*"))
    product = Package(root=str(folder.absolute()), names=tuple(beside))
    raster = RasterReader(
        paths=(product.raster(image),), nodata=0 if options.nodata is None else options.nodata,
        on_read_error=options.on_read_error,
    )  # fmt: skip
    count = len(raster.scene.bands)
    if count not in DOVE:
        raise InputError(f"{image} has {count} bands; PlanetScope images have 4 or 8: check the file")
    reflectance = "_sr" in match[1].lower() or options.scale is not None
    scales = [SCALE] * count if reflectance else _coefficients(product, stem, image, count)
    layers = [
        Layer(name=name, source=0, band=band, scale=scale, offset=offset, scaled=True)
        for band, (name, (scale, offset)) in enumerate(
            zip(DOVE[count], (options.scaling(one, 0.0) for one in scales), strict=True)
        )
    ]
    sources: list[Reader] = [raster]
    masks = [name for name in product.names if MASK.search(name) and name.startswith(stem)]
    if masks:
        sources.append(RasterReader(paths=(product.raster(masks[0]),), nodata=-1, on_read_error=options.on_read_error))
        if len(sources[1].scene.bands) <= max(CLOUDY):
            raise InputError(f"{masks[0]} has {len(sources[1].scene.bands)} bands; a UDM2 has 8: fetch it again")
    taken = TAKEN.search(PurePosixPath(image).name)
    return StackReader(
        name=PurePosixPath(image).name,
        sources=tuple(sources),
        layers=tuple(layers),
        cloud=tuple(CloudRule(source=1, band=band, values=(1,)) for band in CLOUDY) if masks else (),
        clouds=options.clouds,
        time=utc(f"{taken[1]}T{taken[2]}") if taken else None,
    )


def _coefficients(product: Package, stem: str, image: str, count: int) -> list[float]:
    """From radiance to reflectance, by band, of the metadata file beside the image."""
    found = [name for name in product.names if name.startswith(stem) and re.search(r"_metadata(_clip)?\.xml$", name)]
    values = texts(product.xml(found[0]), "reflectanceCoefficient") if found else []
    if len(values) != count:
        raise InputError(
            f"{image} holds radiance, and its *_metadata.xml with {count} reflectance coefficients is not beside it; put it "
            f"there, order surface reflectance, or say --scale"
        )
    return [float(value) for value in values]
