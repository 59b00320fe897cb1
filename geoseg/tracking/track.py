"""track(): ids of one layer carried over to another one, and a log of what became of each field."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.metrics.checks import check_meeting
from geoseg.metrics.files import read_polygons
from geoseg.tracking.events import EVENTS, MERGED, MOVED, NEW, REARRANGED, SAME, SPLIT, Events, find_events
from geoseg.tracking.log import log_of
from geoseg.tracking.side import Side, check_ids, column_ids, together, with_crs
from geoseg.tracking.thresholds import Thresholds

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

COLUMNS = ("id", "event", "parents", "iou")
"""Columns that the tracked layer has in front of its own; its own ones of these names get PREFIX."""

PREFIX = "new_"

BETWEEN = ";"
"""Between the ids of several parents."""

LETTERS = 16
"""Hexadecimal digits of a made id: 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tracked:
    fields: gpd.GeoDataFrame
    """The new layer with COLUMNS, in its own order and CRS."""
    log: pd.DataFrame
    """A row for each link, each field that is gone and each that is new."""
    events: Events
    """The same by index, in an order of its own."""
    notes: tuple[str, ...]
    """What a reader should know: repairs, fields left out, ids that were made."""

    @property
    def counts(self) -> Mapping[str, tuple[int, int, float, float]]:
        """By event: old fields, new fields, and the area of both in m2 (without a CRS in the square of its unit)."""
        one = self.events
        return {
            name: (
                int((one.old == code).sum()),
                int((one.new == code).sum()),
                float(one.old_area[one.old == code].sum()),
                float(one.new_area[one.new == code].sum()),
            )
            for code, name in enumerate(EVENTS)
        }


def track(
    old: Any, new: Any, *, thresholds: Thresholds | None = None, id_column: str | None = None, crs: str | None = None
) -> Tracked:
    """The fields of `new` with the ids of `old`.

    Args:
        old: a path (which may name its layer as QGIS does: `parcels.gpkg|layername=2024`) or a GeoDataFrame.
        new: the same.
        thresholds: the limits of each event; None for the defaults.
        id_column: column of `old` with ids; None for `id`, or without such a column ids that are made from outlines.
        crs: the CRS of layers that do not state one.

    Raises:
        InputError: a layer cannot be read or holds no polygons, ids are missing or occur twice, the layers do not meet,
            or only one of them has a CRS.
    """
    (frame_old, name_old), (frame_new, name_new) = _opened(old, name="old"), _opened(new, name="new")
    frame_old, frame_new = with_crs(frame_old, frame_new, crs=crs)
    before = Side.of(frame_old, name=name_old, ids=column_ids(frame_old, id_column, name=name_old))
    after = Side.of(frame_new, name=name_new, ids=column_ids(frame_new, None, name=name_new))
    notes = [*before.polygons.notes, *after.polygons.notes]
    if id_column is None and "id" not in frame_old.columns:
        notes.append(f"{name_old} has no column id: its ids are made from its outlines; name another column with --id")
        old_ids = _made([["", digest] for digest in before.digests.tolist()], taken=set())
    else:
        old_ids = before.ids.astype(object)
        check_ids(old_ids, name=name_old, column=id_column or "id")

    here, there = together(before, after)
    check_meeting(there.polygons, here.polygons)
    events = find_events(here, there, thresholds or Thresholds())
    parents = _parents(events, old_ids, len(after))
    ids = _ids(events, before, after, old_ids, parents)
    table = _fields(frame_new, after, events, ids, parents)
    log = log_of(here, there, events, old_ids=old_ids, ids=ids, event_names=EVENTS)
    return Tracked(fields=table, log=log, events=events, notes=tuple(notes))


def _opened(source: Any, *, name: str) -> tuple[gpd.GeoDataFrame, str]:
    import geopandas as gpd

    return (source, name) if isinstance(source, gpd.GeoDataFrame) else read_polygons(source)


