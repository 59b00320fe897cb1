"""How near `geoseg segment` (scene file to mask file) comes to its limit: the forward pass of the model alone.

    python benchmarks/limit.py [--size 5490] [--repeat 5] [--models unet fields-s2] [--json FILE] [--keep DIR]

Models: `unet` is a U-Net on efficientnet-b3 (8 bands, 3 classes) with random weights, as a torchgeo checkpoint; `ftw` is the
same network as torchgeo's named weights, which enlarge every patch twice before the network (four times the work);
`fields-s2` is bundled. The scenes are those of end_to_end.py, for the U-Nets with a second date made of the first.

Every measure is a process of its own, and they take turns, so that noise hits all alike:
    forward   the engine of the run on the very patches of the run, from as many threads, pixels in memory, every shape
              compiled before it is timed
    decode    every tile's window through the run's reader, with the run's number of threads
    warm      segment_file() for the second time in a process, after a small scene; every call loads and compiles the model
    process   `python -m geoseg segment` as a user starts it, from the start of Python to its end
    first     the same without what geoseg keeps of a model between runs (GEOSEG_CACHE=off)

The peer (U-Nets only) is the loop that is usually written: torch, float32, all threads, patches of 512 pixels of which 64 on
each side are thrown away, two at a time, windows from rasterio, the mask into a GeoTIFF. Its imports are not counted.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import rasterio
from end_to_end import make_scene, peak_kb, processor
from instances import Clock, alone
from numpy.typing import NDArray
from rasterio.windows import Window

from geoseg.plan import Plan, prepare, settled_predictor
from geoseg.recipes import RunOptions
from geoseg.results import Batch

NAMED = "Unet_Weights.SENTINEL2_3CLASS_FTW"
MODELS = {
    "unet": {"model": "{folder}/unet.ckpt"},
    "ftw": {"model": NAMED, "weights": "{folder}/unet.pth"},
    "fields-s2": {"model": "fields-s2"},
}
"""Options of geoseg segment by name of a model."""
SMALL = 1200  # side of the scene that warms a process up
SIDE, PADDING, AT_ONCE = 512, 64, 2  # the peer's patches
SURE = 0.05  # margin of the likeliest class below which classes are all but even
STAGES, STEPS = ("prepare", "predict", "write"), ("read", "predict", "write")


@dataclass(frozen=True, slots=True)
class Job:
    scene: Path
    small: Path
    out: Path
    options: dict[str, str]

    @property
    def plan(self) -> Plan:
        return prepare([self.scene], RunOptions.checked(**self.options))


def make_two_dates(first: Path, path: Path) -> None:
    """The scene with a second date: its bands in other light and with noise of their own, named as torchgeo's FTW models say."""
    rng = np.random.default_rng(6)
    with rasterio.open(first) as source:
        profile = source.profile | {"count": 8, "zlevel": 1, "num_threads": "all_cpus"}
        with rasterio.open(path, "w", **profile) as scene:
            scene.descriptions = [*source.descriptions, *(f"{name}_2" for name in source.descriptions)]
            for row in range(0, source.height, SIDE):
                window = Window(0, row, source.width, min(SIDE, source.height - row))
                part = source.read(window=window)
                other = part * rng.uniform(0.8, 1.2, (4, 1, 1)) + rng.normal(0, 12, part.shape)
                other = np.where(part == 0, 0, np.clip(other, 1, 20000)).astype(np.uint16)
                scene.write(np.concatenate([part, other]), window=window)


