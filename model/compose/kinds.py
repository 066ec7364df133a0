"""The kinds of values a field may have: each checks one value, reports what is wrong, and returns its long form.

Rules: a kind is called as `kind(cx, value, path, mark)` and returns the canonical value, or None after reporting a
problem. Long forms are accepted as input, so canonical output can be read again. An empty value (`ports:`) means "not
said". `!reset` and `!override` tags pass through and are acted on by the merge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.compose import scalars
from model.compose.problems import Mark, Report, near, show
from model.compose.tree import Map, Seq, Tagged, items_of, mark_of


@dataclass(slots=True)
class Context:
    """What the kinds of one file need: where faults go, and what relative paths are relative to ('' : leave them)."""

    report: Report
    base_dir: str = ""
    home: str = ""

    def bad(self, path: str, value: Any, expected: str, mark: Mark) -> Any:
        """Report and return None, the value of what cannot be taken."""
        self.report.problem(path, f"found {show(value)}, expected {expected}", mark)


Kind = Callable[[Context, Any, str, Mark], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One row of the table of fields. `later` empty: shoal acts on it; otherwise why it does not (yet)."""

    kind: Kind
    later: str = ""


@dataclass(frozen=True, slots=True)
class Obj:
    """A mapping with known keys. `short` turns another form into the mapping; `required` keys must be there."""

    fields: Mapping[str, Field]
    required: tuple[str, ...] = ()
    short: Callable[[Context, Any, str, Mark], dict[str, Any] | None] | None = None
    what: str = "a mapping"
    empty_is: Any = None

    def __call__(self, cx: Context, value: Any, path: str, mark: Mark) -> Any:
        if self.short is not None and value is not None and not isinstance(value, dict):
            value = self.short(cx, value, path, mark)
            if value is None:
                return None
        if value is None:
            return self.empty_is
        if not isinstance(value, dict):
            return cx.bad(path, value, self.what, mark)
        result = Map(mark=value.mark if isinstance(value, Map) else mark)
        for key, item, at in items_of(value):
            self._one(cx, key, item, f"{path}.{key}" if path else key, at, result)
        for key in self.required:
            if value.get(key) is None:
                cx.report.problem(path, f"has no '{key}', which is needed", mark)
        return result

    def _one(self, cx: Context, key: str, item: Any, path: str, at: Mark, result: Map) -> None:
        row = self.fields.get(key)
        if row is not None:
            canonical = tagged(row.kind, cx, item, path, at)
            if canonical is not None or (item is None and row.kind is ANY):
                result.put(key, canonical, at)
        elif key.startswith("x-"):
            result.put(key, item, at)
        else:
            cx.report.problem(path, f"unknown field '{key}'{near(key, list(self.fields))}", at)


@dataclass(frozen=True, slots=True)
class Or:
    """A mapping goes to `long`, anything else to `short`."""

    long: Kind
    short: Kind

    def __call__(self, cx: Context, value: Any, path: str, mark: Mark) -> Any:
        return (self.long if value is None or isinstance(value, dict) else self.short)(cx, value, path, mark)


