"""Which Linux capabilities a container holds.

Rules: Docker's default set. What is dangerous elsewhere is harmless here: NET_RAW, since a container's frames carry its own
addresses or are dropped (agent/plan/firewall.py); MKNOD, since neither the container's cgroup nor the agent lets its devices be
opened. What the node itself does not have cannot be given. Names are accepted with and without `CAP_`, in any case.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from model.errors import RuntimeFailed
from model.spec import ContainerSpec

# In kernel order: a capability's number is its index.
_ALL = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_DEFAULT = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE
"""
ALL: Final = tuple(f"CAP_{name}" for name in _ALL.split())
DEFAULT: Final = tuple(f"CAP_{name}" for name in _DEFAULT.split())


def from_mask(mask: int) -> tuple[str, ...]:
    """Names of the bits of `CapBnd` in /proc/self/status that this file knows."""
    return tuple(name for number, name in enumerate(ALL) if mask >> number & 1)


def held(spec: ContainerSpec, available: Iterable[str]) -> tuple[str, ...]:
    """The container's capabilities, sorted. Raises RuntimeFailed for an unknown name."""
    add, drop = _names(spec.cap_add, "cap_add"), _names(spec.cap_drop, "cap_drop")
    wanted = set(ALL if spec.privileged or "CAP_ALL" in add else DEFAULT)
    if "CAP_ALL" in drop and not spec.privileged:
        wanted = set(ALL if "CAP_ALL" in add else ())
    wanted |= add
    if not spec.privileged:
        wanted -= drop - (add if "CAP_ALL" in drop else frozenset())
    return tuple(sorted(wanted & set(available)))


def _names(written: Iterable[str], where: str) -> frozenset[str]:
    names = frozenset("CAP_" + name.upper().removeprefix("CAP_") for name in written)
    unknown = sorted(names - set(ALL) - {"CAP_ALL"})
    if unknown:
        raise RuntimeFailed(f"{where}: unknown capability {unknown[0]}", permanent=True)
    return names
