"""The batch: scenes one after the other; what fails is set aside with its reason, and the same call goes on where it stopped.

OUT/batch.jsonl        the journal: every scene that began, is done or failed
OUT/scenes/ID/         the results of a scene, as `geoseg run` writes them; itself resumable
OUT/failed.csv         scenes that failed, with their reasons; absent where none did
OUT/summary.csv, .parquet, catalog/    made anew at the end of each batch
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geoseg.batching.catalog import write_catalog
from geoseg.batching.journal import BatchJournal, Entry
from geoseg.batching.recipe import Batch, BatchScene
from geoseg.batching.settings import Models, check_shared, differences, settings_of, stamps_of
from geoseg.batching.summary import Outcome, outcome_of, write_failed, write_summary
from geoseg.errors import ALL_FAILED, SOME_FAILED, ExportError, GeosegError, InputError, Interrupted, RunError
from geoseg.pipeline import run
from geoseg.runtime.events import Events
from geoseg.runtime.predict import release_memory
from geoseg.runtime.runners import connect
from geoseg.runtime.stop import Stop, signals_set
from geoseg.runtime.workspace import Workspace, read_json

JOURNAL = "batch.jsonl"
SCENES = "scenes"

Todo = Literal["run", "done", "failed"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)
"""What would stop every scene: a disk that is full or read-only, and no files left to open."""

PROBE_BYTES = 1 << 20
"""Written and taken back after a failure, to tell a scene's fault from the disk's."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be done about a scene."""

    scene: BatchScene
    todo: Todo
    """`done` and `failed`: it is so already, and left as it is."""
    settings: Mapping[str, Any]
    before: Entry | None
    """What an earlier batch in this folder came to."""
    overwrite: bool = False
    restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    out: Path
    outcomes: tuple[Outcome, ...]
    """One a scene, in the table's order."""

    @property
    def counts(self) -> Mapping[str, int]:
        return Counter(outcome.status for outcome in self.outcomes)

    @property
    def exit_code(self) -> int:
        """0 where all scenes are done, SOME_FAILED or ALL_FAILED."""
        failed = self.counts["failed"]
        if not failed:
            return 0
        return ALL_FAILED if failed == len(self.outcomes) else SOME_FAILED


def plan_batch(batch: Batch, out: Path, *, retry_failed: bool = False, overwrite: bool = False) -> list[Step]:
    """What a batch would do about each scene; nothing is written and no scene is opened.

    Raises:
        GeosegError: for what would make every scene fail, and where `out` holds something else, or results of these scenes
            with other options (unless `overwrite`).
    """
    check_shared(batch.options)
    journal = BatchJournal(out / JOURNAL)
    if not journal.path.exists() and out.exists() and not overwrite:
        strangers = (
            sorted(path.name for path in out.iterdir() if not path.name.startswith(".geoseg")) if out.is_dir() else []
        )
        if strangers:
            raise RunError(
                f"{out} holds other files and no batch ({', '.join(strangers[:3])}); choose another folder, or --overwrite to "
                f"add to it"
            )
    known, models = journal.last(), Models()
    steps = [
        _step(
            scene, known.get(scene.id), out, settings_of(scene, models), retry_failed=retry_failed, overwrite=overwrite
        )
        for scene in batch.scenes
    ]
    _refuse_changes(steps, out, overwrite=overwrite)
    return steps


def _step(
    scene: BatchScene,
    before: Entry | None,
    out: Path,
    settings: Mapping[str, Any],
    *,
    retry_failed: bool,
    overwrite: bool,
) -> Step:
    same = before is None or before.settings == settings
    todo: Todo = "run"
    if before is not None and before.status == "failed" and not retry_failed:
        todo = "failed"
    elif before is not None and before.status == "done" and same and before.stamps == stamps_of(scene):
        todo = "done" if _is_whole(out / SCENES / scene.id) else "run"
    # Where the scene's files may have changed, the run itself looks at their content, and refuses another one's place.
    return Step(
        scene=scene, todo=todo, settings=settings, before=before,
        overwrite=overwrite, restart=not same,
    )  # fmt: skip


def _is_whole(folder: Path) -> bool:
    """Whether a run is finished there, with all its files."""
    outputs = read_json(folder / "run.json").get("outputs")
    return isinstance(outputs, dict) and bool(outputs) and all((folder / name).exists() for name in outputs)


def _refuse_changes(steps: Sequence[Step], out: Path, *, overwrite: bool) -> None:
    """RunError where scenes that began or are done were asked for with other options."""
    changed = [
        step for step in steps
        if step.before is not None and step.before.status != "failed" and step.before.settings != step.settings
    ]  # fmt: skip
    if not changed or overwrite:
        return
    first = changed[0]
    there = first.before.settings if first.before is not None else {}
    raise RunError(
        f"{out} holds results of {len(changed)} of these scenes with other options ({first.scene.id}: "
        f"{differences(there, first.settings)}); choose another folder, or --overwrite to do them anew"
    )