def make_unet(folder: Path, scene: Path) -> None:
    """Random weights as unet.ckpt with unet.spec.json, and as unet.pth; the head is scaled so that all classes occur."""
    import torch

    from geoseg.models.architectures import build_torchgeo_network
    from geoseg.models.torchgeo_weights import named_specs

    spec = named_specs()[NAMED]
    torch.manual_seed(3)
    network = build_torchgeo_network(spec.architecture).eval()
    with rasterio.open(scene) as source:
        crops = [source.read(window=Window(at, at, 256, 256)) for at in range(0, 1024, 256)]
    with torch.no_grad():
        logits = network(torch.from_numpy(np.stack(crops).astype(np.float32)) / 3000)
        std, mean = torch.std_mean(logits, dim=(0, 2, 3))
        head = cast(Any, network).segmentation_head[0]
        head.weight *= (2 / std)[:, None, None, None]
        head.bias.copy_((head.bias - mean) * 2 / std)
    state = network.state_dict()
    torch.save(state, folder / "unet.pth")
    hyper = {"model": "unet", "backbone": "efficientnet-b3", "in_channels": 8, "num_classes": 3, "task": "multiclass"}
    prefixed = {f"model.{name}": value for name, value in state.items()}
    torch.save({"state_dict": prefixed, "hyper_parameters": hyper}, folder / "unet.ckpt")
    told = ("bands", "outputs", "field_class", "units", "resolution_m", "nominal_m")
    record = {name: value for name, value in spec.to_dict().items() if name in told}
    (folder / "unet.spec.json").write_text(json.dumps(record, indent=2))


class Recorder:
    """Takes the predictor's place in a run and keeps the batches, with their pixels, that the model would be given."""

    fingerprint, degraded = "", False

    def __init__(self, plan: Plan) -> None:
        from geoseg.runtime.predict import predict_core

        self.model, self.scaling, self.batches = plan.model, plan.predictor.scaling, list[Batch]()
        for tile in plan.grid:
            predict_core(plan.reader, cast(Any, self), plan.grid, tile)

    def segmenter(self) -> Recorder:
        return self

    def predict(self, batch: Batch) -> NDArray[np.uint8]:
        self.batches.append(batch)
        count, _, rows, cols = batch.pixels.shape
        return np.zeros((count, len(self.model.spec.outputs), rows, cols), np.uint8)


def forward(job: Job) -> dict[str, Any]:
    """Seconds of the model alone on the run's patches, and what it takes, imports included, to build it and compile shapes."""
    plan = job.plan
    batches = Recorder(plan).batches
    begun = time.perf_counter()
    segmenter = replace(settled_predictor(plan), streams=plan.streams).segmenter()
    build, seconds, compiling = time.perf_counter() - begun, 0.0, 0.0
    shapes = sorted({batch.pixels.shape for batch in batches})
    for shape in shapes:  # an engine keeps a few shapes only, so each is compiled and timed before the next
        same = [batch for batch in batches if batch.pixels.shape == shape]
        with ThreadPoolExecutor(plan.streams) as pool:
            stamps = [time.perf_counter()]
            for some in ([same[0]] * plan.streams, same):
                list(pool.map(segmenter.predict, some))
                stamps.append(time.perf_counter())
        spent = np.diff(stamps)
        seconds += float(spent[1])
        compiling += max(0.0, float(spent[0] - spent[1] / len(same) * plan.streams))
    pixels, extent = sum(batch.valid.size for batch in batches), plan.grid.extent
    scene = f"{extent.width} x {extent.height} x {shapes[0][1]} {batches[0].pixels.dtype}"
    return {
        "seconds": round(seconds, 2), "mpx_per_s": round(pixels / 1e6 / seconds, 3), "model_pixels": pixels,
        "model_pixels_per_pixel": round(pixels / extent.size, 4), "patches": sum(len(batch.pixels) for batch in batches),
        "shapes": len(shapes), "build_s": round(build, 2), "compile_s": round(compiling, 2), "scene": scene,
        "engine": segmenter.fingerprint, "workers": plan.workers,
    }  # fmt: skip


def decode(job: Job) -> dict[str, Any]:
    """Seconds of reading alone."""
    from geoseg.runtime.runners import Threads

    plan = job.plan
    bands = [band for band in plan.predictor.scaling.bands if band is not None]
    begun = time.perf_counter()
    Threads(workers=plan.workers).map(lambda tile: plan.reader.read(tile.window, bands), plan.grid, done=lambda _: None)
    return {"seconds": round(time.perf_counter() - begun, 2)}


