"""`shoal network`: the networks of the cluster (creating and connecting: a later release)."""

from __future__ import annotations

from typing import Final

import click

from cli.connect import connected
from cli.output import field, listing, output_option

COLUMNS: Final = (
    ("NAME", field("name")),
    ("DRIVER", field("driver")),
    ("SUBNET", field("subnet")),
    ("VNI", field("vni")),
    ("NODES", field("nodes")),
    ("+STACK", field("stack")),
)


@click.group("network", help="List networks.")
def network_command() -> None:
    """The group."""


@network_command.command("ls", help="List networks.")
@click.option("-q", "--quiet", is_flag=True, help="names only")
@output_option
def list_networks(quiet: bool, output: str) -> None:
    with connected() as client:
        listing(client.get("/v1/networks"), COLUMNS, output, quiet="name" if quiet else "")
