"""Go templates, as far as Docker's users write them: `{{.Config.Cmd}}`, `{{json .X}}`, `{{range .Tags}}{{println .}}{{end}}`.

Rules: pure, text and plain data in, text out; values are printed as Go prints them. What is not understood, and a field that is
not there, is one clear line (BadInput). There are no loops but `range`, so every template ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

from cli.template_values import FUNCTIONS, Nil, as_json, printed
from model.errors import BadInput

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<field>(?:\$\w*)?(?:\.\w+)+|\.|\$\w*)"""
    r"""|(?P<word>\w+)|(?P<sign>:=|[|(),=]))"""
)
_ACTION: Final = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)


_NIL_LISTS: Final = frozenset({"Cmd", "Entrypoint", "Env", "OnBuild", "RepoTags", "RepoDigests", "Shell"})
_NIL_MAPS: Final = frozenset({"ExposedPorts", "Labels", "Volumes"})


@dataclass(slots=True)
class _Node:
    """`kind`: text, out (a pipeline), if, range, with. `body` and `other` are what stands inside and after `else`."""

    kind: str
    words: Any = None
    names: tuple[str, ...] = ()
    body: list[_Node] = field(default_factory=list)
    other: list[_Node] = field(default_factory=list)


class Template:
    """`Template(text).render(data)`. Raises BadInput when the text is no template."""

    def __init__(self, text: str) -> None:
        self._text = text
        pieces = list(_pieces(text))
        self._nodes, rest = self._block(pieces, 0, top=True)
        assert rest == len(pieces)

    def render(self, data: Any) -> str:
        return "".join(self._run(self._nodes, data, {"$": data}))

    def _bad(self, why: str) -> BadInput:
        return BadInput(f"template {self._text[:120]!r}: {why}")

    # reading

    def _block(self, pieces: list[tuple[str, str]], at: int, *, top: bool = False) -> tuple[list[_Node], int]:
        """The nodes up to an `end` or `else`, and where that stands."""
        nodes: list[_Node] = []
        while at < len(pieces):
            kind, text = pieces[at]
            word, _, rest = text.partition(" ") if kind == "action" else ("", "", "")
            if kind == "text":
                nodes.append(_Node("text", text))
            elif word in ("end", "else"):
                if top:
                    raise self._bad(f"{word} without if, range or with")
                return nodes, at
            elif word in ("if", "range", "with"):
                node, at = self._opened(word, rest, pieces, at)
                nodes.append(node)
            else:
                nodes.append(self._pipeline_node("out", text))
            at += 1
        if not top:
            raise self._bad("an end is missing")
        return nodes, at

    def _opened(self, word: str, rest: str, pieces: list[tuple[str, str]], at: int) -> tuple[_Node, int]:
        node = self._pipeline_node(word, rest)
        node.body, at = self._block(pieces, at + 1)
        if pieces[at][1].startswith("else"):
            after = pieces[at][1][len("else") :].strip()
            if after.startswith("if "):
                inner, at = self._opened("if", after[3:], pieces, at)
                node.other = [inner]
                return node, at
            node.other, at = self._block(pieces, at + 1)
        return node, at

    def _pipeline_node(self, kind: str, text: str) -> _Node:
        found = re.match(r"\s*(\$\w+)(?:\s*,\s*(\$\w+))?\s*:?=\s*(.*)$", text, re.DOTALL)
        names = tuple(name for name in found.groups()[:2] if name) if found else ()
        tokens = self._tokens(found[3] if found else text)
        if not tokens:
            raise self._bad("an action says nothing")
        words, rest = self._pipeline(tokens, 0)
        if rest != len(tokens):
            raise self._bad(f"{tokens[rest][1]!r} is not expected there")
        return _Node(kind, words, names)

    def _tokens(self, text: str) -> list[tuple[str, str]]:
        tokens, at, text = [], 0, text.strip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._bad(f"{text[at:][:20]!r} is not understood")
            assert found.lastgroup is not None
            tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        return tokens

    def _pipeline(self, tokens: list[tuple[str, str]], at: int) -> tuple[list[list[Any]], int]:
        """Commands, each a list of words: (kind, text), or a nested pipeline with the field behind it."""
        commands: list[list[Any]] = [[]]
        while at < len(tokens):
            kind, text = tokens[at]
            if text == ")" and kind == "sign":
                break
            if text == "|" and kind == "sign":
                commands.append([])
            elif text == "(" and kind == "sign":
                inner, at = self._pipeline(tokens, at + 1)
                if at >= len(tokens):
                    raise self._bad("a bracket is not closed")
                commands[-1].append(("pipeline", inner))
            elif kind == "sign":
                raise self._bad(f"{text!r} is not expected there")
            else:
                commands[-1].append((kind, text))
            at += 1
        if not all(commands):
            raise self._bad("a pipeline has an empty part")
        return commands, at

    # running

    def _run(self, nodes: Sequence[_Node], dot: Any, names: dict[str, Any]) -> Iterator[str]:
        for node in nodes:
            if node.kind == "text":
                yield node.words
                continue
            value = self._value(node.words, dot, names)
            if node.kind == "range":
                yield from self._range(node, value, dot, names)
            elif node.kind in ("if", "with"):
                inner = {**names, **dict.fromkeys(node.names, value)}
                inside = value if node.kind == "with" and value else dot
                yield from self._run(node.body if value else node.other, inside, inner)
            elif node.names:
                names[node.names[0]] = value
            else:
                yield "<no value>" if value is None else printed(value)

    def _range(self, node: _Node, value: Any, dot: Any, names: dict[str, Any]) -> Iterator[str]:
        if isinstance(value, Mapping):
            pairs: list[tuple[Any, Any]] = sorted(value.items())
        elif isinstance(value, (list, tuple)):
            pairs = list(enumerate(value))
        elif not value:
            pairs = []
        else:
            raise self._bad(f"range over {printed(value)[:40]!r}: it is no list and no map")
        if not pairs:
            yield from self._run(node.other, dot, names)
        for key, item in pairs:
            own = dict(zip(node.names, (key, item) if len(node.names) == 2 else (item,), strict=False))
            yield from self._run(node.body, item, {**names, **own})

    def _value(self, commands: Sequence[list[Any]], dot: Any, names: Mapping[str, Any]) -> Any:
        value: Any = None
        for number, command in enumerate(commands):
            value = self._command(command, dot, names, [value] if number else [])
        return value

    def _command(self, command: list[Any], dot: Any, names: Mapping[str, Any], piped: list[Any]) -> Any:
        (kind, text), *rest = command
        if kind == "word" and text not in ("true", "false", "nil"):
            function = FUNCTIONS.get(text)
            if function is None:
                raise self._bad(f"function {text!r} is not known (known: {', '.join(sorted(FUNCTIONS))})")
            arguments = [self._operand(word, dot, names) for word in rest] + piped
            try:
                return function(*arguments)
            except (TypeError, ValueError, KeyError, IndexError) as error:
                raise self._bad(f"{text}: {error}") from None
        if rest or piped:
            raise self._bad("only functions take arguments")
        return self._operand((kind, text), dot, names)

    def _operand(self, word: tuple[str, Any], dot: Any, names: Mapping[str, Any]) -> Any:
        kind, text = word
        if kind == "pipeline":
            return self._value(text, dot, names)
        if kind == "string":
            return text[1:-1] if text[0] == "`" else self._string(text)
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "word":
            return self._command([word], dot, names, []) if text in FUNCTIONS else {"true": True, "false": False}.get(text)
        return self._field(text, dot, names)

    def _string(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise self._bad(f"{text} is no string") from None

    def _field(self, text: str, dot: Any, names: Mapping[str, Any]) -> Any:
        first, *path = text.split(".")
        if first not in names and first:
            raise self._bad(f"{first} is not set")
        value = names[first] if first else dot
        for name in filter(None, path):
            value = self._below(value, name, text)
        return value

    def _below(self, value: Any, name: str, text: str) -> Any:
        found = value.get(name) if isinstance(value, Mapping) else None
        if found is not None:
            return found
        if name in _NIL_LISTS or name in _NIL_MAPS:
            return Nil("[]" if name in _NIL_LISTS else "map[]")
        if not isinstance(value, Mapping) or name not in value:
            raise self._bad(f"{text}: there is no field {name!r}")
        return None


def formatted(form: str, titles: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Docker's `--format` of a listing: `json`, a template for each row, or `table TEMPLATE` with the heading `titles` give."""
    if form == "json":
        return [as_json(row) for row in rows]
    word, _, body = form.partition(" ")
    is_table = word == "table" and bool(body)
    template = Template((body if is_table else form).replace("\\t", "\t").replace("\\n", "\n"))
    lines = [template.render(row) for row in ([titles, *rows] if is_table else rows)]
    if not is_table:
        return lines
    cells = [line.split("\t") for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip_longest(*cells, fillvalue="")]
    return ["   ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)).rstrip() for line in cells]


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """(`text`, ..) and (`action`, ..) in turn; comments are left out, `-` takes white space away."""
    at, trim = 0, False
    for found in _ACTION.finditer(text):
        before = text[at : found.start()]
        before = before.lstrip() if trim else before
        if before := (before.rstrip() if found[1] else before):
            yield "text", before
        if not found[2].strip().startswith("/*"):
            yield "action", " ".join(found[2].split()) if '"' not in found[2] and "`" not in found[2] else found[2].strip()
        at, trim = found.end(), bool(found[3])
    rest = text[at:].lstrip() if trim else text[at:]
    if "{{" in rest:
        raise BadInput(f"template {text[:120]!r}: an action is not closed")
    if rest:
        yield "text", rest
