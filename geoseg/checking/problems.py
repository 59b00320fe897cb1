"""Problems with their lines: a YAML document that knows where each entry stands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from geoseg.errors import InputError

Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    message: str
    """What is wrong, and what to do."""
    entry: str = ""
    """Where in the recipe, e.g. `options.model`; empty where it is the whole."""
    line: int | None = None
    """In the recipe, from 1; None where it is the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    path: Path
    kind: str
    """run, batch or train; empty where the file is no YAML."""
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    """What is as it should be, in a few words."""


@dataclass(slots=True)
class Document:
    """A YAML mapping, the lines of its entries, and the problems that were found so far."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Document:
        """The document in a file; what is no YAML is a problem of it, and a file that cannot be read an InputError."""
        import yaml

        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"recipe {path} cannot be read ({reason}); expected a YAML file in UTF-8") from error
        document = cls(path)
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            values = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            told = " ".join(part for part in (error.context, error.problem) if part)
            document.problems.append(
                Problem(
                    message=f"no YAML: {told}; see to indents, quotes and colons", line=mark.line + 1 if mark else None
                )
            )
            return document
        except (yaml.YAMLError, RecursionError) as error:
            document.problems.append(Problem(message=f"no YAML: {' '.join(str(error).split())}"))
            return document
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            document.problems.append(
                Problem(message="holds no entries; expected lines such as `model: fields-s2`", line=1)
            )
            return document
        document.values = values
        document._walk(node, ())
        return document

    def add(self, message: str, *loc: str | int) -> None:
        """Notes a problem at an entry; it goes once, however often it is found."""
        where, line = self.place(loc)
        problem = Problem(message=message, entry=where, line=line)
        if problem not in self.problems:
            self.problems.append(problem)

    def place(self, loc: Sequence[str | int]) -> tuple[str, int | None]:
        """The entry nearest to a place, and its line. What pydantic says of unions is left out on the way."""
        found: Loc = ()
        for part in loc:
            if (*found, part) in self.lines:
                found = (*found, part)
        return ".".join(str(part) for part in found), self.lines.get(found)

    def invalid(self, error: ValidationError, model: type[BaseModel], *, under: Loc = ()) -> None:
        """Every problem that a model found with the values under a place."""
        told: dict[tuple[Loc, str], list[str]] = {}
        for one in error.errors():
            loc = (*under, *one["loc"])
            if one["type"] == "extra_forbidden":
                self.add(unknown_entry(str(loc[-1]), known_names(model, one["loc"][:-1])), *loc)
            elif one["type"] == "missing":
                self.add(f"entry {loc[-1]!r} is missing", *loc[:-1])
            else:
                message = one["msg"].removeprefix("Value error, ")
                found = f" (found {one['input']!r:.80})" if one["loc"] and not isinstance(one["input"], dict) else ""
                where, _ = self.place(loc)
                told.setdefault((loc, where), []).append(message + found)
        places: dict[str, list[tuple[Loc, str]]] = {}
        for (loc, where), messages in told.items():
            places.setdefault(where, []).extend((loc, message) for message in messages)
        for found_there in places.values():  # a union tells of each of its members
            self.add("; or ".join(dict.fromkeys(message for _, message in found_there)), *found_there[0][0])

    def _walk(self, node: Any, loc: Loc) -> None:
        import yaml

        if len(loc) > 20:  # anchors that hold themselves
            return
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(getattr(key, "value", "")), key.start_mark.line + 1
                if name in seen and name != "<<":
                    self.problems.append(
                        Problem(
                            message=f"{name!r} stands here and in line {seen[name]}; only the last one counts, take one away",
                            entry=".".join(map(str, (*loc, name))), line=line,
                        )
                    )  # fmt: skip
                seen[name] = line
                self.lines[(*loc, name)] = line
                self._walk(value, (*loc, name))
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                self.lines[(*loc, number)] = value.start_mark.line + 1
                self._walk(value, (*loc, number))


def unknown_entry(name: str, known: Iterable[str]) -> str:
    """What to say of an entry that nobody knows."""
    names = list(known)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if near:
        return f"unknown entry {name!r}; did you mean {near[0]!r}?"
    return f"unknown entry {name!r}; known there: {', '.join(sorted(names))}"


def known_names(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Names that a section of a model knows."""
    for part in loc:
        found = next((entry for name, entry in model.model_fields.items() if part in (name, entry.alias)), None)
        inner = None if found is None else _section(found.annotation)
        model = inner or model
    return [entry.alias or name for name, entry in model.model_fields.items()]


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model within an annotation such as `tuple[Section, ...]` or `Section | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in getattr(annotation, "__args__", ()) if (found := _section(one))), None)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def as_json(report: Report) -> Mapping[str, Any]:
    """The report as JSON values."""
    return {
        "file": str(report.path),
        "kind": report.kind,
        "ok": not report.problems,
        "problems": [{"line": one.line, "entry": one.entry, "message": one.message} for one in report.problems],
        "notes": list(report.notes),
    }
