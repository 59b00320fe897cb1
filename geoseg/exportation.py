"""`geoseg models export`: a model's network as a file of ONNX, OpenVINO or torch.export, with its spec beside it.

What is exported is the network alone: scaled bands to logits. The spec says how bands are scaled and what the logits are.
"""

from __future__ import annotations

import importlib.util
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from geoseg.disk import replacing
from geoseg.engines.conversion import import_openvino, logging_as_it_was, openvino_core
from geoseg.engines.ladder import reason_of
from geoseg.errors import ModelError
from geoseg.models.exported import ExportedModel, exported_sha256, spec_path
from geoseg.models.mlm import stac_item
from geoseg.models.package import MULTIHASH_SHA256
from geoseg.protocols import Model, TorchModel
from geoseg.spec import ModelSpec, json_text

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
FRAMEWORKS = {"onnx": "ONNX", "openvino": "OpenVINO", "torch-export": "PyTorch"}
ARTIFACTS = {"onnx": "onnx", "openvino": "openvino.ir", "torch-export": "torch.export.save"}
AGREEMENT = 0.999
"""Share of pixels of noise whose class must be the same as the network's own."""


def export_model(model: Model, path: Path, *, to: str) -> ExportedModel:
    """Writes `path` and its .spec.json and opens it, after a run on noise of another size than it was made with.

    An export that fails leaves what was there as it was.

    Args:
        model: one that runs on torch.
        path: ends in .onnx, .xml or .pt2, as `to` wants it.
        to: onnx, openvino or torch-export.

    Raises ModelError where the model cannot be exported so, or where the file says something else than the network.
    """
    if to not in SUFFIXES:
        raise ModelError(f"no format {to!r} to export to; known: {', '.join(SUFFIXES)}")
    if path.suffix != SUFFIXES[to]:
        raise ModelError(
            f"{path.name} does not end in {SUFFIXES[to]}, as files of {to} do; name it {path.stem}{SUFFIXES[to]}"
        )
    if model.runtime != "torch" or isinstance(model, ExportedModel):
        raise ModelError(
            f"the model {model.spec.name!r} is no network of torch to export; give a package, checkpoint or named weights"
        )
    if model.spec.instances is not None:
        raise ModelError(
            f"{model.spec.name!r} finds objects one by one, and only networks that say classes are exported"
        )
    if to != "torch-export" and not getattr(model, "traceable", True):
        raise ModelError(
            f"the network of {model.spec.name!r} chooses its way by the size of the image, which {to} cannot hold"
        )
    network, spec = cast(TorchModel, model).network(), model.spec
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            part = Path(folder) / path.name
            try:
                with _quiet():
                    WRITERS[to](network, spec, part)
            except (ModelError, OSError):
                raise
            except Exception as error:  # exporters raise whatever they like
                raise ModelError(
                    f"the network of {spec.name!r} cannot be exported to {to} ({reason_of(error)}); try another of "
                    f"{', '.join(SUFFIXES)}"
                ) from error
            _write_spec(model, part, to)
            share = agreement(network, ExportedModel.open(part))
            if share < AGREEMENT:
                raise ModelError(
                    f"{path.name} would say something else than the network of {spec.name!r} on {1 - share:.1%} of pixels and "
                    f"was not kept; export to another of {', '.join(SUFFIXES)}"
                )
            for file in Path(folder).iterdir():
                os.replace(file, path.with_name(file.name))
    except OSError as error:
        raise ModelError(f"{path} cannot be written ({error.strerror or error}); choose another place") from error
    return ExportedModel.open(path)


