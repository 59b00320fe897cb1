"""ModelSpec: everything a run must know about a model, apart from its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from geoseg.errors import ModelError

Kind = Literal["class", "boundary", "distance"]
Scaling = Literal["fixed", "scene"]
Reach = Literal["local", "patch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BandSpec:
    name: str
    """Common name: red, green, blue, nir, ..."""
    mean: float = 0.0
    """Fixed scaling: the network sees (physical - mean) / std. Ignored with scene scaling."""
    std: float = 1.0
    """See `mean`; above 0."""
    optional: bool = False
    """True where the model was trained with this band dropped at times: zeros stand in for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    name: str
    """background, field, boundary, ..."""
    kind: Kind = "class"
    """`class` channels share a softmax and compete in the argmax; the others are sigmoids of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hysteresis:
    """A rule for one class against another: its weak pixels count where they are connected to a strong one of the scene.

    A pixel is strong where the stored probability of the class is at least `high`, weak where it is at least `low` and
    below `high`. A weak pixel that is connected is raised to `high`, one that is not is lowered to `low` - 1, and
    the other class has the rest.
    """

    channel: int
    """Class id."""
    other: int
    """Class id, a smaller one: of equals it is first."""

    low: int = 128
    """Stored probability; a weak pixel that is lowered below it belongs to the other class."""
    high: int = 191
    diagonal: bool = True
    """Whether pixels that touch at a corner are connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRule:
    """For a model that finds objects one by one, each with a score and pixels of its own: which of them count."""

    score: float = 0.5
    """Objects with a smaller score are left out."""
    overlap: float = 0.5
    """Two are one object where their intersection over union exceeds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    name: str
    title: str
    bands: tuple[BandSpec, ...]
    """In the order of the network's input channels."""
    outputs: tuple[Channel, ...]
    """In the order of the network's output channels: classes first, and a class's id is its index."""
    field_class: str = "field"
    """The class that becomes polygons."""
    scaling: Scaling = "fixed"
    """`fixed`: physical values with mean and std as given; `scene`: centred and spread by whole-scene percentiles."""
    units: Literal["reflectance", "byte", "raw"] = "raw"
    """Physical values that fixed scaling expects: reflectance 0..1, byte 0..255, raw as stored."""
    clip: float | None = None
    """Scaled values are limited to [-clip, clip]; None for no limit."""
    patch: int = 512
    """Side in pixels of what the network sees, halo included."""
    halo: int = 64
    """Pixels on each side of a patch that are predicted and thrown away."""
    stride: int = 32
    """Total down-sampling of the network: patch, halo and windows are multiples of it."""
    reach: Reach = "patch"
    """`local`: a pixel depends on at most `halo` pixels around it; `patch`: on its whole patch (global pooling)."""
    upsample: int = 1
    """The network sees the patch enlarged by this factor and its output is brought back."""
    resolution_m: tuple[float, float] = (0.0, float("inf"))
    """Smallest and largest pixel size in metres that the model is meant for."""
    nominal_m: float = 1.0
    """Pixel size in metres that it was trained at; assumed where a scene has no CRS."""
    min_area_m2: float = 0.0
    """Smaller fields than this are more often wrong than right; what a run leaves out unless it is told otherwise."""
    licence: str = ""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """How to build the network; read by the room that loads the model."""
    weights_sha256: str = ""
    """Hash of the weight file, empty for models without weights."""
    trained_on: str = ""
    hysteresis: Hysteresis | None = None
    """What is settled over the whole scene after all tiles are predicted; None for models that say all in their tiles."""
    instances: InstanceRule | None = None
    """None for models that say the class of each pixel."""

    def __post_init__(self) -> None:
        if not self.bands or not self.outputs:
            raise ModelError(f"model {self.name!r} names no bands or no outputs; its spec needs both")
        if self.stride < 1 or self.patch % self.stride or self.halo % self.stride or self.halo < 0:
            good = ", ".join(str(self.stride * i) for i in range(3))
            raise ModelError(
                f"model {self.name!r}: patch {self.patch} and halo {self.halo} must be multiples of the stride "
                f"{self.stride}; a halo of {good} would do"
            )
        if self.patch <= 2 * self.halo:
            raise ModelError(f"model {self.name!r}: patch {self.patch} leaves nothing inside a halo of {self.halo}")
        if self.upsample < 1:
            raise ModelError(f"model {self.name!r}: upsample is {self.upsample}, expected 1 or more; correct its spec")
        if any(band.std <= 0 for band in self.bands):
            raise ModelError(f"model {self.name!r} has a band whose std is not above 0; correct its spec")
        kinds = [channel.kind == "class" for channel in self.outputs]
        if kinds != sorted(kinds, reverse=True):
            raise ModelError(f"model {self.name!r} has classes after other outputs; name the classes first")
        if self.field_class not in self.class_names:
            raise ModelError(
                f"model {self.name!r} calls its field class {self.field_class!r}, "
                f"but its classes are {', '.join(self.class_names)}; correct its spec"
            )
        if (rule := self.hysteresis) is not None:
            if not 0 <= rule.other < rule.channel < len(self.class_names):
                raise ModelError(
                    f"model {self.name!r} has hysteresis for class {rule.channel} against {rule.other}; two of its classes "
                    f"are expected, the smaller id as `other`"
                )
            if not 128 <= rule.low < rule.high <= 254:
                raise ModelError(
                    f"model {self.name!r}: hysteresis from {rule.low} to {rule.high}; stored probabilities of 128 to 254 are "
                    f"expected, the lower one first"
                )
        if (limits := self.instances) is not None:
            if not (0 < limits.score <= 1 and 0 < limits.overlap < 1):
                raise ModelError(
                    f"model {self.name!r} finds objects with score {limits.score} and overlap {limits.overlap}; numbers between "
                    f"0 and 1 are expected"
                )
            if not self.halo:
                raise ModelError(
                    f"model {self.name!r} finds objects in patches that do not overlap, which cuts them at the seams; give it a "
                    f"halo of {self.stride} or more, best of the size of its objects"
                )
            if self.upsample != 1 or self.hysteresis is not None or len(self.class_names) < len(self.outputs):
                raise ModelError(
                    f"model {self.name!r} finds objects, and has upsample, hysteresis or outputs that are no classes; leave them "
                    f"out of its spec"
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(channel.name for channel in self.outputs if channel.kind == "class")

    @property
    def required_bands(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands if not band.optional)

    def class_id(self, name_or_id: str) -> int:
        """The id of a class given by name or number."""
        if name_or_id in self.class_names:
            return self.class_names.index(name_or_id)
        if name_or_id.isdecimal() and int(name_or_id) < len(self.class_names):
            return int(name_or_id)
        raise ModelError(f"model {self.name!r} has no class {name_or_id!r}; it has {', '.join(self.class_names)}")

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        for name in ("hysteresis", "instances"):
            if values[name] is None:  # as it was before there was such an entry: fingerprints are made of it
                del values[name]
        return values

    def to_json(self) -> str:
        return json_text(self.to_dict())

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ModelSpec:
        """A spec from its JSON form; unknown or missing entries are a ModelError that names them."""
        values = dict(record)
        values.pop("mlm", None)  # STAC metadata that packages carry for other tools, see geoseg.models.mlm
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise ModelError(
                f"model spec has unknown entries {sorted(unknown)}; known: {sorted(cls.__dataclass_fields__)}"
            )
        try:
            values["bands"] = tuple(BandSpec(**band) for band in values["bands"])
            values["outputs"] = tuple(Channel(**channel) for channel in values["outputs"])
            if values.get("hysteresis") is not None:
                values["hysteresis"] = Hysteresis(**values["hysteresis"])
            if values.get("instances") is not None:
                values["instances"] = InstanceRule(**values["instances"])
            if "resolution_m" in values:
                low, high = values["resolution_m"]
                values["resolution_m"] = (float(low), float(high))
            _check_kinds(values)
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"model spec is incomplete or malformed ({error}); compare it with `geoseg models show`"
            ) from error


