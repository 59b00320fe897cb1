"""A converted network as one file: graph and weights of OpenVINO, with a checksum."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import Any

Graph = tuple[bytes, bytes]
"""A converted network: its graph (XML) and its weights."""

MAGIC = b"geoseg graph 1\n"
PART = 8
"""Bytes that say how long the graph is; the weights are what comes after it."""


def packed(graph: Graph) -> bytes:
    """The bytes of a file."""
    body = len(graph[0]).to_bytes(PART, "little") + graph[0] + graph[1]
    return MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def unpacked(held: bytes) -> Graph | None:
    """What packed() was given; None where the bytes are not whole."""
    start = len(MAGIC) + 4
    if not held.startswith(MAGIC) or zlib.crc32(held[start:]) != int.from_bytes(held[start - 4 : start], "little"):
        return None
    split = start + PART + int.from_bytes(held[start : start + PART], "little")
    return held[start + PART : split], held[split:]


def serialised(graph: Any, openvino: Any, *, half: bool = False) -> Graph:
    """An openvino.Model as bytes; `half` stores weights in 16 bits that have more."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "graph.xml"), Path(folder, "graph.bin")
        openvino.save_model(graph, files[0], compress_to_fp16=half)
        return files[0].read_bytes(), files[1].read_bytes()
