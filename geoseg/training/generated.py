"""Generated scenes of a recipe: checked before anything is made, then scenes with labels in memory, like real ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geoseg.errors import InputError
from geoseg.models.scaling import input_scaling
from geoseg.readers.array import ArrayReader, from_array
from geoseg.runtime.events import Events
from geoseg.runtime.stop import Stop
from geoseg.spec import ModelSpec
from geoseg.training.apart import check_apart
from geoseg.training.generate import generate_scene
from geoseg.training.labels import PolygonLabels
from geoseg.training.layouts import STYLES, lay_out
from geoseg.training.recipe import SceneEntry, Targets, TrainRecipe
from geoseg.training.renderer import Renderer
from geoseg.training.scenes import LabelledScene
from geoseg.training.sections import Generated
from geoseg.training.split import Division
from geoseg.training.start import RESOLUTION_SLACK
from geoseg.training.targets import class_mask

BANDS = ("red", "green", "blue", "nir")
"""What procedural scenes have."""

STEP = 1 / 2000
"""Rendered values are kept as whole numbers of these."""

CLASSES = ("background", "field", "boundary")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedPlan:
    """All that decides a recipe's generated scenes."""

    wanted: Generated
    spec: ModelSpec
    targets: Targets
    sizes: tuple[float, ...]
    """Pixel sizes in metres of the scenes that are learnt from; each generated one takes one of them."""
    seed: int
    renderer: Renderer | None = None

    @property
    def styles(self) -> tuple[str, ...]:
        return self.wanted.styles or tuple(STYLES)

    def identity(self) -> Mapping[str, Any]:
        """What the recipe does not say of them."""
        painter = None if self.renderer is None else self.renderer.fingerprint()
        return {"pixel_sizes_m": [round(size, 4) for size in sorted(set(self.sizes))], "renderer": painter}

    def told(self) -> str:
        """One line about them."""
        sizes = sorted({f"{size:.3g}" for size in self.sizes}, key=float)
        return (
            f"{self.wanted.scenes} {self.wanted.kind} scenes of {self.wanted.side_px} x {self.wanted.side_px} px at "
            f"{', '.join(sizes)} m ({', '.join(self.styles)}) are generated: {self.wanted.share:.0%} of the chips to learn "
            f"from, none to validate on"
        )

    def make(self, *, events: Events | None = None, stop: Stop | None = None) -> tuple[LabelledScene, ...]:
        """The scenes: the same for the same plan."""
        events, stop, made = events or Events(), stop or Stop(), []
        events.stage_started("generate", total=self.wanted.scenes, done=0)
        for number in range(self.wanted.scenes):
            stop.check()
            made.append(self.scene(number))
            events.stage_advanced("generate")
        events.stage_finished("generate")
        return tuple(made)

    def scene(self, number: int) -> LabelledScene:
        """One of them."""
        rng = np.random.default_rng((self.seed, 11, number))
        size, style = float(rng.choice(self.sizes)), str(rng.choice(self.styles))
        if self.renderer is None:
            reader, parcels = self._procedural(int(rng.integers(2**31)), size=size, style=style, number=number)
        else:
            reader, parcels = self._rendered(rng, self.renderer, style=style, number=number)
        labels = PolygonLabels(parcels=parcels, shape=reader.scene.shape, targets=self.targets)
        return LabelledScene(
            entry=SceneEntry(image=reader.scene.name, labels=reader.scene.name), reader=reader, labels=labels,
            scaling=input_scaling(reader, self.spec), distance=self.targets.distance,
        )  # fmt: skip

    def record(self, scenes: Sequence[LabelledScene]) -> dict[str, Any]:
        """For training.json: how they were made, and hashes of them all."""
        digest = hashlib.sha256()
        for one in scenes:
            digest.update("".join(one.fingerprint().values()).encode())
        return {
            **self.wanted.model_dump(mode="json", exclude={"gan"}),
            "styles": list(self.styles),
            **self.identity(),
            "sha256": digest.hexdigest(),
        }

    def _procedural(self, seed: int, *, size: float, style: str, number: int) -> tuple[ArrayReader, Any]:
        scene = generate_scene(seed, size=self.wanted.side_px, gsd_m=size, style=style)
        scaled = {"scale": 1e-4} if self.spec.scaling == "fixed" else {}
        return _reader(scene.pixels, BANDS, size=size, number=number, **scaled), scene.parcels

    def _rendered(
        self, rng: np.random.Generator, renderer: Renderer, *, style: str, number: int
    ) -> tuple[ArrayReader, Any]:
        side, size = self.wanted.side_px, renderer.pixel_size_m
        layout = lay_out(rng, side_m=side * size, style=style)
        parcels = shapely.transform(layout.parcels, lambda metres: metres / size)
        mask = class_mask(parcels, (side, side), boundary_px=renderer.boundary_px)
        stored = np.clip(np.round(renderer.render(mask, rng) / STEP), -32_000, 32_000).astype(np.int16)
        return _reader(stored, renderer.bands, size=size, number=number), parcels


