"""The journal of a batch: append-only, a JSON line for each scene that begins, is done or fails; on disk when append returns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from geoseg.disk import room_for

Status = Literal["begun", "done", "failed"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    scene: str
    status: Status
    settings: Mapping[str, Any]
    """What decides the results, see `settings_of`."""
    stamps: Sequence[Sequence[Any]] = ()
    """Of each file: name, bytes, time of change in nanoseconds. They only tell that nothing can have changed."""
    reason: str = ""
    """Why it failed."""
    error: str = ""
    """The error's type."""
    seconds: float = 0.0
    when: str = field(default_factory=_now)


@dataclass(frozen=True, slots=True)
class BatchJournal:
    """One process writes it: whoever holds the folder's lock."""

    path: Path

    def append(self, entry: Entry) -> None:
        """Adds an entry. Raises RunError where the disk does not take it."""
        with room_for(self.path):
            new = not self.path.exists()
            with self.path.open("ab+") as file:
                line = json.dumps(asdict(entry)) + "\n"
                if not new and file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a line that a kill cut off stays one by itself
                        line = "\n" + line
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())

    def last(self) -> dict[str, Entry]:
        """The last entry of each scene. A line that was cut off by a kill is none."""
        found: dict[str, Entry] = {}
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return found
        for line in text.splitlines():
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue
            found[entry.scene] = entry
        return found
