"""segment(): a scene's mask as a lazy xarray.DataArray; nothing is computed until it is asked for."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import TileGrid
from geoseg.plan import prepare, settled_predictor
from geoseg.protocols import Model, Reader
from geoseg.recipes import RunOptions
from geoseg.results import NODATA
from geoseg.runtime.area import Area
from geoseg.runtime.predict import Predictor, classes_of, predict_core

if TYPE_CHECKING:
    import xarray as xr


def segment(
    scene: str | Path | tuple[str | Path, ...] | Reader | xr.DataArray,
    model: str | Model | None = None,
    *,
    probabilities: bool = False,
    **options: Any,
) -> xr.DataArray:
    """The mask of a scene on Dask: one block a tile, read and predicted when computed.

    Args:
        scene: a raster file, one file a band, a Reader, or a DataArray (band, y, x) with a CRS.
        model: name, folder or checkpoint; None takes the bundled model that fits.
        probabilities: give (channel, y, x) stored probabilities (floor(254 p + .5)) in place of (y, x) class ids.
        options: options of a run by name, e.g. bands, resample, engine, patch, tile.

    Returns:
        uint8 DataArray with x, y and spatial_ref coordinates as rioxarray and odc-geo know them; 255 is no data.

    Raises:
        GeosegError: as a run would.
    """
    import dask.array as da
    import xarray as xr
    from dask.delayed import delayed
    from odc.geo.xr import xr_coords

    name = model if isinstance(model, str) else None
    asked = RunOptions.checked(model=name, **options)
    if asked.max_memory is not None:
        raise InputError("max_memory is not kept where Dask decides how much runs at a time; give patch and tile")
    plan = prepare(_sources(scene), asked, model=None if isinstance(model, str) else model)
    spec, grid = plan.model.spec, plan.grid
    if spec.hysteresis is not None:
        raise InputError(
            f"{spec.name} links weak pixels over the whole scene, which blocks that are computed one by one cannot; use "
            f"geoseg.run() or `geoseg segment`, and open the mask it writes"
        )
    if spec.instances is not None:
        raise InputError(
            f"{spec.name} finds objects, which blocks that are computed one by one cannot put together; use geoseg.run() or "
            f"`geoseg segment`, and open the mask it writes"
        )
    lead = (len(spec.outputs),) if probabilities else ()
    task = delayed(_block, pure=False)
    # One delayed value for the recipe: the graph carries it once, not once a block.
    recipe = delayed(
        (
            plan.reader,
            settled_predictor(plan),
            grid,
            plan.area,
            None if probabilities else len(spec.class_names),
            uuid.uuid4().hex,
        ),
        traverse=False,
        pure=False,
    )
    rows, cols = grid.tile_range
    blocks = []
    for i in rows:
        line = []
        for j in cols:
            shape = (*lead, *grid.tile((i, j)).core.shape)
            line.append(da.from_delayed(task(recipe, (i, j)), shape=shape, dtype=np.uint8))
        blocks.append(line)
    extent = grid.extent
    box = plan.reader.scene.geobox[extent.slices]
    coords: dict[Any, Any] = dict(xr_coords(box)) if box.crs is not None else {}
    dims = tuple(box.dimensions) if box.crs is not None else ("y", "x")
    if probabilities:
        data = da.concatenate([da.concatenate(line, axis=2) for line in blocks], axis=1)
        coords["channel"] = [channel.name for channel in spec.outputs]
        dims = ("channel", *dims)
    else:
        data = da.block(blocks)
    attributes = {"nodata": NODATA, "_FillValue": NODATA, "model": spec.name, "classes": list(spec.class_names)}
    return xr.DataArray(
        data, coords=coords, dims=dims, name="probabilities" if probabilities else "mask", attrs=attributes
    )


def _sources(scene: Any) -> list[Any]:
    import xarray as xr

    if isinstance(scene, xr.DataArray):
        from geoseg.readers.array import from_dataarray

        return [from_dataarray(scene)]
    return list(scene) if isinstance(scene, tuple | list) else [scene]


def _block(
    recipe: tuple[Reader, Predictor, TileGrid, Area | None, int | None, str], index: tuple[int, int]
) -> NDArray[np.uint8]:
    reader, predictor, grid, area, classes, run = recipe
    made = predict_core(reader, predictor, grid, grid.tile(index), clip=area, run=run)
    return made.probabilities if classes is None else classes_of(made.probabilities, made.valid, classes)
