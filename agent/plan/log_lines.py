"""The log files conmon writes (`k8s-file`): names and lines.

Rules: pure. A line is `TIME STREAM F|P TEXT`; `P` is a part without its newline. Files of one replica sort by name into the
order they were written: `<number of the container>-<container id>.log.<number of the part>`. `...log` itself is the file
conmon writes now; every part is a second name (hard link) of what once was that file, so that conmon's own rotation loses
none of it.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from agent.plan.container import LogLine
from model.errors import RuntimeFailed
from model.spec import Pairs

_NAME: Final = re.compile(r"(\d{6,})-([A-Za-z0-9][A-Za-z0-9_.-]*?)\.log(?:\.(\d{6,}))?")
_SIZE: Final = re.compile(r"(\d+)\s*([kmg]?)b?", re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE_BYTES_MIN: Final = 16 << 10
_DRIVERS: Final = frozenset({"", "json-file", "local", "k8s-file"})


@dataclass(frozen=True, slots=True, order=True)
class LogName:
    """`part` 0: the file that is being written."""

    number: int
    container_id: str
    part: int = 0

    @property
    def text(self) -> str:
        return f"{self.number:06d}-{self.container_id}.log" + (f".{self.part:06d}" if self.part else "")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How much of one container's log is kept. `off`: none."""

    bytes_max: int = 10 << 20
    files_max: int = 3
    off: bool = False


def log_options(driver: str, options: Pairs) -> LogOptions:
    """Docker's `max-size` and `max-file`; other options are for other drivers."""
    if driver in ("none", "off"):
        return LogOptions(off=True)
    if driver not in _DRIVERS:
        raise RuntimeFailed(f"logging driver {driver!r} is not supported: json-file, local or none", permanent=True)
    given, default = dict(options), LogOptions()
    return LogOptions(_bytes(given["max-size"]) if "max-size" in given else default.bytes_max, _count(given, default.files_max))


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise RuntimeFailed(f"logging max-size {text!r}: expected a size such as 10m", permanent=True)
    return max(_SIZE_BYTES_MIN, int(found[1]) * _UNITS[found[2].lower()])


def _count(given: dict[str, str], default: int) -> int:
    text = given.get("max-file", str(default))
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise RuntimeFailed(f"logging max-file {text!r}: expected 1 to 1000", permanent=True)
    return int(text)


def parse_name(name: str) -> LogName | None:
    found = _NAME.fullmatch(name)
    return LogName(int(found[1]), found[2], int(found[3] or 0)) if found else None


def parts(names: Iterable[str]) -> list[LogName]:
    """The numbered parts among a directory's names, oldest first."""
    parsed = (parse_name(name) for name in names)
    return sorted(found for found in parsed if found is not None and found.part)


def surplus(names: Sequence[LogName], files_max: int) -> list[LogName]:
    """Parts of ONE container that are too many."""
    return sorted(names)[:-files_max]


def surplus_containers(names: Iterable[str], containers_max: int) -> list[str]:
    """All files of the oldest containers, so that at most `containers_max` are left."""
    parsed = [found for found in (parse_name(name) for name in names) if found is not None]
    numbers = sorted({found.number for found in parsed})
    old = set(numbers[:-containers_max]) if containers_max else set(numbers)
    return sorted(found.text for found in parsed if found.number in old)


def parse_line(raw: bytes, container_id: str = "") -> LogLine | None:
    """One line of the file (with its newline); None for a damaged one."""
    head = raw.split(b" ", 3)
    if len(head) != 4 or head[1] not in (b"stdout", b"stderr"):
        return None
    at_ns = parse_time(head[0])
    if at_ns is None:
        return None
    text = head[3] if head[2] != b"P" else head[3].removesuffix(b"\n")
    return LogLine(at_ns, head[1].decode(), text, container_id)


def parse_time(raw: bytes) -> int | None:
    """`2026-11-21T23:06:24.381585033+00:00` as nanoseconds of Unix time."""
    try:
        seconds = _seconds(raw[:19])
        fraction = raw[20:29]
        offset = _offset(raw[20 + len(fraction) :])
        return (seconds - offset) * 1_000_000_000 + int(fraction.ljust(9, b"0"))
    except ValueError:
        return None


@lru_cache(maxsize=8)
def _seconds(raw: bytes) -> int:
    fields = raw.replace(b"T", b"-").replace(b":", b"-").split(b"-")
    year, month, day, hour, minute, second = (int(field) for field in fields)
    return timegm((year, month, day, hour, minute, second))


def _offset(raw: bytes) -> int:
    if raw in (b"+00:00", b"Z", b""):
        return 0
    sign = -1 if raw[:1] == b"-" else 1
    return sign * (int(raw[1:3]) * 3600 + int(raw[4:6]) * 60)
