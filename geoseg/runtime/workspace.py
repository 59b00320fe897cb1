"""The output directory of a run: what is finished, what is under way, and whose it is.

OUT/.partial/identity.json   what the run is: content of the scene, model, options, versions
OUT/.partial/journal/        finished tiles
OUT/.partial/store/          predictions (Zarr)
OUT/.partial/out/            files being made; renamed into OUT when all are whole
OUT/run.json                 written last: an OUT without it is unfinished
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.errors import RunError


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a run computes. Equal digests give equal results; path and time are not part of it."""

    values: Mapping[str, Any]
    """What decides the result, and under `tile` how the store is cut: that only says whether a store can be gone on with."""

    @property
    def digest(self) -> str:
        decisive = {name: value for name, value in self.values.items() if name != "tile"}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def differences(self, other: Mapping[str, Any]) -> str:
        """The entries that differ, each as `name: theirs -> ours`."""
        ours, theirs = _flat(self.values), _flat(other)
        return "; ".join(
            f"{name}: {_short(theirs.get(name))} there, {_short(ours.get(name))} now"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        )


@dataclass(frozen=True, slots=True)
class Workspace:
    out: Path

    @property
    def partial(self) -> Path:
        return self.out / ".partial"

    @property
    def journal(self) -> Path:
        return self.partial / "journal"

    @property
    def store(self) -> Path:
        return self.partial / "store"

    @property
    def making(self) -> Path:
        return self.partial / "out"

    def finished(self) -> dict[str, Any] | None:
        """The record of a finished run, or None."""
        path = self.out / "run.json"
        if not path.exists():
            return None
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path} is not readable as JSON ({error}); use --overwrite to replace that run") from error
        return record

    def begin(self, identity: Identity, *, overwrite: bool, restart: bool) -> bool:
        """Prepares the directory; True if an earlier try of the same run goes on.

        Raises RunError where the directory holds another run or something else, or cannot be written.
        """
        if self.out.exists() and not self.out.is_dir():
            raise RunError(f"{self.out} is a file; -o names a directory")
        record = self.finished()
        if record is not None and not (overwrite or restart):
            told = identity.differences(record.get("identity", {}))
            raise RunError(
                f"{self.out} holds a finished run that differs from this one ({told}); "
                f"choose another -o, or --overwrite to replace it"
            )
        if record is None and not self.partial.exists() and _strangers(self.out) and not overwrite:
            raise RunError(
                f"{self.out} exists and holds other files ({', '.join(_strangers(self.out)[:3])}); "
                f"choose another -o, or --overwrite to add to it"
            )
        try:
            if restart:
                shutil.rmtree(self.partial, ignore_errors=True)
            known = self.partial / "identity.json"
            if known.exists():
                there = json.loads(known.read_text(encoding="utf-8"))
                if there == json.loads(json.dumps(identity.values)):
                    shutil.rmtree(self.making, ignore_errors=True)
                    return True
                if not overwrite:
                    raise RunError(
                        f"{self.out} holds an unfinished run that differs from this one ({identity.differences(there)}); "
                        f"choose another -o, repeat its command to resume, or --restart to begin anew"
                    )
                shutil.rmtree(self.partial)
            elif self.partial.exists():
                shutil.rmtree(self.partial)  # killed before it knew what it was: nothing is lost
            self.partial.mkdir(parents=True)
            write_json(known, identity.values)
        except OSError as error:
            raise RunError(f"{self.out} cannot be written ({error.strerror or error}); choose another -o") from error
        return False

    def publish(self, files: Sequence[Path], record: Mapping[str, Any]) -> None:
        """Renames finished files into OUT, drops what an earlier run left, writes run.json last, tidies up."""
        old = self.finished() or {}
        try:
            names = {file.name for file in files}
            (self.out / "run.json").unlink(missing_ok=True)
            for file in files:
                os.replace(file, self.out / file.name)
            for name in old.get("outputs", {}):
                if name not in names and Path(name).name == name:
                    (self.out / name).unlink(missing_ok=True)
            write_json(self.out / "run.json", record)
        except OSError as error:
            raise RunError(
                f"results could not be moved into {self.out} ({error.strerror or error}); "
                f"make room or rights and run the same command again"
            ) from error
        shutil.rmtree(self.partial, ignore_errors=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON under a temporary name first: the file is whole or absent."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(values, indent=2, sort_keys=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _strangers(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir()) if out.exists() else []


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.loads(json.dumps(value))
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:36] + "..."
