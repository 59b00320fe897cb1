"""Files appear whole or not at all: written in a private folder beside the target, renamed at the end."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from geoseg.disk import flush
from geoseg.errors import ExportError

REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some space or choose another disk",
    errno.EFBIG: "choose a disk or a quota that takes larger files",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
}


PREFIX, SUFFIX = ".geoseg-", ".partial"
"""Of the names of stages."""

YOUNG_S = 5.0
"""So old a stage must be before it counts as abandoned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A folder for the files of one export, on the target's own file system."""

    target: Path
    """The file that the user asked for."""
    folder: Path
    """Where its files are made, under their final names."""
    companions: tuple[str, ...] = ()
    """Names beside the target that belong to it: an old one that is not made anew is removed."""
    files: list[Path] = field(default_factory=list)
    """Where they lie in the end; filled when the stage closes, the target first."""

    @property
    def path(self) -> Path:
        """The target, in the stage."""
        return self.folder / self.target.name

    def publish(self) -> None:
        """Move everything to its place: sidecars first, so that whoever sees the target finds them."""
        made = sorted(self.folder.iterdir(), key=lambda file: (file.name == self.target.name, file.name))
        finals = [self.target.parent / file.name for file in made]
        for final in finals:
            if final.is_dir():
                raise ExportError(f"{final} is a folder, expected a file or nothing; choose another name")
        for file in made:
            flush(file)
        for file, final in zip(made, finals, strict=True):
            os.replace(file, final)
        for name in {*self.companions} - {file.name for file in made}:
            (self.target.parent / name).unlink(missing_ok=True)
        self.files.extend(reversed(finals))


@contextmanager
def staged(target: Path, *failures: type[Exception], companions: tuple[str, ...] = ()) -> Iterator[Stage]:
    """A stage for `target`; leaving it publishes the files, an error inside it leaves nothing behind.

    OSError and the given `failures` of drivers become an ExportError. `companions` are names of files that an earlier
    export may have left and that would contradict the new one.
    """
    target = Path(target)
    if target.suffix == "" or target.is_dir():
        raise ExportError(f"{target} is no file name with a suffix; give one such as {target.name or 'fields'}.gpkg")
    if not target.parent.is_dir():
        raise ExportError(f"the folder {target.parent} does not exist, so {target.name} cannot be written; create it")
    _clear_abandoned(target.parent)
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=target.parent))
        lock = _locked(folder)
    except OSError as error:
        raise _export_error(target, error) from error
    try:
        stage = Stage(target=target, folder=folder, companions=companions)
        yield stage
        stage.publish()
    except OSError as error:
        raise _export_error(target, error) from error
    except failures as error:
        reason = _one_line(error).replace(f"{folder}{os.sep}", "")
        raise ExportError(f"cannot write {target}: {reason}; see whether the disk is full") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _clear_abandoned(parent: Path) -> None:
    """Removes the stages of processes that were killed: the system gives up their locks. Young ones may not be locked yet."""
    for folder in parent.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime < YOUNG_S:
                continue
            lock = _locked(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _locked(folder: Path) -> int | None:
    """A handle that locks a folder until it is closed; None where another has it, or there are no such locks."""
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _export_error(target: Path, error: OSError) -> ExportError:
    remedy = REMEDIES.get(error.errno or 0, "see whether the disk is full or the folder is gone")
    reason = error.strerror.lower() if error.strerror else _one_line(error)
    return ExportError(f"cannot write {target}: {reason}; {remedy}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
