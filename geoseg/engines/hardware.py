"""What this machine's processor is called and can do, for fingerprints and the choice of a precision."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from pathlib import Path

FEATURES = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "asimd")
"""Instruction sets that change the bits of a result, the most telling first."""


@cache
def cpu_name() -> str:
    """`AMD EPYC 9R14`, `Intel Xeon Platinum 8481C`, ...: as the system says, without ornaments."""
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    name = found.group(1) if found else platform.processor() or platform.machine()
    return " ".join(re.sub(r"\((R|TM)\)|CPU|Processor|@.*$", " ", name, flags=re.IGNORECASE).split())


@cache
def cpu_features() -> tuple[str, ...]:
    """Which of FEATURES the processor has."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    flags = set(found.group(1).split()) if found else set()
    return tuple(feature for feature in FEATURES if feature in flags)


def cpu_label() -> str:
    """Name and foremost instruction set, as fingerprints carry them."""
    return " ".join([cpu_name(), *cpu_features()[:1]])


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively."""
    return bool({"amx_bf16", "avx512_bf16"} & set(cpu_features()))


@cache
def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
