"""From a plan to a store with the classes of every pixel: tiles predicted, and what must be settled over all of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from geoseg.disk import room_for
from geoseg.errors import RunError
from geoseg.grid import Tile, TileGrid
from geoseg.pieces import Pieces
from geoseg.plan import Plan, settled_predictor
from geoseg.protocols import TileMap
from geoseg.readers.blocks import KEPT_BYTES as BLOCK_BYTES
from geoseg.results import Lines
from geoseg.runtime.events import Events
from geoseg.runtime.find import FindTile
from geoseg.runtime.heap import give_back
from geoseg.runtime.predict import KEPT_BYTES, PredictTile, release_memory
from geoseg.runtime.runners import Runner
from geoseg.runtime.workspace import Identity, Workspace
from geoseg.spec import Hysteresis
from geoseg.stitch.journal import Journal, TileRecord
from geoseg.stitch.objects import VIEWS, Agreed, CompareViews, PaintTile, paint_items
from geoseg.stitch.store import MaskStore

Index = tuple[int, int]

BLOCKS_BEYOND = 1024
"""Rows of pixels by which the blocks of most files reach beyond a window: one block of 512 above, one below."""


def predict_into_store(
    plan: Plan, workspace: Workspace, identity: Identity, runner: Runner, events: Events, *, confident: int = 0
) -> MaskStore:
    """Predicts every tile that the journal does not know yet; for `confident` see PredictTile.

    Models that find objects one by one leave what their patches saw; the store is empty until link_into_store().
    """
    outputs = plan.model.spec.outputs
    store = MaskStore(path=workspace.store, grid=plan.grid, channels=len(outputs), lines=Lines.of(outputs))
    if plan.model.spec.instances is not None:
        found = Pieces(workspace.found)
        grid = _beyond(plan)
        task = FindTile(
            reader=plan.reader, predictor=plan.predictor, grid=grid, extent=plan.grid.extent, found=found,
            journal=Journal(workspace.journal), clip=plan.area,
        )  # fmt: skip
        _all_tiles(plan, workspace, runner, events, grid, task, held=lambda tile: found.holds(VIEWS, tile.index))
        return store
    try:
        store.create()
    except OSError as error:
        raise RunError(
            f"{store.path} cannot be written ({error.strerror or error}); make room or choose another -o"
        ) from error
    predict = PredictTile(
        reader=plan.reader, predictor=plan.predictor, store=store, journal=Journal(workspace.journal), clip=plan.area,
        run=identity.digest, confident=confident,
    )  # fmt: skip
    _all_tiles(plan, workspace, runner, events, plan.grid, predict, held=store.holds)
    return store


def _all_tiles(
    plan: Plan, workspace: Workspace, runner: Runner, events: Events, grid: TileGrid, task: PredictTile | FindTile, *,
    held: Callable[[Tile], bool],
) -> None:  # fmt: skip
    """Runs a task over the tiles that are not finished: those that the journal does not know or that are not `held`."""
    journal, mixed = task.journal, plan.options.allow_mixed_engines
    records = {record.index: record for record in journal.records()}
    missing = [tile.index for tile in grid.in_strips(_strip(plan)) if tile.index not in records or not held(tile)]
    engine = next((record.engine for record in records.values() if record.engine and not record.degraded), None)
    predictor = replace(plan.predictor, like=engine, streams=plan.streams_on(runner))
    if missing and plan.model.spec.instances is None:
        precision = workspace.settled(lambda: settled_predictor(plan, before=engine).precision)
        predictor = replace(predictor, precision=precision)
    task = replace(task, predictor=predictor, engine=None if mixed else engine)
    if missing:  # what came after it in an earlier try may rest on tiles that have been lost since
        for folder in (workspace.linked, workspace.fields):
            shutil.rmtree(folder, ignore_errors=True)
    events.stage_started("predict", total=len(grid), done=len(grid) - len(missing))

    def done(record: TileRecord) -> None:
        events.stage_advanced("predict", pixels=grid.tile(record.index).core.size)

    try:
        runner.map(task, missing, done=done)
    finally:
        runner.everywhere(release_memory)
        give_back()
    events.stage_finished("predict")
    engines = sorted({record.engine for record in journal.records() if not record.degraded} - {""})
    if len(engines) > 1 and not mixed:
        raise RunError(
            f"tiles were predicted by different engines ({', '.join(engines)}), whose results differ in places; "
            f"use workers of one kind and --restart, or allow it with --allow-mixed-engines"
        )
    if unread := sum(window.size for window in journal.unread()):
        events.note(f"{unread} pixels could not be read and are nodata")
    if any(record.degraded for record in journal.records()):
        events.note("memory ran short: part of it was predicted another way, and may differ in places from other runs")


def link_into_store(plan: Plan, store: MaskStore, workspace: Workspace, runner: Runner, events: Events) -> MaskStore:
    """Settles over the whole scene what tiles cannot know, in a store of its own: weak pixels, or objects that several patches
    saw. The given store for models that say all in their tiles."""
    rule, instances = plan.model.spec.hysteresis, plan.model.spec.instances
    if rule is None and instances is None:
        return store
    numbers = None if instances is None else Pieces(workspace.linked / "objects")
    target = replace(store, path=workspace.linked / "store", numbers=numbers)
    with room_for(target.path):
        target.create()
    journal = Journal(workspace.linked / "journal")
    finished = journal.finished()
    missing = [tile.index for tile in plan.grid if tile.index not in finished or not target.holds(tile)]
    if not missing:
        return target
    shutil.rmtree(workspace.fields, ignore_errors=True)  # polygons of an earlier try may rest on tiles lost since
    tiles = mapped(runner, events)
    if rule is not None:
        _link(tiles, store, target, rule, journal, missing)
    elif instances is not None:
        _paint(tiles, plan, Pieces(workspace.found), target, journal, missing, overlap=instances.overlap)
    return target


def _link(
    tiles: TileMap, store: MaskStore, target: MaskStore, rule: Hysteresis, journal: Journal, missing: list[Index]
) -> None:
    from geoseg.stitch.linking import LabelCandidates, LinkTile, Rim, link_items

    grid, rims = store.grid, dict[Index, Rim]()

    def keep(rim: Rim) -> None:
        rims[rim.index] = rim

    tiles(
        LabelCandidates(source=store, rule=rule), (tile.index for tile in grid),
        done=keep, stage="label", total=len(grid),
    )  # fmt: skip
    tiles(
        LinkTile(source=store, target=target, rule=rule, journal=journal), link_items(grid, rims, rule, missing),
        done=lambda _: None, stage="link", total=len(grid), finished=len(grid) - len(missing),
    )  # fmt: skip


def _paint(
    tiles: TileMap, plan: Plan, found: Pieces, target: MaskStore, journal: Journal, missing: list[Index], *,
    overlap: float,
) -> None:  # fmt: skip
    grid, agreed = _beyond(plan), dict[Index, Agreed]()

    def keep(one: Agreed) -> None:
        agreed[one.index] = one

    tiles(
        CompareViews(grid=grid, pieces=found, overlap=overlap), (tile.index for tile in grid),
        done=keep, stage="compare", total=len(grid),
    )  # fmt: skip
    tiles(
        PaintTile(grid=grid, found=found, target=target, journal=journal, clip=plan.area),
        paint_items(grid, agreed, missing), done=lambda _: None, stage="link", total=len(plan.grid),
        finished=len(plan.grid) - len(missing),
    )  # fmt: skip


def _beyond(plan: Plan) -> TileGrid:
    """The grid, with its area of interest grown by a patch: objects at the rim are found and compared as without one."""
    grid = plan.grid
    return grid if grid.region is None else replace(grid, region=grid.region.grown(grid.patch) & grid.scene)


def _strip(plan: Plan) -> int:
    """Tiles across a strip: so few that what the next row of tiles needs of this one is still kept then.

    That are decoded blocks of the scene (the windows of a row of tiles, and the blocks that reach beyond them) and, where
    patches are blended, those of two rows of tiles.
    """
    grid = plan.grid
    rows = grid.tile_size + 2 * grid.halo + BLOCKS_BEYOND
    pixel = len(plan.predictor.scaling.bands) * plan.reader.scene.dtype.itemsize
    across = BLOCK_BYTES // (rows * pixel * grid.tile_size)
    if grid.blend:
        patch = grid.patch**2 * len(plan.model.spec.outputs)
        across = min(across, (KEPT_BYTES // (patch * (grid.k + 2)) - 2) // grid.k)
    return max(1, across)


def mapped(runner: Runner, events: Events) -> TileMap:
    """The runner as vectorizers know it, with progress."""

    def tiles(function: Any, items: Iterable[Any], *, done: Any, stage: str, total: int, finished: int = 0) -> None:
        def told(result: Any) -> None:
            done(result)
            events.stage_advanced(stage)

        events.stage_started(stage, total=total, done=finished)
        runner.map(function, items, done=told)
        events.stage_finished(stage)

    return tiles
