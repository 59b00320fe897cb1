"""The output directory of a run: what is finished, what is under way, and whose it is.

OUT/.partial/identity.json   what the run is: content of the scene, model, area, options, version; when it was begun anew
OUT/.partial/BEGUN/journal/  finished tiles. BEGUN is a name of its own for each time that the directory is begun anew: a
OUT/.partial/BEGUN/store/    predictions (Zarr)    tile that a cluster finishes late never comes among those of another run
OUT/.partial/BEGUN/found/    objects as patches saw them, for models that find objects one by one
OUT/.partial/BEGUN/linked/   predictions after what was settled over all tiles, and their journal, for models that ask for it
OUT/.partial/fields/         polygons, and what is kept on the way to them
OUT/.partial/out/            files being made; renamed into OUT when all are whole
OUT/run.json                 written last: an OUT without it is unfinished
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from geoseg.disk import flush, replacing, room_for
from geoseg.errors import RunError

LOCK = ".geoseg.lock"
BEGUN = "begun"
OLD = ".old"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a run computes. Equal digests give equal results (with one engine); path and time are not part of it."""

    values: Mapping[str, Any]
    """What decides the result: all of it what is predicted, but for `vectorize`, which only the polygons depend on, and
    `tile`, which says how the store is cut and decides nothing."""

    @property
    def digest(self) -> str:
        decisive = {name: value for name, value in self.values.items() if name != "tile"}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def same_store(self, other: Mapping[str, Any]) -> bool:
        """True if predictions of the other run can be gone on with."""
        ours, theirs = ({k: v for k, v in values.items() if k != "vectorize"} for values in (self.values, other))
        return bool(_plain(ours) == theirs)

    def differences(self, other: Mapping[str, Any]) -> str:
        """The entries that differ, each as `name: theirs there, ours now`."""
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
        return self._tiles / "journal"

    @property
    def store(self) -> Path:
        return self._tiles / "store"

    @property
    def found(self) -> Path:
        return self._tiles / "found"

    @property
    def linked(self) -> Path:
        return self._tiles / "linked"

    @property
    def fields(self) -> Path:
        return self.partial / "fields"

    @property
    def making(self) -> Path:
        return self.partial / "out"

    @classmethod
    def beside(cls, target: Path) -> Workspace:
        """For a command that makes one file."""
        return cls(target.parent.absolute() / f".{target.name}.partial")

    @property
    def _tiles(self) -> Path:
        return self.partial / str(read_json(self.partial / "identity.json").get(BEGUN, "tiles"))

    def settled(self, find: Callable[[], str]) -> str:
        """What `find` gave when these tiles were begun: a choice that might come out otherwise the next time."""
        path = self._tiles / "settled.json"
        known = read_json(path).get("precision")
        if known is None:
            known = find()
            with room_for(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, {"precision": known})
        return str(known)

    def clear(self) -> None:
        """Removes all that was kept for an interrupted run."""
        _remove(self.partial)

    def tidy(self) -> None:
        """Removes what a finished run has left because it was killed while it tidied up."""
        if self.partial.exists() or (self.out / LOCK).exists() or any(self.out.glob(f"{self.partial.name}.*{OLD}")):
            with suppress(RunError), self.locked():  # where another run is at work, it will do so
                self.clear()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One run an output directory: RunError where another process is at work in it.

        The lock is the operating system's: it goes with its process, however that ends.
        """
        if self.out.exists() and not self.out.is_dir():
            raise RunError(f"{self.out} is a file; -o names a directory")
        if '"' in str(self.out):
            raise RunError(f'{self.out} has a " in its name, which GDAL cannot open; choose another -o')
        path = self.out / LOCK
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except OSError as error:
            raise RunError(f"{self.out} cannot be written ({error.strerror or error}); choose another -o") from error
        with file:
            _take(file, self.out)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
                if not any(self.out.iterdir()):
                    self.out.rmdir()

    def finished(self) -> dict[str, Any] | None:
        """The record of a finished run; None where there is none, {} where it cannot be read."""
        path = self.out / "run.json"
        return read_json(path) if path.exists() else None

    def begin(self, identity: Identity, *, overwrite: bool, restart: bool) -> bool:
        """Prepares the directory; True if an earlier try of the same run goes on.

        Raises RunError where the directory holds another run or something else, or cannot be written.
        """
        record = self.finished()
        if record is not None and not overwrite:
            self._refuse_another(record, identity)
        strangers = _strangers(self.out)
        if record is None and not self.partial.exists() and strangers and not overwrite:
            raise RunError(
                f"{self.out} exists and holds other files ({', '.join(strangers[:3])}); "
                f"choose another -o, or --overwrite to add to it"
            )
        try:
            there = {} if restart else read_json(self.partial / "identity.json")
            begun = str(there.pop(BEGUN, uuid.uuid4().hex[:12]))
            goes_on = bool(there) and identity.same_store(there)
            if there and not goes_on and not overwrite:
                raise RunError(
                    f"{self.out} holds an unfinished run that differs from this one ({identity.differences(there)}); "
                    f"choose another -o, repeat its command to resume, or --restart to begin anew"
                )
            if not goes_on:
                self.clear()
                begun = uuid.uuid4().hex[:12]
            elif there.get("vectorize") != _plain(identity.values).get("vectorize"):
                _remove(self.fields)
            _remove(self.making)
            self.making.mkdir(parents=True, exist_ok=True)
            write_json(self.partial / "identity.json", {**identity.values, BEGUN: begun})
        except OSError as error:
            raise RunError(f"{self.out} cannot be written ({error.strerror or error}); choose another -o") from error
        return goes_on

    def _refuse_another(self, record: Mapping[str, Any], identity: Identity) -> None:
        there = record.get("identity")
        if not isinstance(there, Mapping):
            raise RunError(f"{self.out / 'run.json'} cannot be read; use --overwrite to replace that run")
        if Identity(values=there).digest != identity.digest:
            raise RunError(
                f"{self.out} holds a finished run that differs from this one ({identity.differences(there)}); "
                f"choose another -o, or --overwrite to replace it"
            )

    def publish(self, files: Sequence[Path], record: Mapping[str, Any]) -> None:
        """Renames finished files into OUT, drops what an earlier run left, writes run.json last, tidies up."""
        replaces = self.partial / "replaces.json"
        try:
            # What an earlier run wrote must still be known if this is interrupted after its record is gone.
            old = {**read_json(replaces), **(self.finished() or {}).get("outputs", {})}
            write_json(replaces, old)
            (self.out / "run.json").unlink(missing_ok=True)
            for file in files:
                os.replace(file, self.out / file.name)
            for name in old.keys() - {file.name for file in files}:
                if Path(name).name == name:
                    (self.out / name).unlink(missing_ok=True)
            flush(self.out)
            write_json(self.out / "run.json", record)
            flush(self.out)
        except OSError as error:
            raise RunError(
                f"results could not be moved into {self.out} ({error.strerror or error}); "
                f"make room or rights and run the same command again"
            ) from error
        self.clear()


def _remove(folder: Path) -> None:
    """Removes a folder, or at least its name: what is left of it when this is interrupted is never taken for whole."""
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}{OLD}"))
    for old in folder.parent.glob(f"{folder.name}.*{OLD}"):
        shutil.rmtree(old, ignore_errors=True)


def _take(file: IO[str], out: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on Windows: two runs in one directory are then the user's to avoid
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(f"another geoseg run is at work in {out}; wait for it, or choose another -o") from error
    except OSError:  # a file system without locks
        return


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As they come back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a file; {} where it is missing or broken."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON under a temporary name first: the file is whole or absent."""
    with replacing(path) as file:
        file.write((json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def _strangers(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.name != LOCK) if out.exists() else []


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
