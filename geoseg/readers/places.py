"""Names of rasters: local files, or anything else that GDAL may know."""

from __future__ import annotations

from pathlib import Path


def local_path(name: str) -> Path | None:
    """The file or directory of that name, None where there is none: URLs, /vsi names, subdatasets, mistakes."""
    try:
        path = Path(name)
        return path if name and path.exists() else None
    except (OSError, ValueError):
        # Too long for a file name, or with a NUL in it.
        return None


def may_be_remote(name: str) -> bool:
    """True for names that only GDAL can judge: URLs, /vsi names, `DRIVER:file:part`."""
    return "://" in name or name.startswith("/vsi") or (":" in name and "/" not in name.partition(":")[0])
