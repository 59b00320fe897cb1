"""Models by name: bundled ones, those of installed packages, folders, checkpoints and torchgeo's named weights."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from geoseg.errors import GeosegError, ModelError
from geoseg.models.bundle import SPEC, BundleModel
from geoseg.models.catalogue import NETWORKS, NetworkKind
from geoseg.models.exported import RUNTIMES as EXPORTED
from geoseg.models.exported import ExportedModel
from geoseg.models.fit import band_index, band_problem, resolution_problem
from geoseg.models.methods import METHODS, is_method, method
from geoseg.plugins import load_plugin, plugins
from geoseg.protocols import Model
from geoseg.scene import Scene
from geoseg.spec import ModelSpec

BUNDLED = Path(__file__).parent / "bundled"
NAMED_PREFIX = "Unet_Weights."
CHECKPOINT_SUFFIXES = (".ckpt",)

Source = Literal["bundled", "method", "plugin", "network", "torchgeo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    name: str
    """What `load` and `--model` take."""
    source: Source
    spec: ModelSpec | None
    """None where the model cannot be opened, `problem` says why; and for networks, which have no weights."""
    problem: str | None = None
    """Why it is broken, or None."""
    about: str | None = None
    """What a network is."""

    @property
    def title(self) -> str:
        if self.spec is not None:
            return self.spec.title
        return self.about or f"broken: {self.problem}"


def available(*, torchgeo: bool = False) -> list[ModelInfo]:
    """All models that have a name. torchgeo's named weights only where asked for: listing them imports torchgeo."""
    infos = [_info(name, "bundled", lambda name=name: bundled(name)) for name in bundled_names()]  # type: ignore[misc]
    infos += [_info(name, "method", lambda name=name: method(name)) for name in METHODS]  # type: ignore[misc]
    infos += [_info(name, "plugin", lambda name=name: _plugin(name)) for name in plugins("models")]  # type: ignore[misc]
    infos += [ModelInfo(name=kind.name, source="network", spec=None, about=_about(kind)) for kind in NETWORKS.values()]
    if torchgeo:
        from geoseg.models.torchgeo_weights import named_specs

        infos += [ModelInfo(name=name, source="torchgeo", spec=spec) for name, spec in named_specs().items()]
    return infos


def load(name_or_path: str | Path, *, weights: Path | str | None = None, trust: bool = False) -> Model:
    """The model behind a name, a folder with a spec.json, a .ckpt, .onnx, .xml or .pt2 file, or `Unet_Weights.NAME`.

    A method without labels takes options after its name: `otsu:index=ndvi`.

    `weights` is a local file for torchgeo's named weights; `trust` lets a checkpoint execute what it contains.
    Raises ModelError; unknown names list the known ones.
    """
    text = str(name_or_path)
    if text.startswith(NAMED_PREFIX):
        from geoseg.models.torchgeo_weights import NamedWeightsModel

        return NamedWeightsModel.open(text, weights=None if weights is None else Path(weights).absolute())
    if weights is not None:
        raise ModelError(
            f"--weights goes with torchgeo's named weights ({NAMED_PREFIX}...), not with {text!r}; leave it out"
        )
    if text in bundled_names():
        return bundled(text)
    if is_method(text):
        return method(text)
    if text in plugins("models"):
        return _plugin(text)
    path = Path(name_or_path).absolute()  # workers elsewhere have another current directory
    if path.is_dir():
        return BundleModel.open(path)
    if path.suffix in CHECKPOINT_SUFFIXES and path.is_file():
        from geoseg.models.checkpoint import CheckpointModel

        return CheckpointModel.open(path, trust=trust)
    if path.suffix in EXPORTED and path.is_file():
        return ExportedModel.open(path)
    if text in NETWORKS:
        raise ModelError(
            f"{text!r} is a network without weights; make a model of it with "
            f"`geoseg models new my-{text} -o FOLDER --network {text} --bands red,green,blue --classes background,field`, "
            f"train it, and pass --model FOLDER"
        )
    raise ModelError(_unknown(text, Path(name_or_path)))


