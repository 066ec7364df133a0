"""What a checker finds wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

VIOLATIONS_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Violation:
    """`rule`: the checker's word for it. `about`: whose story tells more (`service/web`, `node/n1`, `controller/c1`)."""

    at_s: float
    rule: str
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.at_s:8.3f} s  {self.rule}: {self.about}: {self.text}"


class Verdicts:
    """What was found, the first of each (rule, about) only, in the order of time. `on_first` is told of the very first one at
    that moment."""

    def __init__(self) -> None:
        self.found: list[Violation] = []
        self.on_first: Callable[[Violation], None] = lambda _: None
        self._known: dict[tuple[str, str], None] = {}

    def add(self, at_s: float, rule: str, about: str, text: str) -> None:
        if (rule, about) not in self._known and len(self.found) < VIOLATIONS_MAX:
            self._known[rule, about] = None
            self.found.append(Violation(at_s, rule, about, text))
            if len(self.found) == 1:
                self.on_first(self.found[0])
