"""Tables of scenes: CSV, GeoParquet, STAC, lists and patterns; whose paths and options they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import shapely

from geoseg.batching import Batch, load_batch
from geoseg.batching.settings import stamps_of
from geoseg.errors import InputError
from geoseg.testing.products import make_safe


def batch(folder: Path, scenes: Any, **entries: Any) -> Batch:
    path = folder / "batch.yaml"
    path.write_text(json.dumps({"scenes": scenes, **entries}))
    return load_batch(path)


def files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_csv_gives_files_ids_and_options_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/s.csv").write_text(
        "\ufeffscene,id,datetime,bands,min_area_m2,smooth,cloud\n"
        'a/one.tif,,2026-05-01T10:00:00Z,"red,green,blue,nir",,,3\n'
        "\n"
        '"B04.jp2; B03.jp2;/data/B02.jp2",two,,,500,true,4\n',
        encoding="utf-8",
    )
    made = batch(tmp_path, "tables/s.csv", options={"min_area_m2": 900, "aoi": "farm.geojson"}, out="../o")
    one, two = made.scenes
    assert (one.id, one.files) == ("one", (str(tmp_path / "tables/a/one.tif"),))
    assert (one.options.bands, one.options.min_area_m2) == (("red", "green", "blue", "nir"), 900)
    assert one.time == "2026-05-01T10:00:00Z"
    assert two.files == (str(tmp_path / "tables/B04.jp2"), str(tmp_path / "tables/B03.jp2"), "/data/B02.jp2")
    assert (two.id, two.options.min_area_m2, two.options.smooth) == ("two", 500, True)
    assert two.options.aoi == str(tmp_path / "farm.geojson"), "relative to the file that names it"
    assert made.out == tmp_path / "../o"
    assert made.notes == ("cloud of the table is no option of a run and left aside",)


def test_a_csv_of_a_spreadsheet_with_semicolons(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text('id;scene\na;x.tif\nb;"y.tif;z.tif"\n')
    assert [len(scene.files) for scene in batch(tmp_path, "s.csv").scenes] == [1, 2]


def test_a_geoparquet_is_read_as_a_csv_is(tmp_path: Path) -> None:
    values = {
        "scene": ["x.tif", "y.tif"],
        "id": ["1", "2"],
        "min_area_m2": [10.0, None],
        "datetime": [datetime(2026, 5, 1, tzinfo=UTC)] * 2,
    }
    table = gpd.GeoDataFrame(values, geometry=[shapely.box(0, 0, 1, 1)] * 2, crs="EPSG:4326")
    table.to_parquet(tmp_path / "s.parquet")
    one, two = batch(tmp_path, "s.parquet", options={"min_area_m2": 5}).scenes
    assert (one.id, one.files, one.options.min_area_m2) == ("1", (str(tmp_path / "x.tif"),), 10)
    assert two.options.min_area_m2 == 5, "an empty cell is none"
    assert one.time == "2026-05-01T00:00:00+00:00"


def test_patterns_name_scenes_by_what_they_leave_open(tmp_path: Path) -> None:
    files(tmp_path, "in/2025/a/image.tif", "in/2025/b/image.tif", "in/2026/a/image.tif", "in/2026/a/.hidden.tif")
    assert [scene.id for scene in batch(tmp_path, "in/2025/*/*.tif").scenes] == ["a_image", "b_image"]
    assert [scene.id for scene in batch(tmp_path, ["in/**/image.tif"]).scenes] == [
        "2025_a_image", "2025_b_image", "2026_a_image",
    ]  # fmt: skip
    (only,) = batch(tmp_path, str(tmp_path / "in/2026/*/*.tif")).scenes
    assert only.files == (str(tmp_path / "in/2026/a/image.tif"),)


def test_recipe_options_and_a_scenes_own_win_in_this_order(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/mine.yaml").write_text(
        "description: x\naoi: farm.geojson\nmin_area_m2: 1\nsimplify_m: 1\nsmooth: true\n"
    )
    (scene,) = batch(
        tmp_path,
        [{"scene": "a.tif", "min_area_m2": 3}],
        recipe="r/mine.yaml",
        options={"min_area_m2": 2, "simplify_m": 2},
    ).scenes
    assert (scene.options.min_area_m2, scene.options.simplify_m, scene.options.smooth) == (3, 2, True)
    assert scene.options.aoi == str(tmp_path / "r/farm.geojson")
    assert batch(tmp_path, ["a.tif"], recipe="sentinel2_fields").options.model == "fields-s2"


@pytest.mark.parametrize(
    ("scenes", "says"),
    [
        (["a/x.tif", "b/X.tif"], r"would go into 'X', as those of scenes, entry 1; give each an `id`"),
        ([{"scene": "x.tif", "id": "../x"}], "cannot be the name of a folder"),
        ([{"scene": "x.tif", "min_area": 1}], r"did you mean 'min_area_m2'\?"),
        ([{"scene": "x.tif", "min_area_m2": -1}], "entry 1: option '--min-area-m2'"),
        ([{"id": "x"}], "no `scene` is given"),
        (["x.tif; "], "names an empty path"),
        ([], "is empty"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused(scenes: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        batch(tmp_path, scenes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,id\nx.tif,1\n", "no column `scene`"),
        ("scene,id,id\nx.tif,1,2\n", "column 'id' twice"),
        ("scene,id\nx.tif,1,2\n", "line 2: 3 cells under 2 columns"),
        ('scene\n"x.tif\n', "is no CSV"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        batch(tmp_path, "s.csv")


def item(name: str, assets: dict[str, pystac.Asset]) -> pystac.Item:
    made = pystac.Item(
        name, shapely.geometry.mapping(shapely.box(1, 2, 3, 4)), [1, 2, 3, 4], datetime(2026, 5, 1, tzinfo=UTC), {}
    )
    for key, asset in assets.items():
        made.add_asset(key, asset)
    return made


def image(href: str, *bands: str, **more: Any) -> pystac.Asset:
    told = {"bands": [{"name": f"B{i}", "eo:common_name": band} for i, band in enumerate(bands)]} if bands else {}
    return pystac.Asset(href, media_type=pystac.MediaType.COG, roles=more.get("roles", ["data"]), extra_fields=told)


def test_stac_items_are_scenes_by_themselves(tmp_path: Path) -> None:
    split = item("split", {
        "B08": image("split/n.tif"), "green-band": image("split/g.tif", "green"), "B04": image("split/r.tif"),
        "B02": image("split/b.tif"), "B11": image("split/swir.tif"), "visual": image("split/tci.tif", roles=["visual"]),
    })  # fmt: skip
    whole = item("whole", {"image": image("whole/x.tif", "blue", "green", "red", "nir"), "B04": image("whole/r.tif")})
    pystac.ItemCollection([split, whole]).save_object(str(tmp_path / "items.json"))
    first, second = batch(tmp_path, "items.json", options={"model": "fields-s2"}).scenes
    assert first.files == (f"{tmp_path / 'items.json'}#split",)
    assert second.files == (f"{tmp_path / 'items.json'}#whole",)
    assert first.options.bands is None
    assert first.time == "2026-05-01T00:00:00+00:00"
    (named,) = batch(tmp_path, ["items.json"], assets=["B04"]).scenes[:1]
    assert named.files == (str(tmp_path / "split/r.tif"),)
    with pytest.raises(InputError, match="item split has no asset 'B05'; it has B08"):
        batch(tmp_path, "items.json", assets=["B05"])


def test_a_stac_collection_on_disk(tmp_path: Path) -> None:
    extent = pystac.Extent(
        pystac.SpatialExtent([[1, 2, 3, 4]]), pystac.TemporalExtent([[datetime(2026, 5, 1, tzinfo=UTC), None]])
    )
    collection = pystac.Collection("c", "of two", extent)
    collection.add_items([item(name, {"data": image(f"../../../tiles/{name}.tif", "red", "nir")}) for name in "ab"])
    collection.normalize_and_save(str(tmp_path / "stac/c"), pystac.CatalogType.SELF_CONTAINED)
    one, two = batch(tmp_path, "stac/c/collection.json", options={"model": "otsu:index=ndvi"}).scenes
    assert [scene.files for scene in (one, two)] == [(str(tmp_path / f"stac/c/{name}/{name}.json"),) for name in "ab"]
    (tmp_path / "no.json").write_text('{"type": "Topology"}')
    with pytest.raises(InputError, match="is no STAC"):
        batch(tmp_path, "no.json")


def test_a_product_is_changed_when_any_of_its_files_is(tmp_path: Path) -> None:
    root = make_safe(tmp_path, {"B04": np.full((24, 24), 0.3)})
    for named in (root.name, f"{root.name}/MTD_MSIL2A.xml"):
        (one,) = batch(tmp_path, [named]).scenes
        before = stamps_of(one)
        assert before == stamps_of(one)
        image = next(root.rglob("*.jp2"))
        image.write_bytes(image.read_bytes() + b"\0")
        assert stamps_of(one) != before
