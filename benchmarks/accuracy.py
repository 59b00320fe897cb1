"""Accuracy of the bundled models on places they have not seen.

    python benchmarks/accuracy.py                          all models, all places, a markdown table
    python benchmarks/accuracy.py --model fields-s2 --json scores.json
    python benchmarks/accuracy.py --self-check             scores the truth against itself: every score is 1

Each place is run through `geoseg run`; its fields.gpkg gives the object scores and its mask.tif the pixel scores of the
field class. The data lies outside the project; places that are missing are skipped and named.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage

from geoseg.metrics import Evaluation, ObjectScores, PixelScores, evaluate
from geoseg.metrics.report import number
from geoseg.models.registry import bundled_names

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    dataset: str
    name: str
    model: str
    scenes: tuple[Path, ...]
    options: tuple[str, ...]
    """Of `geoseg run`."""
    truth: Callable[[], gpd.GeoDataFrame | Path]
    partial: bool = False
    """True where only some of the fields are labelled."""
    dates: bool = False
    """True where each file of `scenes` is a date: they are stacked into one file first, as `rio stack` does."""

    def without_nir(self) -> Place:
        """The same place with its near infrared bands ignored."""
        options = (option.replace("nir_2", "-").replace("nir", "-") for option in self.options)
        return replace(self, options=tuple(options))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    place: Place
    fields: Evaluation
    """fields.gpkg against the truth."""
    mask: Evaluation
    """mask.tif against the truth."""
    seconds: float


def places(data: Path) -> Iterator[Place]:
    """Every place whose data is there."""
    for dataset in (naip, estonia, magdeburg, coast, gaofen, estonia_both, magdeburg_both):
        found = [place for place in dataset(data) if all(scene.exists() for scene in place.scenes)]
        if not found:
            print(f"{dataset.__name__}: no data in {data.name}, skipped", file=sys.stderr)
        yield from found


def naip(data: Path) -> Iterator[Place]:
    """The aerial images that no bundled model is trained on."""
    from geoseg.training.aerial import KEPT_OUT

    folder = data / "naip-us-fields"

    def drawn(image: str) -> gpd.GeoDataFrame:
        fields = gpd.read_file(folder / "fields_epsg4326.geojson")
        return fields[fields["image"] == image]

    for image in KEPT_OUT:
        yield Place(
            dataset="naip-us-fields",
            name=image.removesuffix(".png"),
            model="fields-rgb",
            scenes=(folder / image,),
            options=("--crs", "EPSG:4326", "--bands", "red,green,blue"),
            truth=lambda image=image: drawn(image),  # type: ignore[misc]
        )


def estonia(data: Path) -> Iterator[Place]:
    folder = data / "s2-estonia"
    for date in ("20200531", "20200718"):
        yield Place(
            dataset="s2-estonia",
            name=date,
            model="fields-s2",
            scenes=(folder / f"T35VME_{date}_B8.tif",),
            options=("--bands", "red,green,blue,nir"),
            truth=lambda: fields_between_lines(folder / "p6llu_piirid.tif"),
        )


def magdeburg(data: Path) -> Iterator[Place]:
    folder = data / "s2-magdeburg"
    for date in ("20210515", "20210615"):
        yield Place(
            dataset="s2-magdeburg",
            name=date,
            model="fields-s2",
            scenes=(folder / f"stack_rgbn_{date}.tif",),
            options=("--bands", "red,green,blue,nir"),
            truth=lambda: hand_drawn(folder, "magdeburger_boerde"),
            partial=True,
        )


def coast(data: Path) -> Iterator[Place]:
    folder = data / "s2-coast-jade"
    yield Place(
        dataset="s2-coast-jade",
        name="20210715",
        model="fields-s2",
        scenes=tuple(folder / f"s2_l3a_20210715_{band}.tif" for band in ("red", "green", "blue", "nir")),
        options=("--bands", "red,green,blue,nir"),
        truth=lambda: hand_drawn(folder, "coastal_landscape"),
        partial=True,
    )


def gaofen(data: Path) -> Iterator[Place]:
    """Another sensor, another landscape, no CRS: far from what the model was made for."""
    folder = data / "gf2-fieldseg"
    yield Place(
        dataset="gf2-fieldseg",
        name="scene",
        model="fields-rgb",
        scenes=(folder / "scene_1536_u16.tif",),
        options=("--bands", "blue,green,red,nir", "--pixel-size-m", "1"),
        truth=lambda: folder / "label_extent.tif",  # fields do not touch in it: its components are the fields
    )


TWO_DATES = ("--bands", "red,green,blue,nir,red_2,green_2,blue_2,nir_2")


def estonia_both(data: Path) -> Iterator[Place]:
    """Both dates as one scene."""
    first, second = estonia(data)
    yield both(first, second)


def magdeburg_both(data: Path) -> Iterator[Place]:
    first, second = magdeburg(data)
    yield both(first, second)


def both(first: Place, second: Place) -> Place:
    scenes = (*first.scenes, *second.scenes)
    return replace(first, name="both dates", model="fields-s2-2dates", scenes=scenes, dates=True, options=TWO_DATES)


def hand_drawn(folder: Path, name: str) -> gpd.GeoDataFrame:
    """All fields drawn at a place, each once.

    The set `train10` is the first half of `train20`, and a field of `train20` may have been drawn again for
    `validation`.
    """
    parts = [gpd.read_file(folder / f"{name}_{part}.shp") for part in ("train20", "validation")]
    fields = pd.concat([part[["geometry"]] for part in parts], ignore_index=True)
    kept: list[Any] = []
    for shape in fields.geometry:
        if all(shape.intersection(other).area <= 0.5 * shape.union(other).area for other in kept):
            kept.append(shape)
    return gpd.GeoDataFrame(geometry=kept, crs=parts[0].crs)


def fields_between_lines(path: Path, *, parts: int = 4) -> gpd.GeoDataFrame:
    """Fields out of a raster of drawn outlines (1 = line): the regions that lines enclose.

    Lines are one pixel wide and follow each parcel's outline, so roads and ditches between parcels show as double
    lines. A region is a 4-connected component without line pixels. It is no field

    - if it reaches the raster's frame: the land outside all parcels;
    - if it is nowhere two pixels wide, or below 10 pixels: the inside of a double line, or what meeting lines cut off;
    - if its only neighbour is another field: a hole, such as a farmyard or a group of trees;
    - if it fills less than 40 % of its convex hull: land left over between parcels along a road.

    A line's pixels are cut into `parts` x `parts` and given to the nearest region, up to one pixel away, so that
    outlines run along the middle of the drawn lines rather than half a pixel inside.
    """
    with rasterio.open(path) as src:
        line, transform, crs = src.read(1) == 1, src.transform, src.crs
    regions, count = ndimage.label(~line)
    size = np.bincount(regions.ravel(), minlength=count + 1)
    frame = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    wide = np.unique(regions[ndimage.binary_opening(~line, np.ones((2, 2)))])
    candidates = np.setdiff1d(np.intersect1d(wide, np.flatnonzero(size >= 10)), np.append(frame, 0))
    around = neighbours(regions, count)
    holes = [i for i in candidates if around[i].sum() == 1 and not np.isin(np.flatnonzero(around[i]), frame).any()]

    fine = np.kron(regions, np.ones((parts, parts), regions.dtype))
    distance, nearest = ndimage.distance_transform_edt(fine == 0, return_indices=True)
    grown = np.where(distance <= parts, fine[tuple(nearest)], 0)
    grown[~np.isin(grown, np.setdiff1d(candidates, holes))] = 0
    outlines = list(shapes(grown.astype(np.int32), mask=grown > 0, transform=transform @ Affine.scale(1 / parts)))
    found = gpd.GeoDataFrame(
        {"region": [int(value) for _, value in outlines]},
        geometry=[shapely.geometry.shape(shape) for shape, _ in outlines],
        crs=crs,
    ).dissolve("region")
    compact = found.area / found.convex_hull.area >= 0.4
    return found[compact].reset_index()


def neighbours(regions: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    """(count + 1, count + 1), True where two regions have only one line between them (two pixels apart or less)."""
    near = np.zeros((count + 1, count + 1), dtype=bool)
    rows, cols = regions.shape
    for down in range(3):
        for right in range(-2, 3):
            here = regions[: rows - down, max(0, -right) : cols - max(0, right)]
            there = regions[down:, max(0, right) : cols + min(0, right)]
            near[here, there] = True
    near |= near.T
    near[0] = near[:, 0] = False
    np.fill_diagonal(near, False)
    return near


def stacked(files: Sequence[Path], path: Path) -> Path:
    """All bands of the files, which lie on one grid, in one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(files[0]) as first:
        profile = first.profile
    bands = []
    for file in files:
        with rasterio.open(file) as src:
            bands.append(src.read())
    with rasterio.open(path, "w", **{**profile, "count": sum(map(len, bands))}) as out:
        out.write(np.concatenate(bands))
    return path


