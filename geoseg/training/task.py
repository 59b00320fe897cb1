"""The Lightning task: torchgeo's semantic segmentation with geoseg's networks, targets and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchgeo.trainers import SemanticSegmentationTask
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassJaccardIndex

from geoseg.spec import ModelSpec
from geoseg.training.augmentation import Augmentation, limited
from geoseg.training.chips import Item
from geoseg.training.loop import follow, one_cycle
from geoseg.training.losses import SegmentationLoss
from geoseg.training.recipe import TrainRecipe
from geoseg.training.start import encoder_names
from geoseg.training.targets import IGNORE

Epoch = dict[str, float]


class TrainingTask(SemanticSegmentationTask):
    """What torchgeo's task offers (Lightning's steps and hooks, forward, prediction), with

    - a network of `build_network` and its outputs of several kinds, in place of one of its own list,
    - the loss of a recipe,
    - averaged weights, which are what is validated and kept,
    - augmentation by kornia after the batch is on its device,
    - the history of all epochs, so that a resumed training reports as an unbroken one does.
    """

    ignore = ("network", "recipe", "spec", "weights_of_classes")

    def __init__(self, network: nn.Module, recipe: TrainRecipe, spec: ModelSpec, weights_of_classes: Tensor) -> None:
        self.recipe_, self.spec_ = recipe, spec
        self.classes = len(spec.class_names)
        self._given, self._class_weights = (
            [network],
            weights_of_classes,
        )  # a list: modules wait for nn.Module's own start
        super().__init__(
            num_classes=self.classes, in_channels=len(spec.bands), ignore_index=IGNORE, lr=recipe.schedule.learning_rate
        )
        self.augmentation = Augmentation(recipe.augment, seed=recipe.seed)
        self.average: dict[str, Tensor] = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.best: dict[str, Tensor] | None = None
        self.best_epoch = -1
        self.history: list[Epoch] = []
        self._losses: list[float] = []
        self._live: dict[str, Tensor] | None = None

    def configure_models(self) -> None:
        self.model = self._given.pop()
        if self.recipe_.freeze == "encoder":
            names = encoder_names(self.model)
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name not in names)

    def configure_losses(self) -> None:
        self.criterion = SegmentationLoss(self.recipe_.loss, class_weights=self._class_weights)

    def configure_metrics(self) -> None:
        iou = MulticlassJaccardIndex(self.classes, average="none", ignore_index=IGNORE)
        self.val_metrics = MetricCollection({"iou": iou})

    def configure_optimizers(self) -> Any:
        schedule, slow = self.recipe_.schedule, encoder_names(self.model)
        groups = []
        for rate, inside in ((1.0, False), (self.recipe_.encoder_rate, True)):
            found = [p for name, p in self.model.named_parameters() if (name in slow) is inside and p.requires_grad]
            if found:
                groups.append({"params": found, "lr": schedule.learning_rate * rate})
        optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
        steps = schedule.epochs * schedule.steps
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_after_batch_transfer(self, batch: Item, dataloader_idx: int) -> Item:  # noqa: ARG002
        if self.training:
            batch = self.augmentation(batch)
        image = limited(batch["image"], self.spec_.clip).to(memory_format=torch.channels_last)
        return {**batch, "image": image}

    def on_train_epoch_start(self) -> None:
        self._losses = []
        if self.recipe_.freeze == "encoder":  # nor do its running statistics change
            for name, module in self.model.named_modules():
                if "encoder" in name.split("."):
                    module.eval()

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:  # noqa: ARG002
        self.check_order(batch)
        loss: Tensor = self.criterion(self(batch["image"]), batch["mask"], batch.get("distance"))
        self._losses.append(float(loss.detach()))
        return loss

    def check_order(self, batch: Item) -> None:
        """RuntimeError where the chips are not those of this step."""
        if int(batch["step"][0]) != self.global_step:
            raise RuntimeError(
                f"chips of step {int(batch['step'][0])} in step {self.global_step}: batches are out of order"
            )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        done = self.global_step
        follow(self.average, self.model, keep=min(self.recipe_.schedule.averaging, done / (done + 10)))

    def on_validation_start(self) -> None:
        self._live = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self._val = [0.0, 0.0]

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        logits = self(batch["image"])
        known = int((batch["mask"] != IGNORE).sum())
        loss = self.criterion(logits, batch["mask"], batch.get("distance"))
        self._val[0] += float(loss) * known
        self._val[1] += known
        self.val_metrics.update(logits[:, : self.classes].float(), batch["mask"])

    def on_validation_end(self) -> None:
        if self._live is not None:
            self.model.load_state_dict(self._live)
            self._live = None

    def on_validation_epoch_end(self) -> None:
        each = self.val_metrics.compute()["iou"].tolist()
        self.val_metrics.reset()
        names = self.spec_.class_names
        told: Epoch = {
            "epoch": self.current_epoch + 1,
            "step": self.global_step,
            "learning_rate": self.optimizers().param_groups[0]["lr"],  # type: ignore[union-attr]
            "train_loss": sum(self._losses) / max(1, len(self._losses)),
            "val_loss": self._val[0] / max(1.0, self._val[1]),
            "val_miou": sum(each) / len(each),
            **{f"val_iou_{name}": iou for name, iou in zip(names, each, strict=True)},
        }
        if not all(map(math.isfinite, told.values())):
            return  # the session says so, see session.Watch
        self.history.append(told)
        if self.best_epoch < 0 or told["val_miou"] > self.history[self.best_epoch]["val_miou"]:
            self.best_epoch = len(self.history) - 1
            self.best = {k: v.clone() for k, v in self.average.items()}

    def kept(self) -> dict[str, Tensor]:
        """The weights that become the model."""
        return self.average if self.recipe_.schedule.keep == "last" or self.best is None else self.best

    def kept_epoch(self) -> int:
        """Its number, from 0."""
        return len(self.history) - 1 if self.recipe_.schedule.keep == "last" else self.best_epoch

    def waited(self) -> int:
        """Epochs since the best one."""
        return len(self.history) - 1 - self.best_epoch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["geoseg"] = {
            "average": self.average, "best": self.best, "best_epoch": self.best_epoch, "history": self.history,
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        told = checkpoint["geoseg"]
        self.average, self.best = told["average"], told["best"]
        self.best_epoch, self.history = int(told["best_epoch"]), list(told["history"])

    def on_train_start(self) -> None:
        for state in (self.average, self.best or {}):
            for name, value in state.items():
                state[name] = value.to(self.device)
