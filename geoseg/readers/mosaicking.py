"""MosaicReader: several scenes of one CRS as one, each pixel from the first scene that sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, get_args

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.protocols import Reader
from geoseg.readers.identity import meaning
from geoseg.readers.validity import check_request, rectangles
from geoseg.reading import Prefer
from geoseg.results import Block
from geoseg.scene import Band, Scene

GRID_TOLERANCE = 1e-3
"""Scenes whose pixels lie within this part of a pixel of one lattice are on one grid."""

LARGEST_SIDE = 2_000_000
"""Pixels along a side of a mosaic: more is no area but scenes at the two ends of a zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MosaicReader:
    """Scenes on one lattice as one scene. A pixel is that of the first scene, in the order of preference, where it is valid.

    Bands are those that all scenes name, in the order of the first; where scale and offset differ (processing baselines do),
    values are brought to those of the lowest offset and rounded half up. Raises InputError where the scenes have no
    such bands, or are not on one lattice.
    """

    readers: tuple[Reader, ...]
    """As given."""
    prefer: Prefer = "newest"
    """By time where all scenes have one; `first`, or scenes without times, go as they are given."""
    scene: Scene = field(init=False, repr=False)
    _order: tuple[int, ...] = field(init=False, repr=False)
    """Numbers of `readers` by preference."""
    _places: tuple[tuple[int, int], ...] = field(init=False, repr=False)
    """(row, col) of each reader's first pixel in the mosaic."""
    _bands: tuple[tuple[int, ...], ...] = field(init=False, repr=False)
    """For each reader its numbers of the mosaic's bands."""

    def __post_init__(self) -> None:
        if self.prefer not in get_args(Prefer):
            raise InputError(f"no preference {self.prefer!r}; use {', '.join(get_args(Prefer))}")
        scenes = [reader.scene for reader in self.readers]
        first = scenes[0]
        names = _common_names(scenes)
        corners = [_corner(first, scene) for scene in scenes]
        row0, col0 = min(row for row, _ in corners), min(col for _, col in corners)
        places = tuple((row - row0, col - col0) for row, col in corners)
        rows = max(row + scene.shape[0] for (row, _), scene in zip(places, scenes, strict=True))
        cols = max(col + scene.shape[1] for (_, col), scene in zip(places, scenes, strict=True))
        if max(rows, cols) > LARGEST_SIDE:
            raise InputError(
                f"the {len(scenes)} scenes span {cols:,} x {rows:,} pixels, more than {LARGEST_SIDE:,} along a side; give those "
                f"of one area"
            )
        numbers = tuple(tuple(scene.band_names.index(name) for name in names) for scene in scenes)
        bands = []
        for at, name in enumerate(names):
            members = [scene.bands[own[at]] for scene, own in zip(scenes, numbers, strict=True)]
            dtype = np.result_type(*(band.dtype for band in members))
            if len({band.scaled for band in members}) > 1:
                plain = next(one.name for one, band in zip(scenes, members, strict=True) if not band.scaled)
                raise InputError(
                    f"{plain} does not say what its values mean (scale and offset), and others of the {len(scenes)} scenes do; "
                    f"say it with --scale and --offset, or leave it out"
                )
            lowest = min(members, key=lambda band: band.offset)  # whose stored values reach down farthest
            bands.append(replace(lowest, name=name, dtype=str(dtype), nodata=None))
        times = [scene.time for scene in scenes]
        mosaic = replace(
            first,
            shape=(rows, cols),
            transform=first.transform @ Affine.translation(col0, row0),
            bands=tuple(bands),
            name=f"{first.name} and {len(scenes) - 1} more",
            time=first.time if len(set(times)) == 1 else None,
        )
        object.__setattr__(self, "scene", mosaic)
        object.__setattr__(self, "_order", _preferred(times, self.prefer))
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_bands", numbers)

    def read(self, window: Window, bands: Sequence[int] | None = None) -> Block:
        """Stored pixels, 0 where no scene sees the ground, see protocols.Reader. Pixels do not depend on each other."""
        wanted = check_request(self.scene, window, bands)
        pixels = np.zeros((len(wanted), *window.shape), np.result_type(*(self.scene.bands[i].dtype for i in wanted)))
        valid, unread = np.zeros(window.shape, np.bool_), np.zeros(window.shape, np.bool_)
        for number in self._order:
            reader, (row, col) = self.readers[number], self._places[number]
            part = window & Window(row, col, *reader.scene.shape)
            here = part.within(window).slices if part else None
            if here is None or valid[here].all():
                continue
            own = [self._bands[number][i] for i in wanted]
            block = reader.read(Window(part.row - row, part.col - col, part.height, part.width), own)
            taken = block.valid & ~valid[here]
            for place, (i, mine) in enumerate(zip(wanted, own, strict=True)):
                stored = _converted(block.pixels[place], reader.scene.bands[mine], self.scene.bands[i])
                pixels[place][here][taken] = stored[taken]
            valid[here] |= block.valid
            for gap in block.unread:
                there = replace(gap, row=gap.row + row, col=gap.col + col).within(window).slices
                unread[there] = True
        return Block(pixels=pixels, valid=valid, window=window, unread=rectangles(unread & ~valid, window))

    def content_hash(self) -> str:
        """SHA-256 over all scenes and their order of preference."""
        digest = hashlib.sha256(f"{meaning(self.scene)} {self._places} {self._bands}".encode())
        for number in self._order:
            digest.update(self.readers[number].content_hash().encode())
        return digest.hexdigest()


