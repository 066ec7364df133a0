"""`shoal registry`: a registry of one's own, as an ordinary stack of one service.

Rules: what is made is a Compose project (registry_project.py) that every other command knows; nothing about it is kept here. A
password is hashed on this machine and leaves it as a hash only.
"""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from cli.apply import print_changes
from cli.client import Client
from cli.connect import connected
from cli.output import field, listing, output_option
from cli.registry_project import DATA, LOGINS, SERVICE, check_login, registry_project, users
from cli.removal import remove_stacks
from cli.service import timeout_option, wait_option
from cli.wait import until_running
from model.errors import BadInput, Conflict, NotFound, Unavailable

_PAUSE_S: Final = 0.1
COLUMNS: Final = (
    ("NAME", field("name")),
    ("STATE", field("state")),
    ("NODE", field("node")),
    ("IMAGES AS", field("images_as")),
    ("VOLUMES", field("volumes")),
    ("USERS", lambda row: ", ".join(row["users"]) or "everybody"),
    ("MESSAGE", field("message")),
)
PORT: Final = 5000


@dataclass(frozen=True, slots=True)
class Settings:
    """What people choose of a registry. `volume` empty: the stack's own; `logins`: lines of htpasswd, empty: everybody."""

    port: int = PORT
    volume: str = ""
    logins: str = ""


name_option = click.option("--name", default="registry", show_default=True, help="of the stack")


@click.group("registry", help="A registry of one's own on the cluster: start, show and remove it.")
def registry_command() -> None:
    """The group."""


@registry_command.command("up", help="Run a registry that answers on every node; images are pushed as localhost:PORT/NAME.")
@name_option
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="published on every node (default: 5000)")
@click.option("--volume", default="", metavar="VOLUME", help="for its images (default: NAME_data)")
@click.option("--user", default="", help="only who logs in so may push and pull; asks for the password")
@click.option("--password-stdin", is_flag=True, help="take it from stdin")
@wait_option
@timeout_option
def up(name: str, port: int | None, volume: str, user: str, password_stdin: bool, no_wait: bool, timeout: float) -> None:
    asked = htpasswd_line(user, _password(password_stdin)) if user else ""
    if password_stdin and not user:
        raise BadInput("--password-stdin is for the password of --user NAME")
    with connected() as client:
        refuse_others(name, [row["name"] for row in client.get("/v1/services", stack=name)])
        now = settings_now(client, name)
        port = port or now.port
        project = registry_project(name, port, volume or now.volume, asked or now.logins)
        print_changes(client.put(f"/v1/stacks/{name}", project, prune="true")["changes"])
        if not no_wait:
            until_running(client, [f"{name}_{SERVICE}"], timeout_s=timeout, stack=name)
            until_healthy(client, f"{name}_{SERVICE}", timeout)
    click.echo(f"registry {name}: images are pushed as localhost:{port}/NAME")


@registry_command.command("down", help="Remove it; its images stay in its volume unless --volumes is given.")
@name_option
@click.option("--volumes", is_flag=True, help="its images too")
@click.option("--no-wait", is_flag=True)
def down(name: str, volumes: bool, no_wait: bool) -> None:
    with connected() as client:
        _service(client, name)
        refuse_others(name, [row["name"] for row in client.get("/v1/services", stack=name)])
        remove_stacks(client, [name], volumes=volumes, wait=not no_wait)


@registry_command.command("status", help="Where it runs, under which name images are pushed, who may use it.")
@name_option
@output_option
def status(name: str, output: str) -> None:
    with connected() as client:
        service = _service(client, name)
        replicas = client.get("/v1/replicas", service=f"{name}_{SERVICE}")
        listing([status_row(name, service, client.get(f"/v1/stacks/{name}"), replicas)], COLUMNS, output)


def status_row(name: str, service: Any, stack: Any, replicas: Any) -> dict[str, Any]:
    """Of the API's rows of the service, its stack and its replicas."""
    replica: dict[str, Any] = next((row for row in replicas if row["desired"] == "running"), {})
    return {
        "name": name,
        "state": replica.get("health") or replica.get("state", "pending"),
        "node": replica.get("node", ""),
        "images_as": [f"localhost:{port['published']}" for port in service["ports"] if port.get("published")],
        "volumes": [row["name"] for row in stack["volumes"]],
        "users": users(settings_of(service).logins),
        "message": replica.get("message", ""),
    }


def until_healthy(client: Client, service: str, timeout_s: float) -> None:
    """Return once it answers: whoever runs `up` pushes next. Raises Unavailable."""
    end = time.monotonic() + timeout_s
    while not any(row["health"] == "healthy" for row in client.get("/v1/replicas", service=service)):
        if time.monotonic() > end:
            raise Unavailable(f"{service} runs, but does not answer: see `shoal service logs {service}`")
        time.sleep(_PAUSE_S)


def refuse_others(name: str, services: Sequence[str]) -> None:
    """Raises Conflict when the stack is somebody's own: it would lose these services."""
    if others := [each for each in services if each != f"{name}_{SERVICE}"]:
        raise Conflict(f"stack {name} is not only a registry: it has {others[0]}: choose another name with --name")


def settings_now(client: Client, name: str) -> Settings:
    """Of the registry that runs: what `up` is not told stays. Another port must neither open it to everybody nor empty it."""
    try:
        return settings_of(_service(client, name))
    except NotFound:
        return Settings()


def settings_of(service: Any) -> Settings:
    """Of the API's row of the service."""
    container = service["spec"]["container"]
    return Settings(
        next((port["published"] for port in container["ports"] if port.get("published")), PORT),
        next((mount["source"] for mount in container["mounts"] if mount["target"] == DATA), ""),
        str(dict(container.get("env", ())).get(LOGINS, "")),
    )


def _service(client: Client, name: str) -> Any:
    try:
        return client.get(f"/v1/services/{name}_{SERVICE}")
    except NotFound:
        raise NotFound(f"no registry is called {name}: `shoal registry up --name {name}` runs one") from None


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.read().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise BadInput("Cannot ask for a password on a non TTY device: --user NAME --password-stdin")
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        raise BadInput("Password: the two are not the same")
    return password


def htpasswd_line(user: str, password: str) -> str:
    """`ana:$2b$10$..`. Raises BadInput."""
    import bcrypt

    check_login(user, password)
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()}"
