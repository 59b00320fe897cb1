"""Damaged rasters by number: the corpus they come from, and what is done to it. Mutant i follows from seed and i only."""

from __future__ import annotations

import random
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.drivers import raster_driver_extensions
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.shutil import copy

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_tiles"
RELIABILITY = ROOT.parent / "shared" / "data" / "reliability"

SIDE = 150
TILES = {"tiled": True, "blockxsize": 64, "blockysize": 64}
KINDS = {
    "strips.tif": {"count": 3},
    "tiles.tif": {"count": 3, "dtype": "uint16", "interleave": "pixel", **TILES},
    "deflate.tif": {"count": 3, "compress": "deflate", "predictor": 2, "interleave": "pixel", **TILES},
    "bands.tif": {"count": 4, "dtype": "int16", "compress": "lzw", "interleave": "band", "nodata": -32768, **TILES},
    "lzw.tif": {"count": 1, "compress": "lzw"},
    "zstd.tif": {"count": 1, "dtype": "float32", "compress": "zstd", "predictor": 3, "nodata": float("nan"), **TILES},
    "packbits.tif": {"count": 2, "compress": "packbits"},
    "jpeg.tif": {"count": 3, "compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel", **TILES},
    "webp.tif": {"count": 3, "compress": "webp", "interleave": "pixel", **TILES},
    "lerc.tif": {"count": 1, "dtype": "float32", "compress": "lerc", **TILES},
    "alpha.tif": {"count": 4, "photometric": "rgb", "alpha": "yes", "compress": "deflate"},
    "big.tif": {"count": 2, "BIGTIFF": "YES", "compress": "deflate", **TILES},
    "masked.tif": {"count": 3, "compress": "deflate", **TILES},
    "bits.tif": {"count": 1, "nbits": 1, "compress": "ccittfax4"},
    "sparse.tif": {"count": 1, "SPARSE_OK": True, "compress": "deflate", **TILES},
    "rgb.png": {"count": 3, "driver": "PNG"},
    "grey.png": {"count": 1, "dtype": "uint16", "driver": "PNG"},
    "rgb.jpg": {"count": 3, "driver": "JPEG"},
    "tiled.jp2": {"count": 3, "driver": "JP2OpenJPEG", "blockxsize": 64, "blockysize": 64},
    "whole.jp2": {"count": 1, "dtype": "uint16", "driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"},
    "rgb.webp": {"count": 3, "driver": "WEBP"},
    "a.img": {"count": 2, "driver": "HFA"},
    "a.bmp": {"count": 3, "driver": "BMP"},
}
"""Small images by name; those that this GDAL cannot write are left out."""

VRT = """<VRTDataset rasterXSize="150" rasterYSize="150"><SRS>EPSG:32633</SRS>
  <GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>
  <VRTRasterBand dataType="Byte" band="1"><NoDataValue>7</NoDataValue><SimpleSource>
    <SourceFilename relativeToVRT="1">lzw.tif</SourceFilename><SourceBand>1</SourceBand>
    <SrcRect xOff="0" yOff="0" xSize="150" ySize="150"/><DstRect xOff="0" yOff="0" xSize="150" ySize="150"/>
  </SimpleSource></VRTRasterBand>
  <VRTRasterBand dataType="UInt16" band="2"><Scale>0.5</Scale><ComplexSource>
    <SourceFilename relativeToVRT="1">tiles.tif</SourceFilename><SourceBand>2</SourceBand><ScaleRatio>2</ScaleRatio>
    <SrcRect xOff="0" yOff="0" xSize="80" ySize="80"/><DstRect xOff="9" yOff="20" xSize="120" ySize="110"/>
  </ComplexSource></VRTRasterBand></VRTDataset>"""

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    32,
    127,
    128,
    255,
    256,
    1000,
    32767,
    32768,
    65535,
    65536,
    10**6,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
"""Where programs stumble."""

TAGS = (254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 338, 339, 347, 530,
        33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50674)  # fmt: skip
