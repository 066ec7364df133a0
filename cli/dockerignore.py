"""The patterns of a .dockerignore file, as Docker reads them.

Rules: pure. The last pattern that matches a path, or a folder above it, decides; `!` takes back. `*` and `?` do not go over a
slash, `**` does.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import BadInput


@dataclass(frozen=True, slots=True)
class Pattern:
    expression: re.Pattern[str]
    takes_back: bool


class Ignore:
    """`Ignore(patterns).covers("a/b")`: whether the path, relative to the context, is left out."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = patterns
        self.takes_back = any(pattern.takes_back for pattern in patterns)
        """Something below a folder that is left out may belong to the context all the same."""

    def covers(self, path: str) -> bool:
        parts = path.split("/")
        ways = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        covered = False
        for pattern in self._patterns:
            if pattern.takes_back == covered and any(pattern.expression.fullmatch(way) for way in ways):
                covered = not pattern.takes_back
        return covered


def read_ignore(text: str, name: str = ".dockerignore") -> Ignore:
    """Raises BadInput for a pattern that is none."""
    patterns: list[Pattern] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = raw.strip()
        if not line or raw.startswith("#"):
            continue
        takes_back = line.startswith("!")
        cleaned = posixpath.normpath(line.removeprefix("!").strip()).lstrip("/")
        if line == "!":
            raise BadInput(f'{name} line {number}: illegal exclusion pattern: "!"')
        if cleaned == ".":  # the whole context, which Docker does not leave out
            continue
        patterns.append(Pattern(_compiled(cleaned, f"{name} line {number}"), takes_back))
    return Ignore(patterns)


def _compiled(pattern: str, where: str) -> re.Pattern[str]:
    expression, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if pattern.startswith("**", at - 1):
            at += 1
            if pattern.startswith("/", at):
                at += 1
            expression += "(.*/)?" if at < len(pattern) else ".*"
        elif char == "*":
            expression += "[^/]*"
        elif char == "?":
            expression += "[^/]"
        elif char == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise BadInput(f"{where}: {pattern!r} has a [ without its ]")
            inside = pattern[at:end].replace("\\", "\\\\")
            expression += f"[{'^' + inside[1:] if inside[:1] in ('!', '^') else inside}]"
            at = end + 1
        elif char == "\\" and at < len(pattern):
            expression += re.escape(pattern[at])
            at += 1
        else:
            expression += re.escape(char)
    try:
        return re.compile(expression, re.DOTALL)
    except re.error:
        raise BadInput(f"{where}: {pattern!r} is no pattern") from None
