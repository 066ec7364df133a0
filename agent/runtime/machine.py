"""The whole node's counters: from /proc, or from the cgroup this agent's node is confined to, as in a lab.

Rules: files stay open, one pread each. What cannot be read counts as nothing: a measurement must not be the end of anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from agent.plan import samples
from agent.plan.samples import MachineCounters
from agent.runtime.cgroups import CgroupDriver, UsageFiles

_READ_BYTES: Final = 1 << 16
_LOOK_AT_ROUTES: Final = 30
"""Readings between two looks at which links lead out."""


class Machine(Protocol):
    """What a node as a whole has used."""

    def read(self) -> MachineCounters: ...

    def close(self) -> None: ...


class MachineFiles:
    """`data_dir`: whose file system counts as the node's disk. `confined`: the cgroup with the node's limits, as a path below
    the hierarchies' roots; empty: the machine. For the thread and network namespace it was made in."""

    def __init__(
        self, data_dir: Path, underlay: str, cgroups: CgroupDriver, confined: str = "", proc: Path = Path("/proc")
    ) -> None:
        self._data_dir = data_dir
        self._underlay = underlay
        self._proc = proc
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        names = ("stat", "meminfo", "vmstat", "thread-self/net/dev")
        self._fds = {name: os.open(proc / name, os.O_RDONLY | os.O_CLOEXEC) for name in names}
        self._confined: UsageFiles | None = cgroups.open_usage(confined) if confined else None
        self._ways_out: frozenset[str] = frozenset()
        self._reading = 0

    def read(self) -> MachineCounters:
        if self._reading % _LOOK_AT_ROUTES == 0:
            with contextlib.suppress(OSError, ValueError):
                routes = (self._proc / "thread-self/net/route").read_text()
                self._ways_out = samples.ways_out(routes, self._underlay)
        self._reading += 1
        links = samples.links(self._text("thread-self/net/dev"))
        cpu_s, memory_bytes, io = self._cpu_memory_io()
        used_bytes, disk_bytes = self._disk()
        return MachineCounters(cpu_s, memory_bytes, *io, used_bytes, disk_bytes, links, samples.total(links, self._ways_out))

    def _cpu_memory_io(self) -> tuple[float, int, tuple[int, int]]:
        found = self._confined.sample() if self._confined is not None else None
        if found is not None:
            return found.cpu_s, found.memory_bytes, (found.read_bytes, found.write_bytes)
        cpu_s = samples.machine_cpu_s(self._text("stat"), self._ticks_per_s)
        return cpu_s, samples.machine_memory_bytes(self._text("meminfo")), samples.machine_io(self._text("vmstat"))

    def _text(self, name: str) -> bytes:
        """The whole file: what the kernel makes by lines comes a page at a time."""
        parts: list[bytes] = []
        read = 0
        with contextlib.suppress(OSError):
            while part := os.pread(self._fds[name], _READ_BYTES, read):
                parts.append(part)
                read += len(part)
        return b"".join(parts)

    def _disk(self) -> tuple[int, int]:
        try:
            found = os.statvfs(self._data_dir)
        except OSError:
            return 0, 0
        return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_blocks * found.f_frsize

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}
        if self._confined is not None:
            self._confined.close()


class MemoryMachine:
    """Says what it is told to say; for tests and the simulation."""

    def __init__(self, counters: Callable[[], MachineCounters] | None = None) -> None:
        self._counters = counters

    def read(self) -> MachineCounters:
        return self._counters() if self._counters is not None else _IDLE

    def close(self) -> None:
        """Nothing was opened."""


_IDLE: Final = MachineCounters(0.0, 0, 0, 0, 0, 0, {}, samples.Link(0, 0))
