"""`geoseg track` at its borders: files, columns, ids, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import shapely
from shapely import Polygon, box
from shapely.affinity import translate
from test_track import UTM, layer, run

from geoseg.errors import GeosegError, InputError
from geoseg.export import exporter_for
from geoseg.metrics.files import read_polygons
from geoseg.tracking import EVENTS, Thresholds, track


def test_all_columns_of_new_are_kept(tmp_path: Path) -> None:
    shapes = [box(0, 0, 100, 100), box(200, 0, 300, 100)]
    layer(shapes, prefix="a").to_file(tmp_path / "old.gpkg")
    own = {"crop": ["rye", None], "Event": ["x", "y"], "new_id": [1, 2]}
    new = layer([translate(shapes[0], 2), box(500, 0, 600, 100)], prefix="b", **own)
    new.to_file(tmp_path / "new.gpkg")
    for suffix in ("gpkg", "parquet", "fgb", "geojson"):
        out = tmp_path / f"out.{suffix}"
        result = run(tmp_path / "old.gpkg", tmp_path / "new.gpkg", "-o", out, "--log", tmp_path / f"{suffix}.csv")
        assert result.exit_code == 0, result.output
        fields = read_polygons(out)[0].sort_values("new_Event")
        assert [c for c in fields.columns if c not in ("geometry", "bbox")] == [
            "id", "event", "parents", "iou", "new_id", "crop", "new_Event", "new_new_id",
        ]  # fmt: skip
        assert fields["new_id"].tolist() == ["b0", "b1"]
        assert fields["id"].iloc[0] == "a0"
        assert fields["event"].tolist() == ["same", "new"]
        assert fields["crop"].iloc[0] == "rye"
    assert (tmp_path / "gpkg.csv").read_bytes() == (tmp_path / "fgb.csv").read_bytes()
    log = pd.read_csv(tmp_path / "gpkg.csv")
    assert log["event"].tolist() == ["same", "new", "gone"]
    assert log["old_id"].tolist()[::2] == ["a0", "a1"]
    assert "1 of 2 fields keep their id" in result.stdout


def test_equal_layers_give_equal_bytes_and_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    layer([box(0, 0, 100, 100)], prefix="a").to_file(tmp_path / "old.gpkg")
    words = (tmp_path / "old.gpkg", tmp_path / "old.gpkg", "-q", "-o")
    out, log = tmp_path / "out.gpkg", tmp_path / "out.log.csv"
    assert run(*words, out).output == ""
    before = out.read_bytes(), log.read_bytes()
    for gone in (out, log):
        other = {out: log, log: out}[gone]
        gone.unlink()
        assert "exists already" in str(run(*words, out).exception)
        assert not gone.exists()
        assert run(*words, out, "--overwrite").exit_code == 0
        assert (out.read_bytes(), log.read_bytes()) == before, other
    assert "would be replaced" in str(run(*words, tmp_path / "old.gpkg", "--overwrite").exception)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_where_fields_cannot_be_written_there_is_no_log(tmp_path: Path) -> None:
    for name in ("old", "new"):
        exporter_for("fgb").write(layer([box(0, 0, 100, 100)], prefix="a", crs=None), tmp_path / f"{name}.fgb")
    result = run(tmp_path / "old.fgb", tmp_path / "new.fgb", "-o", tmp_path / "out.geojson")
    assert isinstance(result.exception, GeosegError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.fgb", "old.fgb"]


def test_without_a_crs_pixels_are_compared() -> None:
    tracked = track(layer([box(0, -10, 10, 0)], prefix="a", crs=None), layer([box(0, -10, 9, 0)], crs=None))
    assert tracked.log[["event", "shared_px2", "iou"]].to_numpy().tolist() == [["same", 90.0, 0.9]]


def test_what_cannot_be_compared_is_refused() -> None:
    one = layer([box(0, 0, 100, 100)], prefix="a")
    nowhere = one.set_crs(None, allow_override=True)
    with pytest.raises(InputError, match=r"old has no CRS, but new is in WGS 84 / UTM zone 33N; .* --crs"):
        track(nowhere, one)
    assert track(nowhere, one, crs=UTM).fields["event"].tolist() == ["same"]
    with pytest.raises(InputError, match="both layers do"):
        track(one, one, crs=UTM)
    with pytest.raises(InputError, match="they do not meet"):
        track(one, one.translate(1e5).to_frame("geometry"))
    with pytest.raises(InputError, match="1 ids of old occur more than once"):
        track(layer([box(0, 0, 9, 9), box(9, 0, 18, 9)], id=["x", "x"]), one)
    with pytest.raises(InputError, match="1 of 2 fields of old have no id"):
        track(layer([box(0, 0, 9, 9), box(9, 0, 18, 9)], id=["x", None]), one)
    with pytest.raises(InputError, match="old has no column 'name' with ids; its columns: id"):
        track(one, one, id_column="name")
    with pytest.raises(InputError, match="old holds Point geometries"):
        track(layer([shapely.Point(0, 0)], prefix="a"), one)
    with pytest.raises(InputError, match="part is 0, expected a share above 0, up to 1"):
        Thresholds(part=0)
    with pytest.raises(InputError, match=r"moved_iou 0\.2 is above same_iou 0\.1"):
        Thresholds(same_iou=0.1)


def test_broken_outlines_are_repaired_to_be_compared_and_written_as_they_are() -> None:
    bow = Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    tracked = track(layer([bow], prefix="a"), layer([bow, Polygon(), box(0, 0, 0, 5)], mark=[1, 2, 3]))
    assert tracked.fields["event"].tolist() == ["same"]
    assert tracked.fields.geometry[0].equals_exact(bow)
    assert tracked.notes == (
        "old: 1 invalid polygons were repaired to be compared; they are written as they are",
        "new: 2 of 3 geometries are empty or have no area and were left out",
        "new: 1 invalid polygons were repaired to be compared; they are written as they are",
    )


def test_ids_are_numbers_as_people_write_them() -> None:
    shapes = [box(0, 0, 9, 9), box(20, 0, 29, 9)]
    assert track(layer(shapes, id=[7.0, 8.0]), layer(shapes)).fields["id"].tolist() == ["7", "8"]
    assert track(layer(shapes, code=[7, 8]), layer(shapes), id_column="code").fields["id"].tolist() == ["7", "8"]
    made = track(layer(shapes), layer(shapes))
    assert made.fields["id"].tolist() == track(layer(shapes[::-1]), layer(shapes)).fields["id"].tolist()
    assert made.notes == ("old has no column id: its ids are made from its outlines; name another column with --id",)


def test_empty_layers() -> None:
    one, none = layer([box(0, 0, 100, 100)], prefix="a"), layer([])
    assert track(none.assign(id=[]), one).fields["event"].tolist() == ["new"]
    assert track(one, none).log["event"].tolist() == ["gone"]
    assert track(none.assign(id=[]), none).log.empty


def test_events_have_one_order() -> None:
    assert list(track(layer([box(0, 0, 1, 1)], prefix="a"), layer([box(0, 0, 1, 1)])).counts) == list(EVENTS)
