"""Tables that fit a screen: long names are shortened, then the least important columns left out; no figure is ever cut.

Rules: pure text. The first column is a name. The last one may have a long form, for where the others leave enough room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from cli.output import Column, Row, table, text

GAP: Final = 3
LONG_MIN: Final = 40
"""In less than so much room a sentence says nothing."""
NAME_MAX: Final = 24
NAME_MIN: Final = 8


def fitted(
    rows: Sequence[Row], columns: Sequence[Column], width: int, least: Sequence[Sequence[str]] = (), long: Column | None = None
) -> tuple[list[str], list[str]]:
    """(lines, headings left out). `least`: headings that may go, the first ones first; `long`: in place of the last column."""
    gone: set[str] = set()
    chosen, lines = columns, table(rows, columns).splitlines()
    for group in ((), *least):
        if widest(lines) <= width:
            break
        gone.update(group)
        chosen = [_named(columns[0], NAME_MAX), *(column for column in columns[1:] if column[0] not in gone)]
        lines = table(rows, chosen).splitlines()
    hidden = [title for title, _ in columns if title in gone]
    if (over := widest(lines) - width) > 0:
        chosen = [_named(columns[0], max(NAME_MIN, NAME_MAX - over)), *chosen[1:]]
        return [shortened(line, width) for line in table(rows, chosen).splitlines()], hidden
    left = width - widest(table(rows, chosen[:-1]).splitlines()) - GAP
    if long is not None and long[0] == chosen[-1][0] and left >= LONG_MIN:
        lines = table(rows, [*chosen[:-1], (long[0], lambda row: shortened(text(long[1](row)), left))]).splitlines()
    return lines, hidden


def _named(column: Column, most: int) -> Column:
    return column[0], lambda row: shortened(text(column[1](row)), most)


def widest(lines: Sequence[str]) -> int:
    return max(len(click.unstyle(line)) for line in lines)


def shortened(line: str, width: int) -> str:
    """At most so wide, with an ellipsis for what is left out."""
    plain = click.unstyle(line)
    return line if len(plain) <= width else f"{plain[: max(0, width - 1)]}…"[:width]
