"""Removing stacks and single containers, and waiting until nothing of them runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from cli.client import Client
from cli.output import counted
from cli.wait import LiveLine
from model.errors import Unavailable

_WAIT_S: Final = 60.0


def remove_stacks(client: Client, stacks: Sequence[str], *, volumes: bool, wait: bool) -> None:
    """Remove them all, then wait; prints each name when it is gone."""
    for name in stacks:
        client.delete(f"/v1/stacks/{name}", volumes=volumes)
    for name in stacks:
        if wait:
            until_gone(client, lambda row, name=name: row["stack"] == name, name, stack=name)  # type: ignore[misc]
        click.echo(name)


def until_gone(client: Client, mine: Callable[[Any], bool], what: str, **query: Any) -> None:
    """Until no row of `/v1/replicas?all` is `mine`, or only on nodes that are lost."""
    line = LiveLine()
    end = time.monotonic() + _WAIT_S
    while True:
        left = [row for row in client.get("/v1/replicas", all=True, **query) if mine(row) and row["state"] != "lost"]
        if not left:
            line.done()
            return
        line.show(f"{what}: {counted(len(left))} left")
        if time.monotonic() > end:
            names = ", ".join(row["name"] for row in left[:5])
            raise Unavailable(f"{what}: after {_WAIT_S:.0f} s {counted(len(left))} still there ({names}): see `shoal ps -a`")
        time.sleep(0.1)
