"""`geoseg track`: what happened to fields is found, ids are kept, and nothing depends on order or direction."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from shapely import Polygon, box
from shapely.affinity import rotate, scale, translate

from geoseg.cli.track import command
from geoseg.tracking import Thresholds, Tracked, track

UTM = "EPSG:32633"
SIDE = 100.0
SWAPPED = {"split": "merged", "merged": "split", "new": "gone", "gone": "new"}


def layer(shapes: list[Any], *, prefix: str = "", crs: str | None = UTM, **columns: Any) -> gpd.GeoDataFrame:
    ids = {"id": [f"{prefix}{i}" for i in range(len(shapes))]} if prefix else {}
    return gpd.GeoDataFrame({**ids, **columns}, geometry=list(shapes), crs=crs)


def field(rng: np.random.Generator, x: float, y: float) -> Polygon:
    """An uneven, somewhat turned field of about SIDE x SIDE around a place."""
    corners = [(-1, -1), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0)]
    shape = Polygon(SIDE / 2 * (np.array(corners) + rng.uniform(-0.1, 0.1, (8, 2))))
    return translate(rotate(shape, rng.uniform(-20, 20)), x, y)


def strips(x: float, y: float, count: int, *, lying: bool = False) -> list[Polygon]:
    """A square of SIDE, divided."""
    at = np.linspace(0, SIDE, count + 1)
    cut = [box(0, a, SIDE, b) if lying else box(a, 0, b, SIDE) for a, b in pairwise(at)]
    return [translate(shape, x, y) for shape in cut]


def happened(kind: str, rng: np.random.Generator, x: float, y: float) -> tuple[list[Polygon], list[Polygon]]:
    """Fields before and after."""
    before = field(rng, x, y)
    if kind == "same":
        return [before], [translate(scale(before, 1.05, 0.97), *rng.uniform(-5, 5, 2))]
    if kind == "moved":
        return [before], [translate(before, 0.38 * SIDE, rng.choice([-0.15, 0.15]) * SIDE)]
    if kind == "moved away":  # a lane that shares no land with its old place
        lane = rotate(box(x, y, x + 1.5 * SIDE, y + 0.1 * SIDE), rng.uniform(0, 180))
        return [lane], [translate(lane, *(0.15 * SIDE * across(lane)))]
    if kind in ("split", "merged"):
        parts = cut(before, int(rng.integers(2, 5)))
        return ([before], parts) if kind == "split" else (parts, [before])
    if kind == "rearranged":
        return strips(x, y, 2), strips(x, y, 2, lying=True)
    if kind == "rearranged finely":
        return strips(x, y, 4), strips(x, y, 4, lying=True)
    return ([before], []) if kind == "gone" else ([], [before])


def across(lane: Polygon) -> Any:
    """Unit vector along the shorter side."""
    a, b, c = np.array(lane.exterior.coords)[:3]
    short = min((b - a, c - b), key=lambda edge: float(np.hypot(*edge)))
    return short / np.hypot(*short)


def cut(shape: Polygon, count: int) -> list[Polygon]:
    """Parts of about equal width, with a path between them."""
    left, bottom, right, top = shape.bounds
    at = np.linspace(left, right, count + 1)
    lanes = [box(a + 1, bottom, b - 1, top) for a, b in pairwise(at)]
    parts = [shape.intersection(lane).buffer(0) for lane in lanes]
    assert all(part.area > 0.1 * shape.area for part in parts)
    return parts


KINDS = ("same", "moved", "moved away", "split", "merged", "rearranged", "rearranged finely", "new", "gone")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_all_that_happened_is_found(seed: int, crs: str) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.repeat(KINDS, 12))
    old, new, old_kinds, new_kinds = [], [], [], []
    for place, kind in enumerate(kinds.tolist()):
        before, after = happened(kind, rng, 4e5 + 3 * SIDE * (place % 10), 5.6e6 + 3 * SIDE * (place // 10))
        old, new = old + before, new + after
        old_kinds += [kind.split()[0]] * len(before)
        new_kinds += [kind.split()[0]] * len(after)
    tracked = track(layer(old, prefix="f"), layer(new, prefix="f", truth=new_kinds).to_crs(crs))
    assert tracked.fields["event"].tolist() == new_kinds
    found = tracked.log.dropna(subset="old_id").drop_duplicates("old_id").set_index("old_id")["event"]
    assert found.reindex([f"f{i}" for i in range(len(old))]).tolist() == old_kinds
    # Kept ids are those of the right fields: their order did not change.
    kept = {kind: [f"f{i}" for i, k in enumerate(old_kinds) if k == kind] for kind in ("same", "moved")}
    for kind, ids in kept.items():
        assert tracked.fields["id"][tracked.fields["event"] == kind].tolist() == ids
    assert tracked.fields["id"].is_unique
    assert not set(tracked.fields["id"][~tracked.fields["event"].isin(["same", "moved"])]) & {
        f"f{i}" for i in range(len(old))
    }
    assert tracked.fields.crs == crs
    assert tracked.fields["new_id"].tolist() == [f"f{i}" for i in range(len(new))]


def test_parents_are_told() -> None:
    old = layer([box(0, 0, 100, 100), box(200, 0, 250, 100), box(250, 0, 300, 100)], prefix="a")
    new = layer([box(0, 0, 40, 100), box(40, 0, 100, 100), box(200, 0, 300, 100)])
    fields = track(old, new).fields
    assert fields["event"].tolist() == ["split", "split", "merged"]
    assert fields["parents"].tolist() == ["a0", "a0", "a1;a2"]
    assert fields["iou"].tolist() == [0.4, 0.6, 0.5]


def mosaic(rng: np.random.Generator, count: int, size: float = 1000) -> list[Any]:
    """A landscape without gaps, some of its fields missing and some drawn over others."""
    points = shapely.multipoints(rng.uniform(0, size, (count, 2)))
    cells = shapely.get_parts(shapely.voronoi_polygons(points, extend_to=box(0, 0, size, size)))
    cells = shapely.intersection(cells, box(0, 0, size, size))
    cells = cells[(shapely.area(cells) > 0) & (rng.random(len(cells)) < 0.85)]
    grown = rng.random(len(cells)) < 0.1
    cells[grown] = shapely.buffer(cells[grown], 20)
    return [translate(cell, 4e5, 5.6e6) for cell in cells]


def changed(rng: np.random.Generator, shapes: list[Any]) -> list[Any]:
    """What may happen to them in a year."""
    out: list[Any] = []
    for shape in shapes:
        what = rng.integers(6)
        left, bottom, right, top = shape.bounds
        x = rng.uniform(left, right)
        if what == 0:
            halves = [shape.intersection(box(left, bottom, x, top)), shape.intersection(box(x, bottom, right, top))]
            out += [half for half in halves if half.area > 0]
        elif what == 1 and out:
            out[-1] = out[-1].union(shape)
        elif what == 2:
            out.append(translate(shape, *rng.uniform(-30, 30, 2)))
        elif what == 3:
            out.append(scale(shape, *rng.uniform(0.6, 1.2, 2)))
        elif what == 4:
            out.append(shape)
    return out


def links(tracked: Tracked) -> set[tuple[str, Any, Any]]:
    table = tracked.log.astype(object).where(tracked.log.notna(), None)
    return set(zip(table["event"], table["old_id"], table["new_id"], strict=True))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), independent=st.booleans())
def test_backwards_splits_are_mergers(seed: int, independent: bool) -> None:
    rng = np.random.default_rng(seed)
    shapes = mosaic(rng, 40)
    a = layer(shapes, prefix="a")
    b = layer(mosaic(rng, 40) if independent else changed(rng, shapes), prefix="b")
    forth, back = track(a, b), track(b, a)
    assert {(SWAPPED.get(event, event), new, old) for event, old, new in links(forth)} == links(back)
    _check_definitions(forth, a, b)


def _check_definitions(tracked: Tracked, old: gpd.GeoDataFrame, new: gpd.GeoDataFrame) -> None:
    """What the documentation says of the events, measured anew."""
    log, limits = tracked.log, Thresholds()
    olds, news = old.set_index("id").geometry, new.set_index("id").geometry
    linked = log.dropna(subset=["old_id", "new_id"])
    assert set(log["old_id"].dropna()) == set(old["id"])
    assert set(log["new_id"].dropna()) == set(new["id"])
    shared = np.array(
        [olds[a].intersection(news[b]).area for a, b in zip(linked["old_id"], linked["new_id"], strict=True)]
    )
    of_old, of_new = shared / olds[linked["old_id"]].area.to_numpy(), shared / news[linked["new_id"]].area.to_numpy()
    np.testing.assert_allclose(linked["of_old"], of_old, atol=1e-3)
    np.testing.assert_allclose(linked["of_new"], of_new, atol=1e-3)
    for kind, one, several, share in (("split", "old_id", "new_id", of_old), ("merged", "new_id", "old_id", of_new)):
        rows = (linked["event"] == kind).to_numpy()
        groups = linked[rows].groupby(one)
        assert (groups.size() > 1).all()
        assert linked[rows][several].is_unique
        assert (pd.Series(share[rows]).groupby(linked[rows][one].to_numpy()).sum() > limits.cover - 1e-3).all()
        assert (np.maximum(of_old, of_new)[rows] > limits.inside - 1e-3).all()
        assert (np.minimum(of_old, of_new)[rows] > limits.part - 1e-3).all()
    for kind in ("same", "moved", "new", "gone"):
        rows = log[log["event"] == kind]
        assert rows["old_id"].dropna().is_unique
        assert rows["new_id"].dropna().is_unique
    assert (log["iou"][log["event"] == "same"] >= limits.same_iou - 1e-3).all()
    assert (log["iou"][log["event"] == "moved"] < limits.same_iou + 1e-3).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), named=st.booleans())
def test_order_of_rows_and_where_rings_begin_do_not_matter(seed: int, named: bool) -> None:
    rng = np.random.default_rng(seed)
    shapes = mosaic(rng, 30)
    # Symmetric places, doubled fields and equal halves: ties.
    shapes += [box(4.1e5, 5.6e6, 4.101e5, 5.6001e6)] * 2
    after = [*changed(rng, shapes[:-2]), box(4.1e5, 5.6e6, 4.1005e5, 5.6001e6), box(4.1005e5, 5.6e6, 4.101e5, 5.6001e6)]
    old, new = layer(shapes, prefix="a" if named else ""), layer(after, mark=[f"m{i}" for i in range(len(after))])
    first = track(old, new)
    again = track(*(_turned(frame.sample(frac=1, random_state=rng.integers(2**31)), rng) for frame in (old, new)))
    pd.testing.assert_frame_equal(first.log, again.log)
    columns = ["mark", "id", "event", "parents", "iou"]
    assert len(first.fields) == len(after)
    a, b = (pd.DataFrame(one.fields[columns]).sort_values("mark", ignore_index=True) for one in (first, again))
    pd.testing.assert_frame_equal(a, b)


def _turned(frame: gpd.GeoDataFrame, rng: np.random.Generator) -> gpd.GeoDataFrame:
    """The same outlines, begun elsewhere and run through the other way."""

    def turned(ring: Any) -> Any:
        xy = np.roll(np.array(ring.coords)[:-1], int(rng.integers(9)), axis=0)
        return xy[::-1] if rng.random() < 0.5 else xy

    def shape(polygon: Polygon) -> Polygon:
        return Polygon(turned(polygon.exterior), [turned(hole) for hole in polygon.interiors])

    whole = [
        shape(g) if g.geom_type == "Polygon" else shapely.multipolygons([shape(p) for p in reversed(g.geoms)])
        for g in frame.geometry
    ]
    return frame.set_geometry(gpd.GeoSeries(whole, index=frame.index, crs=frame.crs))


def test_ids_last_over_three_files(tmp_path: Path) -> None:
    a, b, c = box(0, 0, 100, 100), box(200, 0, 300, 100), box(400, 0, 500, 100)
    halves = [box(200, 0, 250, 100), box(250, 0, 300, 100)]
    for year, frame in {
        2021: layer([a, b, c], prefix="p"),
        2022: layer([translate(a, 4), *halves], prefix="p"),
        2023: layer([halves[1], translate(a, 8), c, halves[0]], prefix="p"),
        2024: layer([b, translate(a, 12), c], prefix="p"),
    }.items():
        frame.to_file(tmp_path / f"{year}.gpkg")
    names = {2021: tmp_path / "2021.gpkg"}
    for year in (2022, 2023, 2024):
        names[year] = tmp_path / f"tracked{year}.gpkg"
        result = run(names[year - 1], tmp_path / f"{year}.gpkg", "-o", names[year])
        assert result.exit_code == 0, result.output
    t22, t23, t24 = (gpd.read_file(names[year], layer="fields") for year in (2022, 2023, 2024))
    assert t22["id"][0] == t23["id"][1] == t24["id"][1] == "p0"
    assert t23["id"][3] == t22["id"][1]
    assert t23["id"][0] == t22["id"][2]
    assert t23["event"].tolist() == ["same", "same", "new", "same"]
    assert t24["event"].tolist() == ["merged", "same", "same"]
    # Fields that lie where one lay before are not that one: between them it was divided, or was not.
    assert t23["id"][2] != "p2"
    assert t24["id"][0] not in {"p1", *t22["id"]}
    assert t24["id"][2] == t23["id"][2]


def test_a_made_id_is_not_used_again() -> None:
    a, b, c = box(0, 0, 100, 100), box(200, 0, 300, 100), box(400, 0, 500, 100)
    first = track(layer([a], prefix="p"), layer([a, b]))
    second = track(first.fields[["id", "geometry"]], layer([a, c]))
    third = track(second.fields[["id", "geometry"]], layer([a, b]))
    assert [one.fields["event"][1] for one in (first, second, third)] == ["new"] * 3
    assert len({one.fields["id"][1] for one in (first, second, third)}) == 3


def test_two_neighbours_with_one_border_moved_stay_themselves() -> None:
    old = layer([box(0, 0, 300, 100), box(300, 0, 390, 100)], prefix="a")
    new = layer([box(0, 0, 360, 100), box(360, 0, 390, 100)])
    tracked = track(old, new)
    assert tracked.fields["event"].tolist() == ["same", "moved"]
    assert tracked.fields["id"].tolist() == ["a0", "a1"]


@pytest.mark.parametrize(
    ("limits", "shift", "event"),
    [({}, 33, "same"), ({}, 34, "moved"), ({"same_iou": 0.8}, 12, "moved"), ({"moved_iou": 0.4}, 49, "moved"),
     ({}, 51, "new"), ({"reach": 0.6}, 59, "moved"), ({"reach": 0.6}, 61, "new")],
)  # fmt: skip
def test_thresholds_are_where_they_say(limits: dict[str, float], shift: float, event: str) -> None:
    old = box(4e5, 5.6e6, 4e5 + 100, 5.6e6 + 100)
    new = track(layer([old], prefix="a"), layer([translate(old, shift)]), thresholds=Thresholds(**limits))
    assert new.fields["event"].tolist() == [event]


def test_areas_and_shifts_are_metres_on_the_ellipsoid() -> None:
    old = gpd.GeoSeries([box(178.9999, 70, 179.9999, 70.2)], crs="EPSG:4326")
    shape = translate(old[0], 0, 0.05)
    log = track(layer(list(old), prefix="a", crs="EPSG:4326"), layer([shape], crs="EPSG:4326")).log
    geod, segments = Geod(ellps="WGS84"), 0.001
    parts = (old[0], shape, old[0].intersection(shape))
    areas = [abs(geod.geometry_area_perimeter(shapely.segmentize(part, segments))[0]) for part in parts]
    found = log[["old_area_m2", "new_area_m2", "shared_m2"]].to_numpy()[0]
    np.testing.assert_allclose(found, areas, rtol=5e-3)  # straight edges of half a degree differ by so much
    assert log["shift_m"][0] == pytest.approx(geod.inv(179.5, 70.1, 179.5, 70.15)[2], rel=5e-3)
    assert (log["lon"][0], log["lat"][0]) == pytest.approx((179.5, 70.15), abs=5e-3)


def run(*words: Any) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])
