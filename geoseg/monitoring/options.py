"""MonitorOptions: what a series is asked for; every name is one of the command line and of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from geoseg.errors import InputError
from geoseg.monitoring.anomaly import AnomalyRules
from geoseg.monitoring.dates import season_day
from geoseg.monitoring.season import SeasonRules


class MonitorOptions(BaseModel):
    """Options of `geoseg monitor`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    bands: tuple[str, ...] | None = None
    """Names of the scenes' bands in file order, '-' for those to ignore."""
    crs: str | None = None
    """CRS of scenes that do not say their own."""
    pixel_size_m: float | None = Field(default=None, gt=0)
    scale: tuple[float, ...] | None = None
    """physical = stored * scale + offset: one value, or one a band."""
    offset: tuple[float, ...] | None = None
    nodata: float | None = Field(default=None, allow_inf_nan=True)
    dates: str | None = None
    """Dates of the scenes in their order, with commas."""
    date_pattern: str | None = None
    """Regular expression with the groups year, month, day, for the scenes' paths."""
    id_column: str | None = None
    variables: tuple[str, ...] | None = None
    """Bands and indices to measure; None takes all that the scenes have."""
    pixels: Literal["coverage", "centres"] = "coverage"
    """How pixels count: by the share that lies in the field, or wholly where their centre does."""
    index: str = "ndvi"
    """The variable of curves, seasons, anomalies, plots and maps."""
    min_valid: float = Field(default=0.5, gt=0, le=1)
    """Dates of which a smaller share of the field is valid are not used for curves, seasons and anomalies."""
    smoothing: float = Field(default=300.0, gt=0)
    """Lambda of the Whittaker smoother, for days."""
    season_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the amplitude at which a season starts and ends."""
    season_start: str = "01-01"
    """Month and day on which a new season's curve begins."""
    min_amplitude: float = Field(default=0.1, ge=0)
    """Flatter curves have no season."""
    min_dates: int = Field(default=5, ge=4)
    """Dates that a season's curve needs."""
    past_days: int = Field(default=15, ge=0, le=182)
    """How far from the same day of the year earlier years are looked at."""
    neighbours: int = Field(default=8, ge=1)
    """How many of the nearest fields are compared with."""
    radius_m: float = Field(default=5000.0, gt=0)
    """No neighbour is farther away."""
    plot_fields: int = Field(default=20, ge=0)
    """How many fields are plotted where none are named."""

    @field_validator("bands", "variables", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("variables")
    @classmethod
    def _lower(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is None or tuple(name.lower() for name in value) == ("auto",):
            return None
        return tuple(dict.fromkeys(name.lower() for name in value))

    @field_validator("scale", "offset", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(","))
        return (value,) if isinstance(value, int | float) else value

    @classmethod
    def checked(cls, **values: Any) -> MonitorOptions:
        """Options from loose values; a wrong one is an InputError that names it."""
        return cls._told("option", values, dashes=True)

    @classmethod
    def of_recipe(cls, name: str) -> dict[str, Any]:
        """Options of a YAML file or of a recipe that ships with geoseg; unknown entries are an error."""
        from geoseg.recipes import recipe_names, recipe_values

        values = recipe_values(name, known=recipe_names("monitor"))
        return cls._told(f"recipe {name}: option", values, dashes=False).model_dump(exclude_unset=True)

    @classmethod
    def _told(cls, subject: str, values: dict[str, Any], *, dashes: bool) -> MonitorOptions:
        try:
            options = cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            name = f"--{name.replace('_', '-')}" if dashes else name
            if first["type"] == "extra_forbidden":
                raise InputError(
                    f"{subject} {name!r} is not known; known: {', '.join(sorted(cls.model_fields))}"
                ) from error
            raise InputError(f"{subject} {name!r}: {first['msg']} (found {first['input']!r})") from error
        season_day(options.season_start)
        return options

    def season_rules(self) -> SeasonRules:
        return SeasonRules(
            smoothing=self.smoothing, share=self.season_share, begins=season_day(self.season_start),
            min_amplitude=self.min_amplitude, min_dates=self.min_dates,
        )  # fmt: skip

    def anomaly_rules(self) -> AnomalyRules:
        return AnomalyRules(past_days=self.past_days, neighbours=self.neighbours, radius_m=self.radius_m)

    def reading(self) -> dict[str, Any]:
        """How scenes are opened."""
        return self.model_dump(include={"bands", "crs", "pixel_size_m", "scale", "offset", "nodata"})

    def recorded(self) -> dict[str, Any]:
        """As JSON values, for the record."""
        return self.model_dump(mode="json", exclude_none=True)


def checked_out(out: Path) -> None:
    """InputError where a series cannot be written under that name."""
    if out.suffix.lower() not in (".parquet", ".geoparquet", ".csv"):
        raise InputError(f"{out} is no name of a series; let it end in .parquet (GeoParquet) or .csv")
    if out.is_dir():
        raise InputError(f"{out} is a folder; give the name of a file that ends in .parquet or .csv")
    if not out.parent.is_dir():
        raise InputError(f"the folder {out.parent} does not exist, so {out.name} cannot be written; create it")
