"""What this node has to give: CPUs, memory and processes, from its own cgroup's limits and the machine.

Rules: the smallest of all limits on the way from our cgroup to the root counts, on cgroup v1 and v2. Files are read through
`root`, so that tests can show any machine.
"""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path

from model.documents import NodeInfo
from model.version import VERSION

_UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Capacity:
    cpus: float
    memory_bytes: int
    pids: int
    cgroup: str


def detect(root: Path = Path("/")) -> Capacity:
    """CPUs in cores (two digits), memory in bytes, pids (0: no limit known), cgroup `v1` or `v2`."""
    paths = _own_paths(root)
    mount = root / "sys/fs/cgroup"
    unified = (mount / "cgroup.controllers").exists()
    if unified:
        folders = _upwards(mount, paths.get("", "/"))
        quotas = [_v2_cpus(folder) for folder in folders]
        memory = [_number(folder / "memory.max") for folder in folders]
        pids = [_number(folder / "pids.max") for folder in folders]
    else:
        quotas = [_v1_cpus(folder) for folder in _upwards(mount / "cpu", paths.get("cpu", "/"))]
        memory = [_number(folder / "memory.limit_in_bytes") for folder in _upwards(mount / "memory", paths.get("memory", "/"))]
        pids = [_number(folder / "pids.max") for folder in _upwards(mount / "pids", paths.get("pids", "/"))]
    cpus = min([float(_usable_cpus()), *(quota for quota in quotas if quota)])
    memory_bytes = min([_machine_memory(root), *(limit for limit in memory if limit)])
    limits = [limit for limit in pids if limit]
    return Capacity(round(cpus, 2), memory_bytes, min(limits, default=0), "v2" if unified else "v1")


def confined(parent: str, root: Path = Path("/")) -> str:
    """The path of the nearest cgroup of ours with a limit, as in a lab, if the containers' `parent` is in it too: that is the
    machine as far as we are concerned. Empty: the machine itself."""
    paths = _own_paths(root)
    unified = (root / "sys/fs/cgroup/cgroup.controllers").exists()
    mount = root / "sys/fs/cgroup" / ("" if unified else "cpu")
    for folder in _upwards(mount, paths.get("" if unified else "cpu", "/"))[:-1]:
        if (_v2_cpus(folder) or _number(folder / "memory.max")) if unified else _v1_cpus(folder):
            path = f"/{folder.relative_to(mount)}"
            return path if f"/{parent.strip('/')}/".startswith(f"{path}/") else ""
    return ""


def node_info(
    capacity: Capacity, address: str, underlay: str, routes: tuple[str, ...] = (), root: Path = Path("/")
) -> NodeInfo:
    boot_id = root / "proc/sys/kernel/random/boot_id"
    return NodeInfo(
        address=address,
        underlay=underlay,
        hostname=socket.gethostname(),
        cpus=capacity.cpus,
        memory_bytes=capacity.memory_bytes,
        pids=capacity.pids,
        arch=platform.machine(),
        kernel=platform.release(),
        agent_version=VERSION,
        cgroup=capacity.cgroup,
        boot_id=boot_id.read_text().strip() if boot_id.exists() else "",
        routes=routes,
    )


def _own_paths(root: Path) -> dict[str, str]:
    """Controller -> our cgroup's path; the empty controller is cgroup v2's."""
    found: dict[str, str] = {}
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name] = path
    return found


def _upwards(mount: Path, path: str) -> list[Path]:
    """Our cgroup's folder and all above it; a path outside the mount (a container's view) shows only the mount itself."""
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        parts = []
    return [mount.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _v2_cpus(folder: Path) -> float:
    words = _text(folder / "cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else 0.0


def _v1_cpus(folder: Path) -> float:
    quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota and period and int(quota) > 0 else 0.0


def _number(path: Path) -> int:
    """A limit; 0 when there is none."""
    text = _text(path)
    value = int(text) if text.isdigit() else 0
    return 0 if value >= _UNLIMITED else value


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0))


def _machine_memory(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0
