"""`shoal exec`: a command in a running replica, with or without a terminal."""

from __future__ import annotations

import click

from cli import context
from cli.client import Client
from cli.output import command_words
from model.errors import Conflict


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="keep stdin open")
@click.option("-t", "--tty", "tty", is_flag=True, help="give it a terminal")
@click.option("-u", "--user", default="", help="user or user:group")
@click.option("-w", "--workdir", default="", help="working directory")
@click.option("-e", "--env", "env", multiple=True, metavar="NAME=VALUE")
@click.option("--privileged", is_flag=True)
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def exec_command(
    ctx: click.Context,
    interactive: bool,
    tty: bool,
    user: str,
    workdir: str,
    env: tuple[str, ...],
    privileged: bool,
    name: str,
    command: tuple[str, ...],
) -> None:
    """Run a command in a running replica (a service with one replica may be named itself)."""
    from cli.terminal import join

    cluster = context.load()
    with Client(cluster) as client:
        replica = running_replica(client, name)
    code = join(
        cluster,
        f"/v1/replicas/{replica}/exec",
        tty_wanted=tty,
        stdin_wanted=interactive,
        cmd=command_words(command),
        user=user or None,
        workdir=workdir or None,
        env=list(env),
        privileged=privileged,
    )
    ctx.exit(code)


def running_replica(client: Client, name: str) -> str:
    """The replica meant by `name`: itself, or any running one of the service of that name."""
    rows = [row for row in client.get("/v1/replicas") if name in (row["name"], row["service"])]
    exact = [row for row in rows if row["name"] == name] or rows
    for row in exact:
        if row["state"] == "running":
            return str(row["name"])
    if exact:
        raise Conflict(f"{exact[0]['name']} is {exact[0]['state']}, not running: see `shoal explain {exact[0]['name']}`")
    return name
