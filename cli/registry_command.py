"""`shoal registry`: a registry of one's own, as an ordinary stack of one service.

Rules: what is made is a Compose project (registry_project.py) that every other command knows; nothing about it is kept here. A
password is hashed on this machine and leaves it as a hash only; for the key of its certificate see registry_tls.py.
"""

from __future__ import annotations

import datetime as dt
import getpass
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from cli import registry_tls
from cli.apply import logins_for, print_changes
from cli.client import Client
from cli.connect import connected
from cli.output import field, listing, output_option
from cli.registry_project import CERTIFICATE, DATA, LOGINS, SERVICE, TLS_NAMES, check_login, registry_project, users
from cli.registry_tls import Pair
from cli.removal import remove_stacks
from cli.service import timeout_option, wait_option
from cli.wait import until_running
from model.errors import BadInput, Conflict, NotFound, Unavailable
from model.pki_names import registry_name_problem
from model.stamps import utc_text

_PAUSE_S: Final = 0.1
COLUMNS: Final = (
    ("NAME", field("name")),
    ("STATE", field("state")),
    ("NODE", field("node")),
    ("IMAGES AS", field("images_as")),
    ("VOLUMES", field("volumes")),
    ("USERS", lambda row: ", ".join(row["users"]) or "everybody"),
    ("TLS UNTIL", lambda row: (row["tls"] or {}).get("until", "")[:10] or "no TLS"),
    ("MESSAGE", field("message")),
)
PORT: Final = 5000


@dataclass(frozen=True, slots=True)
class Settings:
    """What people choose of a registry. `volume` empty: the stack's own; `logins`: lines of htpasswd, empty: everybody;
    `certificate`: PEM, empty: plain http; `tls_names`: more names for the next certificate, with spaces between."""

    port: int = PORT
    volume: str = ""
    logins: str = ""
    certificate: str = ""
    tls_names: str = ""


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
@click.option("--tls/--no-tls", default=None, help="with a certificate of the cluster's CA (see `shoal registry ca`)")
@click.option("--tls-name", multiple=True, metavar="NAME", help="one more name or address for it; with --tls")
@click.option("--tls-cert", default="", metavar="FILE", help="a certificate of one's own instead, PEM, with its chain")
@click.option("--tls-key", default="", metavar="FILE", help="its key")
@wait_option
@timeout_option
def up(
    name: str,
    port: int | None,
    volume: str,
    user: str,
    password_stdin: bool,
    tls: bool | None,
    tls_name: tuple[str, ...],
    tls_cert: str,
    tls_key: str,
    no_wait: bool,
    timeout: float,
) -> None:
    check_words(tls, tls_name, tls_cert, tls_key)
    own = registry_tls.own(tls_cert, tls_key) if tls_cert else None
    asked = htpasswd_line(user, _password(password_stdin)) if user else ""
    if password_stdin and not user:
        raise BadInput("--password-stdin is for the password of --user NAME")
    with connected() as client:
        refuse_others(name, [row["name"] for row in client.get("/v1/services", stack=name)])
        now = settings_now(client, name)
        wanted = replace(
            now, port=port or now.port, volume=volume or now.volume, logins=asked or now.logins,
            tls_names=" ".join(dict.fromkeys([*now.tls_names.split(), *tls_name])),
        )  # fmt: skip
        if tls is False or (tls and registry_tls.is_own(now.certificate, client.context.ca)):
            wanted = replace(wanted, certificate="", tls_names=wanted.tls_names if tls else "")
        pair = own or (_new_certificate(client, name, wanted) if tls or (tls is None and now.certificate) else None)
        if pair is not None and no_wait:
            raise BadInput("--no-wait: its key is handed over when it runs: leave it out")
        _run(client, name, wanted, pair, None if no_wait else timeout)
    click.echo(f"registry {name}: images are pushed as localhost:{wanted.port}/NAME")


def check_words(tls: bool | None, names: Sequence[str], certificate_file: str, key_file: str) -> None:
    """Raises BadInput for options that say nothing together."""
    if bool(certificate_file) != bool(key_file):
        raise BadInput("--tls-cert FILE and --tls-key FILE: both are needed")
    if certificate_file and (tls is not None or names):
        raise BadInput("--tls-cert brings a certificate with its names: leave out --tls, --no-tls and --tls-name")
    if names and not tls:
        raise BadInput("--tls-name NAME is for the certificate of --tls")
    for name in names:
        if problem := registry_name_problem(name):
            raise BadInput(f"--tls-name: {problem}")