def run_batch(
    batch: Batch,
    *,
    out: str | Path | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    events: Events | None = None,
    inside: Events | None = None,
) -> BatchResult:
    """Runs every scene of a batch that is not done; the same call again resumes.

    Args:
        batch: scenes with their options.
        out: folder of the results; None takes the batch's own.
        retry_failed: try scenes again that failed before.
        overwrite: do scenes anew that are done with other options, or whose files have changed.
        events: listeners for the progress over scenes.
        inside: listeners for the progress within a scene.

    Raises:
        GeosegError: where the batch cannot begin or go on at all; a scene that fails is part of the result.
    """
    events, stop = events or Events(), Stop()
    target = target_of(batch, out)
    for note in batch.notes:
        events.note(note)
    workspace = Workspace(target)
    if target.exists() and not target.is_dir():
        raise RunError(f"{target} is a file; `out:` names a folder")
    plan_batch(batch, target, retry_failed=retry_failed, overwrite=overwrite)  # what is refused leaves no folder behind
    with workspace.locked():
        steps = plan_batch(batch, target, retry_failed=retry_failed, overwrite=overwrite)
        with _cluster(batch) as client:
            _run_steps(steps, target, client, stop, events=events, inside=inside or Events())
        with signals_set(stop):
            known = BatchJournal(target / JOURNAL).last()
            outcomes = tuple(outcome_of(step.scene, known.get(step.scene.id), target / SCENES) for step in steps)
            write_failed(outcomes, target)
            write_summary(outcomes, target)
            write_catalog(outcomes, target, batch.source.stem, scenes=target / SCENES)
    return BatchResult(out=target if out is None else Path(out), outcomes=outcomes)


def target_of(batch: Batch, out: str | Path | None) -> Path:
    """The folder of the results: as asked, else the batch's own."""
    target = batch.out if out is None else Path(out)
    if target is None:
        raise InputError(f"where are the results to go? Give -o FOLDER, or `out:` in {batch.source.name}")
    return target.absolute()


def _run_steps(steps: Sequence[Step], out: Path, client: Any, stop: Stop, *, events: Events, inside: Events) -> None:
    journal, waiting = BatchJournal(out / JOURNAL), [step for step in steps if step.todo == "run"]
    known = {step.scene.id: step.before for step in steps}
    ended = len(steps) - len(waiting)
    events.stage_started("batch", total=len(steps), done=ended)
    for step in waiting:
        try:
            with signals_set(stop):
                _begin(step, journal)
                stop.check()
                entry = _run_one(step, out, client, inside)
                journal.append(entry)
                ended += 1
                if entry.status == "failed":
                    known[entry.scene] = entry
                    write_failed([outcome_of(one.scene, known[one.scene.id], None) for one in steps], out)
                    events.note(f"{entry.scene} failed: {entry.reason}")
                events.stage_advanced("batch")
            stop.check()
        except Interrupted as error:
            raise Interrupted(
                f"stopped: {ended} of {len(steps)} scenes are behind us, and what is finished of the next one is kept; run the "
                f"same command again to resume",
                exit_code=error.exit_code,
            ) from error
    events.stage_finished("batch")


def _begin(step: Step, journal: BatchJournal) -> None:
    journal.append(Entry(scene=step.scene.id, status="begun", settings=step.settings))


def _run_one(step: Step, out: Path, client: Any, inside: Events) -> Entry:
    """Done or failed; whatever would stop the next scenes as well is raised."""
    scene, begun, stamps = step.scene, time.monotonic(), stamps_of(step.scene)

    def entry(**values: Any) -> Entry:
        return Entry(
            scene=scene.id, settings=step.settings, stamps=stamps, seconds=round(time.monotonic() - begun, 3), **values
        )

    try:
        run(
            *scene.files, out=out / SCENES / scene.id, options=scene.options, overwrite=step.overwrite, restart=step.restart,
            events=inside, client=client,
        )  # fmt: skip
    except Interrupted:
        raise
    except Exception as error:  # a scene may break anything on its way through a dozen libraries
        log.debug("scene %s failed", scene.id, exc_info=True)
        _raise_if_common(error, out, client, scene.id)
        told = str(error) if isinstance(error, GeosegError) else f"unexpected {type(error).__name__}: {error}"
        _forget(error)
        return entry(status="failed", reason=" ".join(told.split()), error=type(error).__name__)
    return entry(status="done")


def _forget(error: Exception) -> None:
    """Frees what a failure holds: its frames, the network, the pixels. The next scene is to find what the first one found."""
    error.__traceback__ = None
    release_memory()
    gc.collect()


def _raise_if_common(error: Exception, out: Path, client: Any, scene: str) -> None:
    """Raises RunError where the fault is not the scene's: the disk is full, the cluster gone."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in FULL:
            raise _no_room(out, link, scene) from error
        link = link.__cause__ or link.__context__
    if client is not None and (client.status != "running" or not client.nthreads()):
        raise error
    probe = out / f".geoseg.{os.getpid()}.probe"
    try:
        with probe.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as full:
        raise _no_room(out, full, scene) from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    # Drivers say little of why they cannot write, and what was written is gone: results are about as large as what is kept.
    held = sum(path.stat().st_size for path in (out / SCENES / scene).rglob("*") if path.is_file())
    if (
        isinstance(error, ExportError)
        and error.__cause__ is not None
        and shutil.disk_usage(out).free < held + PROBE_BYTES
    ):
        raise _no_room(out, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), scene) from error


def _no_room(out: Path, error: OSError, scene: str) -> RunError:
    return RunError(
        f"{out} cannot be written ({error.strerror or error}), which is not the fault of {scene}: make room and run the same "
        f"command again to resume"
    )


@contextmanager
def _cluster(batch: Batch) -> Iterator[Any]:
    """One connection for all scenes where the batch names a scheduler; one that does not answer ends the batch at once."""
    addresses = {scene.options.scheduler for scene in batch.scenes}
    if len(addresses) != 1 or (address := addresses.pop()) is None:
        yield None
        return
    client = connect(address)
    try:
        yield client
    finally:
        client.close()
