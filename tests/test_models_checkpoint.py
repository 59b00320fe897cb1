"""torchgeo checkpoints: the same logits as the task's, and no code of strangers."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from geoseg.errors import ModelError
from geoseg.models import load
from geoseg.models.checkpoint import checkpoint_spec, network_state


def segmentation_task(**options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchgeo's own imports
        from torchgeo.trainers import SemanticSegmentationTask

        return SemanticSegmentationTask(**options).eval()


def save_like_lightning(task: Any, path: Path) -> Path:
    """The entries of Trainer.save_checkpoint that matter here, and some that must not."""
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": task.state_dict(),
        "hyper_parameters": dict(task.hparams),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "dirpath": "runs"}},
        "optimizer_states": [],
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def unet_task() -> Any:
    torch.manual_seed(0)
    # Class weights become a buffer of the loss: a state that the network must not see.
    return segmentation_task(
        model="unet", backbone="resnet18", in_channels=4, num_classes=3, class_weights=torch.tensor([1.0, 2.0, 3.0])
    )


def test_checkpoint_has_the_logits_of_its_task(unet_task: Any, tmp_path: Path) -> None:
    model = load(save_like_lightning(unet_task, tmp_path / "best.ckpt"))
    assert "criterion.weight" in unet_task.state_dict()
    assert [band.name for band in model.spec.bands] == ["red", "green", "blue", "nir"]
    assert model.spec.class_names == ("background", "field", "boundary")
    assert (model.spec.name, model.spec.units, model.spec.patch) == ("best", "raw", 1024)
    x = torch.randn(2, 4, 64, 96)
    with torch.inference_mode():
        assert torch.equal(pickle.loads(pickle.dumps(model)).network()(x), unet_task(x))


def test_checkpoint_saved_by_lightning_opens(unet_task: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own
        from lightning.pytorch import Trainer

        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        trainer.strategy.connect(unet_task)
        trainer.save_checkpoint(tmp_path / "lightning.ckpt")
    model = load(tmp_path / "lightning.ckpt")
    x = torch.randn(1, 4, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.network()(x), unet_task(x))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [
        {"model": "fcn", "num_filters": 5},
        {"model": "deeplabv3+", "backbone": "resnet18"},
        {"model": "upernet", "backbone": "resnet18"},
        {"model": "segformer", "backbone": "resnet18"},
    ],
    ids=lambda options: options["model"],
)
def test_every_kind_of_network_opens(options: dict[str, Any], tmp_path: Path) -> None:
    task = segmentation_task(in_channels=3, num_classes=2, **options)
    model = load(save_like_lightning(task, tmp_path / "model.ckpt"))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.network()(x), task(x))  # type: ignore[attr-defined]


def test_binary_task_becomes_background_and_field(tmp_path: Path) -> None:
    task = segmentation_task(model="fcn", in_channels=3, task="binary", num_classes=None, loss="bce")
    model = load(save_like_lightning(task, tmp_path / "binary.ckpt"))
    assert model.spec.class_names == ("background", "field")
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        field = torch.softmax(model.network()(x), dim=1)[:, 1:]  # type: ignore[attr-defined]
        torch.testing.assert_close(field, torch.sigmoid(task(x)))


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def test_checkpoint_with_code_is_refused_unread(tmp_path: Path) -> None:
    victim = tmp_path / "executed"
    torch.save({"state_dict": {}, "hyper_parameters": {"x": Malicious(victim)}}, tmp_path / "bad.ckpt")
    with pytest.raises(ModelError, match=r"(posix|nt)\.system would be executed; pass --trust-checkpoint"):
        load(tmp_path / "bad.ckpt")
    assert not victim.exists()


def test_harmless_values_of_lightning_are_read(unet_task: Any, tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "values.ckpt"
    hyper_parameters = {**dict(unet_task.hparams), "lr": np.float64(0.1), "folder": Path("runs")}
    torch.save({"state_dict": unet_task.state_dict(), "hyper_parameters": hyper_parameters}, path)
    assert load(path).spec.name == "values"


def test_files_that_are_no_checkpoints_say_so(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ModelError, match=r"text\.ckpt"):
        load(tmp_path / "text.ckpt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "bare.ckpt")
    with pytest.raises(ModelError, match="not a Lightning checkpoint: it holds weight, expected state_dict"):
        load(tmp_path / "bare.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {"lr": 1}}, tmp_path / "other.ckpt")
    with pytest.raises(ModelError, match="no hyper-parameters of a segmentation task"):
        load(tmp_path / "other.ckpt")
    truncated = (tmp_path / "bare.ckpt").read_bytes()[:200]
    (tmp_path / "cut.ckpt").write_bytes(truncated)
    with pytest.raises(ModelError, match=r"cut\.ckpt"):
        load(tmp_path / "cut.ckpt")


def test_sidecar_states_what_the_checkpoint_does_not_know(tmp_path: Path) -> None:
    task = segmentation_task(model="fcn", in_channels=5, num_classes=4)
    path = save_like_lightning(task, tmp_path / "five.ckpt")
    with pytest.raises(ModelError, match=r"takes 5 bands and does not say which; write five\.spec\.json"):
        load(path)
    sidecar: dict[str, Any] = {"bands": [{"name": f"b{i}", "std": 10.0} for i in range(5)]}
    (tmp_path / "five.spec.json").write_text(json.dumps(sidecar))
    with pytest.raises(ModelError, match="does not say which of them is a field"):
        load(path)
    sidecar |= {"outputs": [{"name": n} for n in ("water", "field", "wood", "town")], "nominal_m": 3.0}
    (tmp_path / "five.spec.json").write_text(json.dumps(sidecar))
    spec = load(path).spec
    assert spec.class_names == ("water", "field", "wood", "town")
    assert (spec.nominal_m, spec.bands[0].std, spec.reach) == (3.0, 10.0, "local")
    sidecar["bands"] = sidecar["bands"][:3]
    (tmp_path / "five.spec.json").write_text(json.dumps(sidecar))
    with pytest.raises(ModelError, match=r"names 3 bands, but the network in five\.ckpt has 5"):
        load(path)


def test_names_of_other_torchgeo_versions_are_understood() -> None:
    old = {"segmentation_model": "unet", "encoder_name": "resnet18", "in_channels": 3, "num_classes": 2}
    new = {
        "model": "unet", "backbone": "resnet18", "in_channels": 3, "task": "multiclass",
        "num_classes": 2, "labels": ["other", "crop"], "pos_weight": None,
    }  # fmt: skip
    for values, names in ((old, ("background", "field")), (new, ("other", "crop"))):
        spec = checkpoint_spec(values, {}, path=Path("x.ckpt"), weights_sha256="")
        assert spec.class_names == names
        assert spec.field_class == names[1]
        assert spec.architecture["backbone"] == "resnet18"


def test_compiled_and_unrelated_tensors_are_sorted_out() -> None:
    tensor = torch.zeros(1)
    state = {"model._orig_mod.encoder.weight": tensor, "criterion.weight": tensor}
    assert list(network_state(state)) == ["encoder.weight"]
    assert list(network_state({"encoder.weight": tensor})) == ["encoder.weight"]
