"""From two readings of counters to what was used meanwhile.

Rules: pure. A rate is per second over the time between two readings; a counter that went back, or a clock that was set, gives
no value (NaN), never a wrong one. What was read once gives nothing yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import nan
from typing import Any, Final, NamedTuple

from agent.plan.network import veth_name

V1_SAMPLED: Final = (
    ("cpuacct", "cpuacct.usage"), ("cpu", "cpu.stat"), ("memory", "memory.usage_in_bytes"), ("memory", "memory.stat"),
    ("pids", "pids.current"), ("blkio", "blkio.throttle.io_service_bytes"),
)  # fmt: skip
"""(controller, file), in the order in which `CgroupCounters` wants their contents."""
V2_SAMPLED: Final = (
    ("", "cpu.stat"), ("", "memory.current"), ("", "memory.stat"), ("", "pids.current"), ("", "io.stat"),
)  # fmt: skip
CPU: Final = 0
"""The place of the file with the time of CPU that was used, in both."""
_ALL: Final = {1: (1, 2, 3, 4, 5), 2: (1, 2, 3, 4)}
_MORE: Final = {1: (1, 2, 4, 5), 2: (1, 3, 4)}
"""All but memory.stat, which costs more than all others together, most of it where nothing is cached."""
_RAN: Final = {1: (2, 5), 2: (1, 4)}
"""What may change from one second to the next: memory and disks."""
_STOOD: Final[Mapping[int, tuple[int, ...]]] = {1: (), 2: (4,)}
"""The same while no process ran: v2 also counts what the kernel writes later."""
_V1_LIMITED: Final = (1, *_RAN[1])
"""v1 tells of throttling apart, where there is a limit."""
MORE_EVERY: Final = 5
ALL_EVERY: Final = 10
CLOCK_SET_S: Final = 1.0
"""The clock may differ by so much from the time that has passed between two readings; more, and it was set."""
_LINK_WORDS: Final = 17
"""In a line of /proc/net/dev; the second counts bytes received, the tenth bytes sent."""
_V1_READ: Final = re.compile(rb" Read (\d+)")
_V1_WRITE: Final = re.compile(rb" Write (\d+)")
_V2_READ: Final = re.compile(rb" rbytes=(\d+)")
_V2_WRITE: Final = re.compile(rb" wbytes=(\d+)")


class Counters(NamedTuple):
    """One cgroup at one moment. `periods`, `throttled`: how many there were, and in how many of them it was held back."""

    cpu_s: float
    periods: int
    throttled: int
    memory_bytes: int
    pids: int
    read_bytes: int
    write_bytes: int


class Link(NamedTuple):
    """Bytes of a network link since it was made: that it received, that it sent."""

    rx_bytes: int
    tx_bytes: int


class Used(NamedTuple):
    """By one container between two readings. Rates may be NaN."""

    cpu_cores: float
    throttled: float
    memory_bytes: int
    pids: int
    read_bytes_per_s: float
    write_bytes_per_s: float


class MachineCounters(NamedTuple):
    """The whole node at one moment. `links`: every link of its network namespace."""

    cpu_s: float
    memory_bytes: int
    read_bytes: int
    write_bytes: int
    disk_used_bytes: int
    disk_bytes: int
    links: Mapping[str, Link]
    way_out: Link


class Moment(NamedTuple):
    """When something was read, by the clock and by the time that has passed."""

    unix_s: float
    monotonic_s: float


class CgroupCounters:
    """The counters of one cgroup, from the contents of its files as they are read. What says the same as before is not taken
    apart again."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._parsers = _V1_PARSERS if version == 1 else _V2_PARSERS
        self._joined: Callable[..., Counters] = _joined_v1 if version == 1 else _joined_v2
        self._texts = [b""] * len(self._parsers)
        self._values = [parse(b"") for parse in self._parsers]
        self._found = self._joined(*self._values)

    def due(self, cpu: bytes, turn: int) -> tuple[int, ...]:
        """Places of the files to read when that of CPU, which is read each time, says `cpu`. `turn`: how many times it was."""
        before = self._texts[CPU]
        if turn % ALL_EVERY == 0 or not before:
            return _ALL[self._version]
        if turn % MORE_EVERY == 0:
            return _MORE[self._version]
        if cpu == before:
            return _STOOD[self._version]
        return _V1_LIMITED if self._version == 1 and self._found.periods > 0 else _RAN[self._version]

    def take(self, cpu: bytes, texts: Iterable[tuple[int, bytes]]) -> Counters:
        """`texts`: (place, contents)."""
        known, values, parsers, news = self._texts, self._values, self._parsers, cpu != self._texts[CPU]
        if news:
            known[CPU], values[CPU] = cpu, parsers[CPU](cpu)
        for place, text in texts:
            if text != known[place]:
                known[place], values[place], news = text, parsers[place](text), True
        if news:
            self._found = self._joined(*values)
        return self._found


def _joined_v1(cpu_s: float, periods: tuple[int, int], memory: int, cache: int, pids: int, io: tuple[int, int]) -> Counters:
    return Counters(cpu_s, *periods, memory - cache if memory > cache else 0, pids, *io)


def _joined_v2(cpu: tuple[float, int, int], memory: int, cache: int, pids: int, io: tuple[int, int]) -> Counters:
    return Counters(*cpu, memory - cache if memory > cache else 0, pids, *io)


