"""Sections of a recipe about generated scenes: what a training draws from them, and how their renderer is trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Part(BaseModel):
    """A section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class Generated(Part):
    """Generated scenes to learn from, beside the real ones. They are never validated on."""

    kind: Literal["procedural", "gan"] = "procedural"
    """`procedural`: painted by rules, in reflectance. `gan`: laid out by the same rules, painted by a trained renderer."""
    scenes: int = Field(default=40, gt=0, le=2000)
    """How many are made, once a training."""
    share: float = Field(default=0.3, gt=0, lt=1)
    """Share of the chips of a training that come from them; the others are those that a training without them sees."""
    styles: tuple[str, ...] | None = None
    """Kinds of farmland of their layouts, see `layouts.STYLES`; None takes all of them."""
    side_px: int = Field(default=384, gt=0, le=2048)
    """Side of a generated scene in pixels, at least a patch."""
    gan: str | None = None
    """Folder of the renderer, which `geoseg train RECIPE --renderer` makes; relative to the recipe."""

    @field_validator("styles", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Generated:
        if self.kind == "gan" and self.gan is None:
            raise ValueError(
                "kind gan needs `gan:`, the folder of a renderer; `geoseg train RECIPE --renderer` makes one"
            )
        if self.kind == "procedural" and self.gan is not None:
            raise ValueError("`gan:` names a renderer, which `kind: procedural` does not use; give `kind: gan`")
        return self


class Rendering(Part):
    """How `geoseg train RECIPE --renderer` trains a renderer. No part of what decides a model."""

    steps: int = Field(default=1000, gt=0)
    batch: int = Field(default=4, gt=0)
    patch: int | None = Field(default=None, ge=32, le=1024)
    """Side of what it learns from in pixels, a multiple of 8; None takes 128, or less where the recipe's patch is smaller."""
    learning_rate: float = Field(default=4e-4, gt=0)
    l1: float = Field(default=5.0, ge=0)
    """Weight of the distance from the real image, beside the discriminator's judgement."""
    width: int = Field(default=16, ge=8, le=256)
    """Channels at full resolution, a multiple of 8."""

    @model_validator(mode="after")
    def _whole(self) -> Rendering:
        for name in ("patch", "width"):
            if (value := getattr(self, name) or 0) % 8:
                raise ValueError(f"{name} {value} is no multiple of 8; use {value // 8 * 8}")
        return self
