"""Options that several commands share. Every name is the name of a RunOptions entry and of a recipe line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

Decorator = Callable[[Any], Any]

# Options of the command line that say how to run and where to, not what: they are no RunOptions.
_OF_THE_COMMAND = {
    "scenes", "scene", "out", "recipe", "overwrite", "restart", "quiet", "log_json", "source", "as_json", "confident",
    "count", "side", "by", "diversity", "min_valid", "exclude",
}  # fmt: skip


def scene_options(command: Any) -> Any:
    """How to read a scene."""
    return _stacked(
        command,
        click.option("--bands", help="Names of the bands in file order, e.g. red,green,blue,nir; '-' skips one."),
        click.option("--crs", help="CRS of a scene that does not say its own, e.g. EPSG:32633."),
        click.option("--pixel-size-m", type=float, help="Pixel size in metres of a scene without a CRS."),
        click.option("--scale", help="physical = stored * scale + offset: one value, or one a band."),
        click.option("--offset", help="See --scale."),
        click.option(
            "--clouds",
            type=click.Choice(["mask", "keep"]),
            default="mask",
            help="What a product's own mask takes for clouds is left out as nodata, or kept.",
        ),
        click.option(
            "--prefer",
            type=click.Choice(["newest", "oldest", "first"]),
            default="newest",
            help="Which of several scenes gives a pixel that they all see.",
        ),
        click.option("--nodata", type=float, help="Stored value that means no data, in place of the file's own."),
    )


def model_options(command: Any) -> Any:
    """Which model, on what."""
    return _stacked(
        command,
        click.option("--model", help="Name, method (otsu:index=ndvi), folder or file; default: the bundled model that fits."),
        click.option("--weights", help="Local weight file of a named model."),
        click.option("--trust-checkpoint", is_flag=True, help="Load a checkpoint that can execute code."),
        click.option("--aoi", help="Area of interest: a vector file, or west,south,east,north in degrees."),
        click.option(
            "--resample", is_flag=True, help="Bring the scene to the model's resolution if it lies outside its range."
        ),
        click.option("--engine", help="auto, openvino, torch, or another that is installed.", default="auto"),
        click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "int8"]), default="auto"),
        click.option(
            "--tta", type=click.Choice(["none", "d4"]), default="none",
            help="d4: the mean over eight turned and mirrored positions of each patch, in eight times the time.",
        ),
        click.option("--patch", type=int, help="Side in pixels of what the model sees; decides the result."),
        click.option("--overlap", type=int, help="Pixels over which patches are blended; decides the result.  [default: 0]"),
        click.option("--tile", type=int, help="Patches along a tile's side; never decides the result."),
        click.option("--workers", type=int, help="Tiles under way at a time."),
        click.option("--max-memory", help="Memory to stay below on this machine, e.g. 4GB."),
        click.option("--scheduler", help="Address of a Dask scheduler, e.g. tcp://host:8786."),
        click.option("--allow-mixed-engines", is_flag=True, help="Go on where engines or hardware differ."),
        click.option(
            "--on-read-error", type=click.Choice(["stop", "mask"]), default="stop",
            help="Parts that cannot be read end the run, or become nodata.",
        ),
    )  # fmt: skip


def field_options(command: Any) -> Any:
    """From classes to polygons."""
    return _stacked(
        command,
        click.option(
            "--instances", default="auto", help="How fields are made of classes: watershed, components, auto."
        ),
        click.option("--field-class", help="Class that becomes polygons, by name or id."),
        click.option("--give-back-m", type=float, help="Boundary pixels that near are given to the nearest field."),
        click.option("--max-hole-m2", type=float, help="Smaller gaps within a field are filled."),
        click.option("--min-part-m2", type=float, help="Watershed divides no smaller parts from a field."),
        click.option("--min-area-m2", type=float, help="Smaller fields are left out.  [default: the model's limit]"),
        click.option(
            "--simplify-m", type=float, help="Largest distance in metres from the exact outline.  [default: 0]"
        ),
        click.option("--smooth", is_flag=True, help="Outlines along the contour of the probability, below a pixel."),
    )


def run_controls(command: Any) -> Any:
    """How the command behaves."""
    return _stacked(
        command,
        click.option("--overwrite", is_flag=True, help="Replace another run in OUT."),
        click.option("--restart", is_flag=True, help="Begin anew instead of resuming."),
        click.option("-q", "--quiet", is_flag=True, help="No progress."),
        click.option("--log-json", is_flag=True, help="Progress as JSON lines on standard error."),
    )


def given() -> dict[str, Any]:
    """The RunOptions that stand on the command line; defaults are left to recipe and RunOptions."""
    ctx = click.get_current_context()
    return {
        name: value
        for name, value in ctx.params.items()
        if name not in _OF_THE_COMMAND and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def _stacked(command: Any, *decorators: Decorator) -> Any:
    for decorate in reversed(decorators):
        command = decorate(command)
    return command
