"""Opens, reads and runs damaged rasters in child processes, which may die, hang or swell.

    python tests/fuzz.py --seed 1 --mutants 5000       # counts, and every failure with its number
    python tests/fuzz.py --seed 1 --only 1234          # one mutant again; --keep FILE writes it down
    python tests/fuzz.py --seed 1 --mutants 200 --run  # whole runs

Outcomes: `read`, `masked` (read but for parts), `refused` (GeosegError); and failures: `error` (any other exception),
`inconsistent` (pixels that depend on the window), `memory`, `hang`, `crash`. What plain rasterio does as well (crash,
hang, pixels that depend on what was read before) counts as `gdal`.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from fuzz_mutants import Corpus, build_corpus
from rasterio.errors import RasterioError
from rasterio.windows import Window as Whole

from geoseg.errors import GeosegError
from geoseg.grid import Window
from geoseg.readers import open_scene
from geoseg.readers.handles import OPTIONS
from geoseg.results import Block

GOOD = ("read", "masked", "refused", "gdal")
LIMIT_S = 20.0
"""Processor time for one mutant."""
WINDOW = 96
MOST_MB = 900
"""What reading a window may add: GDAL's cache of 256 MiB, a block of 256 MiB twice, and small things."""

ADDRESS_SPACE = 3 * 2**30
MANY_BANDS = 1000
SMALL_SCENE = 400
"""Side in pixels up to which a scene is also read as a whole, and run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    number: int
    kind: str
    detail: str


@dataclass(slots=True, kw_only=True)
class Report:
    seed: int
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failures(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.kind not in GOOD]

    def text(self) -> str:
        counts = ", ".join(f"{kind} {n}" for kind, n in Counter(one.kind for one in self.outcomes).most_common())
        lines = [f"seed {self.seed}, {len(self.outcomes)} mutants: {counts}"]
        told = sorted((one for one in self.outcomes if one.kind in ("gdal", *{f.kind for f in self.failures})), key=str)
        lines += [
            f"{one.kind}: python tests/fuzz.py --seed {self.seed} --only {one.number}: {one.detail}" for one in told
        ]
        return "\n".join(lines)


def fuzz(seed: int, numbers: Iterable[int], *, mode: str = "read", jobs: int = 2) -> Report:
    """Works through mutants in `jobs` children; `mode` is read, run or plain (rasterio alone)."""
    report, waiting, lock = Report(seed=seed), iter(numbers), threading.Lock()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        build_corpus(corpus)

        def work(name: str) -> None:
            child: Child | None = None
            while True:
                with lock:
                    number = next(waiting, None)
                if number is None:
                    break
                child = child or Child(corpus, Path(folder) / name, seed, mode)
                outcome = child.examine(number)
                if outcome.kind in ("crash", "hang"):
                    child.close()
                    child = None
                    if mode == "read":
                        plain = Child(corpus, Path(folder) / name, seed, "plain")
                        if plain.examine(number).kind == outcome.kind:
                            outcome = Outcome(number=number, kind="gdal", detail=f"{outcome.kind}: {outcome.detail}")
                        plain.close()
                with lock:
                    report.outcomes.append(outcome)
            if child is not None:
                child.close()

        threads = [threading.Thread(target=work, args=(f"child {i}",)) for i in range(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    report.outcomes.sort(key=lambda one: one.number)
    return report


class Child:
    """A process that examines one mutant after another."""

    def __init__(self, corpus: Path, folder: Path, seed: int, mode: str) -> None:
        self.log = folder.with_suffix(".log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--child", str(corpus), str(folder), "--seed", str(seed), "--mode", mode],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
        )  # fmt: skip
        self._answer(120)  # it says when it is ready

    def examine(self, number: int) -> Outcome:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        answer = self._answer(LIMIT_S)
        if answer is None:
            return Outcome(number=number, kind="hang", detail=f"nothing within {LIMIT_S:g} s of processor time")
        if not answer:
            self.log.seek(0)
            return Outcome(
                number=number,
                kind="crash",
                detail=f"exit {self.process.wait()}: {' '.join(self.log.read()[-300:].split())}",
            )
        kind, _, detail = answer.strip().partition(" ")
        return Outcome(number=number, kind=kind, detail=detail)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _answer(self, seconds: float) -> str | None:
        """A line, empty at the end of the process; None after so many seconds of its time, or six times as many of ours."""
        assert self.process.stdout is not None
        begun, used = time.monotonic(), self._used()
        while time.monotonic() - begun < 6 * seconds and self._used() - used < seconds:
            if select.select([self.process.stdout], [], [], 0.5)[0]:
                return self.process.stdout.readline()
        return None

    def _used(self) -> float:
        """Seconds of processor time."""
        times = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def child_main(corpus: Path, folder: Path, seed: int, mode: str) -> None:
    """Answers numbers on standard input with one line each on what became of the mutant."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    faulthandler.enable()
    logging.disable()
    warnings.simplefilter("error")
    mutants = Corpus(corpus)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(corpus, folder)  # what VRTs name lies beside them
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if mode == "run":
        run_mutant(folder / "lzw.tif")  # what is imported and compiled once counts for no mutant
    else:
        limit = ADDRESS_SPACE + 1024 * status_kb("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    examine = {"read": read_mutant, "run": run_mutant, "plain": read_plainly}[mode]
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        mutant = mutants.mutant(seed, int(line), small=mode == "run")
        path = folder / f"mutant{Path(mutant.name).suffix}"
        path.write_bytes(mutant.content)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before = status_kb("VmRSS")
        try:
            kind, detail = examine(path)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind, detail = "error", f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        used = (status_kb("VmHWM") - before) // 1024
        if used > MOST_MB:
            kind, detail = "memory", f"{used} MB more than before; {kind} {detail}"
        path.unlink()
        answers.write(f"{kind} {' '.join(f'{mutant.name}: {detail}'.split())[:500]}\n")
        answers.flush()


def status_kb(entry: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry + ":"))


