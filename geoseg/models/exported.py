"""Models in files of other runtimes: ONNX, OpenVINO's IR, torch.export. What they take and give stands in a .spec.json beside.

The network in such a file takes scaled bands and gives logits: (batch, band, row, col) to (batch, output, row, col).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from geoseg.errors import ModelError
from geoseg.models.bundle import read_record
from geoseg.models.weights import file_sha256, model_fingerprint
from geoseg.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

RUNTIMES = {".onnx": "openvino", ".xml": "openvino", ".pt2": "torch"}
"""What runs a file, by its suffix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    content_addressed: ClassVar[bool] = True
    traceable: ClassVar[bool] = False
    """A network of torch.export is a graph already, which cannot be traced into another."""

    path: Path
    """FILE.onnx, FILE.xml (with FILE.bin beside) or FILE.pt2."""
    spec: ModelSpec
    weights_sha256: str

    @classmethod
    def open(cls, path: Path) -> ExportedModel:
        """The model in a file. Raises ModelError where its spec is missing, or speaks of another file."""
        sidecar = next(filter(Path.is_file, (spec_path(path), path.with_suffix(".spec.json"))), spec_path(path))
        if not sidecar.is_file():
            raise ModelError(
                f"{path.name} does not say which bands it takes and which classes it gives; put {sidecar.name} beside it, "
                f"as `geoseg models export` writes it (`geoseg models show fields-rgb --json` shows the form)"
            )
        spec = ModelSpec.from_dict(read_record(sidecar))
        found = exported_sha256(path)
        if spec.weights_sha256 and spec.weights_sha256 != found:
            raise ModelError(
                f"{path} has SHA-256 {found[:16]}..., but {sidecar.name} speaks of {spec.weights_sha256[:16]}...; "
                f"the file is damaged or was replaced: export the model again"
            )
        return cls(path=path, spec=replace(spec, weights_sha256=found), weights_sha256=found)

    @property
    def runtime(self) -> str:
        """`openvino` for what OpenVINO reads, `torch` for torch.export."""
        return RUNTIMES[self.path.suffix]

    def fingerprint(self) -> str:
        return model_fingerprint(self.spec, self.weights_sha256)

    def graph(self) -> Path:
        """The file for OpenVINO, after checking its hash."""
        self._check()
        return self.path

    def network(self) -> nn.Module:
        """The network of a .pt2 file, after checking its hash."""
        import torch

        self._check()
        try:
            module: Any = torch.export.load(self.path).module()
        except Exception as error:  # a damaged file, or one of another version, makes the reader fail anyhow
            raise ModelError(
                f"{self.path} cannot be read by torch {torch.__version__} ({str(error).splitlines()[0][:200]}); "
                f"export the model again with this version"
            ) from error
        module.train = lambda *_: module  # it was exported in eval mode; switching is refused by default
        found: nn.Module = module
        return found

    def _check(self) -> None:
        found = exported_sha256(self.path)
        if found != self.weights_sha256:
            raise ModelError(
                f"{self.path} has SHA-256 {found[:16]}..., expected {self.weights_sha256[:16]}...; it changed while it was in use"
            )


def spec_path(path: Path) -> Path:
    """Where the spec of a file is written: beside it, FILE.onnx.spec.json (FILE.spec.json is read, too)."""
    return path.with_name(f"{path.name}.spec.json")


def exported_sha256(path: Path) -> str:
    """SHA-256 of a file; of OpenVINO's two files, of both hashes."""
    if path.suffix != ".xml":
        return file_sha256(path)
    return hashlib.sha256(f"{file_sha256(path)}{file_sha256(path.with_suffix('.bin'))}".encode()).hexdigest()