def _new_certificate(client: Client, name: str, wanted: Settings, *, anyway: bool = False) -> Pair | None:
    """One of the cluster's CA, with its key; None when the one it has will do, or is one's own and nobody asked for another."""
    ca = client.context.ca
    names = registry_tls.names_of(client.get("/v1/nodes"), wanted.tls_names.split())
    why = registry_tls.why_new(wanted.certificate, ca, names, dt.datetime.now(dt.UTC))
    if not anyway and (not why or registry_tls.is_own(wanted.certificate, ca)):
        return None
    return registry_tls.issued(client, name, names)


def _run(client: Client, name: str, wanted: Settings, pair: Pair | None, timeout_s: float | None) -> None:
    """Have it run so, and answer; `timeout_s` None: do not wait. `pair`: a new certificate, whose key it does not have yet."""
    if pair is not None:
        wanted = replace(wanted, certificate=pair.certificate)
    project = registry_project(name, wanted.port, wanted.volume, wanted.logins, wanted.certificate, wanted.tls_names)
    answer = client.call("PUT", f"/v1/stacks/{name}", project, query={"prune": "true"}, headers=logins_for(project))
    print_changes(answer["changes"])
    if timeout_s is None:
        return
    service, replica = f"{name}_{SERVICE}", f"{name}_{SERVICE}.1"
    until_running(client, [service], timeout_s=timeout_s, stack=name)
    if pair is not None:
        registry_tls.hand_over(client, replica, pair)
    elif wanted.certificate and not registry_tls.has_key(client, replica, wanted.certificate):
        if registry_tls.is_own(wanted.certificate, client.context.ca):
            raise Conflict(f"{replica} has lost the key of its certificate: give both again with --tls-cert and --tls-key")
        _run(client, name, wanted, _new_certificate(client, name, wanted, anyway=True), timeout_s)
        return
    until_healthy(client, service, timeout_s)
    if pair is not None:
        registry_tls.forget_others(client, replica, pair.certificate)


@registry_command.command("down", help="Remove it; its images stay in its volume unless --volumes is given.")
@name_option
@click.option("--volumes", is_flag=True, help="its images too")
@click.option("--no-wait", is_flag=True)
def down(name: str, volumes: bool, no_wait: bool) -> None:
    with connected() as client:
        _service(client, name)
        refuse_others(name, [row["name"] for row in client.get("/v1/services", stack=name)])
        remove_stacks(client, [name], volumes=volumes, wait=not no_wait)


@registry_command.command("ca", help="The CA that its certificate is of, PEM, for curl, docker and skopeo on any machine.")
@name_option
def ca(name: str) -> None:
    with connected() as client:
        settings = settings_of(_service(client, name))
        authority = client.context.ca
    if not settings.certificate:
        raise Conflict(f"registry {name} speaks plain http: `shoal registry up --name {name} --tls` gives it a certificate")
    if registry_tls.is_own(settings.certificate, authority):
        raise Conflict(f"registry {name} has a certificate of one's own: its CA is known to who gave it")
    click.echo(authority.rstrip())


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
    settings = settings_of(service)
    found = registry_tls.told(settings.certificate) if settings.certificate else None
    replica: dict[str, Any] = next((row for row in replicas if row["desired"] == "running"), {})
    return {
        "name": name,
        "state": replica.get("health") or replica.get("state", "pending"),
        "node": replica.get("node", ""),
        "images_as": [f"localhost:{port['published']}" for port in service["ports"] if port.get("published")],
        "volumes": [row["name"] for row in stack["volumes"]],
        "users": users(settings.logins),
        "tls": {"names": list(found.names), "until": utc_text(found.until)} if found else None,
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
    env = dict(container.get("env", ()))
    return Settings(
        next((port["published"] for port in container["ports"] if port.get("published")), PORT),
        next((mount["source"] for mount in container["mounts"] if mount["target"] == DATA), ""),
        *(str(env.get(name, "")) for name in (LOGINS, CERTIFICATE, TLS_NAMES)),
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
