"""What this node is, read once at the start.

Rules: only reads.
"""

from __future__ import annotations

import contextlib
import platform
import resource
import shutil
from pathlib import Path

from agent.plan import capabilities
from agent.plan.listening import ports_of
from agent.plan.oci import HostFacts
from model.errors import RuntimeFailed

_CAP_SYS_RESOURCE = "CAP_SYS_RESOURCE"


def read_facts(node: str = "") -> HostFacts:
    status = Path("/proc/self/status").read_text()
    mask = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd"))
    held = capabilities.from_mask(mask)
    version = 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1
    own_score = int(Path("/proc/self/oom_score_adj").read_text())
    return HostFacts(
        machine=platform.machine(),
        cgroup_version=version,
        capabilities=held,
        rlimits=_rlimits(),
        swap=version == 2 or Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
        init=shutil.which("catatonit", path="/usr/bin:/usr/libexec/podman:/usr/libexec:/usr/local/bin") or "",
        oom_score_floor=-1000 if _CAP_SYS_RESOURCE in held else own_score,
        node=node,
    )


def _rlimits() -> dict[str, int]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"]
    return {name: resource.getrlimit(getattr(resource, name))[1] for name in names}


def raise_descriptor_limit() -> None:
    """A container takes about a dozen descriptors of the agent; containers get a limit of their own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def program(name: str) -> str:
    """Its path. Raises RuntimeFailed when it is not installed."""
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/libexec/podman")
    if not found:
        raise RuntimeFailed(f"{name} is not installed on this node: install the package {name}")
    return found


def open_ports(pid: int) -> frozenset[int]:
    """TCP ports open for callers from outside in the network namespace of a process; none when it has ended."""
    found: frozenset[int] = frozenset()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for table in ("tcp", "tcp6"):
            found |= ports_of(Path(f"/proc/{pid}/net/{table}").read_bytes())
    return found


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int:
    """Clock ticks after boot at which a process began, 0 when there is none: with the pid it names ONE process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
