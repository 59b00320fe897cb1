"""Whether what learnt from some scenes may serve a training that scores others: by place on the ground, not by file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.errors import InputError
from geoseg.protocols import Reader
from geoseg.readers.resample import ResampledReader
from geoseg.scene import Band, Scene
from geoseg.training.scenes import LabelledScene
from geoseg.training.split import Division, Plot, moved

SLACK_PX = 2.0
"""What lies that near to a part that was left out counts as in it: places come from other grids."""


def learnt_place(one: LabelledScene, plot: Plot) -> dict[str, Any]:
    """Where a scene lies that is learnt from, and which parts of it were kept out, as JSON values."""
    scene = one.scene
    return {
        "scene": scene.name,
        **one.fingerprint(),
        "source": source_hash(one.reader),
        "crs": None if scene.crs is None else scene.crs.to_wkt(),
        "transform": list(tuple(scene.transform)[:6]),
        "shape": list(scene.shape),
        "apart": [shapely.to_wkt(polygon, rounding_precision=2) for polygon in plot.taken],
    }


def check_apart(learnt: Sequence[Mapping[str, Any]], scenes: Sequence[LabelledScene], division: Division) -> None:
    """InputError where something was learnt from places that are validated or held out here.

    `learnt` are values of `learnt_place`. Scenes without a CRS can only be told by their content.
    """
    for place in learnt:
        there = Scene(
            shape=tuple(place["shape"]), transform=Affine(*place["transform"]), bands=(Band(name=None, dtype="uint8"),),
            crs=None if place["crs"] is None else CRS.from_wkt(place["crs"]), name=place["scene"],
        )  # fmt: skip
        extent = shapely.box(0, 0, there.shape[1], there.shape[0]).buffer(-SLACK_PX)
        seen = extent.difference(shapely.union_all(shapely.from_wkt(place["apart"])).buffer(SLACK_PX))
        for one, plot in zip(scenes, division.plots, strict=True):
            same = place["source"] == source_hash(one.reader)
            for window in [one.extent] if one.entry.holdout else plot.validation:
                box = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
                scored = _across(box, one.scene, there) if same else moved(box, one.scene, there)
                if scored is not None and shapely.intersects(scored, seen):
                    raise InputError(
                        f"the renderer learnt from parts of {place['scene']} that are scored here (in {one.scene.name}): its "
                        f"scenes would tell of them; train it by this recipe (`geoseg train RECIPE --renderer`)"
                    )


def source_hash(reader: Reader) -> str:
    """Hash of a scene's pixels before they were brought to another size."""
    while isinstance(reader, ResampledReader):
        reader = reader.source
    return reader.content_hash()


def _across(box: Any, source: Scene, target: Scene) -> Any:
    """A polygon in pixels of one scene, in those of another grid of the same file."""
    a, b, c, d, e, f = tuple(~target.transform @ source.transform)[:6]

    def change(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = pixels[:, 0], pixels[:, 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    return shapely.transform(box, change)
