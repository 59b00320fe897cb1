"""Stable identities: the fields of two dates matched, ids kept, and what became of each told.

>>> import geopandas as gpd
>>> from shapely import box
>>> from geoseg.tracking import track
>>> old = gpd.GeoDataFrame({"id": ["a", "b"]}, geometry=[box(0, 0, 99, 99), box(100, 0, 200, 99)], crs="EPSG:32633")
>>> new = gpd.GeoDataFrame(geometry=[box(0, 0, 99, 97), box(100, 0, 150, 99), box(150, 0, 200, 99)], crs="EPSG:32633")
>>> tracked = track(old, new)
>>> tracked.fields["event"].tolist(), tracked.fields["parents"].tolist()
(['same', 'split', 'split'], [None, 'b', 'b'])
>>> tracked.fields["id"][0]
'a'
"""

from geoseg.tracking.events import EVENTS, Events, find_events
from geoseg.tracking.thresholds import Thresholds
from geoseg.tracking.track import Tracked, track

__all__ = ["EVENTS", "Events", "Thresholds", "Tracked", "find_events", "track"]
