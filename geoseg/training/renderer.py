"""The renderer: a small conditional GAN's generator that paints imagery into a layout of fields.

Its input is the class map, a map of mean colours (one a field, a smooth one of the land between) and noise; it adds what is
missing to the colours: texture, rows, trees, roads. After pix2pix (Isola et al. 2017, https://arxiv.org/abs/1611.07004).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from geoseg.disk import replacing
from geoseg.errors import ModelError
from geoseg.models.weights import check_sha256, file_sha256, load_state, read_safetensors
from geoseg.runtime.workspace import read_json, write_json
from geoseg.training.targets import BACKGROUND, BOUNDARY, FIELD

RECORD, WEIGHTS = "renderer.json", "renderer.safetensors"
SCHEMA = "geoseg-renderer-1"
STRIDE = 8
"""Sides of what the network sees are multiples of it."""

COARSE = 8
"""Pixels along a cell of a look's backdrop."""

SOFT = 8.0
"""Standard deviation in pixels of what smooths the colours of the land between fields."""

FEW = 20
"""Pixels below which a field has no colour of its own."""

Image = NDArray[np.float32]
"""(band, row, col), scaled as the model sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The colours of one real scene, from which new ones take theirs."""

    fields: NDArray[np.float32]
    """(field, band) mean colours."""
    backdrops: NDArray[np.float32]
    """(backdrop, band, row, col): smooth colours of the land between fields, a cell every COARSE pixels."""


class Painter(nn.Module):
    """(batch, inputs, row, col) of `inputs_of` -> (batch, bands, row, col): the colours, and what the network adds to them."""

    def __init__(self, bands: int, *, width: int) -> None:
        super().__init__()
        self.bands = bands
        sizes = (width, 2 * width, 4 * width, 4 * width)
        self.down = nn.ModuleList(_block(i, o) for i, o in zip((channels(bands), *sizes), sizes, strict=False))
        self.up = nn.ModuleList(_block(sizes[k + 1] + sizes[k], sizes[k]) for k in (2, 1, 0))
        self.head = nn.Conv2d(width, bands, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor) -> Tensor:
        x, seen = inputs, []
        for k, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if k else x)
            seen.append(x)
        for block, beside in zip(self.up, reversed(seen[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), beside], dim=1))
        painted: Tensor = inputs[:, 3 : 3 + self.bands] + self.head(x)
        return painted


def channels(bands: int) -> int:
    """Inputs of the network: three classes, the colours, one of noise."""
    return 3 + bands + 1


def inputs_of(mask: NDArray[np.uint8], colours: Image, noise: NDArray[np.float32]) -> Image:
    """(channel, row, col) of a class map, a map of colours and noise (row, col)."""
    classes = np.stack([mask == k for k in (BACKGROUND, FIELD, BOUNDARY)]).astype(np.float32)
    return np.concatenate([classes, colours, noise[None]], dtype=np.float32)


def fields_of(mask: NDArray[np.uint8]) -> tuple[NDArray[np.int32], int]:
    """Numbers of the fields of a class map (1 and up; 0 is none), and how many there are: what hangs together is one."""
    ids, count = ndimage.label(mask == FIELD)
    return ids, int(count)


def colours_of(
    pixels: Image, mask: NDArray[np.uint8], known: NDArray[np.bool_]
) -> tuple[Image, NDArray[np.float32], Image | None]:
    """What a real chip teaches: its map of colours, (field, band) colours of its fields, and the smooth land between.

    Of pixels that are not `known` nothing is learnt. The last is None where no land lies between.
    """
    ids, count = fields_of(mask)
    sizes = np.bincount(ids.ravel(), minlength=count + 1)
    sums = np.stack([np.bincount(ids.ravel(), band.ravel(), count + 1) for band in pixels], axis=1)
    means = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    soft = _smooth(pixels, (mask == BACKGROUND) & known)
    whole = pixels[:, known].mean(axis=1)[:, None, None] if known.any() else np.zeros((len(pixels), 1, 1), np.float32)
    colours = _spread(ids, means, np.broadcast_to(whole, pixels.shape) if soft is None else soft, mask)
    return colours, means[1:][sizes[1:] >= FEW], soft


