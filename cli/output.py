"""How commands print: a table for people (`wide` with more columns), JSON or YAML for programs.

Rules: a listing is a list of plain objects; the table is a choice of their fields. Nothing is cut off; colours only on a
terminal and only for states.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], Any]]
"""A heading and how its cell is made of a row. A heading that begins with `+` is shown with `-o wide` only."""

_COLOURS: Final = {
    "running": "green", "ready": "green", "complete": "green", "failed": "red", "rejected": "red", "down": "red", "lost": "red",
    "unreachable": "yellow", "pending": "yellow", "drain": "yellow", "pause": "yellow",
}  # fmt: skip

output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "wide", "json", "yaml"]), default="table", help="how to print it"
)
text_option = click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text")


def show(data: Any, output: str) -> None:
    """`data` as JSON or YAML."""
    click.echo(as_yaml(data) if output == "yaml" else json.dumps(data, indent=2, ensure_ascii=False))


def as_yaml(data: Any) -> str:
    import yaml

    return yaml.dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120).rstrip()


def explanation(found: Mapping[str, Any], output: str) -> None:
    """A sentence, the lines below it and what happened, as an `explain` answers them."""
    if output != "text":
        show(found, output)
        return
    click.echo(found["sentence"])
    for line in found.get("lines", ()):
        click.echo(f"  {line}")
    for event in found.get("events", ()):
        click.echo(f"  {stamp(event['at_ms'])}  {event['sentence']}")


def listing(rows: Sequence[Row], columns: Sequence[Column], output: str, *, quiet: str = "") -> None:
    """Print rows as `output` says; with `quiet` only that field, a line each."""
    if quiet:
        for row in rows:
            click.echo(row[quiet])
    elif output in ("json", "yaml"):
        show(list(rows), output)
    else:
        click.echo(table(rows, columns, wide=output == "wide"))


def table(rows: Sequence[Row], columns: Sequence[Column], *, wide: bool = False) -> str:
    """Aligned columns with a heading."""
    chosen = [(title.lstrip("+"), cell) for title, cell in columns if wide or not title.startswith("+")]
    cells = [[title for title, _ in chosen]] + [[text(cell(row)) for _, cell in chosen] for row in rows]
    widths = [max(len(line[number]) for line in cells) for number in range(len(chosen))]
    return "\n".join(_line(line, widths) for line in cells)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)]
    return "   ".join(_coloured(cell, pad) for cell, pad in zip(cells, padded, strict=True)).rstrip()


def _coloured(cell: str, padded: str) -> str:
    colour = _COLOURS.get(cell)
    return click.style(padded, fg=colour) if colour and sys.stdout.isatty() else padded


def text(value: Any) -> str:
    """One cell: lists joined, nothing as `-`."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items())
    return " ".join(str(value).splitlines())


def field(name: str) -> Callable[[Row], Any]:
    return lambda row: row.get(name)


def age(name: str) -> Callable[[Row], str]:
    """`3m ago` of an RFC 3339 field."""
    return lambda row: ago(row.get(name) or "")


def ago(stamp: str) -> str:
    if not stamp:
        return "-"
    seconds = max(0, int((dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(stamp)).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"


def stamp(at_ms: int) -> str:
    """A point in time as `2026-01-31T12:00:00.000Z`."""
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def command_words(words: Sequence[str]) -> list[str]:
    """The command after a name: a leading `--` only parts it from our own options."""
    return list(words[1:] if words[:1] == ("--",) and len(words) > 1 else words)


def counted(number: int) -> str:
    return f"{number} replica{'' if number == 1 else 's'}"


def human_bytes(size: Any) -> str:
    """1,536 -> `1.5KiB`; nothing as `-`."""
    if not size:
        return "-"
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f}{unit}" if unit == "B" or number >= 100 else f"{number:.1f}{unit}"
        number /= 1024
    return f"{number:.1f}TiB"