def _check_kinds(values: Mapping[str, Any]) -> None:
    for name in ("patch", "halo", "stride", "upsample"):
        if not isinstance(values.get(name, 0), int):
            raise TypeError(f"{name} is {values[name]!r}, expected a whole number")
    if not isinstance(values.get("weights_sha256", ""), str):
        raise TypeError(f"weights_sha256 is {values['weights_sha256']!r}, expected a text")
    if not isinstance(values.get("architecture", {}), Mapping):
        raise TypeError(f"architecture is {values['architecture']!r}, expected an object")


def json_text(values: Mapping[str, Any]) -> str:
    """JSON, a line an entry. It has no infinity, and 1e999 is read as one by all."""
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    return re.sub(r"(?m)^(\s*)Infinity$", r"\g<1>1e999", text)


def classes(*names: str) -> tuple[Channel, ...]:
    """Class channels by name, in order of their ids."""
    return tuple(Channel(name=name) for name in names)


def bands(
    names: Sequence[str], *, mean: Sequence[float] | float = 0.0, std: Sequence[float] | float = 1.0
) -> tuple[BandSpec, ...]:
    """Band specs by name with one or several means and standard deviations."""
    means = [mean] * len(names) if isinstance(mean, int | float) else list(mean)
    stds = [std] * len(names) if isinstance(std, int | float) else list(std)
    return tuple(BandSpec(name=n, mean=m, std=s) for n, m, s in zip(names, means, stds, strict=True))