class Watch(Clock):
    """Listens to a run: when prediction begins and ends, and what its threads did meanwhile."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.out, self.threads = out, dict[str, float]()

    def stage_finished(self, name: str) -> None:
        from geoseg.runtime.workspace import Workspace
        from geoseg.stitch.journal import Journal

        self.begun.append((f"after {name}", time.perf_counter()))
        records = list(Journal(Workspace.beside(self.out).journal).records())
        self.threads = {step: sum(getattr(record, f"{step}_s") for record in records) for step in STEPS}


def warm(job: Job) -> dict[str, Any]:
    """Seconds of the second call in a process, by stage."""
    from geoseg.pipeline import segment_file
    from geoseg.runtime.events import Events

    options = RunOptions.checked(**job.options)
    segment_file(job.small, out=job.out, options=options, overwrite=True, restart=True)
    watch = Watch(job.out)
    segment_file(job.scene, out=job.out, options=options, overwrite=True, restart=True, events=Events((watch,)))
    return staged([*(at for _, at in watch.begun), time.perf_counter()]) | {"threads": watch.threads}


def staged(stamps: list[float]) -> dict[str, Any]:
    stages = zip(STAGES, (round(end - start, 2) for start, end in pairwise(stamps)), strict=True)
    return {"seconds": round(stamps[-1] - stamps[0], 2), "stages": dict(stages)}


def process(job: Job) -> dict[str, Any]:
    """Seconds and peak memory of the command, by stage: the start of Python counts as preparing, its end as writing."""
    options = [text for name, value in job.options.items() for text in (f"--{name}", value)]
    command = [sys.executable, "-m", "geoseg", "segment", str(job.scene), "-o", str(job.out), *options]
    peak = 0
    with tempfile.TemporaryFile("w+") as told:
        begun = time.time()
        child = subprocess.Popen([*command, "--overwrite", "--restart", "--log-json"], stderr=told)
        while child.poll() is None:
            peak = max(peak, peak_kb(child.pid))
            time.sleep(0.05)
        ended = time.time()
        told.seek(0)
        lines = told.read().splitlines()
    if child.returncode:
        raise SystemExit("\n".join(["geoseg segment failed:", *lines[-5:]]))
    events = [json.loads(line) for line in lines if line.startswith("{")]
    stages = [event["time"] for event in events if event["event"] in ("stage_started", "stage_finished")]
    return staged([begun, *stages, ended]) | {"peak_mb": peak // 1024}


def first(job: Job) -> dict[str, Any]:
    os.environ["GEOSEG_CACHE"] = "off"
    return process(job)


def float32_model(plan: Plan) -> Any:
    """What the peer runs: stored pixels (B, channel, row, col) and validity to probabilities, both of NumPy."""
    import torch
    from torch.nn.functional import avg_pool2d, interpolate

    network, scaling, factor = cast(Any, plan.model).network(), plan.predictor.scaling, plan.model.spec.upsample
    gain, bias = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (scaling.gain, scaling.bias))
    limit = float("inf") if scaling.limit is None else scaling.limit

    @torch.inference_mode()
    def probabilities(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> Any:
        x = (torch.from_numpy(pixels.astype(np.float32)) * gain + bias).clamp(-limit, limit)
        x = x * torch.from_numpy(valid[:, None])
        x = interpolate(x, scale_factor=factor, mode="bilinear") if factor > 1 else x
        y = network(x)[:, : len(plan.model.spec.class_names)].softmax(1)
        return (avg_pool2d(y, factor) if factor > 1 else y).numpy()

    return probabilities


def peer(job: Job, part: float) -> dict[str, Any]:
    """Seconds of the plain loop from scene to mask; of `part` of its rows of patches, counted up to all."""
    begun = time.perf_counter()
    plan, model = job.plan, float32_model(job.plan)
    bands = [band + 1 for band in plan.predictor.scaling.bands if band is not None]
    loading = time.perf_counter() - begun
    profile, out = {"count": 1, "nodata": 255, "dtype": "uint8"}, job.out.with_suffix(".peer.tif")
    with rasterio.open(job.scene) as source, rasterio.open(out, "w", **(source.profile | profile)) as mask:
        stride = SIDE - 2 * PADDING
        rows, cols = ([min(at, side - SIDE) for at in range(0, side - 2 * PADDING, stride)] for side in source.shape)
        done = max(1, round(part * len(rows)))
        begun = time.perf_counter()
        for row in rows[:done]:
            for first in range(0, len(cols), AT_ONCE):
                places = cols[first : first + AT_ONCE]
                pixels = np.stack([source.read(bands, window=Window(col, row, SIDE, SIDE)) for col in places])
                valid = (pixels != source.nodata).all(axis=1)
                classes = np.where(valid, model(pixels, valid).argmax(1), 255).astype(np.uint8)
                for col, found in zip(places, classes, strict=True):
                    top, left = PADDING * (row > 0), PADDING * (col > 0)  # the next patch covers the other padding
                    mask.write(found[top:, left:], 1, window=Window(col + left, row + top, SIDE - left, SIDE - top))
    seconds = loading + (time.perf_counter() - begun) * len(rows) / done
    return {
        "seconds": round(seconds, 2), "loading_s": round(loading, 2), "part": round(done / len(rows), 3),
        "patches": len(rows) * len(cols), "peak_mb": peak_kb(os.getpid()) // 1024,
    }  # fmt: skip


def agreement(job: Job, count: int = 8) -> dict[str, Any]:
    """Share of pixels whose class is that of the float32 model, on `count` full patches spread over the scene."""
    plan, batches = job.plan, Recorder(job.plan).batches
    full = [batch for batch in batches if batch.valid.size == max(each.valid.size for each in batches)]
    segmenter, model, kinds = plan.predictor.segmenter(), float32_model(plan), len(plan.model.spec.class_names)
    parts = []
    for at in np.unique(np.linspace(0, len(full) - 1, count).astype(int)):
        valid, exact = full[at].valid, model(full[at].pixels, full[at].valid)
        second, first = np.sort(exact, axis=1)[:, -2:].swapaxes(0, 1)
        ours, theirs = segmenter.predict(full[at])[:, :kinds].argmax(1), exact.argmax(1)
        parts.append(np.stack([(ours == theirs)[valid], (first - second > SURE)[valid], theirs[valid]]))
    same, sure, classes = np.concatenate(parts, axis=1)
    return {
        "same class": round(float(same.mean()), 5),
        f"same class where the margin is above {SURE}": round(float(same[sure > 0].mean()), 5),
        "share of those": round(float(sure.mean()), 4),
        "shares of the classes": (np.bincount(classes, minlength=kinds) / len(classes)).round(3).tolist(),
    }


def summary(runs: list[dict[str, Any]], peers: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, least and most of everything; ratios are those of one turn."""
    every: dict[str, list[float]] = {what: [run[what]["seconds"] for run in runs] for what in MEASURES}
    for what in ("warm", "process", "first"):
        every |= {f"{what}: {stage}": [run[what]["stages"][stage] for run in runs] for stage in STAGES}
        every[f"forward / {what}"] = [run["forward"]["seconds"] / run[what]["seconds"] for run in runs]
    every |= {f"warm: {step}, all threads": [run["warm"]["threads"][step] for run in runs] for step in STEPS}
    every |= {f"forward: {step}": [run["forward"][step] for run in runs] for step in ("build_s", "compile_s")}
    every["process: peak MB"] = [run["process"]["peak_mb"] for run in runs]
    if peers:
        every["peer"] = [run["seconds"] for run in peers]
        every["peer / process"] = [run["seconds"] / statistics.median(every["process"]) for run in peers]
        every["peer: peak MB"] = [run["peak_mb"] for run in peers]
    return {
        name: {"median": round(statistics.median(each), 3), "least": round(min(each), 3), "most": round(max(each), 3)}
        for name, each in every.items()
    }


