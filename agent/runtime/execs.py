"""One more process in a running container: `crun exec` as a child of the agent, with pipes or with a terminal.

Rules: the process gets the container's own environment, user, rights and filter unless the request says otherwise. An exec
ends with the session: nothing of it runs on after `close`. Its user is looked up in the running container's files, never by
following its links.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal as signals
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.images.trees import open_regular
from agent.plan.container import ExecRequest
from agent.plan.oci import HostFacts
from agent.plan.oci_process import exec_process
from agent.plan.users import find_user
from agent.runtime.bundle import Paths, disk_problem, read_process
from agent.runtime.monitor import Process
from agent.runtime.spawn import Child, readable
from agent.runtime.streams import Name, Streams
from model.errors import RuntimeFailed

_numbers = itertools.count(1)
_CONSOLE_TIMEOUT_S: Final = 20.0
_DESCRIPTORS_MAX: Final = 4
_END_WAIT_S: Final = 0.02
_END_TRIES: Final = 150
_LAST_BYTES: Final = 400
_RUNTIME_FAILED: Final = 255
_NOT_EXECUTABLE: Final = (b"permission denied", b"operation not permitted", b"format error")
_FILE_BYTES_MAX: Final = 1 << 20
_IN_ROOT: Final = 0x10 | 0x02  # RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS


class ExecSession:
    """See agent.runtime.port.Session."""

    def __init__(self, child: Child, streams: Streams, directory: Path, ended: Callable[[], None]) -> None:
        self._child, self._streams, self._directory, self._ended = child, streams, directory, ended
        self._waiting: asyncio.Future[int] | None = None
        self._closed = False
        self._last = b""

    async def output(self) -> AsyncIterator[tuple[Name, bytes]]:
        async for name, data in self._streams.read():
            self._last = data[-_LAST_BYTES:]
            yield name, data

    async def write(self, data: bytes) -> None:
        await self._streams.write(data)

    async def close_stdin(self) -> None:
        await self._streams.close_stdin()

    async def resize(self, rows: int, columns: int) -> None:
        self._streams.resize(rows, columns)

    async def signal(self, number: int) -> None:
        """crun writes the pid a moment after the process began: a signal that comes before waits for it."""
        for _ in range(_END_TRIES):
            if self._child.has_ended() or self._signal(number):
                return
            await asyncio.sleep(_END_WAIT_S)

    async def wait(self) -> int:
        if self._waiting is None:
            self._waiting = asyncio.ensure_future(self._wait())
        return await asyncio.shield(self._waiting)

    async def _wait(self) -> int:
        code = await self._child.wait()
        self._ended()
        if code == _RUNTIME_FAILED and not (self._directory / "pid").exists():
            return 126 if any(reason in self._last.lower() for reason in _NOT_EXECUTABLE) else 127
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if not self._child.has_ended():
                self._signal(signals.SIGKILL)
            await self._end()
        finally:
            self._streams.close()
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _end(self) -> None:
        """crun ends with its process, whose pid it may write a little late. If it never does, crun itself is killed."""
        for _ in range(_END_TRIES):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_WAIT_S):
                    await self.wait()
                return
            if not self._child.has_ended():
                self._signal(signals.SIGKILL)
        self._child.kill()
        await self.wait()

    def _signal(self, number: int) -> bool:
        """False while nobody knows the process. Its pid is its own for as long as crun, its parent, lives."""
        try:
            process = Process(int((self._directory / "pid").read_text()))
        except (OSError, ValueError):
            return False
        process.signal(number)
        process.close()
        return True


@dataclass(frozen=True, slots=True)
class Target:
    """A running container. `pid`: its first process. `ended` is called when an exec has ended, to reap what it left."""

    container_id: str
    pid: int
    paths: Paths
    ended: Callable[[], None]


async def begin(command: list[str], target: Target, request: ExecRequest, facts: HostFacts) -> ExecSession:
    """Start it. `command`: the OCI runtime. Raises RuntimeFailed for an unknown user, DiskFull."""
    directory = target.paths.directory / f"exec-{next(_numbers)}-{os.getpid()}"
    try:
        directory.mkdir(mode=0o700)
        (directory / "process.json").write_text(json.dumps(_process(request, target, facts)))
        argv = [*command, "exec", "--pid-file", str(directory / "pid"), "--process", str(directory / "process.json")]
        if request.tty:
            return await _with_terminal(argv, target, directory, request)
        return _with_pipes(argv, target, directory, request)
    except BaseException as error:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError):
            raise disk_problem(error, target.container_id) from None
        raise


def _process(request: ExecRequest, target: Target, facts: HostFacts) -> dict[str, object]:
    base = read_process(target.paths)
    if request.user:
        user = find_user(request.user, (), *_files(target.pid, "etc/passwd", "etc/group"))
    else:
        user = find_user(f"{base['user']['uid']}:{base['user']['gid']}", (), "", "")
    return exec_process(request, base, user, facts.capabilities)


def _files(pid: int, *names: str) -> list[str]:
    """Files of the container as they are now; links in it are followed inside it."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return [_text(root, name) for name in names]
    finally:
        os.close(root)


