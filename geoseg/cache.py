"""What is kept between runs in the user's cache folder: by content, so that nothing in it can be out of date."""

from __future__ import annotations

import hashlib
import logging
import os
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
        return Path(chosen).expanduser()
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
        whole = (each for each in path.parent.iterdir() if not each.name.startswith("."))
        for old in sorted(whole, key=lambda each: each.stat().st_mtime, reverse=True)[MOST:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.info("%s cannot be written (%s); it is made again in the next run", path, error.strerror or error)


@cache
def _source_digest() -> str:
    """Of the code of models and engines: another one may do otherwise under the same version."""
    here, digest = Path(__file__).parent, hashlib.sha256()
    for file in sorted([*(here / "engines").glob("*.py"), *(here / "models").glob("*.py"), here / "spec.py"]):
        digest.update(file.read_bytes())
    return digest.hexdigest()
