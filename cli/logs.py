"""`shoal logs`: what replicas wrote to stdout and stderr."""

from __future__ import annotations

import base64
import datetime as dt
import re
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import click

from cli.client import Client
from cli.connect import connected
from model.errors import BadInput, NotFound

_AGO: Final = re.compile(r"(\d+)([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def follow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that prints logs."""
    for option in (
        click.option("-t", "--timestamps", is_flag=True, help="the time before each line"),
        click.option("--since", default="", help="only newer than this: 10m, 2h, or 2026-01-31T12:00:00Z"),
        click.option("-n", "--tail", default="all", help="only the last N lines of each replica"),
        click.option("-f", "--follow", is_flag=True, help="go on as more is written"),
    ):
        command = option(command)
    return command


@click.command("logs", help="Logs of a replica, a single container, or all replicas of a service.")
@click.argument("name")
@follow_options
def logs_command(name: str, follow: bool, tail: str, since: str, timestamps: bool) -> None:
    with connected() as client:
        path, several = logs_path(client, name)
        print_logs(client, path, follow, tail, since, timestamps, name=several)


def logs_path(client: Client, name: str) -> tuple[str, bool]:
    """Where the logs of a service or replica are, and whether lines need the replica's name."""
    try:
        service = client.get(f"/v1/services/{name}")
        return f"/v1/services/{name}/logs", not service.get("single", False)
    except NotFound:
        return f"/v1/replicas/{name}/logs", False


def print_logs(client: Client, path: str, follow: bool, tail: str, since: str, timestamps: bool, *, name: bool) -> None:
    """Stream the lines to stdout and stderr as the containers wrote them."""
    number = parse_tail(tail)
    for row in client.lines(path, follow=follow, tail=number, since=parse_since(since), timestamps=timestamps):
        if problem := row.get("error"):
            click.echo(f"shoal: {problem}", err=True)
            continue
        stream = sys.stderr.buffer if row["stream"] == "stderr" else sys.stdout.buffer
        stream.write(prefix(row, name, timestamps) + line_bytes(row))
        stream.flush()


def prefix(row: Any, name: bool, timestamps: bool) -> bytes:
    parts = [f"{row['replica']}@{row['node']} | "] if name else []
    if timestamps:
        parts.append(dt.datetime.fromtimestamp(row["at_ns"] / 1e9, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ "))
    return "".join(parts).encode()


def line_bytes(row: Any) -> bytes:
    """The line as written; bytes that are no text come as base64."""
    data = base64.b64decode(row["base64"]) if "base64" in row else str(row["line"]).encode()
    return data if data.endswith(b"\n") else data + b"\n"


def parse_tail(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise BadInput(f"--tail {text}: expected a number or `all`")
    return int(text)


def parse_since(text: str) -> int | None:
    """Unix milliseconds of `10m` (ago) or an RFC 3339 time."""
    if not text:
        return None
    if match := _AGO.fullmatch(text):
        return int((time.time() - int(match[1]) * _SECONDS[match[2]]) * 1000)
    try:
        return int(dt.datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        raise BadInput(f"--since {text}: expected 30s, 10m, 2h, 1d or a time such as 2026-01-31T12:00:00Z") from None
