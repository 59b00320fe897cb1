"""What choosing is worth: squares to label by `geoseg suggest` against squares at random, at equal count.

    python benchmarks/suggest.py --work DIR                three seeds, a markdown table; the same command goes on from DIR
    python benchmarks/suggest.py --work DIR --seeds 1 --epochs 1 --steps 2 --first 2 --more 2      does it work at all?

The pool are 18 NAIP images at 2 m, cut into squares of `--side` pixels. Each seed draws `--first` squares at random and trains
on them, from fields-s2: that model looks at the pool. Then `--more` squares are added, and a model is trained on all of
them, again from fields-s2:

- random       drawn at random (as the first ones: a longer draw)
- suggest      as `geoseg suggest` ranks them with its defaults, the first ones excluded
- uncertain    the same with --diversity 0
- diverse      the same with --diversity 1

The hand-drawn fields stand for the person who labels: what lies in the squares is known, all else is not. The rest is equal:
steps, chips, rates, seeds. One image validates all of them, and the last epoch is kept, so that nothing is chosen by it. Scored
on the four images that no bundled model is trained on, through the whole of `geoseg run`.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from geoseg.readers import open_scene, resampled
from geoseg.recipes import RunOptions
from geoseg.suggestion import Wanted, suggest
from geoseg.suggestion.survey import Lattice
from geoseg.teaching import train
from geoseg.training.aerial import KEPT_OUT
from geoseg.training.recipe import TrainRecipe, checked_recipe

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "naip-us-fields"
LABELS, CRS, BANDS, PIXEL_M = "fields_epsg4326.geojson", "EPSG:4326", "red,green,blue", 2.0

VALIDATION = "41.649735--89.592927.png"
"""An image from the middle of the region: validated on, never learnt from."""

DIVERSITY = {"suggest": 0.5, "uncertain": 0.0, "diverse": 1.0}


def pool(data: Path) -> list[str]:
    """The images to choose squares from."""
    return sorted(path.name for path in data.glob("*.png") if path.name not in (*KEPT_OUT, VALIDATION))


def all_squares(data: Path, side: int) -> gpd.GeoDataFrame:
    """Every square of the pool, as geoseg suggest lays them."""
    import shapely

    rows = []
    for name in pool(data):
        scene = resampled(open_scene([str(data / name)], bands=BANDS.split(","), crs=CRS), PIXEL_M).scene
        lattice = Lattice(shape=scene.shape, side=side)
        for row in range(lattice.count[0]):
            for col in range(lattice.count[1]):
                window = lattice.window(row, col)
                (left, top), (right, bottom) = (
                    scene.transform @ (x, y) for x, y in ((window.col, window.row), (window.col_stop, window.row_stop))
                )
                rows.append({"scene": name, "geometry": shapely.box(left, bottom, right, top)})
    return gpd.GeoDataFrame(rows, crs=CRS)


def at_random(squares: gpd.GeoDataFrame, *, seed: int, count: int) -> gpd.GeoDataFrame:
    """The first of a shuffled list: a longer draw begins with the shorter one."""
    order = np.random.default_rng(seed).permutation(len(squares))
    return squares.iloc[order[:count]].reset_index(drop=True)


def recipe(tiles: Path, *, name: str, seed: int, scored: bool, args: argparse.Namespace) -> TrainRecipe:
    """A training on what is drawn inside the squares of a file."""
    chosen, held = gpd.read_file(tiles), KEPT_OUT if scored else ()

    def scene(image: str, **more: Any) -> dict[str, Any]:
        where = {"labels": LABELS, "where": f"image = '{image}'", "crs": CRS, "bands": BANDS}
        return {"image": image, **where, **more}

    learnt = []
    for image in sorted(set(chosen.scene)):
        part = tiles.with_name(f"{tiles.stem}-{image}.geojson")
        chosen[chosen.scene == image].to_file(part)
        learnt.append(scene(image, labelled_area=str(part.resolve())))
    return checked_recipe(
        {
            "name": name,
            "from": "fields-s2",
            "bands": BANDS.split(","),
            "scenes": [*learnt, scene(VALIDATION, validation=True), *(scene(one, holdout=True) for one in held)],
            "resolution_m": PIXEL_M,
            "patch": 128,
            "run_patch": 512,
            "min_area_m2": 1500,
            "schedule": {
                "epochs": args.epochs, "steps": args.steps, "batch": 8, "learning_rate": 2e-3, "keep": "last",
                "threads": args.threads,
            },
            "seed": seed,
        }
    )  # fmt: skip


def taught(
    tiles: gpd.GeoDataFrame, out: Path, *, seed: int, scored: bool = True, args: argparse.Namespace
) -> dict[str, Any]:
    """Trains on squares, or reads what is there; the record of the training."""
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_name(f"{out.name}.geojson")
    tiles[["scene", "geometry"]].to_file(file)
    made = train(recipe(file, name=out.name, seed=seed, scored=scored, args=args), out=out, folder=args.data)
    return dict(made.record)


def one_seed(seed: int, squares: gpd.GeoDataFrame, args: argparse.Namespace) -> list[dict[str, Any]]:
    folder = args.work / f"seed-{seed}"
    first = at_random(squares, seed=seed, count=args.first)
    taught(first, folder / "first", seed=seed, scored=False, args=args)
    scores = []
    for arm in args.arms.split(","):
        begun, used = time.perf_counter(), cpu_seconds()
        if arm == "random":
            tiles = at_random(squares, seed=seed, count=args.first + args.more)
        else:
            file = folder / f"{arm}.gpkg"
            if not file.exists():
                suggest(
                    *(args.data / name for name in pool(args.data)), out=file,
                    wanted=Wanted(count=args.more, side=args.side, diversity=DIVERSITY[arm]),
                    options=RunOptions(model=str(folder / "first"), bands=tuple(BANDS.split(",")), crs=CRS, resample=True),
                    exclude=[folder / "first.geojson"],
                )  # fmt: skip
            tiles = gpd.GeoDataFrame(pd.concat([first, gpd.read_file(file, layer="tiles")], ignore_index=True), crs=CRS)
        record = taught(tiles, folder / arm, seed=seed, args=args)
        held = record["holdout"]
        true, found, matched = (sum(one[name] for one in held) for name in ("true", "found", "matched"))
        scores.append(
            {
                "arm": arm,
                "seed": seed,
                "images": len(set(tiles.scene)),
                "squares": len(tiles),
                "f1": 2 * matched / (true + found) if true + found else 0.0,
                "pixel_iou": mean(one["pixel_iou"] for one in held),
                "cpu_seconds": cpu_seconds() - used,
            }
        )
        print(
            f"seed {seed}, {arm}: F1 {scores[-1]['f1']:.3f}, pixel IoU {scores[-1]['pixel_iou']:.3f}, "
            f"{time.perf_counter() - begun:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    return scores


def cpu_seconds() -> float:
    """Processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def markdown(scores: list[dict[str, Any]]) -> str:
    lines = [
        "| squares by | seed | squares | of images | object F1@.5 (4 images together) | pixel IoU (mean of 4) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    arms = list(dict.fromkeys(one["arm"] for one in scores))
    for arm in arms:
        own = [one for one in scores if one["arm"] == arm]
        lines += [
            f"| {arm} | {one['seed']} | {one['squares']} | {one['images']} | {one['f1']:.3f} | {one['pixel_iou']:.3f} |"
            for one in own
        ]
        f1, iou = ([one[name] for one in own] for name in ("f1", "pixel_iou"))
        lines.append(f"| **{arm}** | mean | | | {_spread(f1)} | {_spread(iou)} |")
    base = {one["seed"]: one for one in scores if one["arm"] == "random"}
    for arm in arms:
        gaps = [one["f1"] - base[one["seed"]]["f1"] for one in scores if one["arm"] == arm and one["seed"] in base]
        if arm != "random" and gaps:
            better = sum(gap > 0 for gap in gaps)
            lines.append(f"\n{arm} - random, F1: {_spread(gaps)}; better in {better} of {len(gaps)} seeds")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" (sd {stdev(values):.3f})" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="models and squares; resumed from")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the NAIP images and their fields")
    parser.add_argument("--arms", default="random,suggest", help=f"of random,{','.join(DIVERSITY)}, with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=4, help="squares that are drawn at random in all arms")
    parser.add_argument("--more", type=int, default=8, help="squares that are added")
    parser.add_argument(
        "--side", type=int, default=128, help="of a square in pixels of 2 m; 256 are a quarter of an image"
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="of 8 chips of 128 pixels, an epoch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores here, too")
    args = parser.parse_args()
    if not args.data.is_dir():
        raise SystemExit(f"no data in {args.data}")
    unknown = [arm for arm in args.arms.split(",") if arm not in ("random", *DIVERSITY)]
    if unknown:
        raise SystemExit(f"no arm {unknown[0]!r}; known: random, {', '.join(DIVERSITY)}")
    squares = all_squares(args.data, args.side)
    print(f"{len(squares)} squares of {args.side} px in {len(pool(args.data))} images", file=sys.stderr, flush=True)
    scores = [score for seed in range(args.seeds) for score in one_seed(seed, squares, args)]
    print(markdown(scores))
    print(f"\n{cpu_seconds() / 60:.1f} minutes of processor time in this call")
    if args.json:
        args.json.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
