"""Variables in Compose files: `$V ${V} ${V:-d} ${V-d} ${V:?e} ${V?e} ${V:+r} ${V+r}`, nested, and `$$`.

Rules: pure text; a `$` that starts no variable stays (`$1`, `$ `), as docker compose has it. An unset variable without a
default becomes empty text and a warning; the results of one load are bounded in size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from model.compose.problems import NOWHERE, Mark, Report, show
from model.compose.tree import Map, Seq, Tagged, items_of, mark_of

RESULT_MAX = 1 << 20
DOLLARS_MAX = 20_000
DEPTH_MAX = 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


class BadTemplate(Exception):
    """The text has a broken variable; the message says how."""


class Interpolator:
    """Substitutes from `env`; what is missing is noted in `unset`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.unset: dict[str, None] = {}
        self.room = RESULT_MAX
        self.dollars = DOLLARS_MAX

    def text(self, template: str, depth: int = 0) -> str:
        """`template` with its variables replaced. Raises BadTemplate."""
        if "$" not in template:
            return template
        if depth > DEPTH_MAX:
            raise BadTemplate(f"variables are nested deeper than {DEPTH_MAX} levels")
        self.dollars -= template.count("$")
        if self.dollars < 0:
            raise BadTemplate(f"the file uses more than {DOLLARS_MAX} variables")
        parts: list[str] = []
        position = 0
        while (dollar := template.find("$", position)) >= 0:
            parts.append(template[position:dollar])
            value, position = self._one(template, dollar, depth)
            parts.append(value)
        parts.append(template[position:])
        result = "".join(parts)
        self.room -= len(result)
        if self.room < 0:
            raise BadTemplate(f"the variables of this file expand to more than {RESULT_MAX} characters")
        return result

    def _one(self, template: str, dollar: int, depth: int) -> tuple[str, int]:
        """The value of what starts at `template[dollar]`, and the position behind it."""
        after = template[dollar + 1 : dollar + 2]
        if after == "$":
            return "$", dollar + 2
        if after == "{":
            end = _closing(template, dollar)
            return self._braced(template[dollar + 2 : end], depth), end + 1
        name = _NAME.match(template, dollar + 1)
        if not name:
            return "$", dollar + 1
        return self._plain(name[0]), name.end()

    def _plain(self, name: str) -> str:
        if name not in self.env:
            self.unset[name] = None
            return ""
        return self.env[name]

    def _braced(self, body: str, depth: int) -> str:
        found = _NAME.match(body)
        if not found:
            raise BadTemplate(f"{show('${' + body + '}')} names no variable; write $$ for a plain $")
        name, rest = found[0], body[found.end() :]
        if not rest:
            return self._plain(name)
        operator = next((o for o in _OPERATORS if rest.startswith(o)), None)
        if operator is None:
            raise BadTemplate(f"{show('${' + body + '}')} is no variable: expected one of :- - :? ? :+ + behind the name")
        word = rest[len(operator) :]
        value = self.env.get(name)
        there = value is not None and (value != "" or operator[0] != ":")
        if operator[-1] == "+":
            return self.text(word, depth + 1) if there else ""
        if there:
            return value or ""
        if operator[-1] == "-":
            return self.text(word, depth + 1)
        reason = self.text(word, depth + 1)
        raise BadTemplate(f"the variable {name} is required" + (f": {reason}" if reason else " but not set"))


def _closing(template: str, dollar: int) -> int:
    """The position of the `}` that closes the `${` at `dollar`."""
    depth = 0
    position = dollar
    while position < len(template):
        if template.startswith("$$", position):
            position += 2
        elif template.startswith("${", position):
            depth += 1
            position += 2
        elif template[position] == "}":
            depth -= 1
            if depth == 0:
                return position
            position += 1
        else:
            position += 1
    raise BadTemplate(f"{show(template[dollar:])} has no closing brace; write $$ for a plain $")


def interpolate_tree(value: Any, interpolator: Interpolator, report: Report) -> Any:
    """A new tree with the variables of every text replaced; keys stay as written."""
    return _walk(value, "", NOWHERE, interpolator, report)


def _walk(value: Any, path: str, mark: Mark, interpolator: Interpolator, report: Report) -> Any:
    if isinstance(value, str):
        return _text(value, path, mark, interpolator, report) if "$" in value else value
    if isinstance(value, dict):
        result = Map(mark=value.mark if isinstance(value, Map) else mark)
        for key, item, at in items_of(value):
            result.put(key, _walk(item, f"{path}.{key}" if path else key, at, interpolator, report), at)
        return result
    if isinstance(value, list):
        seq = Seq(mark=value.mark if isinstance(value, Seq) else mark)
        for index, item in enumerate(value):
            at = mark_of(value, index)
            seq.put(_walk(item, f"{path}[{index}]", at, interpolator, report), at)
        return seq
    if isinstance(value, Tagged):
        return Tagged(value.kind, _walk(value.value, path, mark, interpolator, report))
    return value


def _text(value: str, path: str, mark: Mark, interpolator: Interpolator, report: Report) -> str:
    try:
        result = interpolator.text(value)
    except BadTemplate as error:
        report.problem(path, str(error), mark)
        return value
    for name in interpolator.unset:
        report.warn("unset-variable", name, f"the variable {name} is not set, {path} takes it as empty", mark)
    interpolator.unset.clear()
    return result
