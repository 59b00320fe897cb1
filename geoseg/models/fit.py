"""Whether a scene gives a model what it was trained on: bands by name and pixel size."""

from __future__ import annotations

from geoseg.errors import ModelError
from geoseg.scene import Scene
from geoseg.spec import ModelSpec


def band_index(scene: Scene) -> dict[str, int]:
    """Positions of the scene's named bands.

    A name that comes again stands for another date: the second `red` is also `red_2`, unless a band is called so.
    """
    index: dict[str, int] = {}
    seen: dict[str, int] = {}
    literal = set(scene.band_names)
    for position, name in enumerate(scene.band_names):
        if name is None:
            continue
        seen[name] = seen.get(name, 0) + 1
        key = name if seen[name] == 1 else f"{name}_{seen[name]}"
        if seen[name] == 1 or key not in literal:
            index.setdefault(key, position)
    return index


def band_problem(scene: Scene, spec: ModelSpec) -> str | None:
    """None where every required band is there, else what is missing and how to say it."""
    index = band_index(scene)
    missing = [name for name in spec.required_bands if name not in index]
    if not missing:
        return None
    wanted = ",".join(band.name for band in spec.bands)
    named = [name for name in scene.band_names if name is not None]
    count = f"{len(scene.bands)} band{'s' if len(scene.bands) != 1 else ''}"
    if not named:
        return (
            f"{scene.name} has {count} without names, and the model needs {wanted}; "
            f"name them in file order, with '-' for those to ignore: --bands {wanted}"
        )
    unnamed = len(scene.bands) - len(named)
    found = f"{', '.join(named)}{f' and {unnamed} without names' if unnamed else ''}"
    return (
        f"{scene.name} has the bands {found}, and the model needs {', '.join(missing)} too; "
        f"if the file holds them under other names, name all {count} in file order: --bands {wanted}"
    )


def resolution_problem(scene: Scene, spec: ModelSpec) -> str | None:
    """None where the pixel size suits the model or is unknown, else what is wrong and what to do."""
    found = scene.resolution_m()
    low, high = spec.resolution_m
    # Pixels of a lattice in degrees, or far from a projection's centre, are not square metres to the last digit.
    if found is None or low * 0.99 <= found <= high * 1.01:
        return None
    return (
        f"{scene.name} has pixels of {found:.3g} m, and the model is meant for {low:g} to {high:g} m; "
        f"pass --resample to work at {spec.nominal_m:g} m, or choose another model"
    )


def check_fit(scene: Scene, spec: ModelSpec, *, allow_resample: bool = False) -> None:
    """ModelError where the scene lacks bands, or where its pixel size needs resampling that was not allowed."""
    problem = band_problem(scene, spec) or (None if allow_resample else resolution_problem(scene, spec))
    if problem is not None:
        raise ModelError(f"model {spec.name!r} does not fit: {problem}")
