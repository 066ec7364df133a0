"""A child that a killed parent left behind: known by its pid file, ended without ever hitting a stranger.

Rules: a pid alone proves nothing (it is given out again); pid, start time and boot together do. The signal goes through a
pidfd that was opened before the start time was compared, so the pid cannot change hands in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, for good: `started` in clock ticks since boot, `boot` the kernel's boot id."""

    pid: int
    started: int
    boot: str


def identity_of(pid: int, *, zombies: bool = False) -> Identity | None:
    """None: no such process, or (unless `zombies`) it has ended and only waits for its parent."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in ("Z", "X") and not zombies:
        return None
    return Identity(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def write_pid_file(file: Path, pid: int) -> None:
    """Remembers the child. Atomic: a reader sees the old one or the new one."""
    identity = identity_of(pid)
    if identity is None:
        return
    new = file.with_name(file.name + ".new")
    new.write_text(json.dumps(asdict(identity)))
    new.replace(file)


def read_pid_file(file: Path) -> Identity | None:
    try:
        return Identity(**json.loads(file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


async def end_leftover(file: Path, patience_s: float = 5.0) -> bool:
    """Ends the process that `file` names if it still is that process: SIGTERM, then SIGKILL. True: there was one."""
    known = read_pid_file(file)
    file.unlink(missing_ok=True)
    if known is None:
        return False
    try:
        handle = os.pidfd_open(known.pid)
    except ProcessLookupError:
        return False
    try:
        # A zombie too: its threads may still be on their way out, holding ports and locks.
        if identity_of(known.pid, zombies=True) != known:
            return False
        for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, patience_s)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if await _ended(handle, wait_s):
                return True
        return True
    finally:
        os.close(handle)


async def _ended(handle: int, within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        async with asyncio.timeout(within_s):
            await ended.wait()
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(handle)
