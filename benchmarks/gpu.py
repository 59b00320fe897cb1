"""What a GPU makes of it: the network alone, with its transfers, and `geoseg segment` from file to mask. Prints one table.

    python benchmarks/gpu.py [--size 10980] [--json FILE]                       on a machine with CUDA
    python benchmarks/gpu.py --device cpu --size 1024 --patch 256               the same script, tried without one

Scenes and the weights of efficientnet-b3 are generated; nothing is downloaded. "of matmul" sets the network's
multiplications a second against those of a large matrix product on the same device in the same precision; "of forward" sets
model pixels a second against those of the network alone. A run of `geoseg segment` is a process of its own, with start and
imports; its memory on the GPU is what the device has less while it runs, so nothing else should use it. Batches are full where
the tiles under way hold twice as many patches: --workers times the square of --tile.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from end_to_end import peak_kb, processor
from numpy.typing import NDArray
from rasterio.windows import Window
from safetensors.torch import save_file

from geoseg.engines.batches import MOST
from geoseg.engines.cuda_batch import batch_in
from geoseg.engines.cuda_streams import StreamedNetwork
from geoseg.engines.fused import FusedNetwork
from geoseg.engines.ladder import Rung
from geoseg.engines.torch_engine import FORWARD, Placed, TorchEngine, torch_precision
from geoseg.models import load
from geoseg.models.networks import build_network
from geoseg.models.weights import file_sha256
from geoseg.plan import prepare
from geoseg.recipes import RunOptions
from geoseg.results import Batch, InputScaling
from geoseg.spec import ModelSpec, bands, classes

EIGHT = ("red", "green", "blue", "nir", "rededge1", "rededge2", "swir16", "swir22")
MODELS = ("efficientnet-b3", "fields-s2", "fields-rgb")
SIDE = 1024
"""Of the square that scenes are made of, mirrored and turned anew each time."""

ROUNDS = 4
"""Times that every thread hands in patches while transfers are timed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is told of one model. Pixels of the network's passes are model pixels, those end to end the scene's."""

    model: str
    precision: str
    batch: int
    patch: int
    forward_mpx_s: float
    forward_of_matmul: float
    transfers_mpx_s: float
    transfers_of_forward: float
    seconds: float
    mpx_s: float
    km2_s_at_10m: float
    of_forward: float
    gpu_peak_mb: float
    main_peak_mb: float


def generated(channels: int, dtype: str, seed: int) -> NDArray[Any]:
    """(band, row, col) patches of even ground with noise, some 30 pixels wide."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 200, (channels, SIDE // 32, SIDE // 32))
    ground = coarse.repeat(32, axis=1).repeat(32, axis=2) + rng.integers(0, 20, (channels, SIDE, SIDE))
    return (ground * (1 if dtype == "uint8" else 20)).astype(dtype)