class Inconsistent(Exception):
    """Pixels that depend on what was asked for."""


def read_mutant(path: Path) -> tuple[str, str]:
    """Reads the corners and the middle, once to stop and once to mask; the two must agree."""
    try:
        return compared(path)
    except Inconsistent as error:
        return ("gdal" if unstable_in_gdal(path) else "inconsistent"), str(error)


def compared(path: Path) -> tuple[str, str]:
    try:
        stopped: str | list[Block] = read_windows(path, "stop")
    except GeosegError as error:
        stopped = str(error)
    try:
        masked = read_windows(path, "mask")
    except GeosegError as error:
        if isinstance(stopped, str):
            return "refused", str(error)
        raise Inconsistent(f"read to stop, refused to mask: {error}") from error
    unread = any(block.unread for block in masked)
    if isinstance(stopped, str):
        if not unread:
            raise Inconsistent(f"nothing is masked, but: {stopped}")
        return "masked", stopped
    if unread or any(difference(*pair) for pair in zip(stopped, masked, strict=True)):
        raise Inconsistent("reads differ with on_read_error")
    return "read", ""


def read_windows(path: Path, on_read_error: Any) -> list[Block]:
    reader = open_scene([path], on_read_error=on_read_error)
    rows, cols = reader.scene.shape
    count = len(reader.scene.bands)
    bands = sorted({*range(min(count, 4)), count - 1})
    blocks = [reader.read(window, bands) for window in corners(rows, cols, count)]
    if max(rows, cols) <= SMALL_SCENE and count <= MANY_BANDS:
        whole = reader.read(Window(0, 0, rows, cols), bands)
        for block in blocks:
            here = block.window.slices
            part = Block(pixels=whole.pixels[:, *here], valid=whole.valid[here], window=block.window)
            if difference(part, block):
                raise Inconsistent(f"{block.window} is not a part of the whole ({on_read_error})")
    reader.content_hash()
    return blocks


