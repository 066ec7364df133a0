"""`shoal context`: which cluster the command line speaks to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from cli import context
from model.errors import BadInput, NotFound


@click.group("context", help="Choose the cluster to speak to.")
def context_command() -> None:
    """The group."""


@context_command.command("ls", help="Known clusters; the current one carries a star.")
def list_contexts() -> None:
    current = context.current_name()
    for name in context.names():
        click.echo(f"{name}{' *' if name == current else ''}")


@context_command.command("use", help="Make a cluster current.")
@click.argument("name")
def use(name: str) -> None:
    if name not in context.names():
        raise NotFound(f"context {name} is not known: known are {', '.join(context.names()) or 'none'}")
    context.use(name)
    click.echo(name)


@context_command.command("add", help="Learn a cluster from a controller's admin.json and make it current.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", default="", help="another name for it")
def add(file: Path, name: str) -> None:
    try:
        found = context.read(file)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}: copy it from the controller's data directory") from error
    context.save(replace(found, name=name) if name else found)
    click.echo(name or found.name)


@context_command.command("rm", help="Forget a cluster.")
@click.argument("name")
def forget(name: str) -> None:
    context.forget(name)
    click.echo(name)


@context_command.command("show", help="The current cluster and its addresses.")
def show() -> None:
    found = context.load()
    click.echo(f"{found.name}: {', '.join(found.apis)}")
