"""How the runtime learns of a container's end: pidfds of its monitor (conmon) and of its first process, no polling.

Rules: conmon's end is the usual signal, its exit file then stands. A killed conmon leaves no file: the first process is watched
instead, and since the agent is a subreaper it gets the true code from the kernel. After a restart of the agent the processes
are no children; the code then stands in the exit file or, where conmon was killed too, with the kernel: in /proc until whoever
took the process over reaps it, from Linux 6.15 on in the pidfd afterwards. On older kernels it may be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from agent.runtime.facts import start_time
from agent.runtime.high import moved

_WAITED_MAX: Final = 0xFF
_PIDFD_GET_INFO: Final = 0xC040FF0B
_PIDFD_INFO_EXIT: Final = 8
_INFO: Final = struct.Struct("QQ11Ii")
"""struct pidfd_info: mask, cgroup, eleven ids, exit code as wait(2) gives it."""
_STAT_EXIT_CODE: Final = 49
_REAPED_WAIT_S: Final = 0.02
_REAPED_TRIES: Final = 50


class Process:
    """One process held by a pidfd: it cannot be mistaken for a later one with the same pid."""

    def __init__(self, pid: int, start: int = 0) -> None:
        """Raises ProcessLookupError when it is gone or another (`start` 0: not compared)."""
        self.pid = pid
        self.fd = moved(os.pidfd_open(pid))
        if start and start_time(pid) != start:
            self.close()
            raise ProcessLookupError(pid)

    def signal(self, number: int) -> None:
        if self.fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.fd, number)

    def reap(self) -> int | None:
        """Its exit code if it has ended as our child; None: not ours, or not ended."""
        try:
            found = os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG)
        except (ChildProcessError, OSError):
            return None
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else 128 + found.si_status

    def told(self) -> int | None:
        """The exit code of an ended process that is no child; None: not known yet. Raises OSError when it never will be."""
        status = self._zombie_status()
        if status is None:
            mask, *_, status = _INFO.unpack(fcntl.ioctl(self.fd, _PIDFD_GET_INFO, _INFO.pack(_PIDFD_INFO_EXIT, *[0] * 13)))
            if not mask & _PIDFD_INFO_EXIT:
                return None
        code = os.waitstatus_to_exitcode(status & 0xFFFF)
        return code if code >= 0 else 128 - code

    def _zombie_status(self) -> int | None:
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            signal.pidfd_send_signal(self.fd, 0)  # it is not reaped, so what was read is not of a later process
        except (FileNotFoundError, ProcessLookupError):
            return None
        return int(fields[_STAT_EXIT_CODE]) if fields[0] == b"Z" else None

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Watch:
    """Watches one container until it has ended, then calls `ended(exit code or None)` once."""

    def __init__(
        self, process: Process | None, monitor: Process | None, exit_file: Path, ended: Callable[[int | None], None]
    ) -> None:
        self._process, self._monitor = process, monitor
        self._exit_file, self._ended = exit_file, ended
        self._loop = asyncio.get_running_loop()
        self._watched: Process | None = None

    def begin(self) -> None:
        self._follow(self._monitor or self._process)

    def close(self) -> None:
        if self._watched is not None and self._watched.fd >= 0:
            self._loop.remove_reader(self._watched.fd)
        self._watched = None
        for process in (self._process, self._monitor):
            if process is not None:
                process.close()

    def _follow(self, process: Process | None) -> None:
        self._watched = process
        if process is None:
            self._finish(None)
        else:
            self._loop.add_reader(process.fd, self._ready)

    def _ready(self) -> None:
        watched = self._watched
        if watched is None:
            return
        self._loop.remove_reader(watched.fd)
        code = watched.reap()
        if watched is self._monitor and read_exit_file(self._exit_file) is None and self._process is not None:
            self._follow(self._process)  # conmon was killed: its container may go on
        elif watched is self._process and code is None:
            self._ask(_REAPED_TRIES)
        else:
            self._finish(code if watched is self._process else None)

    def _ask(self, tries: int) -> None:
        """The process is no child of ours: between its end and its reaping there may be a moment in which nobody tells."""
        process = self._watched
        if process is None:
            return
        code = None
        with contextlib.suppress(OSError):
            code = process.told()
            if code is None and tries and read_exit_file(self._exit_file) is None:
                self._loop.call_later(_REAPED_WAIT_S, self._ask, tries - 1)
                return
        self._finish(code)

    def _finish(self, code: int | None) -> None:
        self._watched = None
        written = read_exit_file(self._exit_file)
        if self._process is not None:
            self._process.reap()
        self._ended(written if written is not None else code)


def reap_orphans(keep: Collection[int]) -> int:
    """Reap dead processes of containers that became children of this subreaper; returns how many.

    A failed or killed exec leaves one, and while it is a zombie its container cannot end. Only processes of another pid
    namespace count: children that other parts of the agent started live in the agent's own. `keep`: watched elsewhere.
    """
    found = 0
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children", "rb") as file:
            for pid in map(int, file.read().split()):
                if pid not in keep and _is_dead_stranger(pid):
                    with contextlib.suppress(ChildProcessError):
                        found += os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    return found


def _is_dead_stranger(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file if line.startswith((b"State:", b"NSpid:")))
    except (OSError, ValueError):
        return False
    return fields.get(b"State", b"").strip()[:1] == b"Z" and len(fields.get(b"NSpid", b"").split()) > 1


def read_exit_file(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) & _WAITED_MAX if text.lstrip("-").isdigit() else None
