"""Options in a method's name: `canny:sigma=1.4,index=ndvi`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

from geoseg.errors import ModelError

M = TypeVar("M")


def option(default: Any, told: str, *, check: Callable[[Any], bool] | None = None, expected: str = "") -> Any:
    """A dataclass field that is an option.

    Args:
        default: None for a number that the method finds by itself.
        told: what it is, for `geoseg models show`.
        check: whether a value will do; `expected` says in words what would.
        expected: see `check`.
    """
    return dataclasses.field(default=default, metadata={"told": told, "check": check, "expected": expected})


def one_of(*names: str) -> dict[str, Any]:
    """The check of an option that is one of several words."""
    return {"check": lambda value: value in names, "expected": " or ".join(names)}


def between(low: float, high: float) -> dict[str, Any]:
    """The check of an option that is a number in a range, ends included."""
    return {"check": lambda value: low <= value <= high, "expected": f"{low:g} to {high:g}"}


def options_of(kind: Any) -> dict[str, dataclasses.Field[Any]]:
    """The options of a method, by name."""
    return {field.name: field for field in dataclasses.fields(kind) if "told" in field.metadata}


def described(kind: Any) -> list[tuple[str, str, str]]:
    """Name, default and meaning of each option of a method."""
    return [(name, _default(field), field.metadata["told"]) for name, field in options_of(kind).items()]


def with_options(name: str, kind: Callable[..., M], text: str) -> M:
    """A method with the options in `text`, such as `sigma=1.4,index=ndvi`. Raises ModelError that lists the known ones."""
    known, values = options_of(kind), dict[str, Any]()
    listed = ", ".join(f"{one}={default}" for one, default, _ in described(kind)) or "none"
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if key in known and not (sign and value):
            raise ModelError(f"{name}: the option {key!r} needs a value, as in {name}:{key}={_default(known[key])}")
        if key not in known:
            raise ModelError(f"{name} has no option {key!r}; its options, with their defaults, are {listed}")
        if key in values:
            raise ModelError(f"{name}: the option {key!r} is given twice; leave one out")
        values[key] = _value(name, known[key], value)
    return kind(**values)


def checked(method: Any, name: str) -> None:
    """ModelError where an option of a method has a value that it cannot have."""
    for key, field in options_of(method).items():
        value = getattr(method, key)
        if value is not None and (check := field.metadata["check"]) is not None and not check(value):
            raise ModelError(f"{name}: {key}={_text(value)} is no {key}; expected {field.metadata['expected']}")


def _value(name: str, field: dataclasses.Field[Any], text: str) -> Any:
    wanted = str(field.type)
    if "float" not in wanted and "int" not in wanted:
        return text.lower()
    try:
        number = float(text) if "float" in wanted else int(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ModelError(f"{name}: {field.name}={text} is not a {'whole ' if 'int' in wanted else ''}number")
    return number


def _default(field: dataclasses.Field[Any]) -> str:
    return "auto" if field.default is None else _text(field.default)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
