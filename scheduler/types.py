"""The shapes of placement: what a node is and has, what a group of equal replicas asks for, where they went.

Rules: amounts are whole numbers (cpus in millionths of a core, memory in bytes, pids), so that sums never drift and "no node
is given more than it has" is exact. Sequences and mappings here are never changed by the scheduler.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, overload

from model.constraints import Constraint
from model.spec import Counts
from scheduler.ports import PortClaim

MICRO: Final = 1_000_000
"""Parts of one core."""

NODE_REPLICAS_MAX: Final = 5_000
"""What one node ever gets, reserved or not: one machine runs and reports no more, and a mistyped scale must not try."""

Strategy = Literal["spread", "pack"]


class Amounts(NamedTuple):
    """An amount of each reserved resource; 0 asks for nothing. Of a node: what it has (`pids` 0: not known, no limit)."""

    cpus: int = 0
    memory: int = 0
    pids: int = 0


NOTHING: Final = Amounts()


class Load(NamedTuple):
    """What is already given away on one node: replicas of all services and the sums of their reservations."""

    replicas: int = 0
    cpus: int = 0
    memory: int = 0
    pids: int = 0


def micro(cpus: float) -> int:
    """Cores as millionths."""
    return round(cpus * MICRO)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node as the filters see it. `state` and `availability` in the words of model.documents."""

    name: str
    id: str = ""
    hostname: str = ""
    role: str = "worker"
    os: str = "linux"
    arch: str = "x86_64"
    labels: Mapping[str, str] = field(default_factory=dict)
    engine_labels: Mapping[str, str] = field(default_factory=dict)
    state: str = "ready"
    availability: str = "active"
    total: Amounts = NOTHING
    generic: Counts = ()


@dataclass(frozen=True, slots=True)
class ClusterView:
    """`nodes` sorted by name. `loads` by node name (missing: nothing). `volumes`: nodes that hold each placed local volume.
    `ports`: by node name what is taken there; only looked at for groups with ports. `generic`: by node name and kind how many
    of its generic resources are given away; only looked at for groups that reserve some."""

    nodes: Sequence[NodeFacts]
    loads: Mapping[str, Load] = field(default_factory=dict)
    volumes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ports: Mapping[str, Collection[PortClaim]] = field(default_factory=dict)
    generic: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """Equal replicas of one service that need a node: one for each of `slots`, taken in that order.

    `existing`: replicas of the service per node that stay. `spread`: label paths, outermost first. `volumes`: local volumes
    they mount (all replicas go to one node). `prefer`: per slot a node that is taken when it passes ("" for none). `shun`:
    nodes not to be used, with the reason. `ports`: what each replica takes of its node (so at most one stands on a node).
    `generic`: what each reserves of its node's generic resources.
    `everywhere` (global services): slot 0 on every node that passes and is not in `existing`; `slots` is then ignored, and
    `volumes` get one copy on each of these nodes.
    """

    service: str
    slots: Sequence[int] = ()
    reserve: Amounts = NOTHING
    constraints: tuple[Constraint, ...] = ()
    platform: str = ""
    node: str = ""
    spread: tuple[str, ...] = ()
    max_per_node: int = 0
    volumes: tuple[str, ...] = ()
    existing: Mapping[str, int] = field(default_factory=dict)
    prefer: tuple[str, ...] = ()
    shun: tuple[tuple[str, frozenset[str]], ...] = ()
    strategy: Strategy = "spread"
    everywhere: bool = False
    ports: tuple[PortClaim, ...] = ()
    generic: Counts = ()


class Pairs(Sequence[tuple[int, str]]):
    """(slot, node name) pairs as two columns: a million pairs of their own would cost more than to find them."""

    __slots__ = ("nodes", "slots")

    def __init__(self, slots: Sequence[int] = (), nodes: Sequence[str] = ()) -> None:
        self.slots, self.nodes = slots, nodes

    def __len__(self) -> int:
        return len(self.slots)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return zip(self.slots, self.nodes, strict=True)

    @overload
    def __getitem__(self, at: int) -> tuple[int, str]: ...
    @overload
    def __getitem__(self, at: slice) -> Pairs: ...
    def __getitem__(self, at: int | slice) -> tuple[int, str] | Pairs:
        return Pairs(self.slots[at], self.nodes[at]) if isinstance(at, slice) else (self.slots[at], self.nodes[at])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pairs | tuple | list) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Slots that got no node, and why in one phrase: `2 nodes: not enough memory; 1 node: drained`."""

    slots: Sequence[int]
    reason: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Per group, in the groups' order: (slot, node name) pairs, and what was refused (None: nothing).

    `volumes`: volumes that got their node by this placement.
    """

    assigned: tuple[Sequence[tuple[int, str]], ...]
    refused: tuple[Refusal | None, ...]
    volumes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
