"""`shoal apply` and `shoal plan`: Compose files in, a running stack (or what would change) out.

Rules: files and variables are read here, where they are; the controller gets the resolved model and checks it again. `plan`
exits with 2 when something would change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from cli.connect import connected
from cli.output import show, text_option
from cli.service import timeout_option, wait_option
from cli.wait import until_running
from model.errors import BadInput

_SIGNS: Final = {"create": "+", "remove": "-", "update": "~", "scale": "~"}


def compose_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that reads Compose files."""
    for option in (
        text_option,
        click.option("--strict", is_flag=True, help="what shoal does not do yet is an error, not a warning"),
        click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="variables from FILE instead of .env"),
        click.option("--profile", "profiles", multiple=True, metavar="NAME", help="also services of this profile"),
        click.option(
            "-p",
            "--project-name",
            "--stack",
            "name",
            metavar="NAME",
            help="name of the stack (default: the file's or folder's)",
        ),
        click.option(
            "-f", "--file", "files", multiple=True, metavar="FILE", help="Compose file; several are laid over another"
        ),
    ):
        command = option(command)
    return command


def load(files: tuple[str, ...], name: str | None, profiles: tuple[str, ...], env_files: tuple[str, ...], strict: bool) -> Any:
    """The resolved project; warnings go to stderr."""
    from cli.compose_files import load_compose

    loaded = load_compose(files, project_name=name, profiles=profiles, env_files=env_files, strict=strict)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    if not loaded.project.get("services"):
        raise BadInput("the Compose files name no service: nothing to run (profiles that are not chosen do not count)")
    return loaded.project


@click.command("apply", help="Make the cluster run what Compose files say; waits until it does.")
@compose_options
@click.option("--no-prune", is_flag=True, help="keep services that the files no longer name")
@wait_option
@timeout_option
def apply_command(
    files: tuple[str, ...],
    name: str | None,
    profiles: tuple[str, ...],
    env_files: tuple[str, ...],
    strict: bool,
    output: str,
    no_prune: bool,
    no_wait: bool,
    timeout: float,
) -> None:
    project = load(files, name, profiles, env_files, strict)
    stack = project["name"]
    with connected() as client:
        answer = client.put(f"/v1/stacks/{stack}", project, prune="false" if no_prune else "true")
        if output == "text":
            print_changes(answer["changes"])
        if not no_wait:
            names = [row["name"] for row in client.get("/v1/services", stack=stack) if is_long_running(row)]
            until_running(client, names, timeout_s=timeout, stack=stack, quiet=output != "text")
    if output != "text":
        show(answer, output)
    elif not no_wait:
        click.echo(f"stack {stack} is running")


def is_long_running(row: Any) -> bool:
    return not str(row["mode"]).endswith("-job")


@click.command("plan", help="What apply would change, and where each replica would go. Exits 2 when something would change.")
@compose_options
@click.pass_context
def plan_command(
    ctx: click.Context,
    files: tuple[str, ...],
    name: str | None,
    profiles: tuple[str, ...],
    env_files: tuple[str, ...],
    strict: bool,
    output: str,
) -> None:
    project = load(files, name, profiles, env_files, strict)
    with connected() as client:
        answer = client.post(f"/v1/stacks/{project['name']}/plan", project)
    changes = [row for row in answer["changes"] if row["action"] != "none"]
    if output != "text":
        show(answer, output)
    else:
        print_changes(answer["changes"])
        for row in answer["placements"]:
            click.echo(f"  {row['replica']} -> {row['node']}{' (' + row['reason'] + ')' if row.get('reason') else ''}")
        for row in answer["waiting"]:
            click.echo(f"  {row['replica']} would wait: {row['reason']}")
        for row in answer["published"]:
            click.echo(f"  {row['service']} would be published: {row['port']}")
        if not changes:
            click.echo("nothing would change")
    ctx.exit(2 if changes else 0)


def print_changes(changes: list[Any]) -> None:
    for row in changes:
        if row["action"] in _SIGNS:
            detail = f": {row['sentence']}" if row.get("sentence") else ""
            click.echo(f"{_SIGNS[row['action']]} {row['kind']} {row['name']}{detail}")