def _number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def _named(text: bytes, name: bytes) -> int:
    """The number after `name` at a line's beginning."""
    at = 0 if text.startswith(name) else text.find(b"\n" + name) + 1
    if at == 0 and not text.startswith(name):
        return 0
    end = text.find(b"\n", at)
    return _number(text[at + len(name) : end if end >= 0 else None])


def _sums(io: bytes, read: re.Pattern[bytes], written: re.Pattern[bytes]) -> tuple[int, int]:
    return sum(map(int, read.findall(io))), sum(map(int, written.findall(io)))


def _periods(cpu_stat: bytes) -> tuple[int, int]:
    return _named(cpu_stat, b"nr_periods "), _named(cpu_stat, b"nr_throttled ")


_V1_PARSERS: Final[Sequence[Callable[[bytes], Any]]] = (
    lambda usage: _number(usage) / 1e9,
    _periods,
    _number,
    lambda memory_stat: _named(memory_stat, b"total_inactive_file "),
    _number,
    lambda io: _sums(io, _V1_READ, _V1_WRITE),
)
_V2_PARSERS: Final[Sequence[Callable[[bytes], Any]]] = (
    lambda cpu_stat: (_named(cpu_stat, b"usage_usec ") / 1e6, *_periods(cpu_stat)),
    _number,
    lambda memory_stat: _named(memory_stat, b"inactive_file "),
    _number,
    lambda io: _sums(io, _V2_READ, _V2_WRITE),
)
"""What each file says, in the order of V1_SAMPLED and V2_SAMPLED."""


def passed_s(before: Moment, after: Moment) -> float:
    """Between two readings; NaN when there is no telling: the clock was set meanwhile, or the machine slept."""
    seconds = after.monotonic_s - before.monotonic_s
    if seconds <= 0 or abs(after.unix_s - before.unix_s - seconds) > CLOCK_SET_S:
        return nan
    return seconds


def rate(before: float, after: float, seconds: float) -> float:
    """Per second; NaN for a counter that went back."""
    return (after - before) / seconds if after >= before else nan


def used(before: Counters, after: Counters, seconds: float) -> Used:
    periods, throttled = after.periods - before.periods, after.throttled - before.throttled
    return Used(
        rate(before.cpu_s, after.cpu_s, seconds),
        0.0 if periods == 0 else min(1.0, throttled / periods) if periods > 0 and throttled >= 0 else nan,
        after.memory_bytes,
        after.pids,
        rate(before.read_bytes, after.read_bytes, seconds),
        rate(before.write_bytes, after.write_bytes, seconds),
    )


def links(text: bytes) -> dict[str, Link]:
    """Every link of a network namespace, from its /proc/net/dev: two lines of heads, then one of each link."""
    words = text.partition(b"\n")[2].partition(b"\n")[2].replace(b":", b": ").decode(errors="replace").split()
    counts = map(Link, map(int, words[1::_LINK_WORDS]), map(int, words[9::_LINK_WORDS]))
    return {name[:-1]: link for name, link in zip(words[::_LINK_WORDS], counts, strict=True)}


def sandboxes(found: Mapping[str, Link]) -> dict[str, Link]:
    """What containers received and sent, by the beginning of their sandbox's links: the host's ends see it the other way
    round."""
    sums: dict[str, Link] = {}
    for name, (sent, received) in found.items():
        if name.startswith(_VETH):
            more = sums.get(name[:-2], _NO_LINK)
            sums[name[:-2]] = Link(more.rx_bytes + received, more.tx_bytes + sent)
    return sums


def sandbox_link(sandbox: str) -> str:
    """How the links of a sandbox begin."""
    return veth_name(sandbox, 0)[:-2]


_NO_LINK: Final = Link(0, 0)
_VETH: Final = sandbox_link("")


def ways_out(routes: str, underlay: str) -> frozenset[str]:
    """The machine's own links, from the kernel's table of IPv4 routes: with a default route, and that of the underlay."""
    found: dict[str, int] = {}
    wanted = int.from_bytes(bytes(map(int, underlay.split("."))), "little") if underlay.count(".") == 3 else 0
    for line in routes.splitlines()[1:]:
        interface, destination, _, _, _, _, _, mask, *_ = line.split()
        bits = int(mask, 16)
        if int(destination, 16) == 0 or (wanted and wanted & bits == int(destination, 16)):
            found[interface] = bits
    return frozenset(name for name in found if not name.startswith("sh"))


def total(found: Mapping[str, Link], names: Iterable[str]) -> Link:
    rows = [found[name] for name in names if name in found]
    return Link(sum(row.rx_bytes for row in rows), sum(row.tx_bytes for row in rows))


def machine_cpu_s(stat: bytes, ticks_per_s: int) -> float:
    """Busy seconds of all CPUs together, from /proc/stat: what was neither idle nor waited for a disk. That of guests is within
    that of who runs them."""
    numbers = list(map(int, stat[: stat.find(b"\n")].split()[1:9]))
    return (sum(numbers) - sum(numbers[3:5])) / ticks_per_s


def machine_memory_bytes(meminfo: bytes) -> int:
    """In use and not to be had, from /proc/meminfo."""
    return max(0, _kib(meminfo, b"MemTotal:") - _kib(meminfo, b"MemAvailable:"))


def _kib(text: bytes, name: bytes) -> int:
    words = text[text.find(name) + len(name) :].split(None, 1)
    return _number(words[0]) * 1024 if name in text and words else 0


def machine_io(vmstat: bytes) -> tuple[int, int]:
    """Bytes read from and written to all block devices, from /proc/vmstat."""
    return _named(vmstat, b"pgpgin ") * 1024, _named(vmstat, b"pgpgout ") * 1024
