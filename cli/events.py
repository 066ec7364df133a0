"""`shoal events`: what was decided and seen, each with its sentence."""

from __future__ import annotations

import json
from typing import Any

import click

from cli.connect import connected
from cli.logs import parse_since
from cli.output import stamp


@click.command("events", help="What was decided and seen, oldest first.")
@click.option("-f", "--follow", is_flag=True, help="go on as more happens")
@click.option("--since", default="", help="only newer than this: 10m, 2h, or 2026-01-31T12:00:00Z")
@click.option("--about", default="", help="only about this: service/NAME or node/NAME")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def events_command(follow: bool, since: str, about: str, output: str) -> None:
    with connected() as client:
        for row in client.lines("/v1/events", follow=follow, since=parse_since(since), about=about or None):
            click.echo(json.dumps(row) if output == "json" else event_line(row))


def event_line(row: Any) -> str:
    return f"{stamp(row['at_ms'])}  {row['kind']:<12} {row['about']}: {row['sentence']}"