def corners(rows: int, cols: int, count: int) -> Iterator[Window]:
    """Corners and middle; the first corner of files of very many bands, which are slow to decode."""
    most = 1 if count > MANY_BANDS else None
    height, width = min(rows, WINDOW), min(cols, WINDOW)
    bottom, right = rows - height, cols - width
    places = ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2))
    for row, col in places[:most]:
        yield Window(row, col, height, width)


def difference(one: Block, other: Block) -> bool:
    here = one.valid
    return not (np.array_equal(here, other.valid) and one.pixels[:, here].tobytes() == other.pixels[:, here].tobytes())


def unstable_in_gdal(path: Path) -> bool:
    """Whether plain rasterio gives other pixels for a block when it has read something else before."""
    warnings.simplefilter("ignore")

    def pixels(wanted: Any, before: Any = None) -> bytes | None:
        with rasterio.open(path, sharing=False) as file:
            for window in (before, wanted):
                if window is not None:
                    try:
                        got = b"".join(
                            r(band, window=window).tobytes()
                            for band in file.indexes
                            for r in (file.read, file.read_masks)
                        )
                    except RasterioError:
                        got = None
            return got

    with rasterio.Env(**OPTIONS):
        with rasterio.open(path, sharing=False) as file:
            blocks = [window for _, window in file.block_windows(1)][:500]
            blocks.append(Whole(0, 0, file.width, file.height))
        return any(
            pixels(block) not in (None, pixels(block, before))
            for block, before in zip(blocks, [*blocks[-1:], *blocks], strict=False)
        )


def run_mutant(path: Path) -> tuple[str, str]:
    """A whole run over a small scene, from reading to polygons."""
    import geoseg
    from geoseg.testing.models import ThresholdModel

    out = path.with_name("out")
    shutil.rmtree(out, ignore_errors=True)
    try:
        scene = open_scene([path], on_read_error="mask", pixel_size_m=10).scene
        if max(scene.shape) > SMALL_SCENE or len(scene.bands) > 16:
            return "refused", "too large for a run here"
        names = ["red", *"-" * (len(scene.bands) - 1)]
        reader = open_scene([path], bands=names, on_read_error="mask", pixel_size_m=10)
        geoseg.run(reader, out=out, model=ThresholdModel(threshold=100), format="gpkg,geojson", workers=1)
    except GeosegError as error:
        return "refused", str(error)
    return "read", ""


def read_plainly(path: Path) -> tuple[str, str]:
    """The same windows through rasterio alone."""
    warnings.simplefilter("ignore")
    with rasterio.Env(**OPTIONS):
        try:
            with rasterio.open(path, sharing=False) as file:
                bands = sorted({*range(1, min(file.count, 4) + 1), file.count})
                for window in corners(file.height, file.width, file.count):
                    file.read(bands, window=window.slices)
                    file.read_masks(bands, window=window.slices)
        except Exception as error:
            return "refused", str(error)
    return "read", ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, help="number of one mutant")
    parser.add_argument("--keep", type=Path, help="write that mutant here")
    parser.add_argument("--mode", choices=("read", "run", "plain"), default="read")
    parser.add_argument("--run", dest="mode", action="store_const", const="run", help="the same as --mode run")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        child_main(*given.child, given.seed, given.mode)
        return 0
    if given.keep:
        with tempfile.TemporaryDirectory() as folder:
            build_corpus(Path(folder))
            given.keep.write_bytes(
                Corpus(Path(folder)).mutant(given.seed, given.only, small=given.mode == "run").content
            )
    numbers = range(given.mutants) if given.only is None else [given.only]
    report = fuzz(given.seed, numbers, mode=given.mode, jobs=given.jobs)
    sys.stdout.write(report.text() + "\n")
    if given.only is not None:
        sys.stdout.write(f"{report.outcomes[0].kind}: {report.outcomes[0].detail}\n")
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
