"""Bytes -> tree, by YAML 1.2 rules and with limits that hold before anything is built.

Rules: the event stream of the C parser is walked iteratively; size, depth, number of nodes and the size aliases would
expand to are bounded, so a bomb costs no more than reading it. Duplicate keys are faults. Plain scalars follow the core
schema (`22:22`, `yes`, `on` are text); a leading zero means octal, as every Compose file's `mode: 0440` expects.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from model.compose.problems import Mark, Report, show
from model.compose.tree import Map, Seq, Tagged

SIZE_MAX_BYTES = 4 << 20
DEPTH_MAX = 100
NODES_MAX = 100_000
"""Values of one file, those that aliases bring in counted every time."""

_INT = re.compile(r"[-+]?[0-9][0-9_]*\Z")
_INT_BASE = re.compile(r"[-+]?0[box][0-9a-fA-F_]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_PLAIN_START = frozenset("-+.0123456789")
_TAG = "tag:yaml.org,2002:"


@dataclass(slots=True)
class _Frame:
    """A collection being read. `key` waits for its value; `merges` holds what `<<` brings in."""

    value: Map | Seq
    anchor: str | None
    tag: str | None
    nodes_before: int
    key: str | None = None
    key_seen: bool = False
    has_merge: bool = False
    merges: list[Map] = field(default_factory=list)


class _Stop(Exception):
    """Reading on is impossible; the reason is already reported."""


def read_yaml(data: bytes, file: str, report: Report, expected: str = "a mapping with 'services'") -> list[Map]:
    """The documents of `data` (empty ones left out). Faults go to `report`; what can be read is returned. `expected`: what
    each document should be."""
    if len(data) > SIZE_MAX_BYTES:
        report.problem("", f"is larger than {SIZE_MAX_BYTES >> 20} MiB, the most a Compose file may be", Mark(file))
        return []
    reader = _Reader(file, report, expected)
    with suppress(_Stop):
        reader.run(data)
    return reader.documents


class _Reader:
    def __init__(self, file: str, report: Report, expected: str) -> None:
        self.file = file
        self.expected = expected
        self.report = report
        self.documents: list[Map] = []
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.nodes = 0

    def run(self, data: bytes) -> None:
        import yaml

        loader: Any = None
        try:
            loader = yaml.CSafeLoader(data)
            get = loader.get_event
            handlers: dict[type, Callable[[Any], None]] = {
                yaml.ScalarEvent: self._scalar,
                yaml.AliasEvent: self._alias,
                yaml.MappingStartEvent: self._start,
                yaml.SequenceStartEvent: self._start,
                yaml.MappingEndEvent: self._end,
                yaml.SequenceEndEvent: self._end,
                yaml.DocumentStartEvent: self._document,
            }
            while (event := get()) is not None:
                handler = handlers.get(type(event))
                if handler is not None:
                    handler(event)
                if type(event) is yaml.StreamEndEvent:
                    break
        except yaml.MarkedYAMLError as error:
            where = error.problem_mark or error.context_mark
            mark = Mark(self.file, where.line + 1, where.column + 1) if where else Mark(self.file)
            self._fail(f"is not YAML: {error.problem or error.context}", mark)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0] if str(error) else "unreadable"
            self._fail(f"is not YAML: {reason}", Mark(self.file))
        finally:
            if loader is not None:
                loader.dispose()

    def _document(self, event: Any) -> None:
        self.anchors.clear()

    def _fail(self, message: str, mark: Mark) -> None:
        self.report.problem("", message, mark)
        raise _Stop

    def _mark(self, event: Any) -> Mark:
        start = event.start_mark
        return Mark(self.file, start.line + 1, start.column + 1)

    def _count(self, nodes: int, event: Any) -> None:
        self.nodes += nodes
        if self.nodes > NODES_MAX:
            self._fail(f"holds more than {NODES_MAX} values (what an alias brings in counts each time)", self._mark(event))

    def _start(self, event: Any) -> None:
        mark = self._mark(event)
        if len(self.stack) >= DEPTH_MAX:
            self._fail(f"is nested deeper than {DEPTH_MAX} levels", mark)
        before = self.nodes
        self._count(1, event)
        import yaml

        value: Map | Seq = Map(mark=mark) if type(event) is yaml.MappingStartEvent else Seq(mark=mark)
        self.stack.append(_Frame(value, event.anchor, event.tag, before))

    def _end(self, event: Any) -> None:
        frame = self.stack.pop()
        value = frame.value
        if frame.merges and isinstance(value, Map):
            self._merge(value, frame.merges, event)
        if frame.anchor:
            self.anchors[frame.anchor] = (value, self.nodes - frame.nodes_before)
        self._add(self._tagged(value, frame.tag, value.mark), value.mark)

    def _merge(self, value: Map, merges: list[Map], event: Any) -> None:
        for source in merges:
            self._count(len(source), event)
            for key, item in source.items():
                if key not in value:
                    value.put(key, item, source.at(key))

    def _scalar(self, event: Any) -> None:
        mark = self._mark(event)
        self._count(1, event)
        plain = event.implicit[0]
        if self._is_key() and plain and event.value == "<<":
            self._add_key("<<", mark, merge=True)
            return
        value = resolve_plain(event.value) if plain else self._explicit(event, mark)
        if event.anchor:
            self.anchors[event.anchor] = (value, 1)
        self._add(self._tagged(value, event.tag, mark), mark)

    def _explicit(self, event: Any, mark: Mark) -> Any:
        """The value of a quoted scalar or one with a tag."""
        tag = event.tag or ""
        if tag.startswith(_TAG) and tag[len(_TAG) :] in ("int", "float", "bool", "null"):
            return resolve_plain(event.value)
        if tag in ("!reset", "!override") and not event.style:
            return resolve_plain(event.value)
        return event.value

    def _alias(self, event: Any) -> None:
        mark = self._mark(event)
        if event.anchor not in self.anchors:
            self._fail(f"alias *{event.anchor} has no anchor &{event.anchor} before it", mark)
        value, nodes = self.anchors[event.anchor]
        self._count(nodes, event)
        self._add(value, mark)

    def _tagged(self, value: Any, tag: str | None, mark: Mark) -> Any:
        if tag == "!reset":
            return Tagged("reset", value)
        if tag == "!override":
            return Tagged("override", value)
        if tag and tag != "!" and not tag.startswith(_TAG):
            self.report.problem("", f"unknown tag {show(tag)}, expected !reset or !override", mark)
        return value

    def _is_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, Map) and not self.stack[-1].key_seen

    def _add_key(self, key: Any, mark: Mark, *, merge: bool = False) -> None:
        frame = self.stack[-1]
        frame.key_seen = True
        frame.key = None
        if not isinstance(key, str):
            self.report.problem("", f"the key {show(key)} is no text: put it in quotes", mark)
        elif merge and frame.has_merge:
            self.report.problem("", "'<<' stands twice in this mapping: write one '<<: [*a, *b]'", mark)
        elif merge:
            frame.has_merge, frame.key = True, key
        elif key in frame.value:
            first = frame.value.at(key).line  # type: ignore[arg-type]
            self.report.problem("", f"the key {show(key)} is already there in line {first}", mark)
        else:
            frame.key = key

    def _add(self, value: Any, mark: Mark) -> None:
        if not self.stack:
            self._add_document(value, mark)
            return
        frame = self.stack[-1]
        if isinstance(frame.value, Seq):
            frame.value.put(value, mark)
        elif not frame.key_seen:
            self._add_key(value, mark)
        else:
            if frame.key == "<<" and frame.has_merge and "<<" not in frame.value:
                self._add_merge(frame, value, mark)
            elif frame.key is not None:
                frame.value.put(frame.key, value, mark)
            frame.key_seen, frame.key = False, None

    def _add_merge(self, frame: _Frame, value: Any, mark: Mark) -> None:
        sources = value if isinstance(value, Seq) else [value]
        for source in sources:
            if isinstance(source, Map):
                frame.merges.append(source)
            elif source is not None:
                self.report.problem("", f"'<<' holds {show(source)}, expected a mapping or a list of mappings", mark)

    def _add_document(self, value: Any, mark: Mark) -> None:
        if isinstance(value, Map):
            self.documents.append(value)
        elif value is not None:
            self.report.problem("", f"holds {show(value)} at the top, expected {self.expected}", mark)


def resolve_plain(text: str) -> Any:
    """The value of an unquoted scalar: None, bool, int, float or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _PLAIN_START:
        return text
    if _INT_BASE.match(text):
        return _integer(text)
    if _INT.match(text):
        digits = text.lstrip("+-").replace("_", "")
        octal = len(digits) > 1 and digits[0] == "0" and not set(digits) & {"8", "9"}
        return int(text.replace("_", ""), 8 if octal else 10) if len(digits) < 4000 else text
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    return text


def _integer(text: str) -> int | str:
    try:
        return int(text.replace("_", ""), 0)
    except ValueError:
        return text
