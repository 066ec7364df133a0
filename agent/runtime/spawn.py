"""Child processes of the agent, without polling, threads or os.fork.

Rules: subprocess uses vfork here (no preexec_fn), which costs about 1 ms whatever the agent's size; the end is awaited
through a pidfd. All descriptors but the named ones are closed in the child. A child is always reaped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

_READ_BYTES = 65536
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC", "LC_ALL": "C"}
"""What every child gets: nothing of the agent's own environment."""


class Child:
    """One started program."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        cwd: str = "/",
    ) -> None:
        self._process = subprocess.Popen(
            argv, env={**ENVIRONMENT, **(env or {})}, pass_fds=pass_fds, close_fds=True, stdin=stdin, stdout=stdout,
            stderr=stderr, start_new_session=True, cwd=cwd,
        )  # fmt: skip
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def has_ended(self) -> bool:
        """Looks now, also when nobody waits."""
        return self._process.poll() is not None

    async def wait(self) -> int:
        """The exit code, negative signal when killed. On cancellation the child goes on; `end` it then."""
        while self._process.returncode is None:
            await readable(self._pidfd)
            self._process.poll()
        self._close()
        return self._process.returncode

    def kill(self) -> None:
        if self._process.returncode is None and self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def end(self) -> None:
        """Kill and reap at once: waits the moment a killed process needs to vanish."""
        self.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


async def run(argv: Sequence[str], *, timeout_s: float = 60.0) -> tuple[int, str]:
    """Run a short program; exit code and what it wrote to standard error. A program that hangs is killed: code -9."""
    reading, writing = os.pipe()
    try:
        child = Child(argv, stderr=writing)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        async with asyncio.timeout(timeout_s):
            text = await read_all(reading)
            code = await child.wait()
    except TimeoutError:
        return -signal.SIGKILL, f"{argv[0]} gave no answer in {timeout_s:g} s"
    finally:
        if child.returncode is None:
            child.end()
        os.close(reading)
    return code, text.decode(errors="replace").strip()


async def read_all(fd: int, end: bytes = b"", bytes_max: int = 1 << 20) -> bytes:
    """Read a pipe until it ends, or until `end` was read."""
    os.set_blocking(fd, False)
    data = b""
    while len(data) < bytes_max:
        try:
            chunk = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            await readable(fd)
            continue
        data += chunk
        if not chunk or (end and end in chunk):
            break
    return data


async def readable(*fds: int) -> None:
    """Wait until one of them can be read."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    for fd in fds:
        loop.add_reader(fd, _settle, done)
    try:
        await done
    finally:
        for fd in fds:
            loop.remove_reader(fd)


async def writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _settle, done)
    try:
        await done
    finally:
        loop.remove_writer(fd)


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
