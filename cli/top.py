"""`shoal top`: services and nodes as they are now, second by second.

Rules: what is shown is pure text out of one event of the stream; the terminal is put back as it was, whatever happens. Without
a terminal, or when asked to, it is one snapshot.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import click

from cli.client import Client
from cli.connect import connected
from cli.fitting import fitted, shortened
from cli.output import Column, ago, human_bytes, show, stamp
from cli.output import field as text_of
from model.errors import ShoalError, Unavailable

Event = Mapping[str, Any]
Shown = Literal["services", "nodes"]
WIDE: Final = 1_000
"""Columns where there is no screen: everything."""


def number(name: str, digits: int = 1) -> Callable[[Any], str]:
    """A number of a row; nothing where nobody has spoken."""
    return lambda row: "-" if row.get(name) is None else f"{row[name]:.{digits}f}"


def size(name: str) -> Callable[[Any], str]:
    return lambda row: human_bytes(row.get(name))


def share(part: str, whole: str, digits: int) -> Callable[[Any], str]:
    """`0.52/2.00`."""
    return lambda row: f"{number(part, digits)(row)}/{row[whole]:.{digits}f}"


def of_bytes(part: str, whole: str) -> Callable[[Any], str]:
    return lambda row: f"{human_bytes(row.get(part))}/{human_bytes(row.get(whole))}"


def decided(row: Any) -> str:
    """The autoscaler's last decision: `1 -> 3, 12s ago`."""
    last = row.get("decision")
    return f"{last['before']:,} -> {last['wanted']:,}, {ago(stamp(last['at_ms']))}" if last else "-"


def decided_why(row: Any) -> str:
    last = row.get("decision")
    return f"{ago(stamp(last['at_ms']))}: {last['sentence']}" if last else "-"


COLUMNS: Final[dict[Shown, tuple[Column, ...]]] = {
    "services": (
        ("SERVICE", text_of("name")),
        ("REPLICAS", lambda row: f"{row['running']}/{row['wanted']}"),
        ("CPU", number("cpu_cores", 2)),
        ("MEMORY", size("memory_bytes")),
        ("CONN/S", number("connections_per_s")),
        ("OPEN", number("open", 0)),
        ("IN/S", size("in_bytes_per_s")),
        ("OUT/S", size("out_bytes_per_s")),
        ("LAST SCALED", decided),
    ),
    "nodes": (
        ("NODE", text_of("name")),
        ("STATE", text_of("state")),
        ("REPLICAS", text_of("replicas")),
        ("CPU", share("cpu_cores", "cpus", 2)),
        ("MEMORY", of_bytes("memory_bytes", "memory_limit_bytes")),
        ("RX/S", size("rx_bytes_per_s")),
        ("TX/S", size("tx_bytes_per_s")),
        ("READ/S", size("read_bytes_per_s")),
        ("WRITE/S", size("write_bytes_per_s")),
        ("DISK", of_bytes("disk_used_bytes", "disk_bytes")),
    ),
}
LEAST: Final[dict[Shown, tuple[tuple[str, ...], ...]]] = {
    "services": (("IN/S", "OUT/S"), ("OPEN",), ("MEMORY",), ("LAST SCALED",)),
    "nodes": (("READ/S", "WRITE/S"), ("RX/S", "TX/S"), ("DISK",), ("STATE",)),
}
"""What a narrow screen goes without, the first ones first."""
LONG: Final[dict[Shown, Column | None]] = {"services": ("LAST SCALED", decided_why), "nodes": None}
SORTS: Final[dict[Shown, tuple[tuple[str, str], ...]]] = {
    "services": (
        ("cpu", "cpu_cores"), ("memory", "memory_bytes"), ("connections", "connections_per_s"), ("open", "open"), ("name", ""),
    ),
    "nodes": (("cpu", "cpu_cores"), ("memory", "memory_bytes"), ("name", "")),
}  # fmt: skip
"""What a person calls it, and the field; the largest first. The last: by name."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is shown, and in which order each kind."""

    shown: Shown = "services"
    sorts: Mapping[Shown, int] = field(default_factory=lambda: {"services": 0, "nodes": 0})

    @property
    def sort(self) -> tuple[str, str]:
        return SORTS[self.shown][self.sorts[self.shown]]


