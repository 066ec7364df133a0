"""One command of a provider: its input, its bounded output, its end.

Rules: a session of its own, killed whole when the caller gives up; no shell; standard input carries what is secret, the command
line never. More output than the bound is an error, not a cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from controller.providers.port import ProviderError

OUTPUT_MAX: Final = 1 << 20
TAIL: Final = 300
LINGER_S: Final = 1.0
"""So long after a command's end what it has started may still speak; then that is killed."""
KEPT: Final = ("PATH", "HOME", "LANG", "TZ", "SSH_AUTH_SOCK", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PYTHONPATH")


async def run(who: str, words: Sequence[str], given: bytes, environment: Mapping[str, str] | None = None) -> bytes:
    """What the command writes. Raises ProviderError when it cannot be started, ends with another code than 0 (with the last it
    said), or says too much. Cancelled: it is killed with everything it has started."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True, cwd="/", env={**_kept(), **(environment or {})},
        )  # fmt: skip
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ProviderError(f"{who}: {words[0]} cannot be run: {reason}", begun=False) from None
    talking = asyncio.create_task(_talk(process, given))
    try:
        await _ended(process.pid)
        await asyncio.wait({talking}, timeout=LINGER_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        out, err = await talking
    code = process.returncode
    if len(out) > OUTPUT_MAX:
        raise ProviderError(f"{who}: said more than {OUTPUT_MAX >> 20} MiB")
    if code != 0:
        raise ProviderError(f"{who}: ended with exit code {code}: {_last(err) or _last(out) or 'it said nothing'}")
    return out


async def _ended(pid: int) -> None:
    """When the process has; asyncio's own `wait` also waits for who else holds its pipes."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _talk(process: asyncio.subprocess.Process, given: bytes) -> tuple[bytes, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.TaskGroup() as group:
        group.create_task(_give(process.stdin, given))
        out = group.create_task(_take(process.stdout))
        err = group.create_task(_take(process.stderr))
    return out.result(), err.result()


async def _give(stdin: asyncio.StreamWriter, given: bytes) -> None:
    """A command need not read what it is told."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(given)
        await stdin.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.close()
        await stdin.wait_closed()


async def _take(stream: asyncio.StreamReader) -> bytes:
    """At most one byte more than the bound is kept; the rest is read and forgotten, or the command would wait for ever."""
    kept = bytearray()
    while chunk := await stream.read(1 << 16):
        kept += chunk[: OUTPUT_MAX + 1 - len(kept)]
    return bytes(kept)


def _kept() -> dict[str, str]:
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def _last(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][-TAIL:] if lines else ""