def plan_generated(
    recipe: TrainRecipe, spec: ModelSpec, scenes: Sequence[LabelledScene], division: Division, *, folder: Path
) -> GeneratedPlan | None:
    """What a recipe's generated scenes are to be; None where it wants none. Raises InputError or ModelError."""
    wanted = recipe.generated
    if wanted is None:
        return None
    if recipe.targets.classes != CLASSES:
        raise InputError(
            f"generated scenes know the classes {', '.join(CLASSES)}, but targets.classes are "
            f"{', '.join(recipe.targets.classes)}; leave `generated:` out"
        )
    unknown = [style for style in wanted.styles or () if style not in STYLES]
    if unknown:
        raise InputError(f"generated.styles: no style {unknown[0]!r}; known: {', '.join(STYLES)}")
    renderer = None if wanted.gan is None else Renderer.open(folder / wanted.gan)
    sizes = pixel_sizes(recipe, scenes, division)
    if renderer is None:
        _check_procedural(spec)
    else:
        _check_renderer(renderer, spec, sizes)
        check_apart(renderer.record["learnt"], scenes, division)
    return GeneratedPlan(
        wanted=wanted, spec=spec, targets=recipe.targets, sizes=sizes if renderer is None else (renderer.pixel_size_m,),
        seed=recipe.seed, renderer=renderer,
    )  # fmt: skip


def pixel_sizes(recipe: TrainRecipe, scenes: Sequence[LabelledScene], division: Division) -> tuple[float, ...]:
    """Of the scenes that are learnt from, in metres. Raises InputError where nobody knows them."""
    learnt = [one for one, plot in zip(scenes, division.plots, strict=True) if len(plot.corners)]
    sizes = tuple(size for one in learnt if (size := one.scene.resolution_m()) is not None)
    if not sizes and recipe.resolution_m is None:
        raise InputError(
            "generated scenes need a pixel size, and no scene says its own; add `pixel_size_m:` to the scenes, in metres"
        )
    return sizes or (float(recipe.resolution_m or 0),)


def _check_procedural(spec: ModelSpec) -> None:
    missing = [band.name for band in spec.bands if not band.optional and band.name not in BANDS]
    if missing:
        raise InputError(
            f"procedural scenes have the bands {', '.join(BANDS)}, and the model needs {', '.join(missing)} too; mark them as "
            f"optional ('{missing[0]}?'), take `kind: gan`, or leave `generated:` out"
        )
    if spec.scaling == "fixed" and spec.units != "reflectance":
        raise InputError(
            f"procedural scenes are in reflectance, and the model scales {spec.units} values by fixed numbers; "
            f"add `scaling: scene`, or leave `generated:` out"
        )


def _check_renderer(renderer: Renderer, spec: ModelSpec, sizes: Sequence[float]) -> None:
    missing = [band.name for band in spec.bands if not band.optional and band.name not in renderer.bands]
    if missing:
        raise InputError(
            f"the renderer paints {', '.join(renderer.bands)}, and the model needs {', '.join(missing)} too; train one with "
            f"these bands"
        )
    if spec.scaling != "scene":
        raise InputError("a renderer paints scenes that are scaled by their percentiles; add `scaling: scene`")
    own = renderer.pixel_size_m
    if not min(sizes) / RESOLUTION_SLACK <= own <= max(sizes) * RESOLUTION_SLACK:
        raise InputError(
            f"the renderer paints pixels of {own:.3g} m, and the scenes have {min(sizes):.3g} to {max(sizes):.3g} m; "
            f"train one by this recipe"
        )


def _reader(pixels: Any, names: Sequence[str], *, size: float, number: int, **scaled: float) -> ArrayReader:
    return from_array(pixels, names=names, pixel_size_m=size, name=f"generated {number}", **scaled)  # type: ignore[arg-type]
