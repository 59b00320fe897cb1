"""The contracts of the road. One or two methods each; plugins implement them structurally."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from geoseg.grid import TileGrid, Window
from geoseg.reading import ReadOptions
from geoseg.results import Batch, Block, FieldRules, InputScaling, Lines, Objects, Outlines
from geoseg.scene import Scene
from geoseg.spec import ModelSpec

if TYPE_CHECKING:
    import geopandas as gpd


@runtime_checkable
class Reader(Protocol):
    """Turns a window of a scene into pixels. Picklable: it carries paths and options, never open handles."""

    @property
    def scene(self) -> Scene: ...

    def read(self, window: Window, bands: Sequence[int] | None = None) -> Block:
        """Pixels and validity of `window` (inside the scene); `bands` are indices into scene.bands, None for all.

        Safe to call from several threads. The same window always gives the same bytes.
        """
        ...

    def content_hash(self) -> str:
        """Hex digest that changes when the content changes; independent of path and time."""
        ...


@runtime_checkable
class SceneOpener(Protocol):
    """What an entry point of the group `geoseg.readers` names: a way to read one kind of product. A module will do."""

    def recognises(self, path: str) -> bool:
        """Whether `path` (absolute if it is local) is a product of this kind: by names, or by a file's first bytes."""
        ...

    def opened(self, path: str, options: ReadOptions) -> Reader:
        """The product's reader. Raises InputError where it cannot be read, or an option does not suit it."""
        ...


@runtime_checkable
class Model(Protocol):
    """A model before an engine runs it. Picklable."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def runtime(self) -> str:
        """What an engine needs to know: `torch` (network() gives a module), `openvino` (graph() gives a file that it reads) or
        `numpy` (predict() works as it is)."""
        ...

    def fingerprint(self) -> str:
        """Hex digest over spec and weights."""
        ...


@runtime_checkable
class SceneModel(Model, Protocol):
    """A model that must see the whole scene before its first tile: a threshold over the scene, statistics of its bands."""

    def settled(self, reader: Reader, check: Callable[[], None] = lambda: None) -> Model:
        """The model with the numbers that it took from the scene, which are part of its fingerprint.

        They depend on the scene alone, not on area, tiles or workers. `check` is called now and then and raises where
        the run is to end. Raises ModelError where the scene has not what the model needs.
        """
        ...


@runtime_checkable
class RecordedModel(Model, Protocol):
    """A model that has something to say in run.json."""

    def record(self) -> dict[str, Any]:
        """What it computed with, as JSON values."""
        ...


@runtime_checkable
class TorchModel(Model, Protocol):
    """A model of torch.

    `content_addressed = True` says that two models of equal fingerprint have equal networks, today and after any change of
    code: what engines convert them to is then kept from run to run. `traceable = False` says that only torch itself can run
    the network.
    """

    def network(self) -> Any:
        """A torch.nn.Module in eval mode: (B, channel, row, col) float -> (B, output, row, col) logits."""
        ...


@runtime_checkable
class GraphModel(Model, Protocol):
    """A model in a file of ONNX or OpenVINO."""

    def graph(self) -> Path:
        """The file: (B, channel, row, col) float -> (B, output, row, col) logits. Its hash is checked."""
        ...


@runtime_checkable
class InstanceModel(Model, Protocol):
    """A model without a network that finds objects one by one; its spec has `instances`, its runtime is `numpy`.

    A TorchModel whose spec has `instances` does so, too: its network gives a list of one dictionary a patch, as torchvision's
    detectors do, with `scores` (n,), `labels` (n,) class ids, and `masks` (n, 1, row, col) of 0 to 1.
    """

    def find(self, batch: Batch) -> Sequence[Objects]:
        """The objects of each patch, from stored values."""
        ...


class Int8Network(Protocol):
    """A network in 8 bits, on disk."""

    @property
    def sha256(self) -> str: ...

    @property
    def disagreement(self) -> float:
        """Share of pixels whose class differs from what the network says in float32."""
        ...

    def read(self) -> bytes:
        """As geoseg.engines.graphs packs it; its hash is checked."""
        ...


@runtime_checkable
class QuantisedModel(TorchModel, Protocol):
    def quantised(self) -> Int8Network | None:
        """The network in 8 bits, where there is one."""
        ...


def int8_network(model: Model) -> Int8Network | None:
    """A model's network in 8 bits; None for models that have none."""
    return model.quantised() if isinstance(model, QuantisedModel) else None


