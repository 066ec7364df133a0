"""`build:` of a Compose project: what is built before it is applied, and under which names.

Rules: pure but for `missing` and `build_all`. As docker compose has it: the image is called `image:`, or PROJECT-SERVICE; one
that the cluster has under that name is not built again, unless that is asked for (`--build`, `pull_policy: build`). What would
make another image than the file asks for is refused in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click

from cli.build import Wish, build, result_lines
from model.compose.parts import BUILD_REFUSED
from model.errors import BadInput
from model.image_ref import parse_image_ref

if TYPE_CHECKING:
    from cli.client import Client

DEFAULT_DOCKERFILE: Final = "Dockerfile"


@dataclass(frozen=True, slots=True)
class ServiceBuild:
    """`dockerfile` is a path, `inline` its text instead; `always`: also when the image is there."""

    service: str
    context: str
    dockerfile: str
    inline: str
    wish: Wish
    always: bool

    @property
    def image(self) -> str:
        return self.wish.names[0]


def builds_of(project: Mapping[str, Any]) -> list[ServiceBuild]:
    """In the order of the services. Raises BadInput with a line for each field that shoal cannot build with."""
    services = {name: service for name, service in (project.get("services") or {}).items() if service.get("build")}
    problems = [
        f"services.{name}.build.{key}: {why}: take it out, or build the image elsewhere and name it in 'image'"
        for name, service in services.items()
        for key, why in _refused(service["build"])
    ]
    if problems:
        raise BadInput(problems[0], problems)
    return [_build(str(project["name"]), name, service) for name, service in services.items()]


def _refused(build: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [(key, why) for key, why in BUILD_REFUSED.items() if build.get(key)]
    if build.get("network") not in (None, "", "host", "default"):
        found.append(("network", "a build has its node's network"))
    return found


def _build(project: str, name: str, service: Mapping[str, Any]) -> ServiceBuild:
    build: Mapping[str, Any] = service["build"]
    names = (str(service.get("image") or f"{project}-{name}"), *build.get("tags", ()))
    wish = Wish(
        names=tuple(dict.fromkeys(names)),
        target=build.get("target") or "",
        args={key: str(value) for key, value in (build.get("args") or {}).items()},
        labels={key: str(value) for key, value in (build.get("labels") or {}).items()},
        no_cache=bool(build.get("no_cache")),
        pull=bool(build.get("pull")),
    )
    context, dockerfile = str(build.get("context") or "."), str(build.get("dockerfile") or DEFAULT_DOCKERFILE)
    path = dockerfile if dockerfile.startswith("/") else f"{context.rstrip('/')}/{dockerfile}"
    always = service.get("pull_policy") == "build"
    return ServiceBuild(name, context, path, str(build.get("dockerfile_inline") or ""), wish, always)


def with_images(project: dict[str, Any], builds: Sequence[ServiceBuild]) -> dict[str, Any]:
    """The project as the controller gets it: services name their images, and say nothing of how these are built."""
    services = dict(project["services"])
    for each in builds:
        kept = {key: value for key, value in services[each.service].items() if key != "build"}
        services[each.service] = {**kept, "image": each.image}
    return {**project, "services": services}


def missing(client: Client, builds: Sequence[ServiceBuild], *, force: bool = False) -> list[ServiceBuild]:
    """Those that have to be built."""
    if not builds:
        return []
    there = {
        parse_image_ref(name).canonical for row in client.get("/v1/images", merged=True) for name in row["names"]
    }  # fmt: skip
    return [each for each in builds if force or each.always or parse_image_ref(each.image).canonical not in there]


def build_all(client: Client, builds: Sequence[ServiceBuild], node: str, say: Callable[[str], None]) -> None:
    """One after the other; the first that fails ends it. Contexts and Dockerfiles are looked at before anything is built."""
    from cli.build_context import open_context

    contexts = [open_context(each.context, "" if each.inline else each.dockerfile, each.inline) for each in builds]
    for each, context in zip(builds, contexts, strict=True):
        say(f"building {each.image} for service {each.service}\n")
        built = build(client, context, replace(each.wish, node=node), say)
        say("".join(f"{line}\n" for line in result_lines(built, each.wish.names)))


def to_stderr(text: str) -> None:
    click.echo(text, nl=False, err=True)