def make_scene(path: Path, size: int, names: Sequence[str], *, dtype: str, pixel_size_m: float) -> None:
    """A tiled, deflated GeoTIFF of size x size pixels with these bands."""
    square, rng = generated(len(names), dtype, 7), np.random.default_rng(5)
    profile = {
        "driver": "GTiff", "width": size, "height": size, "count": len(names), "dtype": dtype, "nodata": 0, "crs": "EPSG:32633",
        "transform": Affine(pixel_size_m, 0, 500_000, 0, -pixel_size_m, 5_500_000), "tiled": True, "blockxsize": 512,
        "blockysize": 512, "compress": "deflate", "zlevel": 1, "num_threads": "all_cpus", "bigtiff": "if_safer",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as scene:
        scene.descriptions = tuple(names)
        for row in range(0, size, SIDE):
            for col in range(0, size, SIDE):
                height, width = min(SIDE, size - row), min(SIDE, size - col)
                turned = np.rot90(square[:, :: rng.choice([-1, 1])], rng.integers(4), axes=(1, 2))
                scene.write(turned[:, :height, :width], window=Window(col, row, width, height))


def make_efficientnet(folder: Path) -> None:
    """A model folder: a U-Net on efficientnet-b3 with eight bands and random weights."""
    architecture = {"type": "unet", "encoder": "efficientnet-b3", "decoder_channels": [256, 128, 64, 32, 16]}
    torch.manual_seed(0)
    network = build_network(architecture, channels=len(EIGHT), outputs=3)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    spec = ModelSpec(
        name="efficientnet-b3", title="A U-Net on efficientnet-b3, random weights", bands=bands(EIGHT, mean=2000, std=1500),
        outputs=classes("background", "field", "boundary"), patch=1024, halo=64, architecture=architecture,
        weights_sha256=file_sha256(folder / "weights.safetensors"),
    )  # fmt: skip
    (folder / "spec.json").write_text(spec.to_json())


def matmul_flops(device: str, precision: str) -> float:
    """Operations a second of a large matrix product on random numbers."""
    side = 8192 if device.startswith("cuda") else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        finish(device)
        begun = time.perf_counter()
        a @ b
        finish(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best


def network_flops(fused: FusedNetwork, shape: tuple[int, int, int]) -> int:
    """Operations of a pass on one patch (channel, row, col), counted on tensors without data."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    autocast, fused.autocast = fused.autocast, None
    with torch.inference_mode(), counter:
        fused.to("meta")(
            torch.zeros(1, *shape, device="meta"), torch.ones(1, 1, *shape[1:], dtype=torch.bool, device="meta")
        )
    fused.autocast = autocast
    return int(counter.get_total_flops())


def finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def handed_in(segmenter: Any, batch: Batch, *, threads: int) -> float:
    """Seconds in which every thread predicts the batch ROUNDS times, after one round to warm up."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(segmenter.predict, [batch] * threads))
        begun = time.perf_counter()
        list(pool.map(segmenter.predict, [batch] * (threads * ROUNDS)))
        return time.perf_counter() - begun


def model_pixels(scene: Path, model: str, options: dict[str, Any]) -> int:
    """Pixels of all the patches that a run hands to the network."""
    grid = prepare([scene], RunOptions.checked(model=model, **options)).grid
    return sum(patch.frame.size for tile in grid for patch in grid.patches(tile))


def segment(
    scene: Path, model: str, folder: Path, *, device: str, options: dict[str, Any]
) -> tuple[float, float, float]:
    """`geoseg segment` in a process of its own: seconds, and the peaks in MB of GPU and main memory."""
    extra = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "geoseg", "segment", str(scene), "-o", str(folder / "mask.tif"), "--overwrite"]
    command += ["--model", model, "--engine", "torch", "-q", *extra]
    hidden = {} if device.startswith("cuda") else {"CUDA_VISIBLE_DEVICES": ""}
    free, least, peak, begun = gpu_free(device), gpu_free(device), 0, time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **hidden})
    while process.poll() is None:
        peak, least = max(peak, peak_kb(process.pid)), min(least, gpu_free(device))
        time.sleep(0.1)
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"geoseg segment failed with status {process.returncode}")
    return seconds, (free - least) / 2**20, peak / 1024


def gpu_free(device: str) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else 0


def measure(name: str, folder: Path, scene: Path, *, size: int, options: dict[str, Any], arguments: Any) -> Row:
    """All figures of one model."""
    device = arguments.device
    known = str(folder / name) if name == "efficientnet-b3" else name
    model = load(known)
    spec = replace(model.spec, patch=arguments.patch or model.spec.patch)
    channels, side = len(spec.bands), spec.patch
    scaling = InputScaling(bands=tuple(range(channels)), gain=(5e-4,) * channels, bias=(-1.5,) * channels, limit=None)
    precision = torch_precision(arguments.precision, device)
    engine = TorchEngine(
        device=device, batch=arguments.batch if device.startswith("cuda") else arguments.batch or 1, pooled=True
    )
    segmenter = engine.build(model, scaling, precision=precision, threads=None)
    batch = batch_in(segmenter.fingerprint) or 1
    stored = generated(channels, "uint16", 3)[:, :side, :side]
    patches = Batch(pixels=np.stack([stored] * MOST), valid=np.ones((MOST, side, side), np.bool_))
    threads = max(2, arguments.threads)
    transfers = MOST * threads * ROUNDS * side**2 / handed_in(segmenter, patches, threads=threads)
    del segmenter

    fused = FusedNetwork(model.network(), spec, scaling).eval()  # type: ignore[attr-defined]
    placed = Placed(fused=fused, device=device, precision=precision)
    placed.onto(Rung(device=device, batch=batch))
    network = StreamedNetwork(fused, device, batch=batch, lock=FORWARD)
    forward = batch * side**2 / network.seconds((channels, side, side))
    with FORWARD:
        network.close()
    flops = network_flops(fused, (channels, side, side)) / side**2 * forward
    of_matmul = flops / matmul_flops(device, precision)
    del fused, placed, network
    if device.startswith("cuda"):
        torch.cuda.empty_cache()

    seconds, gpu, main = segment(scene, known, folder, device=device, options=options)
    worked = model_pixels(scene, known, {name: value for name, value in options.items() if name in ("patch", "tile")})
    rate = size**2 / 1e6 / seconds
    return Row(
        model=name, precision=precision, batch=batch, patch=side, forward_mpx_s=forward / 1e6, forward_of_matmul=of_matmul,
        transfers_mpx_s=transfers / 1e6, transfers_of_forward=transfers / forward, seconds=seconds, mpx_s=rate,
        km2_s_at_10m=100 * rate, of_forward=worked / seconds / forward, gpu_peak_mb=gpu, main_peak_mb=main,
    )  # fmt: skip


