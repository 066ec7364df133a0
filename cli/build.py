"""`shoal build` (also `image build`): a Dockerfile and its context go to a node, which builds; Docker's words and exit codes.

Rules: what `shoal login` keeps goes along for the registries of those base images that the Dockerfile names, and for no other.
The exit code of a RUN that fails is the command's own.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from cli.connect import connected
from model.errors import BadInput, ShoalError

if TYPE_CHECKING:
    from cli.build_context import Context
    from cli.client import Client

HEADER_BYTES_MAX: Final = 48 << 10
Say = Callable[[str], None]


class BuildError(ShoalError):
    """A build that failed; `exit_code` is that of its RUN."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be built, besides the context."""

    names: tuple[str, ...] = ()
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    pull: bool = False
    node: str = ""


@click.command("build", help="Build an image from a Dockerfile, on a node of the cluster.")
@click.argument("path", metavar="PATH|-")
@click.option("-t", "--tag", "names", multiple=True, metavar="NAME[:TAG]", help="what it is to be called (may be repeated)")
@click.option("-f", "--file", "file", default="", metavar="FILE", help="the Dockerfile (default: PATH/Dockerfile), - for stdin")
@click.option("--target", default="", metavar="STAGE", help="the stage that is wanted (default: the last)")
@click.option("--build-arg", "args", multiple=True, metavar="K=V", help="a value for ARG K; K alone: the variable of that name")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="a label of the image")
@click.option("--no-cache", is_flag=True, help="do every step anew")
@click.option("--pull", is_flag=True, help="ask registries for newer base images")
@click.option("-q", "--quiet", is_flag=True, help="tell only the image's id")
@click.option("--progress", type=click.Choice(["auto", "plain"]), default="auto", help="steps are told plainly always")
@click.option("--node", default="", help="build on this node (default: the ready one with most free)")
def build_command(
    path: str, file: str, args: tuple[str, ...], labels: tuple[str, ...], quiet: bool, progress: str, **more: Any
) -> None:
    from cli.build_context import open_context

    wish = Wish(args=args_of(args, os.environ), labels=labels_of(labels), **more)
    context = open_context(path, file)
    with connected() as client:
        built = build(client, context, wish, _silent if quiet else _say)
    if quiet:
        click.echo(built["id"])
        return
    for line in result_lines(built, wish.names):
        click.echo(line)


def _say(text: str) -> None:
    click.echo(text, nl=False)


def _silent(text: str) -> None:
    """For -q."""


def build(client: Client, context: Context, wish: Wish, say: Say) -> dict[str, Any]:
    """The built image's row: id, digest, names, size_bytes, node. Raises BuildError, BadInput."""
    from cli.build_context import Reader, archive_of

    check_names(wish.names)
    bases = base_images(context, wish)
    headers = headers_of(wish, bases)
    query: dict[str, Any] = {
        "name": list(wish.names),
        "dockerfile": context.dockerfile,
        "target": wish.target or None,
        "label": [f"{key}={value}" for key, value in wish.labels.items()],
        "no_cache": wish.no_cache,
        "pull": wish.pull,
        "base": list(bases),
        "node": wish.node or None,
    }
    body = Reader(archive_of(context))
    for row in client.lines("/v1/build", method="POST", body=body, headers=headers, **query):
        if row.get("text"):
            say(row["text"])
        if row.get("error"):
            raise BuildError(row["error"], row.get("exit_code") or 1)
        if row.get("built"):
            return {**row["built"], "node": row["node"]}
    raise ShoalError("the controller ended the build without a word: look at its log")


def base_images(context: Context, wish: Wish) -> tuple[str, ...]:
    """Those that the build needs. A wrong Dockerfile is told of here already."""
    from model.dockerfile import images_of, read_dockerfile

    name = "Dockerfile" if context.sends_text else context.dockerfile
    return images_of(read_dockerfile(context.text, wish.args, name), wish.target, name)


def headers_of(wish: Wish, bases: Sequence[str]) -> dict[str, str]:
    """Arguments, and what is kept of logins for the registries of the base images."""
    from cli.registry_headers import registry_config

    headers = registry_config(bases)
    if wish.args:
        headers["X-Shoal-Build-Args"] = base64.urlsafe_b64encode(json.dumps(dict(wish.args)).encode()).decode()
    if sum(map(len, headers.values())) > HEADER_BYTES_MAX:
        raise BadInput("the build arguments are too long: COPY a file instead")
    return headers


def check_names(names: Sequence[str]) -> None:
    from model.image_ref import parse_image_ref

    for name in names:
        if parse_image_ref(name).digest is not None:
            raise BadInput(f"{name}: a new name has no digest")


def args_of(words: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """`K=V`; `K` alone takes the variable of that name, and nothing when there is none. Raises BadInput."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key:
            raise BadInput(f"--build-arg {word!r}: expected NAME=VALUE")
        if equals or key in env:
            found[key] = value if equals else env[key]
    return found


def labels_of(words: Sequence[str]) -> dict[str, str]:
    """Raises BadInput."""
    found: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if not key:
            raise BadInput(f"--label {word!r}: expected KEY=VALUE")
        found[key] = value
    return found


def result_lines(built: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Docker's last words, with the node."""
    from model.image_ref import parse_image_ref

    tagged = [f"Successfully tagged {parse_image_ref(name).familiar}" for name in names]
    return [f"Successfully built {built['id'].removeprefix('sha256:')[:12]} on {built['node']}", *tagged]
