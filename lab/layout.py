"""What a lab is made of, as data: names, addresses, shares of the machine, command lines.

Rules: pure but for the root folders in `LabPaths`. Everything a lab makes carries its name or the tag that follows from it, so
that `down` finds it all again without any record, also after a crash half way through `up`. Labs stand side by side: each has
its own tag, bridge, subnet and cgroup.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from model.errors import BadInput

STATE_ROOT: Final = Path("/var/lib/shoal/labs")
RUN_ROOT: Final = Path("/run/shoal/labs")
CGROUP_ROOT: Final = "shoal-labs"
UNDERLAYS: Final = "10.213.0.0/16"
POOL: Final = "10.64.0.0/10"
CONTROLLER: Final = "controller"
REGISTRY: Final = "registry"
PROMETHEUS: Final = "prometheus"
CONTROLLER_HOST, REGISTRY_HOST, PROMETHEUS_HOST, FIRST_NODE_HOST = 2, 3, 4, 11
API_PORT, DISPATCH_PORT, AGENT_PORT, METRICS_PORT, REGISTRY_PORT, PROMETHEUS_PORT = 7443, 7444, 7445, 7446, 5000, 9090
NODES_MAX: Final = 200
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")


def check_name(name: str, what: str = "lab name") -> str:
    """`name` if it may be used for a lab or a node; BadInput with the rule otherwise."""
    if not _NAME.fullmatch(name):
        raise BadInput(f"{what} {name!r}: expected a lower-case letter, then up to 30 of a-z, 0-9 and '-'")
    return name


def tag(lab: str) -> str:
    """Six characters that stand for the lab in link names."""
    return hashlib.sha256(lab.encode()).hexdigest()[:6]


def bridge_name(lab: str) -> str:
    return f"shl-{tag(lab)}"


def port_name(lab: str, host: int) -> str:
    """The host's end of a machine's link: `shl-<tag>-<host number>`."""
    return f"shl-{tag(lab)}-{host}"


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """One machine of the lab; `host` is the last octet of its address. No limits: cpus 0, memory 0."""

    name: str
    host: int
    cpus: float = 0.0
    memory_bytes: int = 0
    role: str = "node"
    running: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    group: str = ""
    """The node group that asked for it; empty: a person."""


@dataclass(frozen=True, slots=True)
class LabRecord:
    """What is written down of a lab, before anything of it is made."""

    name: str
    subnet: str
    node_timeout_s: float = 3.0
    machines: tuple[MachineRecord, ...] = ()
    ready: bool = False
    previous_context: str = ""

    def machine(self, name: str) -> MachineRecord:
        for machine in self.machines:
            if machine.name == name:
                return machine
        raise BadInput(f"lab {self.name} has no node {name}: it has {', '.join(m.name for m in self.machines) or 'none'}")

    def nodes(self) -> tuple[MachineRecord, ...]:
        return tuple(machine for machine in self.machines if machine.role == "node")

    def address(self, machine: MachineRecord) -> str:
        return str(ipaddress.ip_network(self.subnet)[machine.host])

    @property
    def gateway(self) -> str:
        return str(ipaddress.ip_network(self.subnet)[1])

    @property
    def registry(self) -> str:
        return f"{ipaddress.ip_network(self.subnet)[REGISTRY_HOST]}:{REGISTRY_PORT}"

    @property
    def prometheus(self) -> str:
        """Where this lab's Prometheus answers; empty: it has none."""
        found = [self.address(machine) for machine in self.machines if machine.role == PROMETHEUS]
        return f"http://{found[0]}:{PROMETHEUS_PORT}" if found else ""

    @property
    def api(self) -> str:
        return f"https://{ipaddress.ip_network(self.subnet)[CONTROLLER_HOST]}:{API_PORT}"