def run(place: Place, out: Path) -> Outcome | None:
    """One place through `geoseg run`, and its scores; None, with the reason on standard error, where it fails."""
    scenes = (stacked(place.scenes, out.parent / f"{out.name}.tif"),) if place.dates else place.scenes
    command = [sys.executable, "-m", "geoseg", "run", *map(str, scenes), "-o", str(out)]
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, "--model", place.model, *place.options, "--quiet"], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        print(f"geoseg run failed on {place.dataset} {place.name}:\n{done.stderr.strip()}", file=sys.stderr)
        return None
    truth = place.truth()
    return Outcome(
        place=place,
        fields=evaluate(out / "fields.gpkg", truth, partial=place.partial),
        mask=evaluate(out / "mask.tif", truth, partial=place.partial),
        seconds=seconds,
    )


def self_check(place: Place) -> Outcome:
    """The truth as its own prediction."""
    truth = place.truth()
    scores = evaluate(truth, truth, partial=place.partial)
    return Outcome(place=place, fields=scores, mask=scores, seconds=0.0)


HEAD = (
    *("place", "model", "true", "found", "P", "R", "F1", "mean F1", "PQ", "SQ", "RQ"),
    *("pixel IoU", "pixel recall", "polygon IoU"),
)


def row(name: str, model: str, objects: ObjectScores, mask: PixelScores, polygons: PixelScores) -> list[str]:
    scores = (objects.precision, objects.recall, objects.f1, objects.mean_f1, objects.pq, objects.sq, objects.rq)
    pixels = (mask.field_scores.iou, mask.field_scores.recall, polygons.field_scores.iou)
    return [name, model, str(objects.true), str(objects.predicted), *map(number, scores), *map(number, pixels)]