"""TIFF tags that decide how an image is read and where it lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    """Of the image it comes from."""
    content: bytes


def build_corpus(folder: Path) -> None:
    """Writes the small images into `folder`; the others are read where they lie."""
    dice = np.random.default_rng(0)
    rows, cols = np.mgrid[0:SIDE, 0:SIDE]
    known = set(raster_driver_extensions().values())
    for name, profile in KINDS.items():
        given = {"driver": "GTiff", "dtype": "uint8", **profile}
        if given["driver"] not in known:
            continue
        noise = dice.integers(0, 40, (given["count"], SIDE, SIDE))
        pixels = (60 + (rows // 30 + cols // 25) % 3 * 50 + noise).astype(given["dtype"])
        if name == "bits.tif":
            pixels //= 128
        if name == "sparse.tif":
            pixels[:, 64:] = 0
        try:
            with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning), rasterio.open(
                folder / name, "w", width=SIDE, height=SIDE, crs="EPSG:32633",
                transform=Affine(10, 0, 500_000, 0, -10, 5_000_000), **given,
            ) as file:  # fmt: skip
                file.write(pixels)
                if name == "masked.tif":
                    file.write_mask(noise[0] > 4)
        except (RasterioError, OSError):
            (folder / name).unlink(missing_ok=True)
    copy(folder / "bands.tif", folder / "cog.tif", driver="COG", blocksize=128, overview_resampling="average")
    (folder / "a.vrt").write_text(VRT)
    for beside in [*folder.glob("*.aux.xml"), *folder.glob("*.wld")]:
        beside.unlink()


class Corpus:
    def __init__(self, folder: Path) -> None:
        self.small = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        large = [*sorted(SAMPLES.glob("*.tif"))]
        if RELIABILITY.is_dir():
            large += sorted(path for path in RELIABILITY.iterdir() if path.suffix in (".tif", ".jp2"))
        self.found = {path.name: path.read_bytes() for path in large}

    def mutant(self, seed: int, number: int, *, small: bool = False) -> Mutant:
        """Mutant `number` of `seed`: mostly of small images, which are quick and where every byte counts."""
        dice = random.Random(f"{seed} {number}")
        pool = self.small if small or dice.random() < 0.75 else self.found
        name = dice.choice(sorted(pool))
        content = bytearray(pool[name])
        for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
            ways = [*ANY, *(BY_SUFFIX.get(Path(name).suffix, ()) * 3)]
            dice.choice(ways)(content, dice)
        if dice.random() < 0.06:
            other = self.small[dice.choice(sorted(self.small))]
            content = content[: dice.randrange(len(content) + 1)] + other[dice.randrange(len(other)) :]
        return Mutant(name=name, content=bytes(content))


Way = Callable[[bytearray, random.Random], None]


def _place(content: bytearray, dice: random.Random) -> int:
    """Anywhere, more often near the beginning or the end, where headers lie."""
    size = max(1, len(content))
    return dice.choice(
        (dice.randrange(size), dice.randrange(min(size, 600)), size - 1 - dice.randrange(min(size, 600)))
    )


def _put(content: bytearray, at: int, data: bytes) -> None:
    content[at : at + len(data)] = data[: max(0, len(content) - at)]


def flip_bits(content: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 8, 64))):
        if content:
            content[_place(content, dice)] ^= 1 << dice.randrange(8)


def overwrite(content: bytearray, dice: random.Random) -> None:
    run = dice.choice((1, 2, 4, 8, 64, 1024))
    data = bytes([dice.choice((0, 255, 127))]) * run if dice.random() < 0.5 else dice.randbytes(run)
    _put(content, _place(content, dice), data)


def put_number(content: bytearray, dice: random.Random) -> None:
    order, code = dice.choice("<>"), dice.choice("HIQ")
    limit = {"H": 2**16, "I": 2**32, "Q": 2**64}[code]
    _put(content, _place(content, dice), struct.pack(order + code, dice.choice(NUMBERS) % limit))


def truncate(content: bytearray, dice: random.Random) -> None:
    del content[_place(content, dice) :]


def move(content: bytearray, dice: random.Random) -> None:
    """Takes a slice out, or writes it again at another place."""
    start = _place(content, dice)
    part = content[start : start + dice.choice((1, 4, 64, 4096))]
    if dice.random() < 0.5:
        del content[start : start + len(part)]
    else:
        at = _place(content, dice)
        content[at:at] = part


def tiff_entry(content: bytearray, dice: random.Random) -> None:
    """Edits an entry of a TIFF directory: tag, type, count, value, or a number that it points to."""
    entries = _tiff_entries(content)
    if not entries:
        return
    wanted = dice.choice(TAGS)
    at, order, big = dice.choice([entry for entry in entries if _tag(content, entry) == wanted] or entries)
    code = "Q" if big else "I"
    width = 8 if big else 4
    kind, count = struct.unpack_from(order + "H" + code, content, at + 2)
    number = dice.choice(NUMBERS)
    match dice.randrange(8):
        case 0:
            _put(content, at, struct.pack(order + "H", dice.choice(TAGS)))
        case 1:
            _put(content, at + 2, struct.pack(order + "H", dice.randrange(20)))
        case 2:
            _put(content, at + 4, struct.pack(order + code, number))
        case 3:  # points to itself or to another directory's place
            _put(content, at + 4 + width, struct.pack(order + code, dice.choice(entries)[0]))
        case 4 if count * {3: 2, 4: 4, 12: 8, 16: 8}.get(kind, 1) > width:
            start = struct.unpack_from(order + code, content, at + 4 + width)[0]
            item = {3: "H", 12: "d", 16: "Q"}.get(kind, "I")
            place = start + dice.randrange(max(1, min(count, 10_000))) * struct.calcsize(item)
            value = (
                dice.choice((0.0, -1e308, float("nan"), 1e-300))
                if item == "d"
                else number % (65536 if item == "H" else 2**32)
            )
            if place < len(content):
                _put(content, place, struct.pack(order + item, value))
        case _:
            item = "H" if kind == 3 else code
            _put(content, at + 4 + width, struct.pack(order + item, number % (65536 if item == "H" else 2**32)))


def _tag(content: bytearray, entry: tuple[int, str, bool]) -> int:
    return int(struct.unpack_from(entry[1] + "H", content, entry[0])[0])


def _tiff_entries(content: bytearray) -> list[tuple[int, str, bool]]:
    """(place, byte order, BigTIFF) of the entries of all directories that can be found."""
    if len(content) < 16 or bytes(content[:2]) not in (b"II", b"MM"):
        return []
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    code, head, size = ("Q", "Q", 20) if big else ("I", "H", 12)
    start = struct.unpack_from(order + code, content, 8 if big else 4)[0]
    found: list[tuple[int, str, bool]] = []
    for _ in range(12):
        first = start + struct.calcsize(head)
        if not 0 < first < len(content):
            break
        count = struct.unpack_from(order + head, content, start)[0]
        count = min(count, 200, (len(content) - first) // size)
        found += [(first + i * size, order, big) for i in range(count)]
        following = first + count * size
        if following + struct.calcsize(code) > len(content):
            break
        start = struct.unpack_from(order + code, content, following)[0]
    return found


def jp2_box(content: bytearray, dice: random.Random) -> None:
    """Edits the length of a JP2 box, or a number in the headers of its codestream."""
    names = [b"jP  ", b"ftyp", b"jp2h", b"ihdr", b"colr", b"res ", b"uuid", b"xml ", b"asoc", b"jp2c"]
    places = [match.start() - 4 for name in names for match in re.finditer(re.escape(name), bytes(content[:20_000]))]
    marks = [match.start() for match in re.finditer(rb"\xff[\x51\x52\x5c\x90]", bytes(content[:200_000]))]
    if places and dice.random() < 0.4:
        _put(content, dice.choice(places), struct.pack(">I", dice.choice(NUMBERS)))
    elif marks:
        code = dice.choice("BHI")
        at = dice.choice(marks) + dice.randrange(2, 44)
        _put(content, at, struct.pack(">" + code, dice.choice(NUMBERS) % 2 ** (8 * struct.calcsize(code))))


def png_chunk(content: bytearray, dice: random.Random) -> None:
    """Edits a chunk of a PNG and makes its checksum right again."""
    at, chunks = 8, []
    while at + 12 <= len(content):
        size = struct.unpack_from(">I", content, at)[0]
        chunks.append((at, size))
        at += 12 + size
    if not chunks:
        return
    at, size = dice.choice(chunks[:3])
    if at + 12 + size <= len(content) and size:
        content[at + 8 + dice.randrange(size)] = dice.choice((0, 1, 2, 3, 4, 6, 8, 16, 127, 255))
        _put(content, at + 8 + size, struct.pack(">I", zlib.crc32(content[at + 4 : at + 8 + size])))


def vrt_text(content: bytearray, dice: random.Random) -> None:
    """Edits a number, a name or an element of a VRT."""
    text = content.decode("latin1")
    words = list(re.finditer(r"[\w.\-]+", text))
    if not words:
        return
    word = dice.choice(words)
    new = dice.choice(
        (str(dice.choice(NUMBERS)), "-1", "nan", "1e308", "", "a.vrt", "gone.tif", dice.choice(words).group())
    )
    content[:] = (text[: word.start()] + new + text[word.end() :]).encode("latin1")


ANY: tuple[Way, ...] = (flip_bits, overwrite, put_number, truncate, move)
BY_SUFFIX: dict[str, tuple[Way, ...]] = {
    ".tif": (tiff_entry, tiff_entry), ".jp2": (jp2_box,), ".png": (png_chunk,), ".vrt": (vrt_text, vrt_text)
}  # fmt: skip
