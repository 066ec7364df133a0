"""What must hold in a service's record whoever made it: a Compose file, `shoal run`, or a program that speaks to the API.

Rules: pure; every problem is one line that names the service, what is wrong and what was expected. What depends on the
cluster (does the network exist?) is checked where the cluster is known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final

from model.constraints import parse_constraint, parse_spread
from model.errors import BadInput
from model.image_ref import parse_image_ref
from model.spec import Mount, Resources, ServiceSpec

REPLICAS_MAX: Final = 1_000_000
NAME_RULE: Final = "use 1 to 128 of letters, digits, '_', '.' and '-', beginning with a letter or digit"
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


def name_problem(name: str, what: str) -> str:
    """Why `name` cannot be that of a service, network or volume; empty when it can."""
    return "" if _NAME.fullmatch(name) else f"{what} name {name[:80]!r}: {NAME_RULE}"


def service_problems(spec: ServiceSpec) -> list[str]:
    """Everything that is wrong with the record itself."""
    if problem := name_problem(spec.name, "service"):
        return [problem]
    return [f"service {spec.name}: {problem}" for problem in _problems(spec)]


def _problems(spec: ServiceSpec) -> Iterator[str]:
    try:
        parse_image_ref(spec.container.image)
    except BadInput as error:
        yield str(error) if spec.container.image else "it has no image: name one"
    yield from _placement(spec)
    if not 0 <= spec.replicas <= REPLICAS_MAX:
        yield f"replicas {spec.replicas}: expected a number from 0 to {REPLICAS_MAX:,}"
    if spec.single and (spec.mode != "replicated" or spec.replicas != 1):
        yield "a single container is replicated, with one replica"
    yield from _amounts("reservations", spec.reservations)
    yield from _amounts("limits", spec.container.limits)
    grace_s = spec.container.stop_grace_period_s
    if not (math.isfinite(grace_s) and grace_s >= 0):
        yield f"stop_grace_period {grace_s}: expected 0 seconds or more"
    for name, _ in spec.container.env:
        if not name or "=" in name or "\0" in name:
            yield f"environment variable {name[:80]!r}: expected a name without '=' in it"
    yield from _mounts(spec.container.mounts)


def _placement(spec: ServiceSpec) -> Iterator[str]:
    for read, texts in ((parse_constraint, spec.placement.constraints), (parse_spread, spec.placement.spread)):
        for text in texts:
            try:
                read(text)
            except BadInput as error:
                yield str(error)
    if spec.placement.max_replicas_per_node < 0:
        yield f"max_replicas_per_node {spec.placement.max_replicas_per_node}: expected 0 (no limit) or more"


def _amounts(what: str, amounts: Resources) -> Iterator[str]:
    for field, amount in (("cpus", amounts.cpus), ("memory", amounts.memory_bytes), ("pids", amounts.pids)):
        unlimited = field == "pids" and amount == -1
        if not (math.isfinite(amount) and amount >= 0) and not unlimited:
            yield f"{what}.{field} {amount}: expected 0 or more"


def _mounts(mounts: tuple[Mount, ...]) -> Iterator[str]:
    seen: set[str] = set()
    for mount in mounts:
        if not mount.target.startswith("/") or mount.target.rstrip("/") == "" or "\0" in mount.target:
            yield f"mount target {mount.target[:80]!r}: expected an absolute path below /"
        if mount.target in seen:
            yield f"mount target {mount.target}: two mounts are on it"
        seen.add(mount.target)
        if mount.type == "bind" and not mount.source.startswith("/"):
            yield f"bind mount on {mount.target}: its source {mount.source[:80]!r} is no absolute path"
        if mount.type == "volume" and mount.source and (problem := name_problem(mount.source, "volume")):
            yield problem
