"""`shoal version`: of this program, and of the cluster when one answers."""

from __future__ import annotations

import click

from cli.connect import connected
from cli.output import show, text_option
from model.errors import ShoalError
from model.version import VERSION


@click.command("version", help="Versions of this program and of the cluster.")
@text_option
def version_command(output: str) -> None:
    found: dict[str, object] = {"client": VERSION}
    try:
        with connected() as client:
            found["server"] = client.get("/v1/version")
    except ShoalError as error:
        found["problem"] = str(error)
    if output != "text":
        show(found, output)
        return
    click.echo(f"shoal {VERSION}")
    server = found.get("server")
    if isinstance(server, dict):
        click.echo(
            f"cluster: version {server.get('version')}, leader {server.get('leader') or 'none'}, epoch {server.get('epoch')}"
        )
    else:
        click.echo(f"cluster: {found['problem']}")
