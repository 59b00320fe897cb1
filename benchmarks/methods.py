"""Methods without labels beside the bundled models, on places that no bundled model is trained on.

    python benchmarks/methods.py                      all methods, all places, a markdown table
    python benchmarks/methods.py --only canny otsu    only these
    python benchmarks/methods.py --json scores.json --side 4096

Places, truth and scores are those of benchmarks/accuracy.py: object scores of fields.gpkg, pixel scores of mask.tif. Methods
run with their defaults. Mpx/s is measured on one scene of side x side pixels made of the sample tile (see
benchmarks/end_to_end.py), after a small one so that nothing is compiled: what the pass over the scene, tiles and linking take
together, from file to store.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accuracy import DATA, Outcome, Place, estonia, magdeburg, naip, pooled
from end_to_end import make_scene

import geoseg
from geoseg.errors import GeosegError
from geoseg.metrics import evaluate
from geoseg.metrics.report import number
from geoseg.models.methods import METHODS
from geoseg.outputs import identify
from geoseg.plan import prepare
from geoseg.prediction import link_into_store, predict_into_store
from geoseg.recipes import RunOptions
from geoseg.runtime.events import Events
from geoseg.runtime.runners import Threads
from geoseg.runtime.workspace import Workspace

HEAD = ("place", "model", "pixel IoU", "object P", "object R", "object F1@.5", "PQ", "true", "found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Of one model on the large scene, in Mpx/s."""

    model: str
    scene: float
    """The pass over the scene before the first tile, with opening it; 0 where the model makes none."""
    tiles: float
    """Tiles and linking."""
    whole: float


def models_for(place: Place) -> Iterator[str]:
    """All methods, and the bundled model made for the place."""
    yield from METHODS
    yield place.model


def scored(data: Path, work: Path, only: list[str]) -> Iterator[tuple[str, str, list[Outcome]]]:
    """Dataset, model and outcomes."""
    for dataset in (estonia, magdeburg, naip):
        places = [place for place in dataset(data) if all(scene.exists() for scene in place.scenes)]
        for model in models_for(places[0]) if places else ():
            if only and model not in only:
                continue
            outcomes = []
            for place in places:
                out = work / "run"
                shutil.rmtree(out, ignore_errors=True)
                try:
                    outcomes.append(run_here(replace(place, model=model), out))
                except GeosegError as error:
                    print(f"{model} failed on {place.dataset} {place.name}: {error}", file=sys.stderr)
            if outcomes:
                yield places[0].dataset, model, outcomes


def run_here(place: Place, out: Path) -> Outcome:
    """One place, in this process: imports would take longer than most methods."""
    names = (name.removeprefix("--").replace("-", "_") for name in place.options[::2])
    options = dict(zip(names, place.options[1::2], strict=True))
    begun = time.perf_counter()
    geoseg.run(*place.scenes, out=out, model=place.model, **options)
    seconds = time.perf_counter() - begun
    truth = place.truth()
    fields, mask = (evaluate(out / name, truth, partial=place.partial) for name in ("fields.gpkg", "mask.tif"))
    return Outcome(place=place, fields=fields, mask=mask, seconds=seconds)


def row(dataset: str, model: str, outcomes: list[Outcome]) -> list[str]:
    objects, mask, _ = pooled(outcomes)
    partial = " (partial labels)" if outcomes[0].place.partial else ""
    scores = (mask.field_scores.iou, objects.precision, objects.recall, objects.f1, objects.pq)
    return [dataset + partial, model, *map(number, scores), str(objects.true), str(objects.predicted)]


def speed(model: str, scene: Path, small: Path, work: Path, size: int) -> Speed:
    """One run from file to store, after one on a small scene."""
    from geoseg.runtime.predict import release_segmenters

    times: list[tuple[float, float]] = []
    for path in (small, scene):
        folder = work / "store"
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.perf_counter()
        plan = prepare([path], RunOptions(model=model, resample=False, workers=2))
        settled = time.perf_counter()
        identity, workspace, runner = identify(plan), Workspace(folder), Threads(workers=2)
        workspace.begin(identity, overwrite=True, restart=True)
        store = predict_into_store(plan, workspace, identity, runner, Events())
        link_into_store(plan, store, workspace, runner, Events())
        times.append((settled - begun, time.perf_counter() - settled))
        release_segmenters()
    first, tiles = times[-1]
    pixels = size * size / 1e6
    return Speed(model=model, scene=pixels / first, tiles=pixels / tiles, whole=pixels / (first + tiles))


def table(head: tuple[str, ...], rows: list[list[str]], *, words: int) -> str:
    lines = [list(head), ["---"] * words + ["---:"] * (len(head) - words), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the datasets")
    parser.add_argument("--only", nargs="*", default=[], help="names of methods and models")
    parser.add_argument(
        "--side", type=int, default=4096, help="of the scene that speed is measured on; 0 to leave it out"
    )
    parser.add_argument("--no-scores", action="store_true", help="measure speed only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores here, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        rows = []
        for dataset, model, outcomes in () if args.no_scores else scored(args.data, work, args.only):
            rows.append(row(dataset, model, outcomes))
            print(" ".join(rows[-1]), flush=True)
        scene, small = work / "scene.tif", work / "small.tif"
        speeds: list[Speed] = []
        if args.side:
            make_scene(scene, args.side)
            make_scene(small, 1100)
        for model in (*METHODS, "fields-s2") if args.side else ():
            if not args.only or model in args.only:
                speeds.append(speed(model, scene, small, work, args.side))
                print(speeds[-1], flush=True)
    print("\n" + table(HEAD, rows, words=2))
    fast = [[one.model, *(f"{value:.1f}" for value in (one.scene, one.tiles, one.whole))] for one in speeds]
    print("\n" + table(("model", "before the first tile", "tiles and linking", "together"), fast, words=1))
    if args.json:
        told: dict[str, Any] = {"scores": [dict(zip(HEAD, one, strict=True)) for one in rows]}
        told["speed"] = [{name: getattr(one, name) for name in Speed.__slots__} for one in speeds]
        args.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
