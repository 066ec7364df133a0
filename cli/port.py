"""`shoal port`: where the published ports of a container or service answer, as `docker port` prints it."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from cli.client import Client
from cli.connect import connected
from cli.output import show, text_option
from cli.ports import port_lines
from model.errors import NotFound


@click.command("port", help="Published ports of a container or service: all, or where PORT (80 or 53/udp) answers.")
@click.argument("name", metavar="CONTAINER|SERVICE")
@click.argument("port", default="", metavar="[PORT]")
@text_option
def port_command(name: str, port: str, output: str) -> None:
    with connected() as client:
        rows = published(client, name)
    if output != "text":
        show(rows, output)
        return
    for line in port_lines(rows, port, name):
        click.echo(line)


def published(client: Client, name: str) -> list[Any]:
    """Published ports in force of a service, or of one replica of it."""
    try:
        return list(client.get(f"/v1/services/{name}/ports"))
    except NotFound:
        with contextlib.suppress(NotFound):
            return list(client.get(f"/v1/replicas/{name}/ports"))
        raise NotFound(f"{name}: no container, service or replica has this name: see `shoal ps`") from None
