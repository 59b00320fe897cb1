"""What tiles leave on disk between the passes over them."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.disk import replacing, room_for
from geoseg.errors import RunError

Arrays = dict[str, NDArray[Any]]

ALIGNED = 8
"""Arrays begin at multiples of it."""

HEAD = 8
"""Bytes before the table of arrays: a checksum of all that follows, and the table's length. Then the arrays' bytes."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Named arrays by kind and index, each file whole or absent. Travels to workers, which see the same folder."""

    folder: Path

    def save(self, kind: str, index: tuple[int, int], arrays: Arrays) -> None:
        """Keeps `arrays`; they are on disk when this returns."""
        path = self._path(kind, index)
        given = {name: np.asarray(values, order="C") for name, values in arrays.items()}
        table = json.dumps([[name, values.dtype.str, values.shape] for name, values in given.items()]).encode()
        table += b" " * (-len(table) % ALIGNED)
        parts = (values.tobytes() for values in given.values())
        packed = b"".join(
            [len(table).to_bytes(4, "little"), table, *(part + bytes(-len(part) % ALIGNED) for part in parts)]
        )
        with room_for(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(zlib.crc32(packed).to_bytes(4, "little") + packed)

    def load(self, kind: str, index: tuple[int, int]) -> Arrays | None:
        """What was kept; None if nothing was."""
        path = self._path(kind, index)
        try:
            return _unpacked(bytearray(path.read_bytes()))  # so that arrays may be written to
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunError(
                f"{path} is damaged ({error}); delete {self.folder} and run the same command again"
            ) from error

    def holds(self, kind: str, index: tuple[int, int]) -> bool:
        return self._path(kind, index).exists()

    def second(self, kind: str, first: int) -> Iterator[tuple[int, int]]:
        """The indices (first, ...) under which something of this kind is kept, in order."""
        names = (path.stem.split(".") for path in (self.folder / kind).glob(f"{first}.*.piece"))
        yield from sorted((int(a), int(b)) for a, b in names)

    def _path(self, kind: str, index: tuple[int, int]) -> Path:
        return self.folder / kind / f"{index[0]}.{index[1]}.piece"


def _unpacked(held: bytearray) -> Arrays:
    if len(held) < HEAD or zlib.crc32(memoryview(held)[4:]) != int.from_bytes(held[:4], "little"):
        raise ValueError("its checksum differs")
    at = HEAD + int.from_bytes(held[4:HEAD], "little")
    out: Arrays = {}
    for name, dtype, shape in json.loads(held[HEAD:at]):
        count = math.prod(shape)
        values = np.frombuffer(held, dtype, count, at) if count else np.empty(0, dtype)
        out[name] = values.reshape(shape)
        at += values.nbytes + -values.nbytes % ALIGNED
    return out
