"""What a model folder says of its network in 8 bits: `int8.json` beside `int8.graph.gz`.

Written by `geoseg models quantize`, never during a run.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from geoseg.errors import ModelError
from geoseg.models.weights import file_sha256

GRAPH = "int8.graph.gz"
RECORD = "int8.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """A network in 8 bits, and how well it does."""

    path: Path
    """OpenVINO's graph, see geoseg.engines.graphs."""
    sha256: str
    """Of that file."""
    of: str
    """SHA-256 of the weights it was made of."""
    disagreement: float
    """Share of pixels whose class differs from what the network says in float32, on the scenes it was checked with."""
    checked_with: tuple[str, ...]
    calibrated_with: tuple[str, ...]
    versions: dict[str, str] = field(default_factory=dict)

    def read(self) -> bytes:
        """What the file holds, after checking its hash. Raises ModelError."""
        found = file_sha256(self.path)
        if found != self.sha256:
            raise ModelError(
                f"{self.path} has SHA-256 {found[:16]}..., expected {self.sha256[:16]}...; the file is damaged or was replaced: "
                f"use --precision bf16, or make it again with `geoseg models quantize`"
            )
        return gzip.decompress(self.path.read_bytes())

    def to_json(self) -> str:
        """What `int8.json` holds."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "path"}, indent=2) + "\n"


def read_quantised(folder: Path, *, weights_sha256: str) -> Quantised | None:
    """What a model folder holds; None where there is nothing, or where it was made of other weights."""
    try:
        record: Any = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / RECORD} cannot be read ({error}); make it again with `geoseg models quantize`"
        ) from error
    try:
        found = Quantised(
            path=folder / GRAPH, sha256=str(record["sha256"]), of=str(record["of"]),
            disagreement=float(record["disagreement"]), checked_with=tuple(map(str, record["checked_with"])),
            calibrated_with=tuple(map(str, record["calibrated_with"])), versions=dict(record.get("versions", {})),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder / RECORD} is incomplete ({error!r}); make it again with `geoseg models quantize`"
        ) from error
    return found if found.of == weights_sha256 and found.path.is_file() else None