def table(name: str, result: dict[str, Any]) -> str:
    """What a person reads."""
    one, peers = result["runs"][0]["forward"], result["peers"]
    pixels = one["model_pixels"] / one["model_pixels_per_pixel"] / 1e6
    lines = [
        f"\n{name}: {one['scene']}, {one['engine']}, {one['workers']} workers",
        f"{one['patches']} patches of {one['shapes']} shapes, {one['model_pixels_per_pixel']} model pixels a pixel, "
        f"forward {one['mpx_per_s']} model Mpx/s",
        f"{'seconds':<28}{'median':>10}{'least':>10}{'most':>10}{'scene Mpx/s':>13}",
    ]
    for what, found in result["summary"].items():
        speed = f"{pixels / found['median']:>13.2f}" if what in (*MEASURES, "peer") else ""
        lines.append(f"{what:<28}" + "".join(f"{value:>10.2f}" for value in found.values()) + speed)
    if peers and peers[0]["part"] < 1:
        lines.append(f"The peer did {peers[0]['part']:.0%} of its rows; its seconds are counted up to all.")
    return "\n".join([*lines, f"Against float32: {json.dumps(result['agreement with float32'])}"])


MEASURES = {"forward": forward, "decode": decode, "warm": warm, "process": process, "first": first}


