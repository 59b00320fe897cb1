"""When a scene was taken: what it says itself, a date in its name, or what the user says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import PurePath

from geoseg.errors import InputError
from geoseg.scene import Scene

_DAY = re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<gap>[-_.]?)(?P<month>\d\d)(?P=gap)(?P<day>\d\d)(?!\d)")
_MONTH = re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)[-_.]?(?P<month>\d\d)(?!\d)")

GROUPS = ("year", "month", "day")


def scene_date(path: str, scene: Scene, *, pattern: str | None = None) -> date:
    """The date of a scene.

    With `pattern`, a regular expression with the groups year, month and day (the last may be missing: the first of the
    month), it is taken from the path; else it is the scene's own time, else the first date in the file's name, else that of
    its folder. Raises InputError where there is none.
    """
    if pattern is not None:
        return _by_pattern(path, pattern)
    if scene.time is not None:
        return scene.time.date()
    pure = PurePath(path)
    for name in (pure.name, pure.parent.name):
        for expression in (_DAY, _MONTH):
            for match in expression.finditer(name):
                if (found := _day(match)) is not None:
                    return found
    raise InputError(
        f"{scene.name} does not say when it was taken, and neither does its name (expected YYYYMMDD, YYYY-MM-DD or YYYY-MM); "
        f"give the dates of all scenes in their order with --dates, or a --date-pattern"
    )


def given_dates(text: str, count: int) -> list[date]:
    """The dates of `--dates`, one a scene."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != count:
        raise InputError(
            f"--dates has {len(parts)} dates for {count} scenes; give one each, in the order of the scenes"
        )
    try:
        return [date.fromisoformat(part) for part in parts]
    except ValueError as error:
        raise InputError(f"--dates {text}: {error}; give dates such as 2023-04-01") from error


def _by_pattern(path: str, pattern: str) -> date:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--date-pattern {pattern!r} is no regular expression ({error})") from error
    if not {"year", "month"} <= expression.groupindex.keys():
        raise InputError(
            f"--date-pattern {pattern!r} lacks the groups year and month; expected e.g. "
            r"'(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)'"
        )
    match = expression.search(path)
    found = None if match is None else _day(match)
    if found is None:
        raise InputError(f"--date-pattern {pattern!r} finds no date in {path}; correct it, or give --dates")
    return found


def _day(match: re.Match[str]) -> date | None:
    parts: dict[str, str] = match.groupdict()
    try:
        return date(*(int(parts.get(name) or 1) for name in GROUPS))
    except ValueError:
        return None


def season_day(text: str) -> tuple[int, int]:
    """(month, day) of a text such as 09-01."""
    try:
        day = date.fromisoformat(f"2001-{text}")  # no leap year: the 29th of February begins no season
    except ValueError as error:
        raise InputError(f"{text!r} is no day of the year; expected month and day, e.g. 09-01") from error
    return day.month, day.day


def ordered(values: Sequence[date]) -> list[date]:
    """Each date once, in order."""
    return sorted({*values})
