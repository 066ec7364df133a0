"""`shoal inspect`: everything about one thing, whatever it is."""

from __future__ import annotations

from typing import Any, Final

import click

from cli.client import Client
from cli.connect import connected
from cli.output import show
from model.errors import NotFound

_KINDS: Final = ("replicas", "services", "nodes", "volumes", "networks", "stacks")


@click.command("inspect", help="Everything about replicas, services, nodes, volumes, networks or stacks, as JSON.")
@click.argument("name", nargs=-1, required=True)
@click.option("--type", "kind", type=click.Choice([kind.rstrip("s") for kind in _KINDS]), help="only look for this kind")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json")
def inspect_command(name: tuple[str, ...], kind: str | None, output: str) -> None:
    kinds = (f"{kind}s",) if kind else _KINDS
    with connected() as client:
        show([find(client, each, kinds) for each in name], output)


def find(client: Client, name: str, kinds: tuple[str, ...]) -> Any:
    """The first thing of that name."""
    for kind in kinds:
        try:
            found = client.get(f"/v1/{kind}/{name}")
        except NotFound:
            continue
        if kind == "networks":
            from cli.network_words import docker_network

            return docker_network(found)
        return found
    raise NotFound(f"{name}: nothing has this name (looked for {', '.join(kinds)})")