def made_jobs(folder: Path, names: list[str], size: int) -> dict[str, Job]:
    """Scenes and weights, made where they are not there yet."""
    four, eight = ({side: folder / f"{kind}-{side}.tif" for side in (SMALL, size)} for kind in ("scene", "dates"))
    unets = set(names) - {"fields-s2"}
    for side in four:
        if not four[side].exists():
            make_scene(four[side], side)
        if unets and not eight[side].exists():
            make_two_dates(four[side], eight[side])
    if unets and not (folder / "unet.pth").exists():
        alone(make_unet, folder, eight[SMALL])
    jobs = {}
    for name in names:
        scenes = eight if name in unets else four
        options = {option: value.format(folder=folder) for option, value in MODELS[name].items()}
        jobs[name] = Job(scenes[size], scenes[SMALL], folder / f"{name}.tif", options)
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=5490)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["unet", "fields-s2"])
    parser.add_argument("--peer-repeat", type=int, default=1, help="0 leaves the peer out.")
    parser.add_argument("--peer-part", type=float, default=1.0, help="Share of its rows that the peer does.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="Directory for scenes and results; default: a temporary one.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["GEOSEG_CACHE"] = str(folder / "cache")
        jobs = made_jobs(folder, arguments.models, arguments.size)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
        for turn in range(arguments.repeat):
            for name, job in jobs.items():
                print(f"turn {turn + 1} of {arguments.repeat}: {name}", file=sys.stderr, flush=True)
                runs[name].append({what: alone(measure, job) for what, measure in MEASURES.items()})
        results: dict[str, Any] = {}
        for name, job in jobs.items():
            peers = [
                alone(peer, job, arguments.peer_part) for _ in range(arguments.peer_repeat * (name != "fields-s2"))
            ]
            results[name] = {"summary": summary(runs[name], peers), "runs": runs[name], "peers": peers}
            results[name]["agreement with float32"] = alone(agreement, job)
            print(table(name, results[name]), flush=True)
    packages = ("geoseg", "torch", "openvino", "numpy", "rasterio", "segmentation_models_pytorch")
    result = {
        "date": datetime.now(UTC).date().isoformat(), "cores": len(os.sched_getaffinity(0)), "processor": processor(),
        "versions": {name: importlib.metadata.version(name) for name in packages}, "models": results,
    }  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
