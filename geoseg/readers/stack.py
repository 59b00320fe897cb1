"""StackReader: bands that lie in files of their own, with the product's own cloud mask as one band more."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.protocols import Reader
from geoseg.readers.identity import file_digest, meaning
from geoseg.readers.validity import check_request, rectangles
from geoseg.reading import Clouds
from geoseg.results import Block
from geoseg.scene import Band, Scene
from geoseg.sensors import CLOUD


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One band of a product, and what its stored values mean."""

    name: str | None
    source: int
    """Which of the stack's sources holds it."""
    band: int = 0
    """Its place among the source's bands."""
    scale: float = 1.0
    """physical = stored * scale + offset."""
    offset: float = 0.0
    scaled: bool = False
    """True where the product states scale and offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudRule:
    """Which values of a quality layer are clouds or their shadows. The first that holds counts."""

    source: int
    band: int = 0
    values: tuple[int, ...] = ()
    """Classes."""
    bits: int = 0
    """Flags, of which one is enough."""

    def flags(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        """(row, col) True under clouds and shadows."""
        found = (
            np.isin(stored, np.array(self.values, stored.dtype)) if self.values else np.zeros(stored.shape, np.bool_)
        )
        if self.bits:
            found |= (stored & stored.dtype.type(self.bits)) != 0
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StackReader:
    """Sources on one grid as one scene. Its last band is `cloud` (uint8, 1 under clouds and shadows) if there are rules.

    Raises InputError where the sources are not on one grid.
    """

    name: str
    """For messages and records."""
    sources: tuple[Reader, ...]
    layers: tuple[Layer, ...]
    cloud: tuple[CloudRule, ...] = ()
    """Rules that are joined by "or"; empty where the product has no quality layer."""
    clouds: Clouds = "keep"
    """`mask` makes cloudy pixels not valid in all bands."""
    time: datetime | None = None
    archive: str | None = None
    """The local file that all sources lie in, hashed in their place; None to ask the sources."""
    scene: Scene = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.clouds not in get_args(Clouds):
            raise InputError(f"no way {self.clouds!r} to meet clouds; use 'mask' or 'keep'")
        if not self.layers:
            raise InputError(f"{self.name} holds no band that is known; expected at least one image of a band")
        first = self.sources[0].scene
        for source in self.sources[1:]:
            other = source.scene
            if (other.shape, other.crs) != (first.shape, first.crs) or not other.transform.almost_equals(
                first.transform, first.transform.a * 1e-3
            ):
                raise InputError(
                    f"{other.name} in {self.name} is not on the grid of {first.name}: {other.shape[1]} x {other.shape[0]} "
                    f"pixels from {other.transform.c, other.transform.f}, not {first.shape[1]} x {first.shape[0]} from "
                    f"{first.transform.c, first.transform.f}; fetch the product again if it was cut or copied in parts"
                )
        for rule in self.cloud:
            held = self.sources[rule.source].scene
            if rule.band >= len(held.bands) or np.dtype(held.bands[rule.band].dtype).kind not in "ui":
                raise InputError(
                    f"the cloud mask {held.name} of {self.name} has {len(held.bands)} bands of "
                    f"{held.bands[0].dtype}; a band {rule.band + 1} of integers is expected: fetch the product again"
                )
        bands = [
            replace(
                self.sources[layer.source].scene.bands[layer.band],
                name=layer.name, scale=layer.scale, offset=layer.offset, scaled=layer.scaled,
            )
            for layer in self.layers
        ]  # fmt: skip
        if self.cloud:
            bands.append(Band(name=CLOUD, dtype="uint8"))
        object.__setattr__(self, "scene", replace(first, bands=tuple(bands), name=self.name, time=self.time))

    def read(self, window: Window, bands: Sequence[int] | None = None) -> Block:
        """Stored pixels and validity of `window`, see protocols.Reader; valid are pixels that are so in every band read."""
        wanted = check_request(self.scene, window, bands)
        pixels = np.empty((len(wanted), *window.shape), np.result_type(*(self.scene.bands[i].dtype for i in wanted)))
        valid, unread = np.ones(window.shape, np.bool_), np.zeros(window.shape, np.bool_)
        asked: dict[int, list[tuple[int, int]]] = {}
        for place, i in enumerate(wanted):
            if i < len(self.layers):
                asked.setdefault(self.layers[i].source, []).append((place, self.layers[i].band))
        for number, pairs in asked.items():
            block = self.sources[number].read(window, [band for _, band in pairs])
            for (place, _), part in zip(pairs, block.pixels, strict=True):
                pixels[place] = part
            _note(block, window, valid, unread)
        if self.cloud and (self.clouds == "mask" or len(self.layers) in wanted):
            cloudy = np.zeros(window.shape, np.bool_)
            for rule in self.cloud:
                block = self.sources[rule.source].read(window, [rule.band])
                cloudy |= rule.flags(block.pixels[0])
                # Where the mask itself cannot be read, nobody knows whether there are clouds.
                seen = block if len(self.layers) in wanted else replace(block, valid=np.ones_like(block.valid))
                _note(seen, window, valid, unread)
            for place, i in enumerate(wanted):
                if i == len(self.layers):
                    pixels[place] = cloudy
            if self.clouds == "mask":
                valid &= ~cloudy
        return Block(pixels=pixels, valid=valid, window=window, unread=rectangles(unread, window))

    def content_hash(self) -> str:
        """SHA-256 over the files and what is made of them."""
        digest = hashlib.sha256(f"{meaning(self.scene)} {self.layers} {self.cloud} {self.clouds}".encode())
        if self.archive is not None:
            digest.update(file_digest(Path(self.archive)))
        else:
            for source in self.sources:
                digest.update(source.content_hash().encode())
        return digest.hexdigest()


def _note(block: Block, window: Window, valid: NDArray[np.bool_], unread: NDArray[np.bool_]) -> None:
    """Adds a source's validity and gaps to those of the stack."""
    np.logical_and(valid, block.valid, out=valid)
    for part in block.unread:
        there = part.within(window).slices
        unread[there], valid[there] = True, False