def choose(scene: Scene, *, allow_resample: bool = False) -> tuple[Model, str]:
    """The bundled model that suits the scene's bands and pixel size, and the reason in one sentence.

    Where several do, the one trained nearest to the scene's pixel size, then the one that uses more of its bands.
    """
    resolution = scene.resolution_m()
    index = band_index(scene)
    fitting: list[tuple[float, int, str]] = []
    problems: list[str] = []
    for name in bundled_names():
        spec = bundled(name).spec
        problem = band_problem(scene, spec) or (None if allow_resample else resolution_problem(scene, spec))
        if problem is None:
            used = sum(band.name in index for band in spec.bands)
            distance = 0.0 if resolution is None else abs(math.log(resolution / spec.nominal_m))
            fitting.append((distance, -used, name))
        else:
            problems.append(f"{name}: {problem}")
    if not fitting:
        raise ModelError(
            "no bundled model fits; choose one with --model, or change what keeps them away: "
            + "; ".join(problems or ["this installation has no bundled models"])
        )
    model = bundled(min(fitting)[2])
    return model, _reason(model.spec, scene)


def bundled_names() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{SPEC}"))


def bundled(name: str) -> BundleModel:
    return BundleModel.open(BUNDLED / name)


def _plugin(name: str) -> Model:
    """The model of an entry point: the object itself, or what it returns when called."""
    found = load_plugin("models", name)
    if isinstance(found, type) or not isinstance(found, Model):
        found = cast(Callable[[], object], found)()
    if not isinstance(found, Model):
        raise ModelError(
            f"model {name!r} ({plugins('models')[name].value}) is a {type(found).__name__} without "
            f"spec, runtime and fingerprint(); the package that brings it must offer a geoseg Model"
        )
    return found


def _about(kind: NetworkKind) -> str:
    return f"{kind.title}; untrained"


def _info(name: str, source: Source, opener: Callable[[], Model]) -> ModelInfo:
    try:
        return ModelInfo(name=name, source=source, spec=opener().spec)
    except GeosegError as error:
        return ModelInfo(name=name, source=source, spec=None, problem=str(error))
    except Exception as error:  # a stranger's constructor may raise anything; it stays listed
        return ModelInfo(name=name, source=source, spec=None, problem=f"{type(error).__name__}: {error}")


def _reason(spec: ModelSpec, scene: Scene) -> str:
    index = band_index(scene)
    used = ", ".join(band.name for band in spec.bands if band.name in index)
    resolution = scene.resolution_m()
    if resolution is None:
        return (
            f"{spec.name} reads {used}; the pixel size is unknown and taken as {spec.nominal_m:g} m "
            f"(--pixel-size-m states another)"
        )
    low, high = spec.resolution_m
    return f"{spec.name} reads {used} at {low:g} to {high:g} m, and {scene.name} has them at {resolution:.3g} m"


def _unknown(text: str, path: Path) -> str:
    if path.is_file():
        return (
            f"{text} is not a model file; expected a folder with {SPEC} and weights, a Lightning checkpoint "
            f"({', '.join(CHECKPOINT_SUFFIXES)}), or an exported network ({', '.join(EXPORTED)})"
        )
    if path.suffix or len(path.parts) > 1:
        return f"there is no model file or folder {text}; check the path"
    known = [*bundled_names(), *METHODS, *plugins("models")]
    near = difflib.get_close_matches(text, [*known, *NETWORKS], n=1, cutoff=0.7)
    hint = f"; did you mean {near[0]!r}" if near else ""
    return (
        f"no model {text!r}; installed: {', '.join(map(repr, known)) or 'none'}{hint}; "
        f"or give a folder, a .ckpt, .onnx, .xml or .pt2 file, or torchgeo's {NAMED_PREFIX}NAME "
        f"(`geoseg models list --all` shows them)"
    )
