"""geoseg info: what a scene is, and which model fits."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli.options import given, model_options, scene_options


@click.command("info")
@click.argument("scenes", nargs=-1, required=True, type=click.Path())
@scene_options
@model_options
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(scenes: tuple[str, ...], as_json: bool, **_: Any) -> None:
    """Show size, bands, CRS, resolution, the model that fits, and what a run with these options takes."""
    import json

    from geoseg.errors import EngineError, ModelError
    from geoseg.memory import estimate, told, within_memory
    from geoseg.plan import prepare
    from geoseg.readers import open_scene
    from geoseg.recipes import RunOptions

    options = RunOptions.checked(**given())
    scene = open_scene(
        scenes, bands=options.bands, crs=options.crs, pixel_size_m=options.pixel_size_m, scale=options.scale,
        offset=options.offset, nodata=options.nodata, clouds=options.clouds, prefer=options.prefer,
        on_read_error=options.on_read_error,
    ).scene  # fmt: skip
    need = None
    try:
        plan = within_memory(prepare(scenes, options))
        chosen, need = plan.reason, estimate(plan, grid=plan.grid, workers=plan.workers)
    except (ModelError, EngineError) as error:
        chosen = str(error)
    size = scene.resolution_m()
    rows, cols = scene.shape
    facts: dict[str, Any] = {
        "name": scene.name,
        "size": f"{cols:,} x {rows:,} pixels",
        "crs": scene.crs.to_string() if scene.crs is not None else "none",
        "pixel": f"{size:.4g} m" if size is not None else "unknown",
        "model": chosen,
    }
    if need is not None:
        facts["memory"] = (
            f"up to {told(need.memory)} with {plan.workers} workers and patches of {plan.grid.patch} pixels"
        )
        facts["disk"] = f"up to {told(need.disk)} while it runs"
    bands = [
        {"name": b.name, "dtype": b.dtype, "nodata": b.nodata, "scale": b.scale, "offset": b.offset}
        for b in scene.bands
    ]
    if as_json:
        facts |= {"size": [cols, rows], "pixel": size, "bands": bands, "transform": list(scene.transform)[:6]}
        if need is not None:
            facts |= {"memory": need.memory, "disk": need.disk, "workers": plan.workers, "patch": plan.grid.patch}
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    for label, value in facts.items():
        click.echo(f"{label:<6} {value}")
    for i, band in enumerate(bands, start=1):
        scaling = (
            f", {band['scale']:g} x stored + {band['offset']:g}" if (band["scale"], band["offset"]) != (1, 0) else ""
        )
        nodata = f", nodata {band['nodata']:g}" if band["nodata"] is not None else ""
        click.echo(f"band {i} {band['name'] or '(unnamed)'}: {band['dtype']}{nodata}{scaling}")
