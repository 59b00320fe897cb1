"""Columns as a .dbf holds them: names of 10 characters, text of 254 bytes, no booleans and no times.

https://www.esri.com/content/dam/esrisites/sitecore-archive/Files/Pdfs/library/whitepapers/pdfs/shapefile.pdf
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoseg.errors import ExportError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pyarrow as pa

NAME_LENGTH = 10
TEXT_BYTES = 254
DIGITS = 18
"""Whole numbers with more digits do not fit a number field."""

WIDTHS = {"b": 24, "f": 24, "i": 80, "u": 80}
"""Upper bounds of a value's bytes by the dtype's kind: GDAL writes numbers 24 wide, and text, which long whole numbers
become, 80 wide until it needs more."""

SHORT_NAMES = {"perimeter_m": "perim_m", "touches_edge": "at_edge"}
"""Better than what cutting would give."""

LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l", "đ": "d"})
"""Letters that are not a plain one with an accent."""


@dataclass(slots=True, kw_only=True)
class Column:
    """A column on its way into a .dbf: what was seen of its values decides how they are written."""

    source: str
    """Its name in the fields."""
    name: str
    """Its name in the shapefile."""
    kind: str
    """Its dtype's kind, as NumPy has it."""
    largest: int = 0
    """Of whole numbers, without regard to sign."""
    endless: int = 0
    """How many numbers are infinite."""
    long: int = 0
    """How many texts are too long."""

    def see(self, values: pd.Series) -> None:
        """Count in what decides the type, before anything is written."""
        import numpy as np

        if self.kind in "iu":
            known = values.dropna()
            if len(known):
                self.largest = max(self.largest, abs(int(known.min())), abs(int(known.max())))
        elif self.kind == "f":
            self.endless += int(np.isinf(values.to_numpy("float64", na_value=np.nan)).sum())
        elif self.kind not in "bM":
            self.long += int(_too_long(values).sum())

    @property
    def width(self) -> int:
        """Upper bound of a value's bytes, whatever the values turn out to be."""
        return WIDTHS.get(self.kind, TEXT_BYTES)

    @property
    def note(self) -> str:
        """What becomes of the values, empty where they are as they were."""
        if self.kind == "b":
            return "holds 1 for true, 0 for false"
        if self.kind == "M":
            return "holds times as ISO 8601 text"
        if self.largest >= 10**DIGITS:
            return f"holds its numbers as text: {self.largest} has more than {DIGITS} digits"
        if self.endless:
            return f"is empty for {self.endless} infinite values"
        return f"is cut to {TEXT_BYTES} bytes in {self.long} rows" if self.long else ""

    @property
    def changed(self) -> str:
        """One line for the user, empty where name and values are kept."""
        renamed = f"column {self.source} is called {self.name}" if self.name != self.source else ""
        if renamed and self.note:
            return f"{renamed} and {self.note}"
        return renamed or (f"column {self.source} {self.note}" if self.note else "")

    @property
    def field(self) -> pa.Field:
        """Name and type in Arrow."""
        import pyarrow as pa

        if self.kind in "biu" and self.largest < 10**DIGITS:
            return pa.field(self.name, pa.int32() if self.largest < 2**31 else pa.int64())
        return pa.field(self.name, pa.float64() if self.kind == "f" else pa.string())

    def fit(self, values: pd.Series) -> Any:
        """Values that a .dbf holds, as an Arrow array."""
        import pandas as pd
        from pyarrow import compute

        if self.kind == "M":
            values = values.map(lambda value: None if pd.isna(value) else value.isoformat()).astype(object)
        elif self.long:
            values = values.mask(_too_long(values), values.map(_cut))
        array = _array(values, self.field.type)
        return compute.if_else(compute.is_inf(array), None, array) if self.endless else array


def columns_of(sample: gpd.GeoDataFrame) -> list[Column]:
    """The attribute columns with their names; no value is seen yet."""
    sources = [name for name in sample.columns if name != sample.geometry.name]
    names = short_names(sources)
    return [Column(source=source, name=names[source], kind=sample[source].dtype.kind) for source in sources]


def _array(values: pd.Series, kind: pa.DataType) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values, from_pandas=True).cast(kind)
    except pa.ArrowException as error:
        raise ExportError(
            f"column {values.name} cannot be written as {kind} in a .dbf: {error}; turn it into text or numbers"
        ) from error


def _too_long(values: pd.Series) -> Any:
    """Which texts have too many bytes."""
    import pyarrow as pa
    from pyarrow import compute

    lengths = compute.binary_length(_array(values, pa.string()))
    return compute.greater(lengths, TEXT_BYTES).fill_null(False).to_numpy(zero_copy_only=False)


def _cut(value: Any) -> Any:
    """Text without the characters that do not fit as a whole."""
    return value.encode()[:TEXT_BYTES].decode(errors="ignore") if isinstance(value, str) else value


def short_names(sources: Iterable[str]) -> dict[str, str]:
    """Names of at most 10 plain characters, unique without regard to case; names that fit stay as they are."""
    sources = list(sources)
    names: dict[str, str] = {}
    taken: set[str] = set()
    for source in sources:
        if _short(source) == source and source.lower() not in taken:
            names[source] = source
            taken.add(source.lower())
    for source in sources:
        if source in names:
            continue
        wish = _short(source)
        name, number = wish, 1
        while name.lower() in taken:
            number += 1
            tail = f"_{number}"
            name = wish[: NAME_LENGTH - len(tail)] + tail
        taken.add(name.lower())
        names[source] = name
    return names


def _short(source: str) -> str:
    if source in SHORT_NAMES:
        return SHORT_NAMES[source]
    ascii_name = unicodedata.normalize("NFKD", source.translate(LETTERS)).encode("ascii", "ignore").decode()
    name = re.sub(r"[^0-9A-Za-z_]+", "_", ascii_name).strip("_")[:NAME_LENGTH]
    if not name or not name[0].isalpha():
        name = f"f_{name}"[:NAME_LENGTH].rstrip("_")
    return source if source == name else name.rstrip("_")
