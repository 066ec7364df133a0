"""`shoal apply` and `shoal plan`: Compose files in, a running stack (or what would change) out.

Rules: files and variables are read here, where they are; the controller gets the resolved model and checks it again. `plan`
exits with 2 when something would change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from cli.connect import connected
from cli.output import show, text_option
from cli.service import timeout_option, wait_option
from cli.wait import until_running
from model.errors import BadInput

if TYPE_CHECKING:
    from cli.compose_build import ServiceBuild

resolve_option = click.option(
    "--resolve-image",
    type=click.Choice(["always", "changed", "never"]),
    default="changed",
    show_default=True,
    help="ask registries what images mean now: all, those new here, none",
)
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
@click.option("--build", "force", is_flag=True, help="build images also when the cluster has them")
@click.option("--build-node", default="", metavar="NODE", help="build on this node (default: the ready one with most free)")
@resolve_option
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
    force: bool,
    build_node: str,
    resolve_image: str,
    no_wait: bool,
    timeout: float,
) -> None:
    project = load(files, name, profiles, env_files, strict)
    builds, project = to_build(project)
    stack = project["name"]
    with connected() as client:
        if builds:
            from cli.compose_build import build_all, missing, to_stderr

            build_all(client, missing(client, builds, force=force), build_node, to_stderr if output != "text" else _say)
        query = {"prune": "false" if no_prune else "true", "resolve_image": resolve_image}
        answer = client.call("PUT", f"/v1/stacks/{stack}", project, query=query, headers=logins_for(project))
        for warning in answer["unpinned"]:
            click.echo(f"warning: {warning}", err=True)
        if output == "text":
            print_changes(answer["changes"])
        if not no_wait:
            names = [row["name"] for row in client.get("/v1/services", stack=stack) if is_long_running(row)]
            until_running(client, names, timeout_s=timeout, stack=stack, quiet=output != "text")
    if output != "text":
        show(answer, output)
    elif not no_wait:
        click.echo(f"stack {stack} is running")


def to_build(project: dict[str, Any]) -> tuple[list[ServiceBuild], dict[str, Any]]:
    """What the project's services have built, and the project with the names of these images."""
    if not any(service.get("build") for service in project["services"].values()):
        return [], project
    from cli.compose_build import builds_of, with_images

    builds = builds_of(project)
    return builds, with_images(project, builds)


def _say(text: str) -> None:
    click.echo(text, nl=False)


def logins_for(project: dict[str, Any]) -> dict[str, str]:
    """The header with what `shoal login` keeps for the registries of the project's images."""
    from cli.registry_headers import registry_config

    return registry_config(str(service["image"]) for service in project["services"].values() if service.get("image"))


def is_long_running(row: Any) -> bool:
    return not str(row["mode"]).endswith("-job")


@click.command("plan", help="What apply would change, and where each replica would go. Exits 2 when something would change.")
@compose_options
@resolve_option
@click.pass_context
def plan_command(
    ctx: click.Context,
    files: tuple[str, ...],
    name: str | None,
    profiles: tuple[str, ...],
    env_files: tuple[str, ...],
    strict: bool,
    output: str,
    resolve_image: str,
) -> None:
    project = load(files, name, profiles, env_files, strict)
    builds, project = to_build(project)
    with connected() as client:
        if builds:
            from cli.compose_build import missing

            builds = missing(client, builds)
        path, query = f"/v1/stacks/{project['name']}/plan", {"resolve_image": resolve_image}
        answer = client.call("POST", path, project, query=query, headers=logins_for(project))
    changes = [row for row in answer["changes"] if row["action"] != "none"]
    if output != "text":
        show(answer, output)
    else:
        print_changes(answer["changes"])
        for each in builds:
            click.echo(f"  {each.image} would be built for service {each.service}")
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
