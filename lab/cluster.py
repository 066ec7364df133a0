"""A whole cluster on one machine: up, down, and what happens to machines in between.

Rules: the record is written before anything is made, so that `down` finds everything after a crash half way. `down` trusts
names more than the record and may be called at any time, any number of times. The daemons are the ordinary ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

from agent.images.trees import remove_tree
from agent.network import namespaces
from cli import context as contexts
from cli.client import Client
from lab import cgroups, images, layout, machines, underlay
from lab.layout import CONTROLLER, PROMETHEUS, REGISTRY, LabPaths, LabRecord, MachineRecord
from lab.prometheus import is_ready
from lab.prometheus import prepare as prepare_prometheus
from lab.published import Published, published
from model import codec
from model.errors import Conflict, NotFound, ShoalError, Unavailable

_READY_S: Final = 60.0
_LOCK_S: Final = 5.0
Say = Callable[[str], None]


class Lab:
    """One lab by name. Every method is synchronous and may be called from another process than the one that made it."""

    def __init__(self, name: str, say: Say = lambda _: None) -> None:
        self.name = layout.check_name(name)
        self.paths = LabPaths(self.name)
        self._say = say
        self.ready_s = _READY_S

    # -- what is there ------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return self.paths.record.exists()

    def record(self) -> LabRecord:
        try:
            return codec.decode(LabRecord, self.paths.record.read_bytes())
        except FileNotFoundError:
            up = [name for name in names() if name != self.name]
            choose = f"say which you mean with --name ({', '.join(up)}), or " if up else ""
            raise NotFound(f"lab {self.name} is not up: {choose}start it with `shoal lab up --name {self.name}`") from None

    def _write(self, record: LabRecord) -> LabRecord:
        self.paths.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        contexts.write_private(self.paths.record, codec.encode(record).decode())
        return record

    def _set(self, machine: MachineRecord) -> LabRecord:
        record = self.record()
        others = tuple(m for m in record.machines if m.name != machine.name)
        return self._write(replace(record, machines=tuple(sorted((*others, machine), key=lambda m: m.host))))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Machines of node groups come and go by themselves: what only takes a moment is waited for."""
        self.paths.run_root.mkdir(parents=True, exist_ok=True, mode=0o700)
        end = time.monotonic() + _LOCK_S
        with self.paths.lock.open("w") as file:
            while not _lock(file):
                if time.monotonic() > end:
                    raise Conflict(f"lab {self.name} is being changed by another command: wait for it") from None
                time.sleep(0.02)
            yield

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other lab chooses its subnet meanwhile. The folder above all labs is locked, which none of them takes away."""
        descriptor = os.open(self.paths.run_root.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def client(self) -> Client:
        return Client(contexts.read(self.paths.machine_state(CONTROLLER) / "admin.json", self.name))

    # -- up and down --------------------------------------------------------------------------------------------------

    def up(
        self, nodes: int, *, cpus: float = 0.0, memory_bytes: int = 0, node_timeout_s: float = 3.0, prometheus: bool = False
    ) -> LabRecord:
        """The lab runs with `nodes` ready nodes and filled registry. Shares default to the machine's, split evenly.

        `prometheus`: with one that reads it all; agents tell metrics in such a lab only.
        """
        machines.check_host()
        with self._locked():
            if self.exists():
                raise Conflict(f"lab {self.name} is there already: take it down with `shoal lab down --name {self.name}` first")
            with self._alone():
                record = self._begin(nodes, cpus, memory_bytes, node_timeout_s, prometheus)
            with ThreadPoolExecutor(2) as pool:
                built = pool.submit(images.build, self._say)
                self._start_services(record)
                if prometheus:
                    self._power_on(record.machine(PROMETHEUS), "")
                self._start_nodes(record.nodes(), self._token())
                images.push(built.result(), record.registry, self._say)
            self.wait_ready([m.name for m in record.nodes()])
            if prometheus:
                self._wait(lambda: is_ready(record.prometheus), "Prometheus", PROMETHEUS)
            contexts.save(contexts.read(self.paths.machine_state(CONTROLLER) / "admin.json", self.name))
            return self._write(replace(self.record(), ready=True))

    def _begin(self, nodes: int, cpus: float, memory_bytes: int, node_timeout_s: float, prometheus: bool) -> LabRecord:
        taken = list(_subnets())
        subnet = layout.free_subnet(underlay.routes(), taken)
        share_cpus, share_memory = layout.share(os.cpu_count() or 1, _machine_memory_bytes(), nodes)
        rows = [
            MachineRecord(CONTROLLER, layout.CONTROLLER_HOST, role=CONTROLLER),
            MachineRecord(REGISTRY, layout.REGISTRY_HOST, role=REGISTRY),
        ]
        if prometheus:
            rows.append(MachineRecord(PROMETHEUS, layout.PROMETHEUS_HOST, role=PROMETHEUS))
        record = LabRecord(self.name, subnet, node_timeout_s, tuple(rows), previous_context=contexts.current_name())
        for _ in range(nodes):
            name, host = layout.next_node(record)
            machine = MachineRecord(name, host, cpus or share_cpus, memory_bytes or share_memory)
            record = replace(record, machines=(*record.machines, machine))
        self._write(record)
        underlay.make_bridge(record)
        return record

    def _start_services(self, record: LabRecord) -> None:
        self._say("starting controller (with etcd) and registry")
        machines.start_helper(self.paths, [sys.executable, "-m", "shoal", "lab-helper", self.name])
        for name in (REGISTRY, CONTROLLER):
            self._power_on(record.machine(name), "")
        self._wait_for_controller()

    def _start_nodes(self, nodes: Sequence[MachineRecord], token: str) -> None:
        self._say(f"starting {len(nodes)} node{'s' if len(nodes) != 1 else ''}")
        for machine in nodes:
            self._power_on(machine, token)

    def _power_on(self, machine: MachineRecord, token: str) -> None:
        record = self._set(replace(machine, running=True))
        machine = record.machine(machine.name)
        match machine.role:
            case "controller":
                command = layout.controller_command(record, self.paths, sys.executable)
            case "registry":
                command = tuple(images.registry_command(self.paths, record))
            case "prometheus":
                command = prepare_prometheus(record, self.paths)
            case _:
                command = layout.agent_command(record, machine, self.paths, sys.executable, token)
        machines.power_on(record, machine, self.paths, command)

    def _wait_for_controller(self) -> None:
        def answers() -> bool:
            with self.client() as client:
                return bool(client.get("/v1/version").get("leader"))

        self._wait(answers, "the controller", CONTROLLER)

    def _token(self) -> str:
        with self.client() as client:
            return str(client.post("/v1/tokens", {})["token"])

    def wait_ready(self, nodes: Sequence[str]) -> None:
        """Until these nodes are `ready`. Raises Unavailable naming those that are not and the end of a log."""
        if not nodes:
            return
        self._say(f"waiting for {', '.join(nodes)}")

        def ready() -> bool:
            with self.client() as client:
                states = {row["name"]: row["state"] for row in client.get("/v1/nodes")}
            return all(states.get(name) == "ready" for name in nodes)

        self._wait(ready, f"node {', '.join(nodes)}", nodes[0])

    def _wait(self, done: Callable[[], bool], what: str, machine: str) -> None:
        end, pause = time.monotonic() + self.ready_s, 0.1
        while True:
            with contextlib.suppress(ShoalError, OSError):
                if done():
                    return
            if time.monotonic() > end:
                log = self.paths.log(machine)
                raise Unavailable(f"{what} is not ready after {self.ready_s:.0f} s; the end of {log}: {_tail(log)}")
            time.sleep(pause)
            pause = min(pause * 1.05, 1.0)

    def down(self) -> None:
        """Nothing of the lab is left: processes, namespaces, links, mounts, cgroups, rules, files, context."""
        machines.check_host()
        with self._locked():
            previous = ""
            with contextlib.suppress(ShoalError, ValueError):
                previous = self.record().previous_context
            cgroups.kill_all(self.paths.cgroup)
            underlay.remove_bridge(self.name)
            for file in sorted(self.paths.run.glob("*.net")):
                namespaces.remove(file)
            cgroups.remove(self.paths.cgroup)
            for path in (self.paths.run, self.paths.state):
                remove_tree(path)
            _forget_context(self.name, previous)
        self.paths.lock.unlink(missing_ok=True)
        _remove_if_empty(self.paths.run_root, self.paths.state_root)
        cgroups.remove_if_empty(layout.CGROUP_ROOT)

    # -- one machine --------------------------------------------------------------------------------------------------

    def add_node(
        self, *, cpus: float = 0.0, memory_bytes: int = 0, name: str = "", labels: Sequence[tuple[str, str]] = ()
    ) -> str:
        """One more node, ready; gives its name. Without shares it gets those of the first node."""
        with self._locked():
            record = self.record()
            free, host = layout.next_node(record)
            name = layout.check_name(name, "node name") if name else free
            if any(machine.name == name for machine in record.machines):
                raise Conflict(f"lab {self.name} has a machine {name} already")
            like = record.nodes()[0] if record.nodes() else MachineRecord("", 0)
            share = layout.share(os.cpu_count() or 1, _machine_memory_bytes(), 1)
            machine = MachineRecord(
                name, host, cpus or like.cpus or share[0], memory_bytes or like.memory_bytes or share[1], labels=tuple(labels)
            )
            self._power_on(machine, self._token())
        self.wait_ready([name])
        return name

    def remove_node(self, name: str) -> None:
        """The node leaves the cluster and its machine is gone."""
        with self._locked():
            machine = self._node(name)
            with self.client() as client, contextlib.suppress(NotFound):
                client.delete(f"/v1/nodes/{name}", force=True)
            self._scrap(machine)

    def _scrap(self, machine: MachineRecord) -> None:
        machines.power_off(self.record(), machine, self.paths)
        remove_tree(self.paths.machine_state(machine.name))
        self.paths.log(machine.name).unlink(missing_ok=True)
        record = self.record()
        self._write(replace(record, machines=tuple(m for m in record.machines if m.name != machine.name)))

    # -- machines of node groups, for lab/helper.py -------------------------------------------------------------------

    def make_machine(self, machine: MachineRecord, token: str) -> str:
        """It is on and joins by itself, under its name; gives its address. What is there already stays as it is."""
        layout.check_name(machine.name, "node name")
        with self._locked():
            record = self.record()
            known = next((row for row in record.machines if row.name == machine.name), None)
            if known is not None and known.group != machine.group:
                raise Conflict(f"lab {self.name} has a machine {machine.name} already, which is not of group {machine.group}")
            found = known or replace(machine, host=layout.next_node(record)[1])
            if not cgroups.processes(f"{self.paths.cgroup}/{found.name}"):
                self._power_on(found, token)
            return record.address(found)

    def delete_machine(self, name: str, group: str) -> None:
        """It is gone with its disk; not being there is gone."""
        with self._locked():
            for machine in self.machines_of(group):
                if machine.name == name:
                    self._scrap(machine)

    def machines_of(self, group: str) -> list[MachineRecord]:
        return [machine for machine in self.record().machines if machine.group == group]

    def kill(self, name: str) -> None:
        """Power off without warning: a node, `controller` or `registry`."""
        with self._locked():
            machine = self.record().machine(name)
            machines.power_off(self.record(), machine, self.paths)
            self._set(replace(machine, running=False))

    def start(self, name: str) -> None:
        """Power on again, disk as it was; returns when it is ready."""
        with self._locked():
            machine = self.record().machine(name)
            if cgroups.processes(f"{self.paths.cgroup}/{name}"):
                raise Conflict(f"{name} is running already")
            self._power_on(machine, "")
        if machine.role == "node":
            self.wait_ready([name])
        elif machine.role == "controller":
            self._wait_for_controller()

    def partition(self, nodes: Sequence[str], *, heal: bool = False) -> None:
        """Take the machines' cables out, or put them back (`heal`; no names: all of them)."""
        record = self.record()
        for name in nodes or [machine.name for machine in record.machines if machine.running]:
            machine = record.machine(name)
            if machine.running:
                underlay.cut(self.name, machine.host, cut_off=not heal)

    def enter_command(self, name: str, command: Sequence[str]) -> list[str]:
        return machines.enter_command(self.paths, self.record().machine(name).name, command)

    def _node(self, name: str) -> MachineRecord:
        machine = self.record().machine(name)
        if machine.role != "node":
            raise Conflict(f"{name} is the lab's {machine.role}, not a node: use `lab kill {name}` or `lab down`")
        return machine

    # -- status -------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """`name, subnet, api, registry, prometheus, context, ready, nodes, machines, ports` as plain JSON; node states and
        published ports when the API answers."""
        record = self.record()
        states: dict[str, Any] = {}
        ports: list[Published] = []
        with contextlib.suppress(ShoalError, OSError), self.client() as client:
            states = {row["name"]: row for row in client.get("/v1/nodes")}
            ports = _published(client, record, states)
        rows = [self._row(record, machine, states.get(machine.name, {})) for machine in record.machines]
        return {
            "name": self.name,
            "subnet": record.subnet,
            "api": record.api,
            "registry": record.registry,
            "prometheus": record.prometheus,
            "context": self.name,
            "ready": record.ready and all(row["state"] == "ready" for row in rows if row["role"] == "node"),
            "nodes": [row for row in rows if row["role"] == "node"],
            "machines": [row for row in rows if row["role"] != "node"],
            "ports": [port.plain() for port in ports],
            "logs": str(self.paths.state / "*.log"),
        }

    def _row(self, record: LabRecord, machine: MachineRecord, node: dict[str, Any]) -> dict[str, Any]:
        power = "on" if cgroups.processes(f"{self.paths.cgroup}/{machine.name}/daemons") else "off"
        return {
            "name": machine.name,
            "role": machine.role,
            "address": record.address(machine),
            "power": power,
            "state": node.get("state", "unknown") if machine.role == "node" else ("running" if power == "on" else "stopped"),
            "availability": node.get("availability", ""),
            "cpus": machine.cpus,
            "memory_bytes": machine.memory_bytes,
            "replicas": node.get("replicas", 0),
        }


def _published(client: Client, record: LabRecord, states: dict[str, Any]) -> list[Published]:
    """Where published ports answer from here."""
    nodes = {m.name: record.address(m) for m in record.nodes() if states.get(m.name, {}).get("state") == "ready"}
    return published(client.get("/v1/services"), client.get("/v1/replicas"), nodes)


def _subnets() -> Iterator[str]:
    """Those of all labs; one may be going at this moment."""
    for name in names():
        with contextlib.suppress(NotFound):
            yield Lab(name).record().subnet


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def names() -> list[str]:
    """Every lab that left a trace on this machine."""
    found = {
        path.name for root in (layout.STATE_ROOT, layout.RUN_ROOT) if root.is_dir() for path in root.iterdir() if path.is_dir()
    }
    return sorted(name for name in found | set(cgroups.children(layout.CGROUP_ROOT)) if _is_lab(name))


def _is_lab(name: str) -> bool:
    try:
        return bool(layout.check_name(name))
    except ShoalError:
        return False


def _machine_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _tail(path: Path, lines: int = 3) -> str:
    try:
        return " | ".join(path.read_text(errors="replace").strip().splitlines()[-lines:]) or "(empty)"
    except OSError:
        return "(no log)"


def _forget_context(name: str, previous: str) -> None:
    with contextlib.suppress(OSError, json.JSONDecodeError):
        current = contexts.current_name()
        contexts.forget(name)
        if current == name and previous in contexts.names():
            contexts.use(previous)


def _remove_if_empty(*paths: Path) -> None:
    for path in paths:
        for folder in (path, path.parent):
            with contextlib.suppress(OSError):
                folder.rmdir()
