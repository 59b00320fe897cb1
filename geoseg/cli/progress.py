"""Progress on the terminal: a bar where a person watches, plain lines in a pipe, JSON lines for machines."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geoseg.runtime.events import Events, Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

LABELS = {
    "batch": "scenes",
    "generate": "making scenes",
    "train": "training",
    "predict": "predicting",
    "survey": "looking around",
    "label": "finding weak parts",
    "link": "linking them",
    "components": "joining fields",
    "outlines": "tracing outlines",
    "export": "writing files",
    "measure": "measuring fields",
}

UNITS = {"train": "steps", "generate": "scenes", "measure": "fields", "batch": "scenes"}
"""What a stage counts, where it is not tiles."""


@dataclass(slots=True)
class Stage:
    total: int
    done: int
    begun: float = field(default_factory=time.monotonic)
    pixels: int = 0
    told: int = 0

    def rate(self) -> float:
        """Mpx/s since the stage began."""
        return self.pixels / 1e6 / max(1e-6, time.monotonic() - self.begun)


class Lines:
    """A line at every tenth of a stage."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.stages: dict[str, Stage] = {}

    def stage_started(self, name: str, *, total: int, done: int) -> None:
        self.stages[name] = Stage(total, done)
        if done and not self.quiet:
            self._say(f"{LABELS.get(name, name)}: {done} of {total} {UNITS.get(name, 'tiles')} were finished before")

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None:
        stage = self.stages[name]
        stage.done += units
        stage.pixels += pixels
        tenth = 10 * stage.done // max(1, stage.total)
        if tenth > stage.told and not self.quiet and stage.total >= 10:
            stage.told = tenth
            rate = f", {stage.rate():.1f} Mpx/s" if stage.pixels else ""
            self._say(f"{LABELS.get(name, name)}: {stage.done}/{stage.total}{rate}")

    def stage_finished(self, name: str) -> None:
        stage = self.stages.pop(name)
        if not self.quiet:
            rate = f", {stage.rate():.1f} Mpx/s" if stage.pixels else ""
            self._say(f"{LABELS.get(name, name)}: done in {time.monotonic() - stage.begun:.1f} s{rate}")

    def note(self, text: str) -> None:
        if not self.quiet:
            self._say(text)

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class JsonLines:
    """One JSON object an event, on standard error."""

    def stage_started(self, name: str, *, total: int, done: int) -> None:
        self._say(event="stage_started", stage=name, total=total, done=done)

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None:
        self._say(event="stage_advanced", stage=name, units=units, pixels=pixels)

    def stage_finished(self, name: str) -> None:
        self._say(event="stage_finished", stage=name)

    def note(self, text: str) -> None:
        self._say(event="note", text=text)

    def _say(self, **values: Any) -> None:
        print(json.dumps({"time": round(time.time(), 3), **values}), file=sys.stderr, flush=True)


class Bar:
    """A rich progress bar with tiles, Mpx/s and the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description:<17}"), BarColumn(bar_width=36), MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:>11}"), TimeRemainingColumn(), console=Console(stderr=True),
        )  # fmt: skip
        self.tasks: dict[str, tuple[Any, Stage]] = {}

    def stage_started(self, name: str, *, total: int, done: int) -> None:
        task = self.progress.add_task(LABELS.get(name, name), total=total, completed=done, speed="")
        self.tasks[name] = (task, Stage(total, done))

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None:
        task, stage = self.tasks[name]
        stage.pixels += pixels
        speed = f"{stage.rate():.1f} Mpx/s" if stage.pixels else ""
        self.progress.update(task, advance=units, speed=speed)

    def stage_finished(self, name: str) -> None:
        self.tasks.pop(name)

    def note(self, text: str) -> None:
        self.progress.console.print(text, highlight=False)


class Tenths(Lines):
    """Within one scene of many: only what takes long is told."""

    def stage_started(self, name: str, *, total: int, done: int) -> None:
        self.stages[name] = Stage(total, done)

    def stage_finished(self, name: str) -> None:
        self.stages.pop(name)

    def note(self, text: str) -> None: ...


class Within:
    """Stages of one scene of many, on the bar of them all; they leave when they are done."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def stage_started(self, name: str, *, total: int, done: int) -> None:
        self.bar.stage_started(name, total=total, done=done)

    def stage_advanced(self, name: str, *, units: int, pixels: int) -> None:
        self.bar.stage_advanced(name, units=units, pixels=pixels)

    def stage_finished(self, name: str) -> None:
        self.bar.progress.remove_task(self.bar.tasks.pop(name)[0])

    def note(self, text: str) -> None: ...


@contextmanager
def batch_progress(*, quiet: bool, log_json: bool) -> Iterator[tuple[Events, Events]]:
    """Events over many scenes, and those within a scene."""
    if log_json:
        events = Events((JsonLines(),))
        yield events, events
    elif quiet or not sys.stderr.isatty():
        yield Events((Lines(quiet),)), Events((Tenths(quiet),))
    else:
        bar = Bar()
        with bar.progress:
            yield Events((bar,)), Events((Within(bar),))


@contextmanager
def progress(*, quiet: bool, log_json: bool) -> Iterator[Events]:
    """Events that are shown in the way that suits who watches."""
    if log_json:
        yield Events((JsonLines(),))
    elif quiet or not sys.stderr.isatty():
        yield Events((Lines(quiet),))
    else:
        bar = Bar()
        with bar.progress:
            listener: Listener = bar
            yield Events((listener,))