def _parents(events: Events, old_ids: NDArray[np.object_], news: int) -> list[list[str]]:
    """(new field,) ids of the old fields that it is linked to, in order."""
    parents: list[list[str]] = [[] for _ in range(news)]
    for old, new in zip(events.links.old.tolist(), events.links.new.tolist(), strict=True):
        parents[new].append(old_ids[old])
    return [sorted(names) for names in parents]


def _ids(
    events: Events, before: Side, after: Side, old_ids: NDArray[np.object_], parents: Sequence[list[str]]
) -> NDArray[np.object_]:
    """(new field,) the old id where the field is still the same one, else one that never was.

    A made id is a hash of the whole old layer, the parents and the outline. So an id that was given up long ago, and that
    this old layer no longer knows, does not come again, even for a field that lies where another one once lay.
    """
    ids = np.full(len(after), None, dtype=object)
    kept = np.isin(events.codes, (SAME, MOVED))
    ids[events.links.new[kept]] = old_ids[events.links.old[kept]]
    made = np.flatnonzero(np.isin(events.new, (SPLIT, MERGED, REARRANGED, NEW)))
    layer = hashlib.sha256()
    for name, digest in sorted(zip(old_ids.tolist(), before.digests.tolist(), strict=True)):
        layer.update(f"{len(name)}:{name}{digest}".encode())
    origin = layer.hexdigest()
    keys = [[origin, *parents[i], str(after.digests[i])] for i in made.tolist()]
    ids[made] = _made(keys, taken=set(old_ids.tolist()))
    return ids


def _made(keys: Sequence[list[str]], *, taken: set[str]) -> NDArray[np.object_]:
    """(key,) an id for each, none of them among those taken."""
    taken, ids = set(taken), np.full(len(keys), None, dtype=object)
    for i, key in enumerate(keys):
        text = "\n".join(key)
        name = next(name for n in count() if (name := _hashed(f"{text}\n{n}")) not in taken)
        taken.add(name)
        ids[i] = name
    return ids


def _hashed(text: str) -> str:
    """Begins with a letter: spreadsheets take digits around an `e` for a number."""
    return f"f{hashlib.sha256(text.encode()).hexdigest()[:LETTERS]}"


def _fields(
    frame: gpd.GeoDataFrame, side: Side, events: Events, ids: NDArray[np.object_], parents: Sequence[list[str]]
) -> gpd.GeoDataFrame:
    """The rows of the new layer that were compared, in their order, as they were, behind COLUMNS."""
    import pandas as pd

    best = np.full(len(side), np.nan)
    np.fmax.at(best, events.links.new, events.links.iou)
    own = (SAME, MOVED, NEW)
    order = np.argsort(side.rows)
    table = frame.iloc[side.rows[order]].reset_index(drop=True)
    names = _renamed([str(name) for name in table.columns], geometry=str(table.geometry.name))
    table = table.rename(columns=dict(zip(table.columns, names, strict=True)))
    if frame.geometry.name != table.geometry.name:
        table = table.set_geometry(str(frame.geometry.name))
    values = {
        "id": ids[order],
        "event": np.array(EVENTS, dtype=object)[events.new[order]],
        "parents": pd.Series(
            [None if events.new[i] in own else BETWEEN.join(parents[i]) for i in order.tolist()], dtype=object
        ),
        "iou": np.round(best[order], 4),
    }
    for at, name in enumerate(COLUMNS):
        table.insert(at, name, values[name])
    return table


def _renamed(names: Sequence[str], *, geometry: str) -> list[str]:
    """Column names that leave COLUMNS free, also where a format does not tell `ID` from `id`."""
    if geometry.lower() in COLUMNS:
        raise InputError(f"the geometry column of the new layer is called {geometry!r}; rename it, e.g. to geometry")
    out = [f"{PREFIX}{name}" if name.lower() in COLUMNS else name for name in names]
    taken = {*COLUMNS, *(new.lower() for new, name in zip(out, names, strict=True) if new != name)}
    for at, name in enumerate(names):
        if out[at] == name:
            while out[at].lower() in taken:
                out[at] = f"{PREFIX}{out[at]}"
            taken.add(out[at].lower())
    return out
