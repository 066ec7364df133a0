"""Limits as the OCI runtime wants them, where a container's cgroup is, and what its files say.

Rules: pure; files come as text. cgroup v1 and v2 differ in the names of the files and nothing else: the OCI resources are the
same for both. A path is relative to a hierarchy's root and begins with `/`.
"""

from __future__ import annotations

from typing import Any, Final

from agent.plan.container import Usage
from model.errors import RuntimeFailed
from model.spec import ContainerSpec

PERIOD_US: Final = 100_000
_QUOTA_US_MIN: Final = 1_000
_MEMORY_BYTES_MIN: Final = 6 << 20
_UNLIMITED: Final = 1 << 62
_NO_LIMIT: Final = -1
CLOCK_TICKS: Final = 100


def cgroup_path(parent: str, container_id: str) -> str:
    return f"/{parent.strip('/')}/{container_id}"


def resources(spec: ContainerSpec, *, swap: bool) -> dict[str, Any]:
    """`linux.resources` without devices. `swap`: the node can limit swap. Raises RuntimeFailed for impossible limits."""
    found = {"cpu": _cpu(spec), "memory": _memory(spec, swap=swap)}
    if spec.limits.pids:
        found["pids"] = {"limit": spec.limits.pids if spec.limits.pids > 0 else _NO_LIMIT}
    return {name: value for name, value in found.items() if value}


def _cpu(spec: ContainerSpec) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if spec.limits.cpus:
        cpu = {"quota": max(_QUOTA_US_MIN, round(spec.limits.cpus * PERIOD_US)), "period": PERIOD_US}
    if spec.cpu_shares:
        cpu["shares"] = max(2, min(262_144, spec.cpu_shares))
    if spec.cpuset:
        cpu["cpus"] = spec.cpuset
    return cpu


def _memory(spec: ContainerSpec, *, swap: bool) -> dict[str, Any]:
    limit = spec.limits.memory_bytes
    if not limit:
        return {}
    if limit < _MEMORY_BYTES_MIN:
        raise RuntimeFailed(
            f"memory limit {size(limit)} is below the least possible, {size(_MEMORY_BYTES_MIN)}", permanent=True
        )
    memory: dict[str, Any] = {"limit": limit}
    if swap:
        wanted = spec.memswap_limit_bytes
        if wanted is not None and 0 < wanted < limit:
            raise RuntimeFailed(f"memswap_limit {size(wanted)} is below the memory limit {size(limit)}", permanent=True)
        memory["swap"] = 2 * limit if not wanted else wanted if wanted > 0 else _NO_LIMIT
    return memory


def size(number: int) -> str:
    """Bytes for people: `64.0 MiB`."""
    value, unit = float(number), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, bigger
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


# The files `usage` needs: (controller, file).
V1_FILES: Final = (
    ("cpuacct", "cpuacct.usage"), ("cpu", "cpu.stat"), ("memory", "memory.usage_in_bytes"), ("memory", "memory.stat"),
    ("memory", "memory.limit_in_bytes"), ("memory", "memory.oom_control"), ("pids", "pids.current"), ("pids", "pids.max"),
    ("blkio", "blkio.throttle.io_service_bytes"),
)  # fmt: skip
V2_FILES: Final = (
    ("", "cpu.stat"), ("", "memory.current"), ("", "memory.stat"), ("", "memory.max"), ("", "memory.events"),
    ("", "pids.current"), ("", "pids.max"), ("", "io.stat"),
)  # fmt: skip


def usage_v1(texts: dict[str, str], at: float) -> Usage:
    """From the contents of V1_FILES by file name; missing files count as empty."""
    memory_stat, cpu_stat = pairs(texts.get("memory.stat", "")), pairs(texts.get("cpu.stat", ""))
    read, written = _blkio(texts.get("blkio.throttle.io_service_bytes", ""))
    used = number(texts.get("memory.usage_in_bytes", ""))
    return Usage(
        at=at,
        cpu_s=number(texts.get("cpuacct.usage", "")) / 1e9,
        memory_bytes=max(0, used - memory_stat.get("total_inactive_file", 0)),
        memory_limit_bytes=_limit(texts.get("memory.limit_in_bytes", "")),
        pids=number(texts.get("pids.current", "")),
        pids_limit=_limit(texts.get("pids.max", "")),
        read_bytes=read,
        write_bytes=written,
        throttled_s=cpu_stat.get("throttled_time", 0) / 1e9,
        oom_kills=pairs(texts.get("memory.oom_control", "")).get("oom_kill", 0),
    )


def usage_v2(texts: dict[str, str], at: float) -> Usage:
    """From the contents of V2_FILES by file name; missing files count as empty."""
    memory_stat, cpu_stat = pairs(texts.get("memory.stat", "")), pairs(texts.get("cpu.stat", ""))
    read, written = _io(texts.get("io.stat", ""))
    return Usage(
        at=at,
        cpu_s=cpu_stat.get("usage_usec", 0) / 1e6,
        memory_bytes=max(0, number(texts.get("memory.current", "")) - memory_stat.get("inactive_file", 0)),
        memory_limit_bytes=_limit(texts.get("memory.max", "")),
        pids=number(texts.get("pids.current", "")),
        pids_limit=_limit(texts.get("pids.max", "")),
        read_bytes=read,
        write_bytes=written,
        throttled_s=cpu_stat.get("throttled_usec", 0) / 1e6,
        oom_kills=pairs(texts.get("memory.events", "")).get("oom_kill", 0),
    )


def number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0


def pairs(text: str) -> dict[str, int]:
    """`name value` lines."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _limit(text: str) -> int:
    found = number(text)
    return 0 if found >= _UNLIMITED else found


def _blkio(text: str) -> tuple[int, int]:
    rows = [line.split() for line in text.splitlines()]
    read = sum(int(row[2]) for row in rows if len(row) == 3 and row[1] == "Read")
    return read, sum(int(row[2]) for row in rows if len(row) == 3 and row[1] == "Write")


def _io(text: str) -> tuple[int, int]:
    fields = [field.partition("=") for line in text.splitlines() for field in line.split()[1:]]
    read = sum(int(value) for name, _, value in fields if name == "rbytes")
    return read, sum(int(value) for name, _, value in fields if name == "wbytes")