def hardware(device: str) -> dict[str, Any]:
    """Names and versions of what the figures depend on."""
    packages = ("geoseg", "torch", "torchgeo", "segmentation-models-pytorch", "timm", "numpy", "rasterio")
    told: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(), "processor": processor(), "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages},
    }  # fmt: skip
    if device.startswith("cuda"):
        card = torch.cuda.get_device_properties(device)
        told |= {
            "gpu": card.name, "gpu_memory_mb": card.total_memory >> 20, "compute_capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
        }  # fmt: skip
    return told


def table(rows: Sequence[Row]) -> str:
    """One Markdown table."""
    titles = ["model", "batch", "forward, Mpx/s", "of matmul", "with transfers", "of forward", "end to end, s", "Mpx/s"]
    titles += ["km2/s at 10 m", "of forward", "GPU, GB", "main, GB"]
    lines = [titles, ["---"] * len(titles)]
    for row in rows:
        lines.append(
            [
                f"{row.model} {row.precision}", f"{row.batch} x {row.patch}", f"{row.forward_mpx_s:.1f}",
                f"{row.forward_of_matmul:.0%}", f"{row.transfers_mpx_s:.1f}", f"{row.transfers_of_forward:.0%}",
                f"{row.seconds:.1f}", f"{row.mpx_s:.2f}", f"{row.km2_s_at_10m:.0f}", f"{row.of_forward:.0%}",
                f"{row.gpu_peak_mb / 1024:.1f}", f"{row.main_peak_mb / 1024:.1f}",
            ]
        )  # fmt: skip
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu to try the script")
    parser.add_argument("--size", type=int, default=10980, help="side of the scene in pixels")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--batch", type=int, help="patches a pass; default: measured on CUDA, 1 on the CPU")
    parser.add_argument("--patch", type=int, help="side in pixels; default: the model's")
    parser.add_argument("--threads", type=int, default=4, help="that hand in patches while transfers are timed")
    parser.add_argument("--workers", type=int, help="of geoseg segment")
    parser.add_argument("--tile", type=int, default=2, help="of geoseg segment: patches along a tile's side")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="Directory for scenes and masks; default: a temporary one.")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "torch finds no CUDA device here; --device cpu --size 1024 --patch 256 tries the script without",
            file=sys.stderr,
        )
        return 2
    wanted = {
        "precision": arguments.precision,
        "patch": arguments.patch,
        "workers": arguments.workers,
        "tile": arguments.tile,
    }
    options = {name: value for name, value in wanted.items() if value is not None}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.models:
            aerial = name == "fields-rgb"
            scene = folder / f"{'aerial' if aerial else 'satellite'}-{arguments.size}.tif"
            if not scene.exists():
                names, dtype = (EIGHT[:3], "uint8") if aerial else (EIGHT, "uint16")
                make_scene(scene, arguments.size, names, dtype=dtype, pixel_size_m=1 if aerial else 10)
            if name == "efficientnet-b3":
                make_efficientnet(folder / name)
            rows.append(measure(name, folder, scene, size=arguments.size, options=options, arguments=arguments))
            print(f"{name}: done", file=sys.stderr, flush=True)
    told = hardware(arguments.device)
    print(table(rows))
    if arguments.json:
        record = {"hardware": told, "size": arguments.size, "options": options, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
