"""`shoal login`, `logout` and `search`: what Docker's do, from this machine."""

from __future__ import annotations

import getpass
import sys

import click

from cli import docker_config
from cli.output import field, listing, output_option
from cli.registry import HUB, check_login, key_of
from cli.registry import search as search_at
from model.errors import BadInput, Unauthorized


@click.command("login", help="Log in to a registry; without SERVER to Docker's hub.")
@click.argument("server", default="")
@click.option("-u", "--username", default="")
@click.option("-p", "--password", default="", help="others can see it in the list of processes")
@click.option("--password-stdin", is_flag=True, help="take it from stdin")
def login_command(server: str, username: str, password: str, password_stdin: bool) -> None:
    key = key_of(server)
    if password_stdin:
        if password:
            raise BadInput("--password and --password-stdin are mutually exclusive")
        if not username:
            raise BadInput("Must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        click.echo("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", err=True)
    elif not username and _known_is_taken(key):
        return
    login = _asked(key, username, password)
    check_login(key, login)
    if file := docker_config.keep(key, login):
        click.echo(
            f"WARNING! Your password will be stored unencrypted in {file}.\n"
            "Configure a credential helper (credsStore) there to remove this warning.\n", err=True,
        )  # fmt: skip
    click.echo("Login Succeeded")


def _known_is_taken(key: str) -> bool:
    """Whether what is kept from an earlier login is still good."""
    known = docker_config.known(key)
    if known is None:
        return False
    click.echo("Authenticating with existing credentials...")
    try:
        check_login(key, known)
    except Unauthorized as error:
        click.echo(f"Login did not succeed, error: {error}", err=True)
        return False
    click.echo("Login Succeeded")
    return True


def _asked(key: str, username: str, password: str) -> docker_config.Login:
    """What was not given is asked for."""
    if (not username or not password) and not sys.stdin.isatty():
        raise BadInput("Cannot perform an interactive login from a non TTY device: -u NAME --password-stdin")
    if not username:
        if key == HUB:
            click.echo("Login with your Docker ID to push and pull images from Docker Hub.")
        click.echo("Username: ", nl=False)
        username = sys.stdin.readline().strip()
        if not username:
            raise BadInput("Username: a name is needed")
    password = password or getpass.getpass("Password: ")
    if not password:
        raise BadInput("Password: one is needed")
    return docker_config.Login(username, password)


@click.command("logout", help="Forget the login of a registry; without SERVER of Docker's hub.")
@click.argument("server", default="")
def logout_command(server: str) -> None:
    key = key_of(server)
    if docker_config.forget(key):
        click.echo(f"Removing login credentials for {key}")
    else:
        click.echo(f"Not logged in to {key}")


@click.command("search", help="Search a registry for images: TERM, or HOST/TERM of another registry than Docker's hub.")
@click.argument("term")
@click.option("--limit", type=click.IntRange(1, 100), default=25, show_default=True)
@click.option("--no-trunc", is_flag=True, help="whole descriptions")
@output_option
def search_command(term: str, limit: int, no_trunc: bool, output: str) -> None:
    host, slash, rest = term.partition("/")
    elsewhere = bool(slash) and ("." in host or ":" in host or host == "localhost")
    key = key_of(host if elsewhere else "")
    rows = search_at(key, rest if elsewhere else term, limit, docker_config.known(key))
    rows.sort(key=lambda row: -int(row.get("star_count") or 0))
    columns = (
        ("NAME", field("name")),
        ("DESCRIPTION", lambda row: _cut(str(row.get("description") or ""), no_trunc) or " "),
        ("STARS", lambda row: str(row.get("star_count") or 0)),
        ("OFFICIAL", lambda row: "[OK]" if row.get("is_official") else " "),
        ("AUTOMATED", lambda row: "[OK]" if row.get("is_automated") else " "),
    )
    listing(rows, columns, output)


def _cut(text: str, no_trunc: bool) -> str:
    line = " ".join(text.split())
    return line if no_trunc or len(line) <= 45 else f"{line[:44]}…"