@runtime_checkable
class Segmenter(Protocol):
    """A model on an engine."""

    @property
    def fingerprint(self) -> str:
        """Engine, version, precision, hardware and batch shape: equal fingerprints give equal bytes."""
        ...

    @property
    def degraded(self) -> bool:
        """True once it had to step down (a smaller batch, the CPU) for want of memory; its fingerprint says to what."""
        ...

    def predict(self, batch: Batch) -> NDArray[np.uint8]:
        """(patch, output, row, col) probabilities as floor(254 p + .5). Validity is applied by the caller."""
        ...


@runtime_checkable
class InstanceSegmenter(Protocol):
    """A model that finds objects, on an engine; fingerprint and degraded are a Segmenter's."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def degraded(self) -> bool: ...

    def find(self, batch: Batch) -> Sequence[Objects]:
        """The objects of each patch. Validity and limits of score are applied by the caller."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Brings a model onto hardware."""

    name: str

    def available(self) -> str | None:
        """None where it can run here, else the reason why not."""
        ...

    def supports(self, model: Model) -> bool: ...

    def build(self, model: Model, scaling: InputScaling, *, precision: str, threads: int | None) -> Segmenter: ...


@runtime_checkable
class ClassSource(Protocol):
    """Class ids and probabilities on a grid, for vectorizers: a run's store, or a raster that somebody brings. Picklable."""

    @property
    def grid(self) -> TileGrid: ...

    @property
    def lines(self) -> Lines:
        """What it knows of the boundaries of fields."""
        ...

    def classes(self, window: Window) -> NDArray[np.uint8]:
        """(row, col) class ids; 255 where there is no data and beyond the region of the grid."""
        ...

    def probabilities(self, window: Window) -> NDArray[np.uint8]:
        """(channel, row, col) stored probabilities, 255 like `classes`; no channels where there are none."""
        ...


@runtime_checkable
class ObjectSource(ClassSource, Protocol):
    """A source whose objects may already be known, whatever touches whatever."""

    def objects(self, index: tuple[int, int]) -> NDArray[np.int32] | None:
        """(row, col) numbers of the objects in a tile's core, 0 for none; None where objects are not known."""
        ...


class TileMap(Protocol):
    """Runs a function over many items: threads here, or workers elsewhere."""

    def __call__(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        done: Callable[[Any], None],
        stage: str,
        total: int,
        finished: int = 0,
    ) -> None:
        """Calls `done` with each result as it comes, one at a time, in no particular order; raises the first error.

        `items` are taken as they are needed; `total` says how many there are, with the `finished` ones that an earlier try
        has done and that are not among `items`.
        """
        ...


@runtime_checkable
class Vectorizer(Protocol):
    """Turns classes into outlines of objects."""

    def outlines(
        self, source: ClassSource, wanted: Sequence[int], *, map_tiles: TileMap, rules: FieldRules, folder: Path
    ) -> Iterator[Outlines]:
        """Objects of the wanted classes, merged over seams, made as the rules say, ordered by first pixel.

        They come a part at a time. `folder` is the vectorizer's own: what it leaves there it finds again when the same
        call is repeated after an interruption. Workers see it too.
        """
        ...


@runtime_checkable
class FieldBatches(Protocol):
    """Field polygons that need not fit into memory: iterated a part at a time, each time from the beginning."""

    @property
    def crs(self) -> CRS | None: ...

    def __len__(self) -> int:
        """How many fields there are."""
        ...

    def __iter__(self) -> Iterator[gpd.GeoDataFrame]:
        """Parts with equal columns and dtypes, in the order of the fields; at least one, which may be empty."""
        ...


@runtime_checkable
class Exporter(Protocol):
    """Writes field polygons."""

    name: str
    suffix: str

    def write(self, fields: gpd.GeoDataFrame | FieldBatches, path: Path, *, layer: str = "fields") -> list[Path]:
        """Writes `fields` at `path` and returns every file made. Raises ExportError, leaving nothing half-written."""
        ...
