"""`shoal stack`: what Compose files made."""

from __future__ import annotations

from typing import Final

import click

from cli.connect import connected
from cli.output import age, field, listing, output_option, show
from cli.removal import remove_stacks

COLUMNS: Final = (
    ("NAME", field("name")),
    ("SERVICES", field("services")),
    ("REPLICAS", lambda row: f"{row['running']}/{row['wanted']}"),
    ("UPDATED", age("updated")),
)


@click.group("stack", help="List, show and remove stacks.")
def stack_command() -> None:
    """The group."""


@stack_command.command("ls", help="List stacks.")
@click.option("-q", "--quiet", is_flag=True, help="names only")
@output_option
def list_stacks(quiet: bool, output: str) -> None:
    with connected() as client:
        listing(client.get("/v1/stacks"), COLUMNS, output, quiet="name" if quiet else "")


@stack_command.command("inspect", help="Services, networks and volumes of stacks, as JSON.")
@click.argument("stack", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json")
def inspect_stack(stack: tuple[str, ...], output: str) -> None:
    with connected() as client:
        show([client.get(f"/v1/stacks/{name}") for name in stack], output)


@stack_command.command("rm", help="Remove stacks; their volumes stay unless --volumes is given.")
@click.argument("stack", nargs=-1, required=True)
@click.option("--volumes", is_flag=True, help="their named volumes too, with all data")
@click.option("--no-wait", is_flag=True)
def remove(stack: tuple[str, ...], volumes: bool, no_wait: bool) -> None:
    with connected() as client:
        remove_stacks(client, stack, volumes=volumes, wait=not no_wait)
