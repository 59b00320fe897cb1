"""Writes a tracked layer and its log: both, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.errors import InputError
from geoseg.export import exporter_for
from geoseg.export.staging import staged

if TYPE_CHECKING:
    from geoseg.tracking.track import Tracked


def check_free(out: Path, log: Path, *, sources: Sequence[str], overwrite: bool) -> None:
    """InputError where a file would be replaced without leave, or is read and written; ExportError for an unknown format."""
    exporter_for(out)
    read = {Path(source.partition("|layername=")[0]).resolve() for source in sources}
    for path in (out, log):
        if path.resolve() in read:
            raise InputError(f"{path} is read and would be replaced; give the result another name")
    if log.resolve() == out.resolve():
        raise InputError(f"{out} would be the tracked fields and the log; give one of them another name")
    present = [path for path in (out, out.with_name(f"{out.stem}_1{out.suffix}"), log) if path.exists()]
    if present and not overwrite:
        raise InputError(f"{present[0]} exists already; give another name or add --overwrite")


def write(tracked: Tracked, out: Path, log: Path) -> list[Path]:
    """Every file made. Raises ExportError, leaving nothing half-written."""
    with staged(log) as stage:
        # Made first, in place last: where the fields cannot be written, there is no log of them.
        stage.path.write_text(tracked.log.to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="")
        files = exporter_for(out).write(tracked.fields, out)
    return [*files, *stage.files]
