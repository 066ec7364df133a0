"""`shoal explain`: why this count, this node, this waiting."""

from __future__ import annotations

import click

from cli.client import Client
from cli.connect import connected
from cli.output import show, stamp
from model.errors import NotFound


@click.command("explain", help="Why a service, replica or node is as it is.")
@click.argument("name")
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text")
def explain_command(name: str, output: str) -> None:
    with connected() as client:
        try:
            found = client.get(f"/v1/services/{name}/explain")
        except NotFound:
            try:
                found = client.get(f"/v1/nodes/{name}/explain")
            except NotFound:
                raise NotFound(unknown(client, name)) from None
    if output != "text":
        show(found, output)
        return
    click.echo(found["sentence"])
    for line in found.get("lines", ()):
        click.echo(f"  {line}")
    for event in found.get("events", ()):
        click.echo(f"  {stamp(event['at_ms'])}  {event['sentence']}")


def unknown(client: Client, name: str) -> str:
    """What to explain instead: of a stack its services."""
    services = [row["name"] for row in client.get("/v1/services") if row["stack"] == name]
    if services:
        return f"{name} is a stack: explain one of its services: {', '.join(services)}"
    return f"{name}: no service, replica or node has this name: see `shoal ps` and `shoal node ls`"
