"""RunOptions: everything a run can be asked for, as one value; and recipes, which are the same options in YAML."""

from __future__ import annotations

import math
from datetime import date, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from geoseg.errors import InputError
from geoseg.reading import Clouds, Prefer
from geoseg.results import Lines
from geoseg.scene import as_time, time_text

DECISIVE = {"bands", "pixel_size_m", "scale", "offset", "nodata", "clouds", "prefer", "resample", "on_read_error"}
OF_FIELDS = {
    "instances", "min_area_m2", "give_back_m", "max_hole_m2", "min_part_m2", "simplify_m", "smooth",
}  # fmt: skip
FORMATS = ("gpkg", "shp", "parquet", "fgb", "geojson")


class RunOptions(BaseModel):
    """Options of `geoseg run`; every name is the name on the command line and in a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str | None = None
    """Name, folder or checkpoint file; None takes the bundled model that fits."""
    weights: str | None = None
    """Local weight file for a named model whose hub is out of reach."""
    trust_checkpoint: bool = False
    """Load a checkpoint that can execute code."""
    format: tuple[str, ...] = ("gpkg",)
    """Vector formats to write."""
    probabilities: bool = False
    """Write probabilities.tif too."""
    bands: tuple[str, ...] | None = None
    """Names of the scene's bands in file order, '-' for those to ignore."""
    crs: str | None = None
    """CRS of a scene that does not say its own."""
    pixel_size_m: float | None = Field(default=None, gt=0)
    """Pixel size in metres of a scene without a CRS."""
    scale: tuple[float, ...] | None = None
    """physical = stored * scale + offset: one value, or one a band."""
    offset: tuple[float, ...] | None = None
    nodata: float | None = Field(default=None, allow_inf_nan=True)
    """Stored value that means "no data", in place of the scene's own."""
    time: datetime | None = None
    """When the image was taken, in ISO 8601 and UTC unless it says otherwise; None takes what the scene says."""
    aoi: str | None = None
    """Area of interest: a vector file, or west,south,east,north in degrees."""
    clouds: Clouds = "mask"
    """Whether pixels that a product's own mask takes for clouds or their shadows are left out as nodata, or predicted."""
    prefer: Prefer = "newest"
    """Which of several scenes that see the same ground gives the pixel: `newest`, `oldest`, or `first` as they are given."""
    resample: bool = False
    """Bring the scene to the model's nominal resolution where it lies outside its range."""
    engine: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    tta: Literal["none", "d4"] = "none"
    """Test-time augmentation: `d4` predicts each patch in eight positions and takes the mean. Decides the result."""
    patch: int | None = Field(default=None, gt=0)
    """Side in pixels of what the model sees; decides the result. None takes the model's."""
    overlap: int = Field(default=0, ge=0)
    """Pixels by which patches overlap and are blended; 0 keeps each patch's own cell. Decides the result."""
    tile: int | None = Field(default=None, gt=0)
    """Patches along a tile's side; never decides the result."""
    workers: int | None = Field(default=None, gt=0)
    """Tiles under way at a time."""
    max_memory: str | None = None
    """Memory to stay below, e.g. 4GB: workers, tiles and, aloud, patches are made smaller for it."""
    scheduler: str | None = None
    """Address of a Dask scheduler."""
    on_read_error: Literal["stop", "mask"] = "stop"
    """What to do about parts of a scene that cannot be read: end the run, or leave them out as nodata."""
    allow_mixed_engines: bool = False
    """Go on where workers, or an earlier try, predict with another engine or hardware: results may then differ in places."""
    instances: str = "auto"
    """Vectorizer that makes objects of classes; auto takes watershed where boundaries are known, else components."""
    field_class: str | None = None
    """Class that becomes polygons, by name or id; None takes the model's."""
    min_area_m2: float | None = Field(default=None, ge=0)
    """Smaller fields are left out, after fields are merged over tiles; None takes the model's own limit."""
    give_back_m: float | None = Field(default=None, ge=0)
    """Boundary pixels up to that far away are given to the nearest field; None takes 2.5 m or one pixel, whichever is more,
    with watershed, and 0 with components."""
    max_hole_m2: float | None = Field(default=None, ge=0)
    """Smaller gaps within a field are filled; None takes 500 with watershed, and 0 with components."""
    min_part_m2: float | None = Field(default=None, ge=0)
    """Watershed divides no smaller parts from a field; None takes 3500."""
    simplify_m: float = Field(default=0.0, ge=0)
    """Largest distance in metres of simplified outlines from those before; 0 leaves out nothing."""
    smooth: bool = False
    """Outlines along the contour of the probability, below a pixel, in place of the pixels' sides."""

    @field_validator("format", "bands", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("scale", "offset", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(","))
        return (value,) if isinstance(value, int | float) else value

    @field_validator("format")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in FORMATS]
        if unknown or not value:
            raise ValueError(f"no format {', '.join(map(repr, unknown)) or 'given'}; known: {', '.join(FORMATS)}")
        return tuple(dict.fromkeys(value))

    @field_validator("time", mode="before")
    @classmethod
    def _in_utc(cls, value: Any) -> Any:
        if isinstance(value, date):  # YAML makes dates of what looks like one
            value = value.isoformat()
        try:
            return as_time(value) if isinstance(value, str) else value
        except (ValueError, OverflowError) as error:
            raise ValueError("no time in ISO 8601; give e.g. 2024-05-13T09:40:31Z or 2024-05-13") from error

    @field_serializer("time", when_used="json")
    def _time_as_text(self, value: datetime | None) -> str | None:
        return None if value is None else time_text(value)

    @field_serializer("nodata", when_used="json")
    def _as_text(self, value: float | None) -> float | str | None:
        return value if value is None or math.isfinite(value) else str(value)

    @classmethod
    def checked(cls, **values: Any) -> RunOptions:
        """Options from loose values; a wrong one is an InputError that names it."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise InputError(_told(error, "option")) from error

    def of_fields(self) -> dict[str, Any]:
        """The options that decide how classes become polygons, as JSON values."""
        return self.model_dump(mode="json", include=OF_FIELDS)

    def method(self, lines: Lines) -> str:
        """The vectorizer: as asked, or the one that suits what is known of boundaries."""
        if self.instances != "auto":
            return self.instances
        return "components" if lines.channel is None else "watershed"

    def shaping(self, *, divided: bool, pixel_m: float) -> dict[str, float]:
        """give_back_m, max_hole_m2 and min_part_m2: as asked, or what suits objects that are divided or not.

        The values were chosen on aerial images of 1 m (US, those that fields-rgb is trained on) and one Sentinel-2 scene
        (Estonia, May), together with the thresholds of geoseg.vectorize.watershed.
        """
        usual = {"give_back_m": max(2.5, pixel_m), "max_hole_m2": 500.0, "min_part_m2": 3500.0}
        asked = {name: getattr(self, name) for name in usual}
        return {
            name: value if asked[name] is None else asked[name]
            for name, value in (usual if divided else dict.fromkeys(usual, 0.0)).items()
        }

    def decisive(self) -> dict[str, Any]:
        """The options that decide what is predicted, as JSON values; what they name (model, area) counts by content."""
        return self.model_dump(mode="json", include=DECISIVE)


def load_recipe(name_or_path: str) -> dict[str, Any]:
    """Options of a recipe, by file or by the name of one that ships with geoseg; unknown entries are an error."""
    values = recipe_values(name_or_path, known=recipe_names())
    try:
        return RunOptions(**values).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise InputError(_told(error, f"recipe {name_or_path}: option", dashes=False)) from error


def recipe_values(name_or_path: str, *, known: dict[str, Any]) -> dict[str, Any]:
    """What a recipe says, unchecked, without its description; `known` are the files of shipped ones by name."""
    import yaml

    path = Path(name_or_path)
    if not path.is_file() and name_or_path not in known:
        raise InputError(f"no recipe {name_or_path!r}: no such file, and the shipped ones are {', '.join(known)}")
    try:
        text = (path if path.is_file() else known[name_or_path]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {name_or_path} cannot be read as text ({error}); expected YAML in UTF-8") from error
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"recipe {name_or_path} is not YAML ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise InputError(f"recipe {name_or_path} holds no options; expected lines such as `model: fields-s2`")
    values.pop("description", None)
    return values


OTHER_COMMANDS = {"train": "train_", "monitor": "crop_", "batch": "batch_"}
"""How the names of recipes begin that are not for `geoseg run`."""


def recipe_names(command: str = "run") -> dict[str, Any]:
    """Recipes of a command that ship with geoseg, by name; those of `geoseg train` and `geoseg batch` are for copying."""
    shipped = resources.files("geoseg") / "pipelines"
    if not shipped.is_dir():  # a checkout: the recipes lie beside the package
        shipped = resources.files("geoseg") / ".." / "pipelines"
    if not shipped.is_dir():
        return {}
    files = sorted((file for file in shipped.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): file for file in files if _command(file.name) == command}


def _command(name: str) -> str:
    return next((command for command, start in OTHER_COMMANDS.items() if name.startswith(start)), "run")


def _told(error: ValidationError, subject: str, *, dashes: bool = True) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    name = f"--{name.replace('_', '-')}" if dashes else name
    if first["type"] == "extra_forbidden":
        return f"{subject} {name!r} is not known; known: {', '.join(sorted(RunOptions.model_fields))}"
    return f"{subject} {name!r}: {first['msg'].removeprefix('Value error, ')} (found {first['input']!r})"
