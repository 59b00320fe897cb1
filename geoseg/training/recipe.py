"""Recipes of `geoseg train`: everything a training can be asked for, as one value; strict, and unknown entries are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from geoseg.errors import InputError
from geoseg.training.sections import Generated, Part, Rendering


class SceneEntry(Part):
    """One scene and what is known of its fields. Paths are relative to the recipe's folder."""

    image: str | tuple[str, ...]
    """One file with all bands, or one file a band on one grid."""
    labels: str
    """Vector file of field polygons, or a raster of class ids on the scene's grid (`values` says which is which)."""
    layer: str | None = None
    """Layer of a vector file with several."""
    where: str | None = None
    """Which features count, as OGR SQL, e.g. "crop <> 'none'"; of GeoParquet as pandas has it, "crop != 'none'"."""
    values: dict[str, int] | None = None
    """Of a label raster: the stored value of each class; others are ignored. None: 0 background, 1 field, 2 boundary."""
    instances: bool = False
    """The label raster holds a number for each field (0 is none) in place of classes."""
    bands: tuple[str, ...] | None = None
    """Names of the scene's bands in file order, '-' for those to ignore."""
    crs: str | None = None
    """CRS of a scene that does not say its own."""
    pixel_size_m: float | None = Field(default=None, gt=0)
    """Pixel size in metres of a scene without a CRS."""
    scale: float | tuple[float, ...] | None = None
    offset: float | tuple[float, ...] | None = None
    nodata: float | None = Field(default=None, allow_inf_nan=True)
    labelled_area: str | None = None
    """Vector file: what lies outside its polygons is unknown and ignored."""
    labelled_layer: str | None = None
    """Layer of `labelled_area`, where the file has several."""
    partial: bool = False
    """Only some fields are drawn: what lies outside polygons is ignored beyond `buffer_px`."""
    buffer_px: float = Field(default=3.0, ge=0)
    """See `partial`: so far around drawn fields the land counts as no field."""
    validation: bool = False
    """The whole scene is for validation."""
    holdout: bool = False
    """The scene is for the final score only: neither learnt from nor looked at while training."""

    @property
    def images(self) -> tuple[str, ...]:
        return (self.image,) if isinstance(self.image, str) else self.image

    @field_validator("bands", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_use(self) -> SceneEntry:
        if self.validation and self.holdout:
            raise ValueError("a scene is for validation or a holdout, not both")
        if self.labelled_layer is not None and self.labelled_area is None:
            raise ValueError("labelled_layer is a layer of labelled_area, which is missing")
        return self


class Split(Part):
    """What is learnt from, and what is looked at while learning."""

    by: Literal["auto", "scene", "blocks"] = "auto"
    """Whole scenes, or blocks within scenes; auto takes scenes where there are four or more, or where some are named."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share of the labelled pixels (blocks) or of the scenes."""
    block_px: int | None = Field(default=None, gt=0)
    """Side of a block; None takes 4 patches, or halves of scenes that are smaller than 12."""
    guard_px: int | None = Field(default=None, ge=0, le=65_536)
    """Pixels between what is learnt from and what is validated on; None takes a patch, and less is refused."""
    seed: int = Field(default=0, ge=0)


class Targets(Part):
    boundary_px: float = Field(default=2.0, ge=0)
    """Width of the line between and around fields; 0 for no boundary class. At least 1 keeps touching fields apart."""
    distance: bool = False
    """A further output: the distance to the field's edge, which divides fields where there is no boundary class."""
    distance_px: int = Field(default=16, ge=2)
    """Distance in pixels that counts as 1."""
    classes: tuple[str, ...] = ("background", "field", "boundary")
    """Names in order of ids. Polygons make background, field and boundary; other classes come from label rasters."""
    field_class: str = "field"

    @model_validator(mode="after")
    def _known(self) -> Targets:
        if self.field_class not in self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be different names, and {self.field_class!r} one of them")
        if 0 < self.boundary_px < 1:
            raise ValueError(
                "boundary_px below 1 leaves touching fields joined; give 1 or more, or 0 for no boundary class"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that the network learns."""
        return tuple(name for name in self.classes if name != "boundary" or self.boundary_px > 0)


class Augment(Part):
    """What chips go through, drawn anew each time; 0 or false leaves a step out."""

    flip: bool = True
    turn: bool = True
    """Quarter turns."""
    rotate_deg: float = Field(default=15.0, ge=0, le=180)
    """Turned by up to so much."""
    translate: float = Field(default=0.05, ge=0, lt=1)
    """Moved by up to this share of the patch."""
    zoom: float = Field(default=1.25, ge=1, le=4)
    """Enlarged or shrunk by up to this factor."""
    brightness: float = Field(default=0.15, ge=0)
    """Added to all bands; in units of the scaled input, where a band's 10th and 90th percentile lie 1 apart."""
    contrast: float = Field(default=0.25, ge=0, lt=1)
    """Multiplied into all bands: 1 - contrast to 1 + contrast."""
    colour: float = Field(default=0.1, ge=0)
    """The same for each band by itself, as a gain and an offset."""
    blur: float = Field(default=0.2, ge=0, le=1)
    """Share of chips that are blurred."""
    noise: float = Field(default=0.05, ge=0)
    """Deviation of added noise, on half of the chips."""
    shuffle_bands: float = Field(default=0.0, ge=0, le=1)
    """Share of chips whose bands are exchanged; for models that are not to rely on colours."""
    drop_optional: float = Field(default=0.3, ge=0, le=1)
    """Share of chips whose optional bands are zeros."""


class Loss(Part):
    """Weights of the losses that are added up."""

    cross_entropy: float = Field(default=1.0, ge=0, alias="cross-entropy")
    focal: float = Field(default=0.0, ge=0)
    dice: float = Field(default=0.5, ge=0)
    tversky: float = Field(default=0.0, ge=0)
    distance: float = Field(default=0.5, ge=0)
    """Of the distance output, where there is one."""
    focal_gamma: float = Field(default=2.0, ge=0)
    tversky_alpha: float = Field(default=0.3, gt=0)
    """Weight of false positives in the Tversky loss."""
    tversky_beta: float = Field(default=0.7, gt=0)
    """Weight of false negatives."""
    class_weights: Literal["auto", "none"] | tuple[float, ...] = "auto"
    """Of the cross-entropy: one a class; auto takes 1 / sqrt(share of the class), of mean 1."""

    @model_validator(mode="after")
    def _some(self) -> Loss:
        if not (self.cross_entropy or self.focal or self.dice or self.tversky):
            raise ValueError(
                "all losses of the classes are 0; give one of cross-entropy, focal, dice, tversky a weight"
            )
        return self


class Schedule(Part):
    epochs: int = Field(default=40, gt=0)
    steps: int = Field(default=25, gt=0)
    """Batches an epoch; after each epoch the state is kept and the validation done."""
    batch: int = Field(default=8, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    """At its peak, a tenth into the training; it falls as a cosine to nothing."""
    weight_decay: float = Field(default=0.01, ge=0)
    averaging: float = Field(default=0.99, ge=0, lt=1)
    """Share of the averaged weights, which are what is kept, that stays from one step to the next."""
    patience: int | None = Field(default=None, gt=0)
    """Epochs without a better validation after which training ends early."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights become the model."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on GPUs and on processors that multiply it, else fp32."""
    threads: int | None = Field(default=None, gt=0)
    """CPU threads of torch; None leaves it to torch. A resumed training keeps those it began with."""
    workers: int = Field(default=0, ge=0)
    """Processes that read chips; never changes the result."""


class TrainRecipe(Part):
    """A whole training."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the model."""
    title: str = ""
    description: str = ""
    scenes: tuple[SceneEntry, ...] = Field(min_length=1)
    generated: Generated | None = None
    """Generated scenes to learn from, too; None for none."""
    split: Split = Split()
    targets: Targets = Targets()
    network: dict[str, Any] | None = None
    """Architecture record of a network with random weights, e.g. {type: unet, encoder: resnet18, decoder_channels: [...]}."""
    from_: str | None = Field(default=None, alias="from")
    """Model to go on from: its network, its weights, and its bands and scaling where the recipe names none."""
    freeze: Literal["none", "encoder"] = "none"
    """`encoder`: its weights stay as they are."""
    encoder_rate: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of the encoder, as a share of the others'."""
    bands: tuple[str, ...] | None = None
    """Bands by name; '?' at the end marks an optional one. None takes those of `from`, else red, green, blue."""
    scaling: Literal["scene"] | None = None
    """`scene`: by the whole scene's percentiles, whatever its units. None takes that of `from`, else scene."""
    resolution_m: float | None = Field(default=None, gt=0)
    """Scenes of another pixel size are resampled to this one; None takes them as they are."""
    patch: int = Field(default=256, gt=0, le=4096)
    """Side of a chip in pixels."""
    run_patch: int | None = Field(default=None, gt=0)
    """Side in pixels of what `geoseg run` shows the model; None takes that of `from`, else the larger of 512 and `patch`."""
    min_area_m2: float = Field(default=0.0, ge=0)
    """Smaller fields are left out by `geoseg run`, unless it is told otherwise."""
    augment: Augment = Augment()
    loss: Loss = Loss()
    schedule: Schedule = Schedule()
    renderer: Rendering = Rendering()
    """Of `geoseg train RECIPE --renderer` alone."""
    seed: int = Field(default=0, ge=0)
    licence: str = ""
    out: str | None = None
    """Folder of the packaged model, relative to where the command is given; -o wins."""

    @field_validator("bands", mode="before")
    @classmethod
    def _split_bands(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> TrainRecipe:
        if (self.network is None) == (self.from_ is None):
            raise ValueError("give `network:` for one with random weights, or `from:` for a model to go on from")
        if self.freeze != "none" and self.from_ is None:
            raise ValueError("`freeze:` needs a model to go on from: random weights that stay are of no use")
        names = [name.rstrip("?") for name in self.bands or ("red",)]
        if not names or not all(names) or len(set(names)) < len(names):
            raise ValueError(f"bands {', '.join(names)!r} are no different names; give e.g. red, green, blue, nir?")
        weights = self.loss.class_weights
        if isinstance(weights, tuple) and (min(weights, default=0) < 0 or not any(weights)):
            raise ValueError(
                f"loss.class_weights {list(weights)}: numbers of 0 and more are expected, not all of them 0"
            )
        if isinstance(weights, tuple) and len(weights) != len(self.targets.names):
            raise ValueError(
                f"loss.class_weights names {len(weights)} weights; the classes are {', '.join(self.targets.names)}"
            )
        if self.generated is not None and self.generated.side_px < self.patch:
            raise ValueError(f"generated.side_px {self.generated.side_px} is less than the patch of {self.patch}")
        if all(scene.holdout or scene.validation for scene in self.scenes):
            raise ValueError("no scene is left to learn from; at least one is neither validation nor holdout")
        return self

    def decisive(self) -> dict[str, Any]:
        """What decides the weights, as JSON values; files count by content, and stand elsewhere."""
        values = self.model_dump(
            mode="json", by_alias=True, exclude={"out", "description", "title", "licence", "renderer"}
        )
        for scene in values["scenes"]:
            for name in ("image", "labels", "labelled_area"):
                scene.pop(name)
        for name in ("workers", "threads"):
            values["schedule"].pop(name)
        if self.generated is None:
            values.pop("generated")
        else:
            values["generated"].pop("gan")
        return values


def load_train_recipe(path: str | Path, changes: Sequence[str] = ()) -> TrainRecipe:
    """The recipe in a YAML file, with `changes` such as "schedule.epochs=3" made to it. Raises InputError."""
    import yaml

    file = Path(path)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"recipe {path} cannot be read ({reason}); expected a YAML file, see docs/training.md"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"recipe {path} is not YAML ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(values, dict):
        raise InputError(
            f"recipe {path} holds no entries; expected lines such as `name: my-fields`, see docs/training.md"
        )
    for change in changes:
        _change(values, change)
    return checked_recipe(values, subject=f"recipe {path}")


def checked_recipe(values: Mapping[str, Any], *, subject: str = "recipe") -> TrainRecipe:
    """A recipe from loose values; a wrong one is an InputError that names it."""
    try:
        return TrainRecipe.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"{subject}: {told(error)}") from error


def _change(values: dict[str, Any], change: str) -> None:
    import yaml

    name, found, text = change.partition("=")
    keys = name.strip().split(".")
    if not found or not all(keys):
        raise InputError(f"--set {change}: expected NAME=VALUE with dots between sections, e.g. schedule.epochs=20")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {change}: {text!r} is not YAML ({' '.join(str(error).split())}); quote it") from error
    section: Any = values
    for key in keys[:-1]:
        section = section.setdefault(key, {}) if isinstance(section, dict) else None
        if section is None:
            break
    if not isinstance(section, dict):
        raise InputError(
            f"--set {change}: {'.'.join(keys[:-1])} is no section of the recipe; sections are {', '.join(SECTIONS)}"
        )
    section[keys[-1]] = value


SECTIONS = ("split", "targets", "network", "generated", "renderer", "augment", "loss", "schedule")


def told(error: ValidationError) -> str:
    """What is wrong first, where, and what was expected."""
    first = error.errors()[0]
    place = [
        part for part in first["loc"] if not (isinstance(part, str) and part.startswith(("tuple", "literal", "str")))
    ]
    name = ".".join(str(part) for part in place)
    if first["type"] == "extra_forbidden":
        return f"entry {name!r} is not known; known there: {', '.join(_known(place[:-1]))}"
    if first["type"] == "missing":
        return f"entry {name!r} is missing; known there: {', '.join(_known(place[:-1]))}"
    message = first["msg"].removeprefix("Value error, ")
    return f"entry {name!r}: {message} (found {first['input']!r})" if name else message


def _known(place: Sequence[int | str]) -> list[str]:
    parts: dict[str, type[Part]] = {
        "scenes": SceneEntry, "split": Split, "targets": Targets, "augment": Augment, "loss": Loss, "schedule": Schedule,
        "generated": Generated, "renderer": Rendering,
    }  # fmt: skip
    part = parts.get(str(place[0]), TrainRecipe) if place else TrainRecipe
    return [field.alias or name for name, field in part.model_fields.items()]
