"""What is kept between runs in the user's cache folder: by content, so that nothing in it can be out of date."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from geoseg.disk import replacing
from geoseg.version import VERSION

FOLDER = "GEOSEG_CACHE"
"""Environment variable with the folder; `off` keeps nothing."""

MOST = 24
"""Files of a kind that are kept: those used last."""

log = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """Where things are kept; None where the user wants none."""
    chosen = os.environ.get(FOLDER, "").strip()
    if chosen.lower() == "off":
        return None
    if chosen:
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            log.warning("%s=%s is no folder (%s); nothing is kept between runs", FOLDER, chosen, error)
            return None
    import platformdirs

    return platformdirs.user_cache_path("geoseg", appauthor=False)


def cache_name(*told: object) -> str:
    """A name that follows from `told`, the version, and the code that brings models onto engines."""
    return hashlib.sha256("\n".join([VERSION, _source_digest(), *map(str, told)]).encode()).hexdigest()[:40]


def load(kind: str, name: str) -> bytes | None:
    """What was kept; None where there is nothing."""
    folder = cache_folder()
    if folder is None:
        return None
    path = folder / kind / name
    try:
        held = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):
        os.utime(path)  # used last: see MOST
    return held


def save(kind: str, name: str, held: bytes) -> None:
    """Keeps bytes; a folder that cannot be written is no error."""
    folder = cache_folder()
    if folder is None:
        return
    path = folder / kind / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(held)
        _prune(path.parent)
    except OSError as error:
        log.info("%s cannot be written (%s); it is made again in the next run", path, error.strerror or error)


def _prune(folder: Path) -> None:
    """Leaves those used last, and nothing that a process began an hour ago and did not end."""
    ages: list[tuple[float, Path]] = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process prunes, too
            ages.append((time.time() - path.stat().st_mtime, path))
    whole = sorted((age, path) for age, path in ages if not path.name.startswith("."))
    for _, old in whole[MOST:] + [(age, path) for age, path in ages if path.name.startswith(".") and age > 3600]:
        old.unlink(missing_ok=True)


@cache
def _source_digest() -> str:
    """Of the code of models and engines: another one may do otherwise under the same version."""
    here, digest = Path(__file__).parent, hashlib.sha256()
    for file in sorted([*(here / "engines").glob("*.py"), *(here / "models").rglob("*.py"), here / "spec.py"]):
        digest.update(file.read_bytes())
    return digest.hexdigest()
