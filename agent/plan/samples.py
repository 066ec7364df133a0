"""From two readings of counters to what was used meanwhile.

Rules: pure. A rate is per second over the time between two readings; a counter that went back, or a clock that was set, gives
no value (NaN), never a wrong one. What was read once gives nothing yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
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
DISKS_EVERY: Final = 2
MORE_EVERY: Final = 5
"""Processes, and throttling where there was none."""
ALL_EVERY: Final = 10
"""With memory.stat, which costs more than all others together, most of it where nothing is cached."""
CLOCK_SET_S: Final = 1.0
"""The clock may differ by so much from the time that has passed between two readings; more, and it was set."""
_LINK_WORDS: Final = 17
"""In a line of /proc/net/dev; the second counts bytes received, the tenth bytes sent."""
_V1_READ: Final = re.compile(rb" Read (\d+)")
_V1_WRITE: Final = re.compile(rb" Write (\d+)")
_V2_READ: Final = re.compile(rb" rbytes=(\d+)")
_V2_WRITE: Final = re.compile(rb" wbytes=(\d+)")


class Counters(NamedTuple):
    """One cgroup at one moment. `periods`, `throttled`: how many there were, and in how many of them it was held back. What its
    disks did is read less often than the rest, so it comes as rates: between the last two readings of that. May be NaN."""

    cpu_s: float
    periods: int
    throttled: int
    memory_bytes: int
    pids: int
    read_bytes_per_s: float
    write_bytes_per_s: float


class Link(NamedTuple):
    """Bytes of a network link since it was made: that it received, that it sent."""

    rx_bytes: int
    tx_bytes: int


class MachineCounters(NamedTuple):
    """The whole node at one moment. `sandboxes`: as the function of that name gives them."""

    cpu_s: float
    memory_bytes: int
    read_bytes: int
    write_bytes: int
    disk_used_bytes: int
    disk_bytes: int
    sandboxes: Mapping[str, Link]
    way_out: Link


class Moment(NamedTuple):
    """When something was read, by the clock and by the time that has passed."""

    unix_s: float
    monotonic_s: float


class CgroupCounters:
    """The counters of one cgroup, from the contents of its files as they are read. What says the same as before is not taken
    apart again. `turn`: how many times it was read, from wherever the count began; `at_s`: the time that has passed."""

    def __init__(self, version: int) -> None:
        self._due = _due_v1 if version == 1 else _due_v2
        self._parsers = _V1_PARSERS if version == 1 else _V2_PARSERS
        self._joined = _joined_v1 if version == 1 else _joined_v2
        self._texts = [b""] * len(self._parsers)
        self._values = [parse(b"") for parse in self._parsers]
        self._disks: tuple[int, int] = self._values[-1]
        self._disks_at_s, self._disks_cpu = nan, b""
        """When they were looked at, and what the file of CPU said then."""
        self._rates = nan, nan
        self._found = self._joined(self._values, self._rates)

    def due(self, turn: int, cpu: bytes) -> tuple[int, ...]:
        """Places of the files to read when that of CPU, which is read each time, says `cpu`."""
        before = self._texts[CPU]
        if not before:
            return self._due(0, True, True, True)
        return self._due(turn % ALL_EVERY, cpu != before, cpu != self._disks_cpu, self._found.periods > 0)

    def take(self, turn: int, at_s: float, cpu: bytes, texts: Iterable[tuple[int, bytes]]) -> Counters:
        """`texts`: (place, contents) of those that were due."""
        known, values, parsers = self._texts, self._values, self._parsers
        news, disks = False, turn % DISKS_EVERY == 0 or not known[CPU]
        if cpu != known[CPU]:
            known[CPU], values[CPU], news = cpu, parsers[CPU](cpu), True
        for place, text in texts:
            if text != known[place]:
                known[place], values[place], news = text, parsers[place](text), True
        if disks:
            news |= self._look_at_disks(values[-1], at_s)
            self._disks_cpu = cpu
        if news:
            self._found = self._joined(values, self._rates)
        return self._found

    def _look_at_disks(self, now: tuple[int, int], at_s: float) -> bool:
        """Whether that is news."""
        before, seconds = self._disks, at_s - self._disks_at_s
        self._disks, self._disks_at_s = now, at_s
        if now is before:  # the file says the same, or was not read since nothing ran
            rates = 0.0, 0.0
        elif seconds > 0:
            rates = rate(before[0], now[0], seconds), rate(before[1], now[1], seconds)
        else:
            rates = nan, nan
        news, self._rates = rates != self._rates, rates
        return news


@lru_cache
def _due_v1(turn: int, ran: bool, ran_since_disks: bool, limited: bool) -> tuple[int, ...]:
    """v1 tells of throttling apart, where there is a limit. Its disks count nothing while no process runs."""
    more, every, disks = turn % MORE_EVERY == 0, turn % ALL_EVERY == 0, turn % DISKS_EVERY == 0
    wanted = (more or (ran and limited), more or ran, every, more, every or (disks and ran_since_disks))
    return tuple(place for place, due in enumerate(wanted, 1) if due)


@lru_cache
def _due_v2(turn: int, ran: bool, _ran_since_disks: bool, _limited: bool) -> tuple[int, ...]:
    """v2 also counts what the kernel writes to disk later."""
    more, every, disks = turn % MORE_EVERY == 0, turn % ALL_EVERY == 0, turn % DISKS_EVERY == 0
    wanted = (more or ran, every, more, disks)
    return tuple(place for place, due in enumerate(wanted, 1) if due)


def _joined_v1(values: Sequence[Any], rates: tuple[float, float]) -> Counters:
    cpu_s, (periods, throttled), memory, cache, pids, _ = values
    return Counters(cpu_s, periods, throttled, memory - cache if memory > cache else 0, pids, *rates)


def _joined_v2(values: Sequence[Any], rates: tuple[float, float]) -> Counters:
    (cpu_s, periods, throttled), memory, cache, pids, _ = values
    return Counters(cpu_s, periods, throttled, memory - cache if memory > cache else 0, pids, *rates)


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


def held_back(before: Counters, after: Counters) -> float:
    """In which share of the periods."""
    periods, throttled = after.periods - before.periods, after.throttled - before.throttled
    if periods == 0:
        return 0.0
    return min(1.0, throttled / periods) if periods > 0 and throttled >= 0 else nan


def links(text: bytes) -> tuple[list[str], list[tuple[int, int]]]:
    """Names of every link of a network namespace, and of each the bytes that it received and sent, from its /proc/net/dev: two
    lines of heads, then one of each link."""
    words = text.partition(b"\n")[2].partition(b"\n")[2].replace(b":", b": ").decode(errors="replace").split()
    counts = zip(map(int, words[1::_LINK_WORDS]), map(int, words[9::_LINK_WORDS]), strict=True)
    return [name[:-1] for name in words[::_LINK_WORDS]], list(counts)


def sandboxes(names: Iterable[str], found: Iterable[tuple[int, int]]) -> dict[str, Link]:
    """What containers received and sent, by the beginning of their sandbox's links; `found`: received and sent by the host's
    ends, which see it the other way round. `names`: of all links, in the same order."""
    sums: dict[str, Link] = {}
    for name, (sent, received) in zip(names, found, strict=True):
        if name.startswith(_VETH):
            sandbox = name[:-2]
            more = sums.get(sandbox)
            sums[sandbox] = Link(received + more.rx_bytes, sent + more.tx_bytes) if more else Link(received, sent)
    return sums


def sandbox_link(sandbox: str) -> str:
    """How the links of a sandbox begin."""
    return veth_name(sandbox, 0)[:-2]


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


def total(names: Iterable[str], found: Iterable[tuple[int, int]], wanted: Collection[str]) -> Link:
    rows = [row for name, row in zip(names, found, strict=True) if name in wanted]
    return Link(sum(received for received, _ in rows), sum(sent for _, sent in rows))


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
