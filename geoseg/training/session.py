"""One training, from its first step or the last kept state to its last: Lightning's Trainer, and what watches over it."""

from __future__ import annotations

import csv
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from geoseg.disk import flush, replacing, room_for
from geoseg.engines.hardware import cpu_has_bf16
from geoseg.errors import Interrupted, ModelError
from geoseg.runtime.events import Events
from geoseg.runtime.stop import Stop
from geoseg.training.chips import ChipData
from geoseg.training.recipe import Schedule, TrainRecipe
from geoseg.training.task import Epoch, TrainingTask

STATE = "state.ckpt"
GRADIENT_LIMIT = 5.0
"""Longest gradient, as in the training of the bundled models."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    state: dict[str, Tensor]
    """Weights of the network."""
    history: tuple[Epoch, ...]
    epoch: int
    """The one whose weights these are, from 0."""
    early: bool
    """Whether patience ended the training."""
    device: str
    precision: str
    threads: int
    boards: bool
    """Whether tensorboard was written."""


class Watch(L.Callback):
    """Progress, the kept state after each epoch, early stop, and stopping when asked to."""

    def __init__(self, recipe: TrainRecipe, folder: Path, public: Path, *, events: Events, stop: Stop) -> None:
        self.recipe, self.folder, self.public, self.events, self.stop = recipe, folder, public, events, stop

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        schedule = self.recipe.schedule
        self.events.stage_started("train", total=schedule.epochs * schedule.steps, done=trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        self.events.stage_advanced("train")
        if self.stop:
            done, kept = trainer.global_step, trainer.current_epoch
            raise Interrupted(
                f"stopped by {self.stop.signal_number.name} at step {done}; {kept} of {self.recipe.schedule.epochs} epochs are "
                f"kept: run the same command again to go on from there",
                exit_code=128 + self.stop.signal_number,
            )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        task: Any = pl_module
        if len(task.history) != trainer.current_epoch + 1:
            raise ModelError(
                f"the training diverged in epoch {trainer.current_epoch + 1}: its loss is no number; give a lower "
                f"schedule.learning_rate (it is {self.recipe.schedule.learning_rate:g})"
            )
        told = task.history[-1]
        if (patience := self.recipe.schedule.patience) is not None and task.waited() >= patience:
            trainer.should_stop = True
        self._keep(trainer, task)
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in told.items() if name != "step"}, step=int(told["step"]))
            logger.save()
        best = " (best)" if task.best_epoch == len(task.history) - 1 else ""
        self.events.note(
            f"epoch {told['epoch']} of {self.recipe.schedule.epochs}: loss {told['train_loss']:.3f}, "
            f"validation loss {told['val_loss']:.3f}, mean IoU {told['val_miou']:.3f}{best}"
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self.events.stage_finished("train")

    def _keep(self, trainer: L.Trainer, task: TrainingTask) -> None:
        with room_for(self.folder):
            part = self.folder / f"{STATE}.part"
            trainer.save_checkpoint(part)
            flush(part)
            os.replace(part, self.folder / STATE)
            flush(self.folder)
            write_csv(self.public / "metrics.csv", task.history)


def fit(
    task: TrainingTask, data: ChipData, recipe: TrainRecipe, *, folder: Path, public: Path, events: Events, stop: Stop
) -> Trained:
    """Trains to the end, from the state kept in `folder` if there is one.

    `public` gets metrics.csv and, where tensorboard is installed, its event files. On one machine with as many threads a
    training that was killed ends with the same bits as an undisturbed one.
    """
    schedule, kept = recipe.schedule, folder / STATE
    there = told_state(kept)
    threads = int(there["threads"]) if there else schedule.threads or torch.get_num_threads()
    precision = settled_precision(schedule) if task.spec_.instances is None else "fp32"
    boards = find_spec("tensorboard") is not None
    if not boards:
        events.note("no TensorBoard files: tensorboard is not installed (pip install 'geoseg[training]')")
    with as_training(threads):
        done = there is not None and _finished(there["history"], schedule)
        if there is not None:
            events.note(f"going on after epoch {len(there['history'])} of {schedule.epochs}")
        else:
            with room_for(folder):
                (folder / "threads").write_text(str(threads))
        if there is not None and done:
            task.on_load_checkpoint({"geoseg": there})
        else:
            trainer = L.Trainer(
                accelerator="auto",
                devices=1,
                precision="bf16-mixed" if precision == "bf16" else "32-true",
                max_epochs=schedule.epochs,
                gradient_clip_val=GRADIENT_LIMIT,
                deterministic="warn" if torch.cuda.is_available() else True,
                logger=_board(public, there) if boards else False,
                callbacks=[Watch(recipe, folder, public, events=events, stop=stop)],
                default_root_dir=folder,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
            )
            trainer.fit(task, datamodule=data, ckpt_path=kept if there is not None else None)
    return Trained(
        state={name: value.cpu() for name, value in task.kept().items()},
        history=tuple(task.history),
        epoch=task.kept_epoch(),
        early=len(task.history) < schedule.epochs,
        device="cuda" if torch.cuda.is_available() else "cpu",
        precision=precision,
        threads=threads,
        boards=boards,
    )


def settled_precision(schedule: Schedule) -> str:
    if schedule.precision != "auto":
        return schedule.precision
    able = torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else cpu_has_bf16()
    return "bf16" if able else "fp32"


def told_state(path: Path) -> dict[str, Any] | None:
    """What a kept state says beside the network's weights; None where there is none."""
    if not path.is_file():
        return None
    try:
        told: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["geoseg"]
        threads = int((path.parent / "threads").read_text())
    except Exception as error:
        raise ModelError(f"the kept state {path} cannot be read ({error}); begin anew with --restart") from error
    return {**told, "threads": threads}


def write_csv(path: Path, history: Sequence[Epoch]) -> None:
    """All epochs, a line each."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    table.writeheader()
    table.writerows({name: f"{value:.6g}" for name, value in epoch.items()} for epoch in history)
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def _finished(history: Sequence[Epoch], schedule: Schedule) -> bool:
    scores = [epoch["val_miou"] for epoch in history]
    waited = len(scores) - 1 - scores.index(max(scores))
    return len(history) >= schedule.epochs or (schedule.patience is not None and waited >= schedule.patience)


def _board(public: Path, there: dict[str, Any] | None) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    # What came after the kept state is written again: older events from there on are to be dropped.
    purge = None if there is None else int(there["history"][-1]["step"]) + 1
    return TensorBoardLogger(save_dir=public, name="tensorboard", version="", purge_step=purge)


@contextmanager
def as_training(threads: int) -> Iterator[None]:
    """The process as training needs it, and as it was before afterwards."""
    before = torch.get_num_threads()
    exact, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(exact, warn_only=warn_only)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
