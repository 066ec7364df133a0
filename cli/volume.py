"""`shoal volume`: named volumes, wherever they are."""

from __future__ import annotations

import sys
from typing import Final

import click

from cli.connect import connected
from cli.output import field, listing, output_option, show
from model.errors import BadInput

COLUMNS: Final = (
    ("NAME", field("name")),
    ("DRIVER", field("driver")),
    ("NODES", field("nodes")),
    ("IN USE BY", field("in_use_by")),
    ("+STACK", field("stack")),
    ("+LABELS", field("labels")),
)


@click.group("volume", help="List, inspect, remove and prune volumes.")
def volume_command() -> None:
    """The group."""


@volume_command.command("ls", help="List volumes.")
@click.option("-q", "--quiet", is_flag=True, help="names only")
@output_option
def list_volumes(quiet: bool, output: str) -> None:
    with connected() as client:
        listing(client.get("/v1/volumes"), COLUMNS, output, quiet="name" if quiet else "")


@volume_command.command("inspect", help="Everything about volumes, as JSON.")
@click.argument("volume", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json")
def inspect_volume(volume: tuple[str, ...], output: str) -> None:
    with connected() as client:
        show([client.get(f"/v1/volumes/{name}") for name in volume], output)


@volume_command.command("rm", help="Remove volumes with all their data; refused while they are in use.")
@click.argument("volume", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="no error when there is none of that name")
def remove(volume: tuple[str, ...], force: bool) -> None:
    with connected() as client:
        for name in volume:
            client.delete(f"/v1/volumes/{name}", force=force)
            click.echo(name)


@volume_command.command("prune", help="Remove every volume that no replica uses.")
@click.option("-a", "--all", "every", is_flag=True, help="named ones too, not only anonymous ones")
@click.option("-f", "--force", is_flag=True, help="do not ask")
def prune(every: bool, force: bool) -> None:
    what = "every volume that no replica uses" if every else "every anonymous volume that no replica uses"
    if not force:
        if not sys.stdin.isatty():
            raise BadInput("volume prune asks first, and here is no terminal to ask on: -f does not ask")
        if not click.confirm(f"This removes {what}, with all data. Go on?"):
            return
    with connected() as client:
        for name in client.post("/v1/volumes/prune", {"all": every})["removed"]:
            click.echo(name)
