"""Calling conmon: its arguments, and the pipes through which it says what became of the container.

Rules: conmon waits for a byte on the start pipe before it does anything, then answers on the sync pipe with one line of JSON,
and lives on in the background. Its standard error goes to a file: a pipe would be inherited by the container.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.runtime.bundle import Paths, State
from agent.runtime.spawn import Child, read_all
from model.errors import RuntimeFailed

_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of conmon and of the OCI runtime, the runtime's own directory and the one for sockets."""

    conmon: str
    runtime: str
    root: Path
    sockets: Path


async def call(programs: Programs, state: State, paths: Paths, log_bytes_max: int) -> dict[str, Any]:
    """Start a monitor, which creates the container. `data` is the pid, or negative with the fault in `message`."""
    errors = paths.directory / "conmon.err"
    fd = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        text = await _answer(_argv(programs, state, paths, log_bytes_max), fd, str(paths.directory))
    finally:
        os.close(fd)
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        answer = {"message": text.decode(errors="replace")}
    return answer if answer.get("message") or "data" in answer else {"message": errors.read_text(errors="replace")}


async def _answer(argv: list[str], errors: int, directory: str) -> bytes:
    sync_read, sync_write = os.pipe()
    start_read, start_write = os.pipe()
    env = {"_OCI_SYNCPIPE": str(sync_write), "_OCI_STARTPIPE": str(start_read)}
    child = None
    try:
        try:
            # cwd: conmon leaves a file named `oom` in its working directory as well
            child = Child(argv, env=env, pass_fds=(sync_write, start_read), stderr=errors, cwd=directory)
        finally:
            os.close(sync_write)
            os.close(start_read)
            if child is not None:
                os.write(start_write, b"\0")
            os.close(start_write)
        async with asyncio.timeout(_TIMEOUT_S):
            text = await read_all(sync_read, end=b"\n")
            await child.wait()
        return text
    except TimeoutError:
        raise RuntimeFailed(f"cannot start: the runtime gave no answer in {_TIMEOUT_S:g} s") from None
    finally:
        if child is not None and child.returncode is None:
            child.end()
        os.close(sync_read)


def _argv(programs: Programs, state: State, paths: Paths, log_bytes_max: int) -> list[str]:
    directory = str(paths.directory)
    argv = [
        programs.conmon, "--api-version", "1", "-c", state.id, "-u", state.id, "-n", state.name, "-r", programs.runtime,
        "-b", directory, "-p", f"{directory}/pidfile", "-P", str(paths.monitor_pid), "--exit-dir", directory,
        "--persist-dir", directory, "--socket-dir-path", str(programs.sockets), "--full-attach", "--no-sync-log",
        "--runtime-arg", "--root", "--runtime-arg", str(programs.root),
    ]  # fmt: skip
    argv += ["-l", f"k8s-file:{state.log}", "--log-size-max", str(log_bytes_max)] if state.log else ["-l", "none"]
    argv += ["-t"] if state.tty else []
    argv += ["-i"] if state.stdin else []
    argv += ["--leave-stdin-open"] if state.stdin and state.tty else []  # else the end of a pipe's input would never arrive
    return argv
