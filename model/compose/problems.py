"""What is wrong with, or not done about, a Compose file: problems, warnings and the error that carries them.

Rules: every problem names file, line and column (where known), the field's path, what was found and what was expected.
All problems of a file are reported, up to `PROBLEMS_MAX`; a warning has a stable id (`unsupported:services.web.build`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from model.errors import BadInput

PROBLEMS_MAX = 50


class Mark(NamedTuple):
    """A place in a file; `line` and `column` count from 1, 0 means unknown."""

    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}"


NOWHERE = Mark()


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault. `path` is the field (`services.web.ports[0]`, empty: the file as a whole)."""

    path: str
    message: str
    mark: Mark = NOWHERE

    def __str__(self) -> str:
        return one_line(": ".join(part for part in (str(self.mark), self.path, self.message) if part))


@dataclass(frozen=True, slots=True)
class Warning_:
    """Something accepted but not (fully) acted on. `id` is `<kind>:<path or name>`."""

    kind: str
    path: str
    message: str
    mark: Mark = NOWHERE

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.path}"

    def __str__(self) -> str:
        text = f"{self.id}: {self.message}"
        return one_line(f"{self.mark}: {text}" if self.mark.file else text)


class ComposeError(BadInput):
    """A Compose file cannot be taken; `faults` holds the problems as records, `problems` one line each."""

    code = "compose"

    def __init__(self, faults: Iterable[Problem]) -> None:
        self.faults: tuple[Problem, ...] = tuple(dict.fromkeys(faults))
        lines = [str(fault) for fault in self.faults]
        message = lines[0] if lines else "the Compose file cannot be taken"
        if len(lines) > 1:
            message += f" (and {len(lines) - 1} more)"
        super().__init__(message, lines)


class TooManyProblems(Exception):
    """Raised inside the loader only: reading on would help nobody."""


class Report:
    """Collects the problems and warnings of one load."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: dict[str, Warning_] = {}

    def problem(self, path: str, message: str, mark: Mark = NOWHERE) -> None:
        self.problems.append(Problem(path, message, mark))
        if len(self.problems) >= PROBLEMS_MAX:
            raise TooManyProblems

    def warn(self, kind: str, path: str, message: str, mark: Mark = NOWHERE) -> None:
        warning = Warning_(kind, path, message, mark)
        self.warnings.setdefault(warning.id, warning)

    def raise_if_any(self) -> None:
        if self.problems:
            raise ComposeError(self.problems)


def one_line(text: str) -> str:
    """`text` with what would break or colour a line written out: a name in a file may hold anything."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def show(value: object, width: int = 60) -> str:
    """`value` as a person would recognise it from the file, cut to `width` characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "...'"


def near(word: str, known: Sequence[str]) -> str:
    """A suffix like ` (did you mean 'ports'?)`, or nothing."""
    from difflib import get_close_matches

    found = get_close_matches(word.lower()[:80], known, n=1, cutoff=0.7)
    return f" (did you mean '{found[0]}'?)" if found else ""
