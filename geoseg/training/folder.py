"""The folder that a training writes: begun, gone on with, or refused."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from geoseg.disk import room_for
from geoseg.errors import RunError
from geoseg.runtime.workspace import Identity, Workspace, read_json, write_json


def begin(
    workspace: Workspace, identity: Mapping[str, Any], *, record: str, whole: Sequence[str], written: Sequence[str], restart: bool
) -> dict[str, Any] | None:  # fmt: skip
    """Prepares OUT; the record of the same training where it is finished.

    `record` is the file with the identity, `whole` those that a finished training has, `written` all that it may leave.
    Raises RunError where OUT holds something else.
    """
    out, partial = workspace.out, workspace.partial
    own = Identity(values=identity)
    strangers = [path.name for path in out.iterdir() if not path.name.startswith(".") and path.name not in written]
    begun = not restart and bool(read_json(partial / "identity.json"))
    if not restart and not begun and (out / whole[0]).is_file() and not read_json(out / record):
        strangers.append(whole[0])  # that no training made
    if strangers and not begun:  # before anything is taken away
        raise RunError(f"{out} exists and holds other files ({', '.join(sorted(strangers)[:3])}); choose another -o")
    if restart:
        workspace.clear()
        for name in written:
            path = out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    finished, there = read_json(out / record), read_json(partial / "identity.json")
    for found, what in (
        (finished.get("identity"), "a model of another training"),
        (there, "another training, unfinished"),
    ):
        if found and Identity(values=found).digest != own.digest:
            raise RunError(
                f"{out} holds {what} ({own.differences(found)}); choose another -o, or --restart to replace it"
            )
    if finished and all((out / name).is_file() for name in whole):
        workspace.clear()
        return finished
    with room_for(partial):
        shutil.rmtree(workspace.making, ignore_errors=True)
        workspace.making.mkdir(parents=True)
        write_json(partial / "identity.json", dict(own.values))
    return None
