"""What is measured: bands of a scene and indices made of them, in physical values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.kernels.indices import INDICES, Formula
from geoseg.models.fit import band_index
from geoseg.scene import Scene

Values = NDArray[np.float64]

CLOUD = "cloud"
"""Name of the band that says where clouds and their shadows are: 0 is clear."""

SUBSTITUTES = {"nir": ("nir08",), "rededge071": ("rededge",)}
"""Bands that an index takes where the one in its formula is missing."""

AUTO = ("ndvi", "gndvi", "evi", "savi", "ndre", "ndwi", "ndmi", "nbr")
"""Indices that are measured where nobody chooses, as far as a scene's bands go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    name: str
    bands: tuple[int, ...]
    """Positions among the bands of Variables."""
    formula: Formula | None
    """None for a band as it is."""

    def values(self, physical: Values) -> Values:
        """(pixel,) from (band, pixel); nan where the formula has no value."""
        if self.formula is None:
            return np.asarray(physical[self.bands[0]])
        return self.formula.of(physical[list(self.bands)], np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """The variables of one scene, and how their bands are read."""

    each: tuple[Variable, ...]
    positions: tuple[int, ...]
    """Bands to read, as positions in the scene; the cloud band last, where there is one."""
    gain: tuple[float, ...]
    """physical = stored * gain + offset, for all but the cloud band."""
    offset: tuple[float, ...]
    cloud: bool
    """True where the last band that is read says where clouds are."""
    left_out: tuple[str, ...] = ()
    """Indices that need reflectances where the scene states no scale."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(variable.name for variable in self.each)

    @classmethod
    def of(cls, scene: Scene, wanted: Sequence[str] | None) -> Variables:
        """Those that are `wanted`, else all named bands and the indices that they make.

        Raises InputError where the scene lacks what a wanted one needs.
        """
        known = {name: position for name, position in band_index(scene).items() if name != CLOUD}
        if not known:
            raise InputError(
                f"{scene.name} has {len(scene.bands)} bands without names; name all of them in file order with --bands"
            )
        indices = {name: found for name, formula in INDICES.items() if (found := _bands(formula, known)) is not None}
        unscaled = {
            name for name, found in indices.items()
            if INDICES[name].reflectance and not all(_physical(scene, known[band]) for band in found)
        }  # fmt: skip
        left_out: tuple[str, ...] = ()
        if wanted is None:
            left_out = tuple(name for name in AUTO if name in unscaled)
            wanted = [*known, *(name for name in AUTO if name in indices and name not in unscaled)]
        chosen = [(name, *_chosen(name, scene, known, indices, unscaled)) for name in dict.fromkeys(wanted)]
        read = list(dict.fromkeys(band for _, found, _ in chosen for band in found))
        bands = [scene.bands[known[band]] for band in read]
        cloud = band_index(scene).get(CLOUD)
        return cls(
            each=tuple(
                Variable(name=name, bands=tuple(read.index(band) for band in found), formula=formula)
                for name, found, formula in chosen
            ),
            positions=(*(known[band] for band in read), *(() if cloud is None else (cloud,))),
            gain=tuple(band.scale for band in bands),
            offset=tuple(band.offset for band in bands),
            cloud=cloud is not None,
            left_out=left_out,
        )

    def physical(self, stored: NDArray[Any]) -> Values:
        """(band, pixel) float64 of stored values, the cloud band left out."""
        count = len(self.gain)
        return np.asarray(
            stored[:count].astype(np.float64) * np.reshape(self.gain, (-1, 1)) + np.reshape(self.offset, (-1, 1))
        )


def _bands(formula: Formula, known: dict[str, int]) -> tuple[str, ...] | None:
    """The scene's bands that a formula takes; None where one is missing."""
    found = []
    for band in formula.bands:
        name = next((name for name in (band, *SUBSTITUTES.get(band, ())) if name in known), None)
        if name is None:
            return None
        found.append(name)
    return tuple(found)


def _physical(scene: Scene, position: int) -> bool:
    """Whether a band's values can be reflectances: the scale is known, or they are no whole numbers."""
    band = scene.bands[position]
    return band.scaled or np.dtype(band.dtype).kind == "f"


def _chosen(
    name: str, scene: Scene, known: dict[str, int], indices: dict[str, tuple[str, ...]], unscaled: set[str]
) -> tuple[tuple[str, ...], Formula | None]:
    if name in known:
        return (name,), None
    if name in unscaled:
        raise InputError(
            f"{name} is made of reflectances of 0 to 1, and {scene.name} states no scale of its bands; give it, e.g. "
            f"--scale 0.0001 where 10000 means 1"
        )
    if name in indices:
        return indices[name], INDICES[name]
    if name in INDICES:
        raise InputError(
            f"{name} needs the bands {', '.join(INDICES[name].bands)}, and those of {scene.name} are: {', '.join(known)}; name "
            f"all of them in file order with --bands, or leave {name} out of --variables"
        )
    raise InputError(
        f"no variable {name!r} in {scene.name}; its bands are: {', '.join(known)}; indices: {', '.join(INDICES)}"
    )
