"""What a method sees of a scene: an index of its bands, one band, or several bands brought to one scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ModelError
from geoseg.kernels.indices import INDICES, Formula, Values
from geoseg.models.fit import band_index
from geoseg.models.methods.histogram import Binning, Even, Floating, Lattice, scene_histograms
from geoseg.protocols import Reader
from geoseg.scene import Scene
from geoseg.spec import BandSpec, bands

FORMULAS = {name: INDICES[name] for name in ("ndvi", "gndvi", "ndwi", "exg", "luminance")}
"""The indices that a threshold or an edge can be found in."""

VISIBLE = ("red", "green", "blue")
AUTO_BANDS = (*bands(VISIBLE), BandSpec(name="nir", optional=True))
"""What stands in the spec of a method that has seen no scene yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """Bands of a scene, in physical values."""

    names: tuple[str, ...]
    gain: tuple[float, ...]
    """physical = stored * gain + offset"""
    offset: tuple[float, ...]

    @classmethod
    def of(cls, scene: Scene, names: Sequence[str], *, method: str) -> Bands:
        """ModelError where the scene lacks one."""
        index = band_index(scene)
        if missing := [name for name in names if name not in index]:
            known = ", ".join(index) or "none with a name"
            raise ModelError(
                f"{method} needs {', '.join(missing)}, and the bands of {scene.name} are: {known}; name all of them in file "
                f"order with --bands, or choose another index: {', '.join(FORMULAS)}, or a band by name"
            )
        found = [scene.bands[index[name]] for name in names]
        return cls(names=tuple(names), gain=tuple(b.scale for b in found), offset=tuple(b.offset for b in found))

    def only(self, i: int) -> Bands:
        """One of them."""
        return Bands(names=self.names[i : i + 1], gain=self.gain[i : i + 1], offset=self.offset[i : i + 1])

    def positions(self, scene: Scene) -> list[int]:
        """Indices of the bands in the scene."""
        index = band_index(scene)
        return [index[name] for name in self.names]

    def physical(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> Values:
        """(band, row, col); 0 where not valid."""
        stored = np.where(valid, pixels, 0).astype(np.float64)
        shape = (-1, 1, 1)
        return np.asarray(np.where(valid, stored * np.reshape(self.gain, shape) + np.reshape(self.offset, shape), 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One value a pixel."""

    index: str
    bands: Bands
    binning: Binning

    @classmethod
    def of(cls, scene: Scene, index: str, *, method: str, edges: bool = False) -> Image:
        """The image that an option `index` names; `auto` takes what the scene has.

        With near infrared that is the NDVI. Else, of red, green and blue, it is the luminance for edges, and excess green
        for what tells plants from soil. Else the first band that has a name.
        """
        known = band_index(scene)
        if index == "auto":
            if {"nir", "red"} <= known.keys():
                index = "ndvi"
            elif set(VISIBLE) <= known.keys():
                index = "luminance" if edges else "exg"
            else:
                index = next(iter(known), "luminance")
        formula = FORMULAS.get(index)
        chosen = Bands.of(scene, formula.bands if formula else (index,), method=f"{method}:index={index}")
        return cls(index=index, bands=chosen, binning=_binning(scene, formula, chosen))

    def values(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> Values:
        """(row, col) values of stored pixels (band, row, col); of no meaning where not valid."""
        physical = self.bands.physical(pixels, valid)
        formula = FORMULAS.get(self.index)
        if formula is None:
            return np.asarray(physical[0])
        values = formula.of(physical, 0.0)
        return values if formula.range is None else np.clip(values, *formula.range)


def _binning(scene: Scene, formula: Formula | None, chosen: Bands) -> Binning:
    if formula is not None and formula.range is not None:
        return Even(low=formula.range[0], high=formula.range[1])
    dtypes = [np.dtype(scene.bands[position].dtype) for position in chosen.positions(scene)]
    if any(dtype.kind not in "iu" or dtype.itemsize > 2 for dtype in dtypes) or min(map(abs, chosen.gain)) == 0:
        return Floating()
    if formula is None and chosen.gain[0] > 0:
        info = np.iinfo(dtypes[0])
        return Lattice(
            lowest=int(info.min), count=int(info.max) - int(info.min) + 1, gain=chosen.gain[0], offset=chosen.offset[0]
        )
    ends = [
        end * gain + offset
        for dtype, gain, offset in zip(dtypes, chosen.gain, chosen.offset, strict=True)
        for end in (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    ]
    return Even(low=min(ends), high=max(ends))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Several bands, each divided by its spread over the scene."""

    bands: Bands
    spreads: tuple[float, ...]
    """Of physical values, from the 10th to the 90th percentile; above 0."""
    middles: tuple[float, ...]
    """Medians, which are taken off: rounding is least around 0."""

    @classmethod
    def of(cls, reader: Reader, names: str, *, method: str, check: Callable[[], None] = lambda: None) -> Stack:
        """The bands that an option `bands` names, joined by +; `auto` takes red, green, blue and nir of what the scene has,
        or all that have a name."""
        scene = reader.scene
        known = band_index(scene)
        usual = [name for name in (*VISIBLE, "nir") if name in known] or list(known) or list(VISIBLE)
        wanted = usual if names == "auto" else [name.strip() for name in names.split("+")]
        chosen = Bands.of(scene, wanted, method=f"{method}:bands={'+'.join(wanted)}")
        positions = chosen.positions(scene)
        binnings = [_binning(scene, None, chosen.only(i)) for i in range(len(wanted))]

        def measure(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Values, NDArray[np.bool_]]:
            return chosen.physical(pixels, valid), valid

        made = scene_histograms(reader, positions, measure, binnings, check=check)
        low, middle, high = ([(one.quantile(share) or (0.0, 0.0))[1] for one in made] for share in (0.1, 0.5, 0.9))
        spreads = tuple(b - a if b > a else 1.0 for a, b in zip(low, high, strict=True))
        return cls(bands=chosen, spreads=spreads, middles=tuple(middle))

    def values(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> Values:
        """(band, row, col) of stored pixels (band, row, col); of no meaning where not valid."""
        physical, shape = self.bands.physical(pixels, valid), (-1, 1, 1)
        return np.asarray((physical - np.reshape(self.middles, shape)) / np.reshape(self.spreads, shape))

    def record(self) -> dict[str, Any]:
        """For run.json."""
        return {"bands": list(self.bands.names), "spreads": list(self.spreads)}


def seen(image: Image | None) -> Image:
    """The image of a method that has seen its scene."""
    if image is None:
        raise ModelError("this method has seen no scene; call its settled(reader) first")
    return image