def rows(outcomes: Sequence[Outcome]) -> Iterator[list[str]]:
    """A row for each place, and one for each dataset with several: the counts of its places together."""
    for dataset, group in groupby(outcomes, key=lambda outcome: outcome.place.dataset):
        several = list(group)
        labels = " (partial labels)" if several[0].place.partial else ""
        for one in several:
            name = f"{dataset} {one.place.name}{labels}"
            yield row(name, one.place.model, one.fields.objects, one.mask.pixels, one.fields.pixels)
        if len(several) > 1:
            objects, mask, polygons = pooled(several)
            yield row(f"**{dataset}**{labels}", several[0].place.model, objects, mask, polygons)


def pooled(outcomes: Sequence[Outcome]) -> tuple[ObjectScores, PixelScores, PixelScores]:
    first, *others = outcomes
    objects, mask, polygons = first.fields.objects, first.mask.pixels, first.fields.pixels
    for outcome in others:
        objects += outcome.fields.objects
        mask += outcome.mask.pixels
        polygons += outcome.fields.pixels
    return objects, mask, polygons


def markdown(outcomes: Sequence[Outcome]) -> str:
    lines = [list(HEAD), ["---", "---", *["---:"] * (len(HEAD) - 2)], *rows(outcomes)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def record(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "schema": "geoseg-accuracy-1",
        "places": [
            {
                "dataset": outcome.place.dataset,
                "name": outcome.place.name,
                "model": outcome.place.model,
                "options": list(outcome.place.options),
                "seconds": round(outcome.seconds, 1),
                "fields": outcome.fields.to_dict(),
                "mask": outcome.mask.to_dict(),
            }
            for outcome in outcomes
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the datasets")
    parser.add_argument("--model", default="all", choices=["all", *bundled_names()], help="a bundled model, or all")
    parser.add_argument("--dataset", help="only this one, e.g. s2-estonia")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores here, too")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the runs here")
    parser.add_argument("--self-check", action="store_true", help="score the truth against itself")
    parser.add_argument("--without-nir", action="store_true", help="hide the near infrared from fields-s2 and -2dates")
    parser.add_argument("extra", nargs="*", help="further options of geoseg run, after --, e.g. -- --overlap 256")
    args = parser.parse_args()

    chosen = [
        replace(place, options=(*place.options, *args.extra))
        for place in (each.without_nir() if args.without_nir else each for each in places(args.data))
        if args.model in ("all", place.model)
        and args.dataset in (None, place.dataset)
        and not (args.without_nir and place.model == "fields-rgb")
    ]
    if not chosen:
        raise SystemExit(f"no place for --model {args.model} and --dataset {args.dataset}")
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        tried = [
            self_check(place) if args.self_check else run(place, work / place.dataset / place.name) for place in chosen
        ]
    outcomes = [outcome for outcome in tried if outcome is not None]
    print(markdown(outcomes))
    if args.json:
        args.json.write_text(json.dumps(record(outcomes), indent=2) + "\n", encoding="utf-8")
    if args.self_check and any(not math.isclose(outcome.fields.objects.pq or 0, 1) for outcome in outcomes):
        raise SystemExit("a truth does not score 1 against itself: see the table")
    if len(outcomes) < len(chosen):
        raise SystemExit(f"{len(chosen) - len(outcomes)} of {len(chosen)} places failed: see above")


if __name__ == "__main__":
    main()