def _text(root: int, name: str) -> str:
    try:
        fd = open_regular(root, name, _IN_ROOT)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        return file.read(_FILE_BYTES_MAX).decode(errors="replace")


def _with_pipes(argv: list[str], target: Target, directory: Path, request: ExecRequest) -> ExecSession:
    out_read, out_write = os.pipe()
    error_read, error_write = os.pipe()
    in_read, in_write = os.pipe() if request.stdin else (-1, -1)
    try:
        stdin = in_read if request.stdin else subprocess.DEVNULL
        child = Child([*argv, target.container_id], stdin=stdin, stdout=out_write, stderr=error_write)
    except BaseException:
        for fd in {out_read, error_read, in_write} - {-1}:
            os.close(fd)
        raise
    finally:
        for fd in {out_write, error_write, in_read} - {-1}:
            os.close(fd)
    return ExecSession(child, Streams({out_read: "stdout", error_read: "stderr"}, in_write), directory, target.ended)


async def _with_terminal(argv: list[str], target: Target, directory: Path, request: ExecRequest) -> ExecSession:
    """crun makes the terminal inside the container and sends its master end over a socket."""
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    child = None
    errors_read, errors_write = os.pipe()
    try:
        path = f"/proc/{os.getpid()}/fd/{handle}/console"  # socket paths end at 107 bytes, data directories do not
        listener.bind(path)
        listener.listen(1)
        child = Child([*argv, "--tty", "--console-socket", path, target.container_id], stderr=errors_write)
        os.close(errors_write)
        errors_write = -1
        master = await _receive_master(listener, child, errors_read)
    except BaseException:
        if child is not None and child.returncode is None:
            child.end()
        raise
    finally:
        listener.close()
        for fd in {handle, errors_read, errors_write} - {-1}:
            os.close(fd)
    streams = Streams({master: "stdout"}, master, terminal=True)
    if request.rows and request.columns:
        streams.resize(request.rows, request.columns)
    return ExecSession(child, streams, directory, target.ended)


async def _receive_master(listener: socket.socket, child: Child, errors: int) -> int:
    """The terminal's master end. Raises RuntimeFailed with crun's own words when it ends without sending one."""
    listener.setblocking(False)
    try:
        async with asyncio.timeout(_CONSOLE_TIMEOUT_S):
            await readable(listener.fileno(), errors)
            connection, _ = listener.accept()
            with connection:
                await readable(connection.fileno())
                _, descriptors, _, _ = socket.recv_fds(connection, 4096, _DESCRIPTORS_MAX)
    except (BlockingIOError, TimeoutError):
        child.kill()
        await child.wait()
        text = os.read(errors, 4096).decode(errors="replace").strip()
        raise RuntimeFailed(f"exec: {text or 'the runtime sent no terminal'}") from None
    if not descriptors:
        raise RuntimeFailed("exec: the runtime sent no terminal")
    for fd in descriptors[1:]:
        os.close(fd)
    return descriptors[0]
