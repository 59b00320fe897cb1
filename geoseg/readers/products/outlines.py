"""OutlineReader: polygons as a mask on a scene's grid, drawn window by window."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio.features
import shapely
from affine import Affine

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.readers.identity import meaning
from geoseg.readers.products.package import local_name
from geoseg.readers.validity import check_request
from geoseg.results import Block
from geoseg.scene import Band, Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineReader:
    """1 where the centre of a pixel lies in a polygon, 0 elsewhere; a band of uint8 that is valid everywhere."""

    polygons: tuple[Any, ...]
    """shapely polygons in the CRS of the scene."""
    scene: Scene

    def read(self, window: Window, bands: Sequence[int] | None = None) -> Block:
        """The mask of `window`, see protocols.Reader. A pixel depends on its own centre alone."""
        wanted = check_request(self.scene, window, bands)
        place = self.scene.transform @ Affine.translation(window.col, window.row)
        left, top = place @ (0, 0)
        right, bottom = place @ (window.width, window.height)
        box = shapely.box(min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        near = [polygon for polygon in self.polygons if polygon.intersects(box)]
        mask = np.zeros(window.shape, np.uint8)
        if near:
            rasterio.features.rasterize(near, out=mask, transform=place, default_value=1)
        return Block(pixels=np.stack([mask] * len(wanted)), valid=np.ones(window.shape, np.bool_), window=window)

    def content_hash(self) -> str:
        """SHA-256 over the polygons and the grid."""
        digest = hashlib.sha256(meaning(self.scene).encode())
        for polygon in self.polygons:
            digest.update(shapely.to_wkb(polygon))
        return digest.hexdigest()

    @classmethod
    def from_gml(cls, root: ElementTree.Element, *, like: Scene, title: str) -> OutlineReader:
        """The polygons of a GML mask, whose coordinates are those of `like`'s CRS. Raises InputError."""
        try:
            polygons = tuple(_polygons(root))
        except ValueError as error:
            raise InputError(f"the mask {title} cannot be understood: {error}; fetch the product again") from error
        return cls(polygons=polygons, scene=replace(like, bands=(Band(name=None, dtype="uint8"),), name=title))


def _polygons(root: ElementTree.Element) -> Iterator[Any]:
    for element in root.iter():
        if local_name(element) != "Polygon":
            continue
        rings: dict[str, list[Any]] = {"exterior": [], "interior": []}
        for side in element:
            if local_name(side) in rings:
                rings[local_name(side)] += [_ring(one) for one in side.iter() if local_name(one) == "posList"]
        if len(rings["exterior"]) == 1:
            polygon = shapely.make_valid(shapely.Polygon(rings["exterior"][0], rings["interior"]))
            if not polygon.is_empty:
                yield polygon


def _ring(element: ElementTree.Element) -> Any:
    numbers = np.array((element.text or "").split(), np.float64)
    size = int(element.get("srsDimension", "2"))
    if size < 2 or numbers.size % size:
        raise ValueError(f"{numbers.size} coordinates of dimension {size}")
    return numbers.reshape(-1, size)[:, :2]