def _common_names(scenes: Sequence[Scene]) -> list[str]:
    """The bands that all scenes name, in the order of the first."""
    for scene in scenes:
        if None in scene.band_names:
            raise InputError(
                f"{scene.name} does not say what all of its bands are, so that it cannot be joined with other scenes; name "
                f"them with --bands"
            )
    names = [str(name) for name in scenes[0].band_names if all(name in scene.band_names for scene in scenes)]
    if not names:
        told = "; ".join(f"{scene.name}: {', '.join(map(str, scene.band_names))}" for scene in scenes[:3])
        raise InputError(f"the {len(scenes)} scenes have no band in common ({told}); give scenes of one kind")
    return names


def _corner(first: Scene, scene: Scene) -> tuple[int, int]:
    """(row, col) of `scene`'s first pixel on the lattice of `first`."""
    if scene.crs != first.crs or scene.crs is None:
        code = [None if one.crs is None else one.crs.to_string() for one in (first, scene)]
        raise InputError(
            f"{scene.name} is in {code[1] or 'no CRS'} and {first.name} in {code[0] or 'no CRS'}: scenes are joined within one "
            f"CRS; run those of each zone by themselves, into directories of their own"
        )
    a, b = first.transform, scene.transform
    same = np.allclose([a.a, a.b, a.d, a.e], [b.a, b.b, b.d, b.e], rtol=1e-9, atol=abs(a.a) * 1e-9)
    col, row = ~a * (b.c, b.f)
    if not same or max(abs(col - round(col)), abs(row - round(row))) > GRID_TOLERANCE:
        raise InputError(
            f"{scene.name} is not on the grid of {first.name}: its pixels are {abs(b.a):g} x {abs(b.e):g} from "
            f"{b.c:g}, {b.f:g}, those of the first {abs(a.a):g} x {abs(a.e):g} from {a.c:g}, {a.f:g}; warp it with "
            f"`gdalwarp -tr -tap`, or run the scenes one by one"
        )
    return round(row), round(col)


def _preferred(times: Sequence[datetime | None], prefer: Prefer) -> tuple[int, ...]:
    numbers = range(len(times))
    known = [time for time in times if time is not None]
    if prefer == "first" or len(known) < len(times):
        return tuple(numbers)
    sign = -1 if prefer == "newest" else 1
    return tuple(sorted(numbers, key=lambda i: (sign * known[i].timestamp(), i)))


def _converted(stored: NDArray[Any], own: Band, wanted: Band) -> NDArray[Any]:
    """Stored values of one scene as those of the mosaic that mean the same."""
    if (own.scale, own.offset) == (wanted.scale, wanted.offset):
        return stored
    values = (stored * own.scale + (own.offset - wanted.offset)) / wanted.scale
    if np.dtype(wanted.dtype).kind == "f":
        return values
    limits = np.iinfo(wanted.dtype)
    return np.clip(np.floor(values + 0.5), limits.min, limits.max)
