"""Placement constraints and spread preferences as written in Compose files: `node.labels.zone == a`, `node.role != manager`.

Rules: pure. The Compose loader, the API and the scheduler all read them here, so that a constraint that was taken can always
be matched. Values compare without regard to case, a missing label is the empty text (as Swarm does).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from model.errors import BadInput

PLAIN_KEYS: Final = ("node.id", "node.name", "node.hostname", "node.role", "node.platform.os", "node.platform.arch")
LABEL_KEYS: Final = ("node.labels.", "engine.labels.")
_SHAPE: Final = re.compile(r"^\s*([^\s=!<>]+)\s*(==|!=)\s*(.*?)\s*$", re.DOTALL)
_VALUE: Final = re.compile(r"^[A-Za-z0-9:\-_\s.*()?+\[\]\\^$|/@]+$")
_ARCHES: Final = {"amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64", "i386": "386", "i686": "386", "armhf": "arm"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """`key` is one of PLAIN_KEYS or begins with one of LABEL_KEYS; `equal` False is `!=`; `text` as it is shown."""

    key: str
    equal: bool
    value: str

    @property
    def text(self) -> str:
        return f"{self.key}{'==' if self.equal else '!='}{self.value}"


class Facts(Protocol):
    """What a node must tell to be matched."""

    @property
    def name(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def hostname(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def os(self) -> str: ...
    @property
    def arch(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def engine_labels(self) -> Mapping[str, str]: ...


@lru_cache(maxsize=10_000)
def parse_constraint(text: str) -> Constraint:
    """One constraint. BadInput says what is wrong with it and what was expected."""
    shape = _SHAPE.match(text)
    if not shape:
        raise BadInput(f"constraint {text!r}: expected `<key>==<value>` or `<key>!=<value>`, like node.labels.zone==a")
    key, operator, value = shape.groups()
    _check_key(key, f"constraint {text!r}")
    if not _VALUE.match(value):
        raise BadInput(f"constraint {text!r}: expected a value after {operator}, found {value!r}")
    return Constraint(key, operator == "==", value)


def parse_constraints(texts: Iterable[str]) -> tuple[Constraint, ...]:
    """All of them; the BadInput names every bad one in `problems`."""
    found: list[Constraint] = []
    problems: list[str] = []
    for text in texts:
        try:
            found.append(parse_constraint(text))
        except BadInput as error:
            problems.append(str(error))
    if problems:
        raise BadInput(problems[0], problems)
    return tuple(found)


def parse_spread(text: str) -> str:
    """A spread preference (`node.labels.zone`), checked."""
    key = text.strip()
    _check_key(key, f"spread preference {text!r}")
    return key


def _check_key(key: str, what: str) -> None:
    if key in PLAIN_KEYS or any(key.startswith(head) and len(key) > len(head) for head in LABEL_KEYS):
        return
    raise BadInput(f"{what}: unknown key {key!r}: expected {', '.join(PLAIN_KEYS)}, node.labels.NAME or engine.labels.NAME")


def value_of(key: str, node: Facts) -> str:
    """What `node` has for a constraint's or preference's key; a missing label is empty."""
    head, _, rest = key.partition(".")
    if rest.startswith("labels."):
        labels = node.labels if head == "node" else node.engine_labels
        return labels.get(rest[len("labels.") :], "")
    plain = {
        "node.id": node.id,
        "node.name": node.name,
        "node.hostname": node.hostname,
        "node.role": node.role,
        "node.platform.os": node.os,
        "node.platform.arch": arch_name(node.arch),
    }
    return plain.get(key, "")


def matches(constraint: Constraint, node: Facts) -> bool:
    wanted = arch_name(constraint.value) if constraint.key == "node.platform.arch" else constraint.value
    return (value_of(constraint.key, node).casefold() == wanted.casefold()) == constraint.equal


def arch_name(arch: str) -> str:
    """One name for each architecture: `amd64` and `x86_64` are the same."""
    low = arch.lower()
    return _ARCHES.get(low, low)


def platform_matches(platform: str, node: Facts) -> bool:
    """Whether `linux/amd64`, `linux`, `amd64` or "" fits the node; a variant (`/v8`) is not compared."""
    if not platform:
        return True
    parts = platform.split("/")
    if len(parts) == 1:
        return node.os.casefold() == parts[0].casefold() or arch_name(node.arch) == arch_name(parts[0])
    return node.os.casefold() == parts[0].casefold() and arch_name(node.arch) == arch_name(parts[1])
