"""One scene out of inspected files and the user's options."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pyproj import CRS
from pyproj.exceptions import CRSError

from geoseg.errors import InputError
from geoseg.readers.inspection import Source
from geoseg.readers.naming import scene_name
from geoseg.scene import Band, Scene

GRID_TOLERANCE = 1e-3
"""Files whose corners lie within this part of a pixel are on one grid."""


def compose_scene(
    sources: Sequence[Source],
    *,
    band_names: Sequence[str] | None = None,
    crs: str | None = None,
    pixel_size_m: float | None = None,
    scale: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
) -> Scene:
    """The scene that `sources` make together; InputError where they are not one, or an option does not fit."""
    if len(sources) > 1:
        _check_one_scene(sources, named=band_names is not None)
    if pixel_size_m is not None and not (math.isfinite(pixel_size_m) and pixel_size_m > 0):
        raise InputError(f"pixel size {pixel_size_m} m is no size; give metres above 0")
    first = sources[0]
    scene = Scene(
        shape=first.shape,
        transform=first.transform,
        crs=_assigned_crs(crs, first),
        bands=tuple(band for source in sources for band in source.bands),
        name=scene_name([source.path for source in sources]),
        pixel_size_m=pixel_size_m,
    )
    if band_names is not None:
        scene = scene.with_band_names(_without_alpha(band_names, sources))
    return replace(scene, bands=_rescaled(scene.bands, scale, offset))


def georeference_remark(sources: Sequence[Source], scene: Scene) -> str | None:
    """What the user should know where coordinates will not be those of a map; None if all is well."""
    if scene.crs is not None:
        return None
    first = sources[0]
    units = "in the file's own units" if first.placed else "pixels (column, -row)"
    return f"{first.path} {first.remark}; coordinates will be {units}"


def _without_alpha(names: Sequence[str], sources: Sequence[Source]) -> list[str]:
    """Names may count the alpha band of a file or leave it out."""
    alpha = sources[0].alpha
    if len(sources) > 1 or alpha is None or len(names) != len(sources[0].bands) + 1:
        return list(names)
    return [*names[: alpha - 1], *names[alpha:]]


def _check_one_scene(sources: Sequence[Source], *, named: bool) -> None:
    first = sources[0]
    for source in sources:
        if len(source.bands) > 1:
            raise InputError(
                f"{len(sources)} rasters were given and {source.path!r} has {len(source.bands)} bands; give one scene, "
                f"or one file for each band (open_scene joins several scenes)"
            )
        difference = _grid_difference(first, source)
        if difference:
            raise InputError(
                f"{source.path!r} is not on the grid of {first.path!r}: {difference}; resample one of them to the "
                f"other's grid with `gdalwarp -tr -te`, or give one scene at a time"
            )
    counts = Counter(source.bands[0].name for source in sources if source.bands[0].name is not None)
    twice = [str(name) for name, count in counts.items() if count > 1]
    if twice and not named:
        raise InputError(
            f"several of the {len(sources)} files hold the band {twice[0]}: several dates are not supported yet; give "
            f"one file for each band, or name the bands with --bands"
        )


def _grid_difference(first: Source, other: Source) -> str | None:
    """What tells two grids apart, in words; None if nothing."""
    if first.shape != other.shape:
        return f"it has {other.shape[1]} x {other.shape[0]} pixels, not {first.shape[1]} x {first.shape[0]}"
    if not _same_crs(first.crs, other.crs):
        return f"its CRS is {_crs_text(other.crs)}, not {_crs_text(first.crs)}"
    rows, cols = first.shape
    for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows)):
        col, row = ~first.transform * (other.transform * corner)
        if math.hypot(col - corner[0], row - corner[1]) > GRID_TOLERANCE:
            return f"its transform is {tuple(other.transform)[:6]}, not {tuple(first.transform)[:6]}"
    return None


def _assigned_crs(text: str | None, source: Source) -> CRS | None:
    if text is None:
        return source.crs
    try:
        crs = CRS.from_user_input(text)
    except CRSError as error:
        raise InputError(f"--crs {text!r} is no coordinate reference system ({error}); use e.g. EPSG:32633") from error
    if source.crs is not None:
        if not _same_crs(source.crs, crs):
            raise InputError(
                f"--crs {text} contradicts {source.path!r}, which is in {_crs_text(source.crs)}; leave --crs away, or "
                f"correct the file with `gdal_edit -a_srs {text}` if it is wrong"
            )
        return source.crs
    if not source.placed:
        raise InputError(
            f"--crs {text} cannot place {source.path!r}, which {source.remark}; add a world file or "
            f"`gdal_translate -a_ullr ... -a_srs {text}`, or leave --crs away and give the pixel size in metres"
        )
    return crs


def _same_crs(one: CRS | None, other: CRS | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one.equals(other, ignore_axis_order=True))


def _crs_text(crs: CRS | None) -> str:
    return "none" if crs is None else ":".join(crs.to_authority() or (crs.name,))


def _rescaled(
    bands: tuple[Band, ...], scale: Sequence[float] | None, offset: Sequence[float] | None
) -> tuple[Band, ...]:
    """The bands with the user's scale and offset in place of the file's."""
    if scale is None and offset is None:
        return bands
    scales = _one_each("--scale", scale, [band.scale for band in bands])
    offsets = _one_each("--offset", offset, [band.offset for band in bands])
    if not all(scales):
        raise InputError("--scale 0 would make every pixel the same; give the factor from stored to physical values")
    return tuple(replace(b, scale=s, offset=o, scaled=True) for b, s, o in zip(bands, scales, offsets, strict=True))


def _one_each(option: str, values: Sequence[float] | None, own: list[float]) -> list[float]:
    if values is None:
        return own
    if len(values) not in (1, len(own)):
        raise InputError(f"{option} has {len(values)} values for {len(own)} bands; give one for all, or one for each")
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"{option} {','.join(map(str, values))} is not finite; give numbers")
    return list(values) * len(own) if len(values) == 1 else list(values)
