"""What tiles leave on disk between the passes of a vectorizer."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.disk import replacing, room_for
from geoseg.errors import RunError

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Pieces:
    """Named arrays by kind and index, each file whole or absent. Travels to workers, which see the same folder."""

    folder: Path

    def save(self, kind: str, index: tuple[int, int], arrays: Arrays) -> None:
        """Keeps `arrays`; they are on disk when this returns."""
        path = self._path(kind, index)
        with room_for(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                np.savez(file, allow_pickle=False, **arrays)

    def load(self, kind: str, index: tuple[int, int]) -> Arrays | None:
        """What was kept; None if nothing was."""
        path = self._path(kind, index)
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{path} is damaged ({error}); delete {self.folder} and run the same command again"
            ) from error

    def holds(self, kind: str, index: tuple[int, int]) -> bool:
        return self._path(kind, index).exists()

    def second(self, kind: str, first: int) -> Iterator[tuple[int, int]]:
        """The indices (first, ...) under which something of this kind is kept, in order."""
        names = (path.stem.split(".") for path in (self.folder / kind).glob(f"{first}.*.npz"))
        yield from sorted((int(a), int(b)) for a, b in names)

    def _path(self, kind: str, index: tuple[int, int]) -> Path:
        return self.folder / kind / f"{index[0]}.{index[1]}.npz"