def tagged(kind: Kind, cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """`kind` applied under a tag, if there is one."""
    if not isinstance(value, Tagged):
        return kind(cx, value, path, mark)
    if value.kind == "reset":
        return Tagged("reset", None)
    return Tagged("override", kind(cx, value.value, path, mark))


def ANY(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    return value


def STR(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    if value is None or isinstance(value, str):
        return value
    hint = " (put it in quotes)" if isinstance(value, (int, float)) else ""
    return cx.bad(path, value, "text" + hint, mark)


def TEXT(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """Text, where a number or a boolean is taken as written."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return scalars.to_text(value)
    return cx.bad(path, value, "text or a number", mark)


def BOOL(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    if value is None or isinstance(value, bool):
        return value
    parsed = scalars.parse_bool(value) if isinstance(value, str) else None
    return cx.bad(path, value, "true or false", mark) if parsed is None else parsed


@dataclass(frozen=True, slots=True)
class Int:
    low: int | None = None
    high: int | None = None

    def __call__(self, cx: Context, value: Any, path: str, mark: Mark) -> Any:
        if value is None:
            return None
        parsed: Any = scalars.parse_int(value) if isinstance(value, str) else value
        if isinstance(parsed, float) and parsed.is_integer():
            parsed = int(parsed)
        if isinstance(parsed, bool) or not isinstance(parsed, int):
            return cx.bad(path, value, "a whole number", mark)
        if (self.low is not None and parsed < self.low) or (self.high is not None and parsed > self.high):
            return cx.bad(path, value, f"a whole number {self._range()}", mark)
        return parsed

    def _range(self) -> str:
        if self.high is None:
            return f"of at least {self.low}"
        return f"from {self.low} to {self.high}" if self.low is not None else f"of at most {self.high}"


INT = Int()
COUNT = Int(0)


@dataclass(frozen=True, slots=True)
class Num:
    low: float | None = None
    high: float | None = None

    def __call__(self, cx: Context, value: Any, path: str, mark: Mark) -> Any:
        if value is None:
            return None
        parsed = scalars.parse_number(value) if isinstance(value, str) else value
        if isinstance(parsed, bool) or not isinstance(parsed, (int, float)) or not abs(parsed) < 1e18:
            return cx.bad(path, value, "a number such as 0.5", mark)
        if (self.low is not None and parsed < self.low) or (self.high is not None and parsed > self.high):
            wanted = f"of at least {self.low:g}" if self.high is None else f"from {self.low:g} to {self.high:g}"
            return cx.bad(path, value, f"a number {wanted}", mark)
        return scalars.number(parsed)


def DURATION(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    if value is None:
        return None
    parsed = scalars.parse_duration_ns(value) if isinstance(value, str) else None
    if parsed is None or parsed < 0:
        return cx.bad(path, value, "a duration such as 1m30s or 500ms", mark)
    return scalars.format_duration(parsed)


def _size(low: int) -> Kind:
    def check(cx: Context, value: Any, path: str, mark: Mark) -> Any:
        if value is None:
            return None
        if isinstance(value, str):
            parsed = scalars.parse_bytes(value)
        else:
            parsed = int(value) if isinstance(value, (int, float)) and abs(value) < 1e18 and value is not True else None
        if parsed is None or parsed < low:
            return cx.bad(path, value, "a size such as 128M or 1g", mark)
        return str(parsed)

    return check


BYTES = _size(0)
SWAP_BYTES = _size(-1)


@dataclass(frozen=True, slots=True)
class Enum:
    """One of some words; empty text (an unset variable) means "not said"."""

    words: Sequence[str]

    def __call__(self, cx: Context, value: Any, path: str, mark: Mark) -> Any:
        if value is None or value == "":
            return value
        if value not in self.words:
            hint = near(value, self.words) if isinstance(value, str) else ""
            return cx.bad(path, value, f"one of {', '.join(self.words)}{hint}", mark)
        return value


@dataclass(frozen=True, slots=True)
class Pattern:
    regex: str
    expected: str

    def __call__(self, cx: Context, value: Any, path: str, mark: Mark) -> Any:
        if value is None:
            return None
        if not isinstance(value, str) or not re.search(self.regex, value):
            return cx.bad(path, value, self.expected, mark)
        return value


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list; `scalar` also takes one value in place of a list; `unique` drops repeated values."""

    kind: Kind
    scalar: bool = False
    unique: bool = False
    spread: bool = False

    def __call__(self, cx: Context, value: Any, path: str, mark: Mark) -> Any:
        if value is None:
            return None
        if self.scalar and not isinstance(value, (list, dict)):
            value = Seq([value], mark)
        if not isinstance(value, list):
            return cx.bad(path, value, "text or a list" if self.scalar else "a list", mark)
        result = Seq(mark=value.mark if isinstance(value, Seq) else mark)
        for index, item in enumerate(value):
            at = mark_of(value, index)
            canonical = tagged(self.kind, cx, item, f"{path}[{index}]", at)
            if item is None:
                cx.bad(f"{path}[{index}]", None, "a value", at)
            for one in canonical if self.spread and isinstance(canonical, list) else [canonical]:
                if one is not None and not (self.unique and one in result):
                    result.put(one, at)
        return result


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping with free keys. `names` restricts them to the names of services, networks and so on."""

    kind: Kind
    names: bool = False
    keep_null: bool = False

    def __call__(self, cx: Context, value: Any, path: str, mark: Mark) -> Any:
        if value is None:
            return None
        if not isinstance(value, dict):
            return cx.bad(path, value, "a mapping", mark)
        result = Map(mark=value.mark if isinstance(value, Map) else mark)
        for key, item, at in items_of(value):
            if self.names and not re.fullmatch(r"[a-zA-Z0-9._-]+", key):
                cx.report.problem(f"{path}.{key}", f"the name {show(key)} may hold only letters, digits and ._-", at)
                continue
            canonical = tagged(self.kind, cx, item, f"{path}.{key}", at)
            if canonical is not None or (self.keep_null and item is None):
                result.put(key, canonical, at)
        return result


@dataclass(frozen=True, slots=True)
class KeyValues:
    """`{A: 1, B: }` or `[A=1, B]` -> `{A: "1", B: <bare>}`; `bare` is None (ask the environment) or empty text."""

    bare: str | None = ""

    def __call__(self, cx: Context, value: Any, path: str, mark: Mark) -> Any:
        if value is None:
            return None
        if isinstance(value, dict):
            return self._from_map(cx, value, path, mark)
        if not isinstance(value, list):
            return cx.bad(path, value, "a mapping or a list of NAME=value", mark)
        result = Map(mark=value.mark if isinstance(value, Seq) else mark)
        for index, item in enumerate(value):
            at = mark_of(value, index)
            if not isinstance(item, str):
                cx.bad(f"{path}[{index}]", item, "text like NAME=value", at)
                continue
            name, equals, text = item.partition("=")
            result.put(name, text if equals else self.bare, at)
        return result

    def _from_map(self, cx: Context, value: dict[str, Any], path: str, mark: Mark) -> Map:
        result = Map(mark=value.mark if isinstance(value, Map) else mark)
        for key, item, at in items_of(value):
            text = tagged(TEXT, cx, item, f"{path}.{key}", at)
            result.put(key, self.bare if text is None else text, at)
        return result


@dataclass(frozen=True, slots=True)
class Command:
    """`command`, `entrypoint`: text split as a shell would, or a list."""

    def __call__(self, cx: Context, value: Any, path: str, mark: Mark) -> Any:
        if value is None:
            return None
        if isinstance(value, str):
            import shlex

            try:
                return Seq(shlex.split(value), mark)
            except ValueError as error:
                return cx.bad(path, value, f"a command ({str(error).lower()})", mark)
        return ListOf(STR)(cx, value, path, mark)
