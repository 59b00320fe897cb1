"""What generated scenes are worth as extra training data: three aerial images to learn from, four others to score on.

    python benchmarks/generated.py --work DIR                       every start, every kind, three seeds
    python benchmarks/generated.py --work DIR --seeds 1 --starts scratch --kinds none,gan --json scores.json

Starts: `scratch` (random weights) and `fine-tuned` (from fields-s2, which has seen no aerial image). Kinds of generated
scenes: `none`, `procedural`, and `gan` (a renderer that is trained here, on chips of the same three images alone). Images,
steps, rates, augmentation and seeds are those of benchmarks/finetune.py, and the same for all kinds: where scenes are
generated, they take the place of --share of the chips. The four images are held out, and nothing is chosen by them.
The same command goes on from what is in DIR. The data lies outside the project.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

from finetune import DATA, cpu_seconds, recipe

from geoseg.teaching import train
from geoseg.training.recipe import TrainRecipe, checked_recipe
from geoseg.training.rendering import train_renderer

STYLES = ("midwest", "mixed")
"""Of the layouts; chosen by what the three images show, and not varied."""


def wanted(kind: str, start: str, *, seed: int, args: argparse.Namespace, renderer: Path | None) -> TrainRecipe:
    values = recipe(start, seed=seed, epochs=args.epochs).model_dump(mode="python", by_alias=True, exclude_none=True)
    values["name"] = f"naip-{start}-{kind}"
    values["schedule"] |= {"threads": args.threads}
    values["renderer"] |= {"steps": args.render_steps}
    if kind != "none":
        values["generated"] = {"kind": kind, "scenes": args.scenes, "share": args.share, "styles": STYLES}
    if kind == "gan":
        values["generated"] |= {"gan": str(renderer)}
    return checked_recipe(values)


def score(made: TrainRecipe, out: Path, *, data: Path) -> dict[str, Any]:
    begun, used = time.perf_counter(), cpu_seconds()
    record = train(made, out=out, folder=data).record
    held = record["holdout"]
    true, found, matched = (sum(one[name] for one in held) for name in ("true", "found", "matched"))
    return {
        "f1": 2 * matched / (true + found),
        "pixel_iou": mean(one["pixel_iou"] for one in held),
        "val_miou": record["kept"]["val_miou"],
        "holdout": held,
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": cpu_seconds() - used,
    }


def markdown(scores: list[dict[str, Any]]) -> str:
    lines = [
        "| start | generated | object F1@.5, each seed | mean | gain | pixel IoU, each seed | mean | gain |",
        "|---|---|---|---:|---:|---|---:|---:|",
    ]
    for start in dict.fromkeys(one["start"] for one in scores):
        base: dict[str, float] = {}
        for kind in dict.fromkeys(one["kind"] for one in scores):
            own = [one for one in scores if (one["start"], one["kind"]) == (start, kind)]
            cells = []
            for name in ("f1", "pixel_iou"):
                middle = mean(one[name] for one in own)
                if kind == "none":
                    base[name] = middle
                gain = "" if kind == "none" or name not in base else f"{middle - base[name]:+.3f}"
                cells += [", ".join(f"{one[name]:.3f}" for one in own), f"{middle:.3f}", gain]
            lines.append(f"| {start} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the NAIP images and their fields")
    parser.add_argument("--starts", default="scratch,fine-tuned", help="which, with commas")
    parser.add_argument("--kinds", default="none,procedural,gan", help="which, with commas; none first")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of 10 steps of 8 chips")
    parser.add_argument("--scenes", type=int, default=40, help="generated scenes a training")
    parser.add_argument("--share", type=float, default=0.3, help="of the chips")
    parser.add_argument("--render-steps", type=int, default=600, help="of the renderer, of 4 chips")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores here, too")
    parser.add_argument("--work", type=Path, metavar="DIR", required=True, help="keeps the models and the renderer")
    args = parser.parse_args()
    if not args.data.is_dir():
        raise SystemExit(f"no data in {args.data}")
    kinds, starts = args.kinds.split(","), args.starts.split(",")
    begun, scores = time.perf_counter(), []
    renderer = (args.work / "renderer").absolute()
    if "gan" in kinds:
        train_renderer(wanted("none", "scratch", seed=0, args=args, renderer=None), out=renderer, folder=args.data)
        print(f"renderer: {cpu_seconds():.0f} s of processor time", file=sys.stderr, flush=True)
    for start in starts:
        for seed in range(args.seeds):
            for kind in kinds:
                made = wanted(kind, start, seed=seed, args=args, renderer=renderer)
                one = score(made, args.work / f"{start}-{kind}-{seed}", data=args.data)
                print(
                    f"{start} {kind} {seed}: F1 {one['f1']:.3f}, pixel IoU {one['pixel_iou']:.3f}, validation "
                    f"{one['val_miou']:.3f}, {one['seconds']:.0f} s ({one['cpu_seconds']:.0f} of processor)",
                    file=sys.stderr,
                    flush=True,
                )
                scores.append({"start": start, "kind": kind, "seed": seed, **one})
    print(markdown(scores))
    print(
        f"\nall together: {(time.perf_counter() - begun) / 60:.1f} minutes, {cpu_seconds() / 60:.1f} of processor time"
    )
    if args.json:
        args.json.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
