"""Hashes of what a scene holds: of its content, not of its path or time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.readers.places import local_path
from geoseg.results import Block
from geoseg.scene import Scene

EDGE_BYTES = 2**20
SAMPLES = 64
SAMPLE_BYTES = 4096
REMOTE_SAMPLES = 16
REMOTE_SIDE = 64

_MEANING_ONLY = (".aux.xml", ".ovr", ".prj", ".tfw", ".tifw", ".pgw", ".pngw", ".jgw", ".jgwx", ".j2w", ".wld")
"""Files beside an image whose meaning is in the scene already, or that viewers add without changing a pixel."""


def file_digest(path: Path) -> bytes:
    """SHA-256 over size, first and last MiB and 64 blocks of 4 KiB at places that follow from the size."""
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        digest.update(f"{size}\n".encode())
        with path.open("rb") as file:
            for start, length in _samples(size):
                file.seek(start)
                digest.update(file.read(length))
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r} to identify it: {error}; check that it is still there") from error
    return digest.digest()


def pixel_files(names: Sequence[str]) -> list[Path]:
    """Those of a dataset's local files that hold pixels or masks, in GDAL's order; the first is the image itself."""
    named = [name for i, name in enumerate(names) if i == 0 or not name.lower().endswith(_MEANING_ONLY)]
    return [path for path in map(local_path, named) if path is not None and path.is_file()]


def meaning(scene: Scene) -> str:
    """The scene without its name and its time, as text: what a time decides, an order, is in the hash by itself."""
    crs = None if scene.crs is None else scene.crs.to_wkt()
    return f"{scene.shape} {tuple(scene.transform)[:6]} {crs} {scene.bands} {scene.pixel_size_m}"


def sampled_pixels(scene: Scene, read: Callable[[Window], Block]) -> bytes:
    """SHA-256 over the corners and some seeded windows: for scenes that are no local files."""
    digest = hashlib.sha256()
    rows, cols = scene.shape
    height, width = min(rows, REMOTE_SIDE), min(cols, REMOTE_SIDE)
    for i in range(REMOTE_SAMPLES):
        row = _seeded(f"row {rows} {cols} {i}", rows - height + 1) if i else 0
        col = _seeded(f"col {rows} {cols} {i}", cols - width + 1) if i else 0
        block = read(Window(row, col, height, width))
        digest.update(block.pixels.tobytes())
        digest.update(block.valid.tobytes())
    return digest.digest()


def _samples(size: int) -> Iterator[tuple[int, int]]:
    yield 0, EDGE_BYTES
    yield max(0, size - EDGE_BYTES), EDGE_BYTES
    if size > 2 * EDGE_BYTES:
        for i in range(SAMPLES):
            yield _seeded(f"{size} {i}", size - SAMPLE_BYTES), SAMPLE_BYTES


def _seeded(seed: str, below: int) -> int:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") % below
