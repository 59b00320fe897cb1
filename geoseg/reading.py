"""ReadOptions: what the user says about a scene, as a value that readers take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from geoseg.errors import InputError

OnReadError = Literal["stop", "mask"]
"""What happens where pixels cannot be decoded: the run ends, or they are not valid."""

Clouds = Literal["mask", "keep"]
"""Whether pixels under clouds and their shadows are valid: `mask` takes them for no data, `keep` leaves them."""

Prefer = Literal["newest", "oldest", "first"]
"""Which of several scenes that see the same ground gives the pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """The arguments of open_scene, see there."""

    bands: tuple[str, ...] | None = None
    crs: str | None = None
    pixel_size_m: float | None = None
    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None
    nodata: float | None = None
    palette: bool = False
    on_read_error: OnReadError = "stop"
    clouds: Clouds = "keep"
    prefer: Prefer = "newest"

    def refuse(self, title: str, names: Sequence[str] = ("bands", "crs", "pixel_size_m", "nodata")) -> None:
        """InputError where the user says what a product says itself."""
        for name in names:
            if getattr(self, name) is not None:
                raise InputError(
                    f"--{name.replace('_', '-')} is for files that do not say it, and {title} does; leave it out, or name "
                    f"the image files themselves"
                )

    def scaling(self, scale: float, offset: float) -> tuple[float, float]:
        """The product's (scale, offset), or what the user gave in their place for all bands."""
        for name, given in (("--scale", self.scale), ("--offset", self.offset)):
            if given is not None and len(given) != 1:
                raise InputError(f"{name} has {len(given)} values; a product takes one for all bands")
            if given is not None and (not math.isfinite(given[0]) or (name == "--scale" and given[0] == 0)):
                raise InputError(f"{name} {given[0]:g} leaves nothing of the values; give a number, --scale not 0")
        return (
            scale if self.scale is None else self.scale[0],
            offset if self.offset is None else self.offset[0],
        )


def utc(text: str) -> datetime | None:
    """A time of ISO 8601 as UTC; None where it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