def colours_like(look: Look, mask: NDArray[np.uint8], rng: np.random.Generator) -> Image:
    """A map of colours for a new layout: each field one of a real scene's, the land between as somewhere in it."""
    ids, count = fields_of(mask)
    drawn = look.fields[rng.integers(len(look.fields), size=count + 1)]
    varied = (drawn + 0.05 * rng.standard_normal(drawn.shape)).astype(np.float32)
    coarse = np.rot90(look.backdrops[int(rng.integers(len(look.backdrops)))], int(rng.integers(4)), axes=(1, 2))
    cells = [-(-length // COARSE) for length in mask.shape]
    grown = np.stack([_mirrored(band, cells[0], cells[1]) for band in coarse])
    fine = ndimage.zoom(grown, (1, COARSE, COARSE), order=1, grid_mode=True, mode="nearest")
    return _spread(ids, varied, fine[:, : mask.shape[0], : mask.shape[1]], mask)


TOLD = ("identity", "learnt", "losses", "versions")
"""Entries of a renderer's record that say how it came about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    record: Mapping[str, Any]
    """What renderer.json holds."""
    painter: Painter
    looks: tuple[Look, ...]

    @property
    def bands(self) -> tuple[str, ...]:
        return tuple(self.record["bands"])

    @property
    def pixel_size_m(self) -> float:
        return float(self.record["pixel_size_m"])

    @property
    def boundary_px(self) -> float:
        """Width of the boundaries in the layouts that it was shown."""
        return float(self.record["boundary_px"])

    def fingerprint(self) -> str:
        """Hex digest of all that decides what it paints."""
        decisive = {name: value for name, value in self.record.items() if name not in TOLD}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def render(self, mask: NDArray[np.uint8], rng: np.random.Generator) -> Image:
        """Imagery for a class map (row, col) of background, field and boundary; decided by `rng` alone."""
        look = self.looks[int(rng.integers(len(self.looks)))]
        colours = colours_like(look, mask, rng)
        return painted(self.painter, inputs_of(mask, colours, rng.standard_normal(mask.shape, dtype=np.float32)))

    def write(self, folder: Path) -> None:
        """Writes weights and record; the hash of the weights is put into the record."""
        from safetensors.torch import save

        state = {f"painter.{name}": value.cpu().contiguous() for name, value in self.painter.state_dict().items()}
        for k, look in enumerate(self.looks):
            state[f"look.{k}.fields"] = torch.from_numpy(np.ascontiguousarray(look.fields))
            state[f"look.{k}.backdrops"] = torch.from_numpy(np.ascontiguousarray(look.backdrops))
        with replacing(folder / WEIGHTS) as file:
            file.write(save(state))
        write_json(
            folder / RECORD, {**self.record, "looks": len(self.looks), "weights_sha256": file_sha256(folder / WEIGHTS)}
        )

    @classmethod
    def open(cls, folder: Path) -> Renderer:
        """The renderer in a folder. Raises ModelError where there is none, or its weights are not those it was written with."""
        record = read_json(folder / RECORD)
        if record.get("schema") != SCHEMA:
            raise ModelError(
                f"{folder} holds no renderer (a {RECORD} of {SCHEMA} is expected); `geoseg train RECIPE --renderer -o FOLDER` "
                f"makes one"
            )
        check_sha256(folder / WEIGHTS, str(record.get("weights_sha256")), model=folder.name)
        state = read_safetensors(folder / WEIGHTS)
        try:
            painter = Painter(len(record["bands"]), width=int(record["width"]))
            looks = tuple(
                Look(fields=state.pop(f"look.{k}.fields").numpy(), backdrops=state.pop(f"look.{k}.backdrops").numpy())
                for k in range(int(record["looks"]))
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{folder / RECORD} does not fit its weights ({error!r}); train the renderer again"
            ) from error
        load_state(painter, {name.removeprefix("painter."): value for name, value in state.items()}, model=folder.name)
        return cls(record=record, painter=painter.eval(), looks=looks)


@torch.no_grad()
def painted(painter: nn.Module, inputs: Image) -> Image:
    """What the painter makes of (channel, row, col) inputs, in float32 and by one thread: equal bits wherever it is called."""
    rows, cols = inputs.shape[1:]
    more = [(0, 0), (0, -rows % STRIDE), (0, -cols % STRIDE)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        out = painter(torch.from_numpy(np.pad(inputs, more, mode="reflect"))[None])[0, :, :rows, :cols]
    finally:
        torch.set_num_threads(threads)
    return np.asarray(out.numpy(), dtype=np.float32)


def looks_of(taught: Sequence[tuple[int, NDArray[np.float32], Image | None]]) -> tuple[Look, ...]:
    """The looks of real scenes, of what `colours_of` found in chips: (scene, colours of fields, smooth land between)."""
    looks = []
    for scene in sorted({number for number, *_ in taught}):
        own = [(fields, soft) for number, fields, soft in taught if number == scene]
        fields = np.concatenate([fields for fields, _ in own])
        half = COARSE // 2
        backdrops = [soft[:, half::COARSE, half::COARSE] for _, soft in own if soft is not None]
        if len(fields) and backdrops:
            looks.append(Look(fields=fields, backdrops=np.stack(backdrops)))
    if not looks:
        raise ModelError("no chip to learn from shows both a field and land between fields; label some of each")
    return tuple(looks)


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.SiLU(),
    )  # fmt: skip


def _smooth(pixels: Image, where: NDArray[np.bool_]) -> Image | None:
    """Pixels smoothed over those of `where` alone; None where there are hardly any."""
    if where.sum() < FEW:
        return None
    weight = ndimage.gaussian_filter(where.astype(np.float32), SOFT) + 1e-3 * where.mean()
    mean = pixels[:, where].mean(axis=1)
    apart = [ndimage.gaussian_filter(np.where(where, band - m, 0), SOFT) for band, m in zip(pixels, mean, strict=True)]
    return np.asarray(np.stack(apart) / weight + mean[:, None, None], dtype=np.float32)


def _spread(
    ids: NDArray[np.int32], drawn: NDArray[np.float32], backdrop: NDArray[np.floating[Any]], mask: NDArray[np.uint8]
) -> Image:
    """Each field in its colour (row `id` of `drawn`), boundaries in that of the nearest field, the rest as `backdrop`."""
    near = ids
    if ids.any():
        rows, cols = ndimage.distance_transform_edt(ids == 0, return_distances=False, return_indices=True)
        near = np.where((mask == FIELD) | (mask == BOUNDARY), ids[rows, cols], 0)
    return np.where(near > 0, np.moveaxis(drawn[near], -1, 0), backdrop).astype(np.float32)


def _mirrored(band: NDArray[np.float32], rows: int, cols: int) -> NDArray[np.float32]:
    """A map continued by reflection, or cut, to the size."""
    more = [(0, max(0, rows - band.shape[0])), (0, max(0, cols - band.shape[1]))]
    return np.pad(band, more, mode="symmetric")[:rows, :cols]
