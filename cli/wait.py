"""Waiting until services run as wanted, with a live line on a terminal.

Rules: blocking queries, never faster than the answers come nor than ten times a second. What cannot succeed (a rejected
replica) ends the waiting after a moment with its message; a time-out says what is still missing and why.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from cli.client import Client
from model.errors import Unavailable

_PAUSE_S: Final = 0.1
_REJECTED_S: Final = 5.0
_ENDED: Final = ("complete",)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one service is: `done` of `wanted` at the newest version; `others`: replicas still to go away."""

    service: str
    done: int
    wanted: int
    others: int
    trouble: tuple[str, ...] = ()
    rejected: bool = False

    def complete(self) -> bool:
        return self.done == self.wanted and not self.others

    def words(self) -> str:
        more = f" (+{self.others} going)" if self.others else ""
        return f"{self.service} {self.done}/{self.wanted}{more}"


def progress(service: Mapping[str, Any], replicas: Sequence[Mapping[str, Any]]) -> Progress:
    """Progress of one service from its row and the rows of its replicas."""
    mine = [row for row in replicas if row["service"] == service["name"]]
    wanted_rows = [row for row in mine if row["desired"] == "running"]
    newest = [row for row in wanted_rows if row["version"] == service["version"]]
    done = sum(row["state"] == "running" or row["state"] in _ENDED for row in newest)
    live = ("running", "starting", "preparing")
    others = sum(row["state"] in live for row in mine) - sum(row["state"] in live for row in newest)
    trouble = [
        f"{row['name']}: {row['state']}{': ' + row['message'] if row['message'] else ''}" for row in newest if is_trouble(row)
    ]
    rejected = any(row["state"] == "rejected" for row in newest)
    return Progress(service["name"], done, service["wanted"], others, tuple(trouble), rejected)


def is_trouble(row: Mapping[str, Any]) -> bool:
    return row["state"] in ("failed", "rejected") or (row["state"] == "pending" and bool(row["message"]))


def until_running(client: Client, names: Collection[str], *, timeout_s: float, stack: str = "", quiet: bool = False) -> None:
    """Return when every named service runs as wanted. Raises Unavailable at the time-out or when it cannot."""
    if not names:
        return
    line = LiveLine(quiet)
    end, rejected_since = time.monotonic() + timeout_s, 0.0
    client.index = 0
    while True:
        found = snapshot(client, names, stack)
        line.show(told(found))
        now = time.monotonic()
        if all(item.complete() for item in found):
            line.done()
            return
        rejected_since = (rejected_since or now) if any(item.rejected for item in found) else 0.0
        if now > end or (rejected_since and now - rejected_since > _REJECTED_S):
            line.done()
            raise Unavailable(summary(found, timeout_s if now > end else 0))
        time.sleep(_PAUSE_S)


def snapshot(client: Client, names: Collection[str], stack: str) -> list[Progress]:
    index = client.index
    only = next(iter(names)) if len(names) == 1 else None
    replicas = client.get(
        "/v1/replicas", stack=stack or None, service=only, all=True, index=index or None, wait=1 if index else None
    )
    seen = client.index
    services = client.get("/v1/services", stack=stack or None)
    client.index = seen
    return [progress(row, replicas) for row in services if row["name"] in names]


def told(found: Sequence[Progress]) -> str:
    """The line shown while waiting: how far each service is, and the first reason why one is not further."""
    reasons = [reason for item in found for reason in item.trouble]
    return ", ".join(item.words() for item in found) + (f"; {reasons[0]}" if reasons else "")


def summary(found: Sequence[Progress], timeout_s: float) -> str:
    """One line: what is missing and the first reasons."""
    missing = ", ".join(item.words() for item in found if not item.complete())
    reasons = [reason for item in found for reason in item.trouble]
    why = f": {'; '.join(reasons[:3])}" if reasons else ""
    after = f"after {timeout_s:.0f} s " if timeout_s else ""
    return f"{after}not running as wanted: {missing}{why}; see `shoal ps` and `shoal explain NAME`"


class LiveLine:
    """One line that is rewritten on a terminal; elsewhere a line whenever it changes, at most one a second."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._last = ""
        self._at = 0.0

    def show(self, text: str) -> None:
        now = time.monotonic()
        if self._quiet or text == self._last or (not self._terminal and now - self._at < 1):
            return
        self._last, self._at = text, now
        if self._terminal:
            width = shutil.get_terminal_size().columns
            click.echo("\r\x1b[2K" + text[: max(20, width - 1)], nl=False, err=True)
        else:
            click.echo(text, err=True)

    def done(self) -> None:
        if self._terminal and self._last and not self._quiet:
            click.echo("", err=True)