def agreement(network: nn.Module, made: ExportedModel) -> float:
    """Share of pixels of noise that get the same class from a network and from a file, at a size of its own."""
    import torch

    spec, step = made.spec, made.spec.stride
    side = step * max(3, 160 // step)
    noise = np.random.default_rng(0).standard_normal((1, len(spec.bands), side, side + 2 * step), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(noise)).numpy()
        if made.runtime == "torch":
            found = made.network()(torch.from_numpy(noise)).numpy()
        else:
            core = openvino_core()
            compiled = core.compile_model(core.read_model(made.graph()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            found = compiled([noise])[0]
    if found.shape != expected.shape:
        return 0.0
    return float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())


def _to_onnx(network: nn.Module, spec: ModelSpec, path: Path) -> None:
    import torch

    if importlib.util.find_spec("onnx") is None:
        raise ModelError("onnx is not installed; pip install 'geoseg[onnx]'")
    with torch.inference_mode(), pooling_by_products():
        torch.onnx.export(
            network, (_example(spec),), path, dynamo=False, input_names=["pixels"], output_names=["logits"],
            dynamic_axes={name: {0: "batch", 2: "rows", 3: "cols"} for name in ("pixels", "logits")},
        )  # fmt: skip


def _to_openvino(network: nn.Module, spec: ModelSpec, path: Path) -> None:
    import torch

    openvino, example = import_openvino(), _example(spec)
    with torch.inference_mode():
        traced = torch.jit.trace(network, example, check_trace=False)
        graph = openvino.convert_model(traced, example_input=example)
    graph.inputs[0].get_tensor().set_names({"pixels"})
    graph.outputs[0].get_tensor().set_names({"logits"})
    graph.reshape(openvino.PartialShape([-1, len(spec.bands), -1, -1]))
    openvino.save_model(graph, path, compress_to_fp16=False)


def _to_torch_export(network: nn.Module, spec: ModelSpec, path: Path) -> None:
    import torch
    from torch.export import Dim

    dim: Any = Dim  # mypy takes dimensions for types
    shapes = ({0: dim("batch"), 2: spec.stride * dim("rows"), 3: spec.stride * dim("cols")},)
    with torch.no_grad():
        program = torch.export.export(network, (_example(spec),), dynamic_shapes=shapes)
    torch.export.save(program, path)


WRITERS: Mapping[str, Callable[[Any, ModelSpec, Path], None]] = {
    "onnx": _to_onnx,
    "openvino": _to_openvino,
    "torch-export": _to_torch_export,
}


def _example(spec: ModelSpec) -> Tensor:
    import torch

    side = spec.stride * max(2, 128 // spec.stride)
    return torch.zeros(2, len(spec.bands), side, side)


@contextmanager
def pooling_by_products() -> Iterator[None]:
    """Adaptive pooling is a product of matrices meanwhile: ONNX has no form of it for open rows and columns."""
    import torch

    functional: Any = torch.nn.functional
    usual = functional.adaptive_avg_pool2d
    functional.adaptive_avg_pool2d = pooled_by_products
    try:
        yield
    finally:
        functional.adaptive_avg_pool2d = usual


def pooled_by_products(x: Tensor, size: Any) -> Tensor:
    """adaptive_avg_pool2d: the mean over rows floor(i n / k) to ceil((i + 1) n / k), and columns alike."""
    rows, cols = (size, size) if isinstance(size, int) else size
    if rows == cols == 1:
        return x.mean(dim=(2, 3), keepdim=True)
    return _shares(x, x.shape[2], rows) @ x @ _shares(x, x.shape[3], cols).transpose(0, 1)


def _shares(x: Tensor, length: int, count: int) -> Tensor:
    import torch

    cells, pixels = torch.arange(count)[:, None], torch.arange(length)[None]
    inside = (pixels >= cells * length // count) & (pixels * count < (cells + 1) * length)
    weights = inside.to(x.dtype)
    return weights / weights.sum(dim=1, keepdim=True)


def _write_spec(model: Model, path: Path, to: str) -> None:
    spec = replace(
        model.spec,
        architecture={
            "type": "exported",
            "format": to,
            "of": dict(model.spec.architecture),
            "model": model.fingerprint(),
        },
        weights_sha256=exported_sha256(path),
    )
    asset = {
        "href": f"./{path.name}",
        "type": f"application/octet-stream; application={to}",
        "mlm:artifact_type": ARTIFACTS[to],
        "file:size": path.stat().st_size,
        **({} if to == "openvino" else {"file:checksum": MULTIHASH_SHA256 + spec.weights_sha256}),
    }
    item = stac_item(replace(model.spec, weights_sha256=""), asset=asset, framework=FRAMEWORKS[to])
    with replacing(spec_path(path)) as file:
        file.write(json_text({**spec.to_dict(), "mlm": item}).encode())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notices."""
    with warnings.catch_warnings(), logging_as_it_was(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
