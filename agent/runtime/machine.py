"""The whole node's counters: from /proc, or from the cgroup this agent's node is confined to, as in a lab.

Rules: files stay open, one pread each. What cannot be read counts as nothing: a measurement must not be the end of anything.
Links are counted by netlink, which costs half of what the text of /proc/net/dev does; that is for kernels that refuse.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Protocol

from agent.network.rtnl import Netlink
from agent.plan import samples
from agent.plan.samples import MachineCounters
from agent.runtime.cgroups import CgroupDriver, UsageFiles
from model.errors import RuntimeFailed

log = logging.getLogger(__name__)
_READ_BYTES: Final = 1 << 16
_LOOK_AGAIN: Final = 30
"""Readings between two looks at which links lead out, and at names that are known: a link may be renamed."""


class Machine(Protocol):
    """What a node as a whole has used."""

    def read(self) -> MachineCounters: ...

    def close(self) -> None: ...


class LinkCounter(Protocol):
    """What is needed of `agent.network.rtnl.Netlink`."""

    def link_counts(self) -> tuple[tuple[int, ...], list[tuple[int, int]]]: ...

    def close(self) -> None: ...


class MachineFiles:
    """`data_dir`: whose file system counts as the node's disk. `confined`: the cgroup with the node's limits, as a path below
    the hierarchies' roots; empty: the machine. For the thread and network namespace it was made in."""

    def __init__(
        self,
        data_dir: Path,
        underlay: str,
        cgroups: CgroupDriver,
        confined: str = "",
        proc: Path = Path("/proc"),
        counter: Callable[[], LinkCounter] = Netlink,
    ) -> None:
        self._data_dir = data_dir
        self._underlay = underlay
        self._proc = proc
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        names = ("stat", "meminfo", "vmstat", "thread-self/net/dev")
        self._fds = {name: os.open(proc / name, os.O_RDONLY | os.O_CLOEXEC) for name in names}
        self._confined: UsageFiles | None = cgroups.open_usage(confined) if confined else None
        self._ways_out: frozenset[str] = frozenset()
        self._counter: LinkCounter | None = counter()
        self._names: dict[int, str] = {}
        self._reading = 0

    def read(self) -> MachineCounters:
        if self._reading % _LOOK_AGAIN == 0:
            self._names = {}
            with contextlib.suppress(OSError, ValueError):
                routes = (self._proc / "thread-self/net/route").read_text()
                self._ways_out = samples.ways_out(routes, self._underlay)
        self._reading += 1
        names, counts = self._links()
        cpu_s, memory_bytes, io = self._cpu_memory_io()
        used_bytes, disk_bytes = self._disk()
        sandboxes, way_out = samples.sandboxes(names, counts), samples.total(names, counts, self._ways_out)
        return MachineCounters(cpu_s, memory_bytes, *io, used_bytes, disk_bytes, sandboxes, way_out)

    def _links(self) -> tuple[Iterable[str], Iterable[tuple[int, int]]]:
        """Names, and of each what it received and sent."""
        if self._counter is not None:
            try:
                indexes, counts = self._counter.link_counts()
                return self._named(indexes), counts
            except (RuntimeFailed, OSError) as error:
                log.info("links are counted by /proc/net/dev: %s", error)
                self._counter.close()
                self._counter = None
        return samples.links(self._text("thread-self/net/dev"))

    def _named(self, indexes: tuple[int, ...]) -> Iterable[str]:
        """An index is not given again, unless somebody asks for it."""
        if tuple(self._names) != indexes:
            self._names = {index: self._names.get(index) or _name(index) for index in indexes}
        return self._names.values()

    def _cpu_memory_io(self) -> tuple[float, int, tuple[int, int]]:
        found = self._confined.read(0.0) if self._confined is not None else None
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
        if self._counter is not None:
            self._counter.close()
        if self._confined is not None:
            self._confined.close()


def _name(index: int) -> str:
    """Empty when it is gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


class MemoryMachine:
    """Says what it is told to say; for tests and the simulation."""

    def __init__(self, counters: Callable[[], MachineCounters] | None = None) -> None:
        self._counters = counters

    def read(self) -> MachineCounters:
        return self._counters() if self._counters is not None else _IDLE

    def close(self) -> None:
        """Nothing was opened."""


_IDLE: Final = MachineCounters(0.0, 0, 0, 0, 0, 0, {}, samples.Link(0, 0))
