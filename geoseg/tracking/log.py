"""The log of a comparison: which field came of which, and how much land they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.metrics.grids import metres_per_unit
from geoseg.scene import to_lonlat
from geoseg.tracking.events import GONE, NEW, Events
from geoseg.tracking.side import Side

if TYPE_CHECKING:
    import pandas as pd


def log_of(
    old: Side,
    new: Side,
    events: Events,
    *,
    old_ids: NDArray[np.object_],
    ids: NDArray[np.object_],
    event_names: Sequence[str],
) -> pd.DataFrame:
    """A row for each link, each field that is gone and each that is new, in order of event and ids.

    Args:
        old: the old fields, in a CRS that keeps areas.
        new: the new fields, in the same.
        events: what was found.
        old_ids: (old field,)
        ids: (new field,) ids that the new fields have now.
        event_names: by code.

    Returns:
        a table with the columns event, old_id, id, new_id, old_area_m2, new_area_m2, shared_m2, of_old, of_new, iou,
        shift_m, lon, lat; without a CRS px instead of m, and x, y. What a row has not is missing.
    """
    import pandas as pd
    import shapely

    links, crs = events.links, old.polygons.crs
    gone, born = np.flatnonzero(events.old == GONE), np.flatnonzero(events.new == NEW)
    nothing = np.full(gone.size + born.size, np.nan)
    of_old = np.concatenate([links.old, gone, np.full(born.size, -1)])
    of_new = np.concatenate([links.new, np.full(gone.size, -1), born])
    codes = np.concatenate([events.codes, events.old[gone], events.new[born]])

    centre_old, centre_new = (shapely.get_coordinates(shapely.centroid(side.polygons.geometry)) for side in (old, new))
    shift = np.hypot(*(centre_new[links.new] - centre_old[links.old]).T) * metres_per_unit(crs)
    place = np.concatenate([centre_new[links.new], centre_old[gone], centre_new[born]])
    unit = "px" if crs is None else "m"
    table = pd.DataFrame(
        {
            "event": np.array(event_names, dtype=object)[codes],
            "old_id": _taken(old_ids, of_old),
            "id": _taken(ids, of_new),
            "new_id": _taken(new.ids, of_new),
            f"old_area_{unit}2": np.round(_taken(events.old_area, of_old), 2),
            f"new_area_{unit}2": np.round(_taken(events.new_area, of_new), 2),
            f"shared_{unit}2": np.round(np.concatenate([links.area, nothing]), 2),
            "of_old": np.round(np.concatenate([links.of_old, nothing]), 4),
            "of_new": np.round(np.concatenate([links.of_new, nothing]), 4),
            "iou": np.round(np.concatenate([links.iou, nothing]), 4),
            f"shift_{unit}": np.round(np.concatenate([shift, nothing]), 2),
            **_places(place, crs),
        }
    )
    keys = list(zip(codes.tolist(), *([name or "" for name in table[c]] for c in ("old_id", "id")), strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return table.iloc[order].reset_index(drop=True)


def _places(xy: NDArray[np.float64], crs: CRS | None) -> dict[str, NDArray[np.float64]]:
    """Columns that say where centroids lie."""
    x, y = xy.T
    if crs is None:
        return {"x": np.round(x, 3), "y": np.round(y, 3)}
    lon, lat = (np.asarray(values, dtype=np.float64) for values in to_lonlat(x, y, crs))
    return {"lon": np.round(lon, 6), "lat": np.round(lat, 6)}


def _taken(values: NDArray[Any], index: NDArray[np.intp]) -> NDArray[Any]:
    """`values` at each index, missing where that is below 0."""
    missing: Any = None if values.dtype == object else np.nan
    return np.append(values, missing)[index]
