"""One tile of a model that finds objects one by one: read, find, keep what patches saw, journal."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from geoseg.disk import room_for
from geoseg.errors import GeosegError
from geoseg.grid import Tile, TileGrid, Window
from geoseg.kernels.runs import encode
from geoseg.pieces import Pieces
from geoseg.protocols import Reader
from geoseg.results import Batch, Block
from geoseg.runtime.predict import Clip, Predictor, check_engine, framed, input_channels, located
from geoseg.stitch.journal import Journal, TileRecord
from geoseg.stitch.objects import VALID, VIEWS
from geoseg.stitch.views import Views, seen


@dataclass(slots=True)
class _Found:
    views: Views
    patches: int = 0
    pixels: int = 0
    engine: str = ""
    degraded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FindTile:
    """The task of a run, as PredictTile is that of others."""

    reader: Reader
    predictor: Predictor
    grid: TileGrid
    """Reaches beyond the area of interest, so that objects at its rim are found as without one."""
    extent: Window
    """What the run is about: of which pixels are counted."""
    found: Pieces
    journal: Journal
    clip: Clip | None = None
    engine: str | None = None
    """See PredictTile."""

    def __call__(self, index: tuple[int, int]) -> TileRecord:
        tile = self.grid.tile(index)
        begun = time.perf_counter()
        try:
            wanted = [band for band in self.predictor.scaling.bands if band is not None]
            block = self.reader.read(tile.window, wanted)
            read = time.perf_counter()
            found = self._find(block, tile)
        except GeosegError as error:
            raise located(error, tile) from error
        check_engine(found.engine, wanted=self.engine, degraded=found.degraded)
        done = time.perf_counter()
        valid = np.ascontiguousarray(block.valid[tile.inner.slices])
        self.found.save(VALID, index, {"runs": encode(valid.astype(np.int32))})
        self.found.save(VIEWS, index, found.views.arrays())
        core = tile.core & self.extent
        counted = valid[core.within(tile.core).slices] if core else valid[:0]
        if core and self.clip is not None:
            counted = counted & self.clip(core)
        record = TileRecord(
            index=index, valid=int(np.count_nonzero(counted)), patches=found.patches, model_pixels=found.pixels,
            read_s=round(read - begun, 4), predict_s=round(done - read, 4), engine=found.engine,
            degraded=found.degraded,
            unread=tuple(
                (part.row, part.col, part.height, part.width) for each in block.unread if (part := each & core)
            ),
            write_s=round(time.perf_counter() - done, 4),
        )  # fmt: skip
        with room_for(self.journal.folder):
            self.journal.append(record)
        return record

    def _find(self, block: Block, tile: Tile) -> _Found:
        grid, model = self.grid, self.predictor.model
        assert model.spec.instances is not None
        out, views = _Found(Views.none()), [Views.none()]
        channels = None
        for patch in grid.patches(tile):
            if not block.valid[(patch.cell & grid.scene).within(block.window).slices].any():
                continue
            finder = self.predictor.finder()
            channels = input_channels(block.pixels, self.predictor.scaling) if channels is None else channels
            valid = framed(block.valid[None], block.window, patch)
            objects = finder.find(Batch(pixels=framed(channels, block.window, patch)[None], valid=valid))
            views.append(seen(objects[0], patch, valid[0], grid.scene, model.spec.instances))
            out.patches, out.pixels = out.patches + 1, out.pixels + patch.frame.size
            out.engine, out.degraded = finder.fingerprint, finder.degraded
        out.views = Views.joined(views)
        return out
