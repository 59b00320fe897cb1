"""What transfer is worth: three aerial images to learn from, four others to score on.

    python benchmarks/finetune.py                      three seeds of each kind, a markdown table
    python benchmarks/finetune.py --seeds 1 --kinds fine-tuned,scratch --json scores.json

- fine-tuned   `from: fields-s2`, which was trained on generated scenes of 10 m and has seen no aerial image
- scratch      the same network from random weights
- fields-rgb   `from: fields-rgb`, which was trained on 19 images of this set, the three among them: no fair comparison

All else is equal: images, chips, steps, rates, augmentation, seeds. The four images are those that no bundled model is
trained on (geoseg.training.aerial.KEPT_OUT). They are held out: nothing is chosen by them. The data lies outside the project.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from geoseg.teaching import train
from geoseg.training.aerial import KEPT_OUT
from geoseg.training.bundle import NETWORK
from geoseg.training.recipe import TrainRecipe, checked_recipe

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "naip-us-fields"

LEARNT = (
    "37.2292207864713--86.8936640526172.png",
    "41.649735--89.592927.png",
    "43.4066311779089--83.6220222827469.png",
)
"""The southernmost, one in the middle, and one of the northernmost images that are not kept out."""

KINDS: dict[str, dict[str, Any]] = {
    "fine-tuned": {"from": "fields-s2", "bands": ["red", "green", "blue"]},
    "scratch": {"network": NETWORK, "bands": ["red", "green", "blue"]},
    "fields-rgb": {"from": "fields-rgb"},
}


def recipe(kind: str, *, seed: int, epochs: int) -> TrainRecipe:
    def scene(image: str, **more: Any) -> dict[str, Any]:
        return {
            "image": image, "labels": "fields_epsg4326.geojson", "where": f"image = '{image}'",
            "crs": "EPSG:4326", "bands": "red,green,blue", **more,
        }  # fmt: skip

    return checked_recipe(
        {
            "name": f"naip-{kind}",
            **KINDS[kind],
            "scenes": [*(scene(image) for image in LEARNT), *(scene(image, holdout=True) for image in KEPT_OUT)],
            "resolution_m": 2.0,
            "patch": 128,
            "run_patch": 512,
            "min_area_m2": 1500,
            "split": {"validation": 0.08},
            "schedule": {"epochs": epochs, "steps": 10, "batch": 8, "learning_rate": 2e-3},
            "seed": seed,
        }
    )


def score(kind: str, *, seed: int, epochs: int, data: Path, work: Path) -> dict[str, Any]:
    begun, used = time.perf_counter(), cpu_seconds()
    taught = train(recipe(kind, seed=seed, epochs=epochs), out=work / f"{kind}-{seed}", folder=data)
    held = taught.record["holdout"]
    true, found, matched = (sum(one[name] for one in held) for name in ("true", "found", "matched"))
    return {
        "kind": kind,
        "seed": seed,
        "f1": 2 * matched / (true + found),
        "pixel_iou": mean(one["pixel_iou"] for one in held),
        "val_miou": taught.record["kept"]["val_miou"],
        "holdout": held,
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": cpu_seconds() - used,
    }


def cpu_seconds() -> float:
    """Processor time of this process and of those that it waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def markdown(scores: list[dict[str, Any]]) -> str:
    lines = [
        "| | seed | object F1@.5 (4 images together) | pixel IoU (mean of 4) | CPU seconds |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind in dict.fromkeys(one["kind"] for one in scores):
        own = [one for one in scores if one["kind"] == kind]
        rows = [(str(one["seed"]), one["f1"], one["pixel_iou"], one["cpu_seconds"]) for one in own]
        rows.append(("**mean**", *(mean(one[name] for one in own) for name in ("f1", "pixel_iou", "cpu_seconds"))))
        lines += [f"| {kind} | {seed} | {f1:.3f} | {iou:.3f} | {seconds:.0f} |" for seed, f1, iou, seconds in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the NAIP images and their fields")
    parser.add_argument("--kinds", default="fine-tuned,scratch,fields-rgb", help="which, with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of 10 steps of 8 chips")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores here, too")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the models here")
    args = parser.parse_args()
    if not args.data.is_dir():
        raise SystemExit(f"no data in {args.data}")
    begun, scores = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(args.seeds):
            for kind in args.kinds.split(","):
                one = score(kind, seed=seed, epochs=args.epochs, data=args.data, work=args.work or Path(temporary))
                print(
                    f"{kind} {seed}: F1 {one['f1']:.3f}, pixel IoU {one['pixel_iou']:.3f}, validation {one['val_miou']:.3f}, "
                    f"{one['seconds']:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
                scores.append(one)
    print(markdown(scores))
    print(
        f"\nall together: {(time.perf_counter() - begun) / 60:.1f} minutes, {cpu_seconds() / 60:.1f} minutes of processor time"
    )
    if args.json:
        args.json.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
