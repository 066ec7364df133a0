"""What is known of node groups' machines beside the store's documents, and one group while a pass goes over it.

Rules: a `Memory` is what the leader's shell has heard from a group's provider in this reign; a new leader begins with none and
decides the same, later. Names are chosen here and stored before a provider is asked, so who leads next goes on with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from controller.decide.types import Plan, Settings, View
from model.documents import Event, Machine, MachinesDoc, NodeDoc, NodeGroupDoc

Verb = Literal["create", "delete"]
Asked = tuple[Verb, str]
"""(verb, node name): one call of a provider about one machine."""

GROUP_LABEL: Final = "shoal.group"
HISTORY_MAX: Final = 20
BACK_OFF_MS_MAX: Final = 3_600_000
ON_THE_WAY: Final = frozenset({"creating", "joining"})
STAYING: Final = frozenset({"creating", "joining", "ready"})
GOING: Final = frozenset({"deleting", "failed"})


class Listed(NamedTuple):
    """A machine as its provider names it."""

    node: str
    id: str


@dataclass(frozen=True, slots=True)
class Report:
    """The provider's newest whole list. `at_ms`: when it was asked for (0: never in this reign); `problem`: why the latest
    attempt, at `tried_ms`, gave none; `missing`: what the provider needs on the controller's machine and does not find."""

    at_ms: int = 0
    machines: tuple[Listed, ...] = ()
    problem: str = ""
    tried_ms: int = 0
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the latest call ended. `id`: what the provider calls the machine; `message`: why it failed; `tries`: such calls so
    far; `begun`: False when it failed before anything was done."""

    at_ms: int
    ok: bool
    id: str = ""
    message: str = ""
    tries: int = 1
    begun: bool = True


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one group, by its name. `calling`: what is under way now."""

    report: Report = Report()
    outcomes: Mapping[Asked, Outcome] = field(default_factory=dict)
    calling: frozenset[Asked] = frozenset()


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """`memories` by group; `tokens`: ids of the join tokens there are."""

    view: View
    settings: Settings
    memories: Mapping[str, Memory] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MachinesStep:
    """`plan` as of every decision; `notes`: by group why things are as they are, for `explain`; `refused`: by group who it
    does not help, as (service, why)."""

    plan: Plan
    notes: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)


def token_prefix(group_id: str, node: str) -> str:
    """With which the id of every join token for this machine begins: who leads next can take it back."""
    return hashlib.sha256(f"{group_id}/{node}".encode()).hexdigest()[:12]


class Crew:
    """One group in a pass: its machines as they will be, what is said, what else is to be written."""

    def __init__(self, group: NodeGroupDoc, before: MachinesDoc | None, memory: Memory, now_ms: int) -> None:
        known = before if before is not None and before.id == group.id else MachinesDoc(group.id, group.spec.name)
        self.group, self.spec, self.memory, self.now_ms = group, group.spec, memory, now_ms
        self.before, self.stored = known, before
        self.machines = {machine.node: machine for machine in known.machines}
        self.added_ms, self.removed_ms = known.added_ms, known.removed_ms
        self.back_off_until_ms, self.failures, self.number = known.back_off_until_ms, known.failures, known.number
        self.seen = known.seen
        self.events: list[Event] = []
        self.notes: list[str] = []
        self.problems: list[str] = []
        """What is wrong with the provider itself: stored, for who shows it has heard nothing of it."""
        self.refused: list[tuple[str, str]] = []
        """Services whose replicas it does not help, and why."""
        self.stays: list[str] = []
        """Why machines do not leave."""
        self.nodes: dict[str, NodeDoc] = {}
        self.gone: list[str] = []
        """Nodes whose documents are to be deleted."""
        self.wakes: list[int] = []

    # -- counting ------------------------------------------------------------------------------------------------

    def of(self, *states: str) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.state in states]

    @property
    def staying(self) -> int:
        """Machines that work or are on their way."""
        return len(self.of(*STAYING))

    @property
    def limit(self) -> int:
        hosts = len(self.spec.provider.hosts)
        return min(self.spec.max, hosts) if self.spec.provider.kind == "ssh" else self.spec.max

    @property
    def least(self) -> int:
        return 0 if self.group.removing else self.spec.min

    @property
    def spare(self) -> int:
        return 0 if self.group.removing else self.spec.buffer

    @property
    def room(self) -> int:
        """How many machines may still be added now. Those that are going are still there."""
        held = self.group.removing or self.now_ms < self.back_off_until_ms
        return 0 if held else max(0, self.limit - len(self.machines))

    # -- changing ------------------------------------------------------------------------------------------------

    def set(self, machine: Machine, **changes: object) -> Machine:
        new = replace(machine, **changes)  # type: ignore[arg-type]
        self.machines[machine.node] = new
        return new

    def move(self, machine: Machine, state: str, why: str, message: str = "", **changes: object) -> Machine:
        """To another state, from now on; `why` is told."""
        if why:
            self.say(why, machine.node)
        return self.set(machine, state=state, since_ms=self.now_ms, message=message, idle_since_ms=0, **changes)

    def say(self, sentence: str, node: str = "") -> None:
        self.events.append(Event(self.now_ms, "machines", f"nodegroup/{self.spec.name}", sentence, node))

    def wake(self, at_ms: int) -> None:
        """Look again then, at the latest."""
        if at_ms > self.now_ms:
            self.wakes.append(at_ms)

    def add(self, count: int, why: str) -> list[str]:
        """So many new machines, stored now and asked for after that."""
        taken = {machine.id for machine in self.machines.values()}
        hosts = [host for host in self.spec.provider.hosts if host not in taken] if self.spec.provider.kind == "ssh" else []
        names = []
        for _ in range(count):
            self.number += 1
            name = f"{self.spec.name}-{self.number}"
            self.machines[name] = Machine(name, "creating", self.now_ms, hosts.pop(0) if hosts else "")
            names.append(name)
        self.added_ms = self.now_ms
        self.say(f"{self.spec.name} adds {_named(names)}: {why}")
        return names

    def drop(self, machine: Machine) -> None:
        """It is gone for good."""
        del self.machines[machine.node]
        self.removed_ms = self.now_ms

    def fail(self, machine: Machine, why: str) -> None:
        """The provider could not: the machine goes, and the group waits before it tries again."""
        self.failures += 1
        pause_ms = min(BACK_OFF_MS_MAX, round(self.spec.back_off_s * 1000) * 2 ** min(self.failures - 1, 30))
        self.back_off_until_ms = self.now_ms + pause_ms
        again = f"the next one in {pause_ms / 1000:g} s at the earliest"
        self.move(machine, "failed", f"{machine.node} failed: {why}; {again}", why)

    # -- the result ----------------------------------------------------------------------------------------------

    def document(self) -> MachinesDoc:
        history = (*self.before.history, *self.events)[-HISTORY_MAX:]
        return MachinesDoc(
            self.group.id, self.spec.name, tuple(self.machines.values()), self.added_ms, self.removed_ms,
            self.back_off_until_ms, self.failures, self.number, history, self.seen,
            tuple(self.problems),
        )  # fmt: skip


def _named(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} machines ({names[0]} to {names[-1]})"
