"""What a container's end and a failed start mean, in one line for people.

Rules: pure. Exit codes as Docker's: 128 + signal for a killed process, 127 for a command that is not there, 126 for one
that cannot be executed.
"""

from __future__ import annotations

import re
from typing import Final

from agent.plan.cgroups import size
from model.errors import DiskFull, RuntimeFailed

_SIGNALS: Final = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV",
    13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
}  # fmt: skip
_NOT_FOUND: Final = re.compile(
    r"executable file [`'\"]?(?P<name>[^`'\"]*)[`'\"]? not found|exec: \"(?P<runc>[^\"]*)\".*not found"
)
_NO_FILE: Final = "no such file or directory"
_NOT_EXECUTABLE: Final = ("permission denied", "operation not permitted", "exec format error", "is a directory")
_LOGFMT: Final = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_PREFIX: Final = re.compile(r"^(?:(?:crun|runc)[a-z ]*: |error: |unable to start container process: )+", re.IGNORECASE)
_LENGTH_MAX: Final = 400
EXEC_FAILURE: Final = "exec container process"
"""crun's words for a file the kernel would not execute."""


def exit_message(exit_code: int | None, oom: bool, memory_bytes: int) -> str:
    """Empty after exit code 0."""
    if exit_code is None:
        return "ended while nobody watched: its exit code is lost"
    if oom:
        where = f" at {size(memory_bytes)}" if memory_bytes else " (the node ran out of memory)"
        return f"out of memory: killed{where} (exit code {exit_code})"
    if exit_code == 0:
        return ""
    name = _SIGNALS.get(exit_code - 128, "") if exit_code > 128 else ""
    return f"ended by {name} (exit code {exit_code})" if name else f"ended with exit code {exit_code}"


def create_error(text: str, command: str) -> RuntimeFailed:
    """The fault behind what the OCI runtime wrote. `command`: what was to be executed."""
    quoted = _LOGFMT.findall(text)
    plain = quoted[-1].replace('\\"', '"').replace("\\\\", "\\") if quoted else text
    line = " ".join(_PREFIX.sub("", plain.strip()).split()).rstrip(".")[:_LENGTH_MAX]
    lower = line.lower()
    if "no space left on device" in lower or "disk quota exceeded" in lower:
        return DiskFull("cannot start: disk full: free space (`shoal image prune`) or enlarge the data directory")
    found = _NOT_FOUND.search(line)
    if found:
        name = found["name"] or found["runc"] or command
        what = _NO_FILE if "/" in name else "not found in $PATH"
        return RuntimeFailed(f'cannot start: "{name}": {what} (exit code 127)', permanent=True, exit_code=127)
    if _is_exec(lower, command) and _NO_FILE in lower:
        return RuntimeFailed(f'cannot start: "{command}": {_NO_FILE} (exit code 127)', permanent=True, exit_code=127)
    why = next((reason for reason in _NOT_EXECUTABLE if reason in lower), "")
    if why and _is_exec(lower, command):
        return RuntimeFailed(f'cannot start: "{command}": {why} (exit code 126)', permanent=True, exit_code=126)
    if "chdir" in lower or "cwd" in lower:
        return RuntimeFailed(f"cannot start: working directory: {line}", permanent=True)
    return RuntimeFailed(f"cannot start: {line or 'the runtime gave no reason'}")


def _is_exec(lower: str, command: str) -> bool:
    return "exec" in lower or (bool(command) and f"`{command.lower()}`" in lower)
