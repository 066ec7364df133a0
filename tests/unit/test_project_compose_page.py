"""docs/compose.md is drawn from the table of Compose fields. UPDATE_DOCS=1 rewrites the page; without it a stale page fails."""

import os
from collections.abc import Iterator
from pathlib import Path

from model.compose.fields import NETWORK, SERVICE, TOP, VOLUME
from model.compose.kinds import ANY, Kind, ListOf, MapOf, Obj, Or
from model.compose.parts import HEALTH, HEALTHCHECK, MOUNT, MOUNT_OBJ
from tests.compose_files import load

PAGE = Path(__file__).parents[2] / "docs" / "compose.md"
SPECIAL = {id(MOUNT): MOUNT_OBJ, id(HEALTH): HEALTHCHECK}

VALUES = """
services:
  a:
    image: busybox
    network_mode: "container:b"
    pid: "service:b"
    ipc: "service:b"
    pull_policy: daily
    volumes:
      - {type: image, source: busybox, target: /i}
      - {type: cluster, source: v, target: /c}
    deploy: {update_config: {failure_action: rollback}}
  b: {image: busybox, networks: [n]}
  c: {image: busybox, network_mode: host, ports: ["80:80"]}
networks:
  n:
    driver: macvlan
    driver_opts: {com.docker.network.driver.mtu: "1400"}
    ipam: {config: [{subnet: 10.8.0.0/16}, {subnet: 10.9.0.0/16}, {subnet: "fd00:9::/64"}]}
volumes: {v: {}}
"""
"""Values that are left aside although their field is acted on (`model/compose/check.py`)."""

HEAD = """\
# Compose

What shoal does with each field of the Compose Specification and of `docker stack`'s dialect: `shoal apply`, `plan` and `config`
load the union of both. Drawn from `model/compose/fields.py`; see CONTRIBUTING.md.

- A field that shoal does not act on gives a warning that names it; with `--strict` it is an error. None is left out in silence.
- A field that is in neither dialect is an error with file, line and column, and the name that was probably meant.
- Keys that begin with `x-` are kept everywhere. Anchors, merge keys, `extends`, `include`, profiles, several `-f` files,
  `!reset` and `!override`, variables with defaults, `.env` and `env_file` work as in `docker compose`.
- `shoal config` prints what shoal understood.
- An image is pinned to the digest that its name has when it is applied, so that all replicas run the same bytes;
  `pull_policy` says who is asked for it: [images.md](images.md).
- Services with `build:` are built on a node before the rest is applied: [images.md](images.md#build).
- What shoal adds: `x-ingress: local` on a service or on one of its ports (long form). Then only nodes with a replica answer on
  the published port, and the client's address is kept; [networks.md](networks.md) has more. A published range for one port
  (`8000-8010:80`) gives the first port of it that is free. `x-priority: 10` on a service or below its `deploy`, from -1000 to
  1000, 0 when it is not said: who has more gets room first, and may take that of replicas of those who have less;
  [scheduling.md](scheduling.md) has more. `x-autoscale` on a service, or labels `shoal.autoscale.*` of it or its `deploy`: how
  many replicas it has follows its load; `x-metrics: {port: 9000, path: /metrics}`: where its replicas expose metrics of their
  own. [autoscaling.md](autoscaling.md) has every key. Below `deploy`, `x-autoscale` is an error: other tools refuse it there.
"""


def inside(kind: Kind) -> Obj | None:
    """The mapping with known keys that a value of this kind holds, if any."""
    kind = SPECIAL.get(id(kind), kind)
    if isinstance(kind, Obj):
        return kind
    if isinstance(kind, (ListOf, MapOf)):
        return inside(kind.kind)
    return inside(kind.long) if isinstance(kind, Or) else None


def rows(kind: Obj, path: str = "") -> Iterator[tuple[str, str]]:
    """Every field below as (path, why shoal leaves it aside, or nothing)."""
    for name, row in sorted(kind.fields.items()):
        deeper = None if row.later or row.kind is ANY else inside(row.kind)
        if deeper is None:
            yield path + name, row.later
        else:
            yield from rows(deeper, f"{path}{name}.")


def section(title: str, kind: Obj) -> list[str]:
    found = list(rows(kind))
    acted: dict[str, list[str]] = {}
    for path, later in found:
        if not later:
            head, _, rest = path.partition(".")
            acted.setdefault(head, []).extend([f"`{rest}`"] if rest else [])
    lines = [f"## {title}", "", "Acted on:", ""]
    plain = [f"`{head}`" for head, rest in acted.items() if not rest]
    lines += [f"- {', '.join(plain)}"] if plain else []
    lines += [f"- `{head}`: {', '.join(rest)}" for head, rest in acted.items() if rest]
    reasons: dict[str, list[str]] = {}
    for path, later in found:
        if later:
            reasons.setdefault(later, []).append(f"`{path}`")
    if reasons:
        lines += ["", "| not acted on | what the warning says |", "|---|---|"]
        lines += [f"| {', '.join(paths)} | {why} |" for why, paths in reasons.items()]
    return [*lines, ""]


def draw() -> str:
    """The whole page as Markdown."""
    lines = [HEAD, *section("A service", SERVICE), "Values that are not taken as written, though their field is acted on:", ""]
    lines += ["| field and value | what is done |", "|---|---|"]
    for warning in load(VALUES).warnings:
        kind, _, path = warning.id.removeprefix("unsupported:").split(".", 2)
        if path in SERVICE.fields and SERVICE.fields[path].later:
            continue  # `pid: service:b` makes a dependency
        value, _, done = warning.message.removeprefix("'").rpartition("' ")
        shown = f"`{path}`: `{value}`" if value else f"`{kind}`: another `{path}` than overlay or bridge"
        if kind == "networks" and path != "driver":
            shown = f"`{kind}`: `{path}`"
        lines.append(f"| {shown} | {done} |")
    lines += ["", *section("A network", NETWORK), *section("A volume", VOLUME)]
    lines += ["## Secrets, configs, models", ""]
    why = {SERVICE.fields[name].later for name in ("secrets", "configs", "models")} | {TOP.fields["models"].later}
    lines.append(f"Loaded and checked; what a service says under `secrets`, `configs` and `models` {' or '.join(why)}.")
    return "\n".join(lines) + "\n"


def test_the_page_shows_the_table() -> None:
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(draw())
    assert PAGE.read_text() == draw(), "stale: UPDATE_DOCS=1 .venv/bin/pytest tests/unit/test_project_compose_page.py"


def test_every_field_is_on_the_page() -> None:
    page = draw()
    for name in SERVICE.fields:
        assert f"`{name}`" in page or f"`{name}." in page, name
    deep = {"deploy.placement.constraints", "volumes.bind.propagation", "healthcheck.test", "networks.ipv4_address"}
    assert deep <= {path for path, _ in rows(SERVICE)}
