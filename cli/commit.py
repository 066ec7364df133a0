"""`shoal commit`: an image of what a container wrote, as `docker commit`."""

from __future__ import annotations

import click

from cli.connect import connected


@click.command("commit", help="Make an image of a container, on its node: what it wrote becomes one more layer.")
@click.argument("container")
@click.argument("name", default="", metavar="[NAME[:TAG]]")
@click.option("-a", "--author", default="", help="who made it: 'Ana <ana@example.org>'")
@click.option("-m", "--message", default="", help="a word on what was changed")
@click.option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="of a Dockerfile: 'ENV A=1'")
@click.option("--pause", type=bool, default=True, metavar="true|false", help="it stands still while it is read (default: true)")
def commit_command(container: str, name: str, author: str, message: str, changes: tuple[str, ...], pause: bool) -> None:
    body = {"name": name, "author": author, "message": message, "changes": list(changes), "pause": pause}
    with connected() as client:
        click.echo(client.call("POST", f"/v1/replicas/{container}/commit", body, patient=True)["id"])