@dataclass(frozen=True, slots=True)
class LabPaths:
    """The folders of one lab: `state` is kept over a reboot of the machine, `run` is not."""

    name: str
    state_root: Path = field(default=STATE_ROOT)
    run_root: Path = field(default=RUN_ROOT)

    @property
    def state(self) -> Path:
        return self.state_root / self.name

    @property
    def run(self) -> Path:
        return self.run_root / self.name

    @property
    def record(self) -> Path:
        return self.state / "lab.json"

    @property
    def lock(self) -> Path:
        return self.run_root / f"{self.name}.lock"

    @property
    def cgroup(self) -> str:
        return f"{CGROUP_ROOT}/{self.name}"

    def machine_state(self, machine: str) -> Path:
        return self.state / machine

    def machine_run(self, machine: str) -> Path:
        return self.run / machine

    def netns(self, machine: str) -> Path:
        return self.run / f"{machine}.net"

    @property
    def socket(self) -> Path:
        """Where the helper on the host listens for the controller."""
        return self.run / "helper.sock"

    def log(self, machine: str) -> Path:
        return self.state / f"{machine}.log"

    def pid(self, machine: str) -> Path:
        return self.run / f"{machine}.pid"


def share(cores: int, memory_bytes: int, nodes: int) -> tuple[float, int]:
    """An honest share for each of `nodes`: all shares together are what the machine has, less an eighth of the memory."""
    nodes = max(nodes, 1)
    cpus = max(0.1, int(cores / nodes * 100) / 100)
    return cpus, int(memory_bytes * 7 / 8 / nodes) >> 20 << 20


def free_subnet(routes: Iterable[str], taken: Iterable[str]) -> str:
    """The first /24 of the labs' range that overlaps no route of the machine and no other lab."""
    used = [ipaddress.ip_network(cidr) for cidr in (*routes, *taken) if cidr != "0.0.0.0/0"]
    for candidate in ipaddress.ip_network(UNDERLAYS).subnets(new_prefix=24):
        if not any(candidate.overlaps(other) for other in used):
            return str(candidate)
    raise BadInput(f"no free subnet for a lab in {UNDERLAYS}: take a lab down, or remove routes there")


def next_node(record: LabRecord) -> tuple[str, int]:
    """Name and host number of one more node: the lowest free ones."""
    hosts = {machine.host for machine in record.machines}
    names = {machine.name for machine in record.machines}
    for number in range(1, NODES_MAX + 1):
        host = FIRST_NODE_HOST + number - 1
        if f"n{number}" not in names and host not in hosts:
            return f"n{number}", host
    raise BadInput(f"lab {record.name} has {NODES_MAX} nodes already: that is the most")


def controller_command(record: LabRecord, paths: LabPaths, python: str) -> tuple[str, ...]:
    """The same daemon with the same flags as on a real machine."""
    address = record.address(record.machine(CONTROLLER))
    prometheus = ("--prometheus", record.prometheus) if record.prometheus else ()
    return (
        python, "-m", "shoal", "controller", "--data-dir", str(paths.machine_state(CONTROLLER)),
        "--api", f"{address}:{API_PORT}", "--dispatch", f"{address}:{DISPATCH_PORT}", "--advertise", address,
        "--name", record.name, "--node-timeout", f"{record.node_timeout_s}s", "--pool", POOL,
        "--scale-every", "500ms", "--lab-socket", str(paths.socket), *prometheus,
    )  # fmt: skip


def agent_command(record: LabRecord, machine: MachineRecord, paths: LabPaths, python: str, token: str) -> tuple[str, ...]:
    """The same daemon with the same flags as on a real machine; an empty token: it has joined before."""
    address = record.address(machine)
    join = ("--join", record.api, "--token", token) if token else ()
    labels = tuple(word for key, value in machine.labels for word in ("--label", f"{key}={value}"))
    metrics = ("--metrics", f"{address}:{METRICS_PORT}") if record.prometheus else ()
    return (
        python, "-m", "shoal", "agent", "--data-dir", str(paths.machine_state(machine.name)),
        "--run-dir", str(paths.machine_run(machine.name)), *join, "--name", machine.name,
        "--advertise", address, "--listen", f"{address}:{AGENT_PORT}",
        "--cpus", str(machine.cpus), "--memory", str(machine.memory_bytes),
        "--cgroup-parent", f"/{paths.cgroup}/{machine.name}/replicas",
        "--insecure-registry", record.registry, "--registry-mirror", f"docker.io={record.registry}",
        *labels, *metrics,
    )  # fmt: skip


def quote(words: Sequence[str]) -> str:
    """Words for a POSIX shell."""
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
