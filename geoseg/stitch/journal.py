"""The journal of finished tiles: append-only, one file a process, written after the tile's chunk is on disk."""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geoseg.grid import Window

_files: dict[str, tuple[int, Path]] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRecord:
    index: tuple[int, int]
    """The tile's index on the anchored lattice."""
    valid: int
    """Valid pixels in its core."""
    patches: int
    """Patches that the model saw; patches without a valid pixel are skipped."""
    model_pixels: int
    """Pixels that the model saw."""
    engine: str = ""
    """Fingerprint of the engine that predicted it; empty where nothing was to be predicted."""
    degraded: bool = False
    """True where the engine had stepped down for want of memory."""
    unread: tuple[tuple[int, int, int, int], ...] = ()
    """Parts that could not be read: row, column, height and width in scene pixels."""
    read_s: float = 0.0
    predict_s: float = 0.0
    write_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Journal:
    folder: Path

    def append(self, record: TileRecord) -> None:
        """Adds one finished tile, on disk when this returns; safe from threads and processes."""
        line = json.dumps(asdict(record)) + "\n"
        with _lock:
            key = str(self.folder)
            pid, path = _files.get(key, (0, Path()))
            if pid != os.getpid():
                # A file a process: appends never interleave, whatever the file system.
                path = self.folder / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
                _files[key] = (os.getpid(), path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    def records(self) -> Iterator[TileRecord]:
        """Finished tiles, each once. A last line that was cut off by a kill is not a record."""
        seen: set[tuple[int, int]] = set()
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text().splitlines(keepends=True):
                record = _parse(line)
                if record is not None and record.index not in seen:
                    seen.add(record.index)
                    yield record

    def finished(self) -> set[tuple[int, int]]:
        return {record.index for record in self.records()}

    def unread(self) -> list[Window]:
        """The parts of the scene that could not be read, none twice."""
        return sorted({Window(*part) for record in self.records() for part in record.unread})


def _parse(line: str) -> TileRecord | None:
    if not line.endswith("\n"):
        return None
    try:
        values: dict[str, Any] = json.loads(line)
        values["index"] = tuple(values["index"])
        values["unread"] = tuple(tuple(part) for part in values.get("unread", ()))
        return TileRecord(**values)
    except (ValueError, TypeError, KeyError):
        return None
