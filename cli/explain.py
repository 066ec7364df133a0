"""`shoal explain`: why this count, this node, this waiting."""

from __future__ import annotations

import click

from cli.client import Client
from cli.connect import connected
from cli.output import explanation, text_option
from model.errors import NotFound


@click.command("explain", help="Why a service, replica or node is as it is.")
@click.argument("name")
@text_option
def explain_command(name: str, output: str) -> None:
    with connected() as client:
        try:
            found = client.get(f"/v1/services/{name}/explain")
        except NotFound:
            try:
                found = client.get(f"/v1/nodes/{name}/explain")
            except NotFound:
                raise NotFound(unknown(client, name)) from None
    explanation(found, output)


def unknown(client: Client, name: str) -> str:
    """What to explain instead: of a stack its services."""
    services = [row["name"] for row in client.get("/v1/services") if row["stack"] == name]
    if services:
        return f"{name} is a stack: explain one of its services: {', '.join(services)}"
    return f"{name}: no service, replica or node has this name: see `shoal ps` and `shoal node ls`"