def pressed(look: Look, key: str) -> Look | None:
    """The look after a key; None: enough."""
    match key:
        case "q" | "Q" | "\x03" | "\x04":
            return None
        case "n":
            return replace(look, shown="services" if look.shown == "nodes" else "nodes")
        case "s":
            after = (look.sorts[look.shown] + 1) % len(SORTS[look.shown])
            return replace(look, sorts={**look.sorts, look.shown: after})
    return look


def ordered(rows: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """The largest of `name` first, then by name; who has not spoken comes last."""
    return sorted(rows, key=lambda row: (-(row.get(name) or 0.0) if name else 0.0, row.get(name) is None, row["name"]))


def screen(event: Event, look: Look, columns: int, lines: int) -> list[str]:
    """The whole screen, no line longer and not more of them than there is room for."""
    services, nodes = event["services"], event["nodes"]
    running = sum(row["running"] for row in services)
    used = sum(row.get("cpu_cores") or 0.0 for row in nodes)
    ready = sum(row["state"] == "ready" for row in nodes)
    head = (
        f"{stamp(event['at_ms'])[11:19]}  services {len(services)}, replicas {running}, nodes ready {ready}/{len(nodes)}, "
        f"CPUs in use {used:.2f}/{sum(row['cpus'] for row in nodes):g}"
    )
    other = "nodes" if look.shown == "services" else "services"
    rows = ordered(event[look.shown], look.sort[1])
    body, hidden = fitted(rows, COLUMNS[look.shown], columns, LEAST[look.shown], LONG[look.shown])
    wider = f"    wider: {', '.join(hidden)}" if hidden else ""
    keys = f"{look.shown} by {look.sort[0]}    q quit, s sort, n {other}{wider}"
    return [*(shortened(line, columns) for line in (head, keys, "")), *body][:lines]


@click.command("top", help="Services and nodes live. Keys: q quits, s sorts, n shows nodes or services.")
@click.option("--once", is_flag=True, help="print one snapshot and end")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="other than table: once")
def top_command(once: bool, output: str) -> None:
    if output == "table" and not once and sys.stdin.isatty() and sys.stdout.isatty():
        follow(connected())  # its thread reads until the process ends
        return
    with connected() as client:
        event = snapshot(client)
    if output != "table":
        show(event, output)
        return
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
    for kind in ("nodes", "services"):
        rows = ordered(event[kind], SORTS[kind][0][1])
        lines, _ = fitted(rows, COLUMNS[kind], columns, LEAST[kind], LONG[kind])
        click.echo("\n".join(lines) + ("\n" if kind == "nodes" else ""))


def snapshot(client: Client) -> Event:
    for event in client.events("/v1/stream"):
        found: Event = event
        return found
    raise Unavailable("nothing was measured yet: try again in a second")


class Stream:
    """The newest event, read by a thread; `fd` can be read when there is another one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.newest: Event | None = None
        self.problem: ShoalError | None = None
        self.fd, self._told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while self.problem is None:
            try:
                for event in self._client.events("/v1/stream", follow=True):
                    self.newest = event
                    self._tell()
                time.sleep(1.0)  # the lead has gone to another controller
            except ShoalError as error:
                self.problem = error
                self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._told, b".")

    def taken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 4096)


def follow(client: Client) -> None:
    """Until somebody has seen enough."""
    stream, look, stdin = Stream(client), Look(), sys.stdin.fileno()
    with _full_screen():
        while True:
            ready, _, _ = select.select([stdin, stream.fd], [], [], 1.0)
            if stream.fd in ready:
                stream.taken()
            if stream.problem is not None:
                raise stream.problem
            if stdin in ready:
                after = pressed(look, os.read(stdin, 1).decode(errors="replace"))
                if after is None:
                    return
                look = after
            _draw(stream.newest, look)


def _draw(event: Event | None, look: Look) -> None:
    found = shutil.get_terminal_size()
    lines = screen(event, look, found.columns, found.lines - 1) if event is not None else ["waiting for the first second"]
    sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines) + "\x1b[J")
    sys.stdout.flush()


@contextlib.contextmanager
def _full_screen() -> Iterator[None]:
    before = termios.tcgetattr(sys.stdin)
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
