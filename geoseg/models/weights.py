"""Weight files: their hashes, and reading them without executing what they contain.

torch is imported inside the functions: this module is cheap to import.
"""

from __future__ import annotations

import hashlib
import importlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import ModelError
from geoseg.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

# Plain values that Lightning leaves in checkpoints and torch does not know: building them runs no code of the file.
HARMLESS = {
    "lightning.fabric.utilities.data.AttributeDict": "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict": "lightning_fabric.utilities.data.AttributeDict",
    "numpy.core.multiarray.scalar": "numpy._core.multiarray.scalar",
    "numpy._core.multiarray.scalar": "numpy._core.multiarray.scalar",
    "numpy.dtype": "numpy.dtype",
    "pathlib.PosixPath": "pathlib.PurePosixPath",
    "pathlib._local.PosixPath": "pathlib.PurePosixPath",
    "pathlib.WindowsPath": "pathlib.PureWindowsPath",
    "pathlib._local.WindowsPath": "pathlib.PureWindowsPath",
}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hex digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}: {error.strerror}; check the path") from error


def model_fingerprint(spec: ModelSpec, weights_sha256: str) -> str:
    """Hex digest over what a model is, wherever it lies."""
    return hashlib.sha256(f"{spec.to_json()}{weights_sha256}".encode()).hexdigest()


def check_sha256(path: Path, expected: str, *, model: str) -> None:
    """ModelError unless the file has the hash that was written down for it."""
    found = file_sha256(path)
    if found != expected:
        raise ModelError(
            f"the weights {path} of model {model!r} have SHA-256 {found[:16]}..., expected {expected[:16]}...; "
            f"the file is damaged or was replaced: fetch the model again"
        )


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, floating ones as float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}); fetch the model again") from error
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def read_torch_file(path: Path, *, trust: bool = False) -> Any:
    """The content of a file written by torch.save, on the CPU.

    Only tensors and plain values are read. A file that needs more is refused by name of what it needs, unless
    `trust` is set: then whatever it contains is executed.
    """
    import torch

    mmap = zipfile.is_zipfile(path)
    try:
        if trust:
            return torch.load(path, map_location="cpu", weights_only=False, mmap=mmap)
        with torch.serialization.safe_globals(_harmless(path)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        needs = _unsafe(path) or re.findall(r"GLOBAL ([\w.]+)", str(error)) or ["code"]
        raise ModelError(
            f"{path} does not only hold weights: to open it, {', '.join(needs)} would be executed; "
            f"pass --trust-checkpoint if you know where it comes from, or save its state_dict as safetensors"
        ) from error
    except FileNotFoundError as error:
        raise ModelError(f"there is no {path}; check the path") from error
    except Exception as error:  # a damaged file makes the reader fail anyhow
        raise ModelError(f"{path} is not a readable torch file ({_first_line(error)}); it may be truncated") from error


def load_state(network: nn.Module, state: Mapping[str, Tensor], *, model: str) -> None:
    """Put weights into a network; ModelError where they belong to another one."""
    # Compared here: some libraries drop tensors of another shape with no more than a warning.
    own = network.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    reshaped = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    if missing or unexpected or reshaped:
        examples = [
            *(f"{key} missing" for key in missing[:2]),
            *(f"{key} unknown" for key in unexpected[:2]),
            *(f"{key} is {list(state[key].shape)} not {list(own[key].shape)}" for key in sorted(reshaped)[:2]),
        ]
        raise ModelError(
            f"the weights of {model!r} do not fit its network: {len(missing)} tensors are missing, {len(unexpected)} "
            f"unknown, {len(reshaped)} of another shape ({', '.join(examples)}); "
            f"check bands, classes and architecture in its spec"
        )
    network.load_state_dict(dict(state))


def _harmless(path: Path) -> list[Any]:
    """What of HARMLESS the file asks for, in the form that torch wants."""
    allowed = []
    for name in _unsafe(path):
        if name in HARMLESS:
            module, attribute = HARMLESS[name].rsplit(".", 1)
            try:
                allowed.append((getattr(importlib.import_module(module), attribute), name))
            except (ImportError, AttributeError):
                continue
        if name == "numpy.dtype":  # a scalar's dtype is built by this name and then found to be of a class of its own
            import numpy.dtypes

            allowed += [getattr(numpy.dtypes, kind) for kind in numpy.dtypes.__all__]
    return allowed


def _unsafe(path: Path) -> list[str]:
    """Names of everything beyond tensors and plain values that a file wants to call; nothing is executed."""
    import torch

    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        return []  # not a zip file; torch.load says what is wrong with it


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
