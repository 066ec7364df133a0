"""`.env` and `env_file` contents -> variables.

Rules: `KEY=value`, `export KEY=value`, `KEY: value`, `KEY` alone (taken from the environment), comments, single quotes
(as they are), double quotes (escapes and variables, may span lines). Later lines see earlier ones. `format: raw` takes
every value as it is written.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping

from model.compose.interpolate import BadTemplate, Interpolator
from model.compose.problems import Mark, Report, show

SIZE_MAX_BYTES = 1 << 20
_LINE = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_0-9.\-\[\]]+)[ \t]*(?:([=:])[ \t]*|(?=\n|#|\Z))")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def parse_env(
    data: bytes,
    file: str,
    env: Mapping[str, str],
    report: Report,
    *,
    earlier: Mapping[str, str] | None = None,
    raw: bool = False,
) -> dict[str, str | None]:
    """The variables of an env file; None stands for a bare `KEY` that `env` does not have.

    Variables inside are looked up in `env`, then in the lines above, then in `earlier` (the env files before this one).
    """
    if len(data) > SIZE_MAX_BYTES:
        report.problem("", f"is larger than {SIZE_MAX_BYTES >> 20} MiB, the most an env file may be", Mark(file))
        return {}
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        report.problem("", f"is not UTF-8 text (byte {error.start})", Mark(file))
        return {}
    return _raw(text, env) if raw else _Parser(text, file, env, report, earlier or {}).run()


def _raw(text: str, env: Mapping[str, str]) -> dict[str, str | None]:
    result: dict[str, str | None] = {}
    for line in text.split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            name, equals, value = line.partition("=")
            result[name.strip()] = value if equals else env.get(name.strip())
    return result


class _Parser:
    def __init__(self, text: str, file: str, env: Mapping[str, str], report: Report, earlier: Mapping[str, str]) -> None:
        self.text = text
        self.file = file
        self.env = env
        self.report = report
        self.result: dict[str, str | None] = {}
        self.known: dict[str, str] = {}
        self.lookup = ChainMap(dict(env), self.known, dict(earlier))
        self.position = 0
        self.line = 1

    def run(self) -> dict[str, str | None]:
        while self.position < len(self.text):
            start = self.position
            self._entry()
            self.line += self.text.count("\n", start, self.position)
        return self.result

    def _entry(self) -> None:
        end = self._line_end()
        line = self.text[self.position : end]
        if not line.strip() or line.lstrip().startswith("#"):
            self.position = end + 1
            return
        found = _LINE.match(self.text, self.position)
        if not found or found.end() > end + 1:
            self.report.problem("", f"{show(line)} is no variable, expected NAME=value", Mark(self.file, self.line, 1))
            self.position = end + 1
        elif found[2] is None:
            self.result[found[1]] = self.env.get(found[1])
            self.position = end + 1
        else:
            self.position = min(found.end(), end)
            value = self._value(found[1], end)
            self.result[found[1]] = self.known[found[1]] = value

    def _line_end(self) -> int:
        end = self.text.find("\n", self.position)
        return len(self.text) if end < 0 else end

    def _value(self, name: str, end: int) -> str:
        quote = self.text[self.position : self.position + 1]
        if quote in ("'", '"') and quote:
            close = self._closing(quote)
            if close < 0:
                self.report.problem("", f"the value of {name} has no closing {quote}", Mark(self.file, self.line, 1))
                self.position = end + 1
                return ""
            body = self.text[self.position + 1 : close]
            self.position = close + 1
            self.position = self._line_end() + 1
            if quote == "'":
                return body.replace("\\'", "'")
            return self._expand(name, _ESCAPE.sub(_unescape, body))
        value = self.text[self.position : end]
        self.position = end + 1
        if value.startswith("#") and self.text[self.position - len(value) - 2] in " \t":
            return ""
        return self._expand(name, re.split(r"[ \t]#", value, maxsplit=1)[0].rstrip())

    def _closing(self, quote: str) -> int:
        position = self.position + 1
        while position < len(self.text):
            if self.text[position] == "\\":
                position += 1
            elif self.text[position] == quote:
                return position
            position += 1
        return -1

    def _expand(self, name: str, value: str) -> str:
        try:
            return Interpolator(self.lookup).text(value) if "$" in value else value
        except BadTemplate as error:
            self.report.problem(name, str(error), Mark(self.file, self.line, 1))
            return ""


def _unescape(found: re.Match[str]) -> str:
    if found[1] == "$":
        return "$$"
    return _ESCAPES.get(found[1], found[0])
