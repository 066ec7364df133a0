"""What a container's end was: from its exit code, the files of its bundle, its cgroup and the last words of its log.

Rules: only reads, blocking for moments. crun finds out only after the start that the kernel cannot execute a file: it says so
in the log and ends with 1, which is told as the fault it is.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from agent.plan.container import Exited
from agent.plan.exits import EXEC_FAILURE, create_error, exit_message
from agent.runtime.bundle import Paths, State, read_process
from agent.runtime.cgroups import CgroupDriver
from agent.runtime.log_reader import last_bytes
from model.errors import RuntimeFailed

_EXEC_FAILURE_S: Final = 5.0
_LAST_LOG_BYTES: Final = 1024
_KILLED: Final = 128 + 9


def exited(state: State, paths: Paths, code: int | None, cgroups: CgroupDriver) -> Exited:
    """`code` None: nobody could learn it."""
    oom = paths.oom.exists() or (code == _KILLED and _oom_kills(state, cgroups) > 0)
    failure = _exec_failure(state, paths) if code == 1 else None
    if failure is not None:
        return Exited(state.id, failure.exit_code, oom, _end_time(paths.exit), str(failure))
    return Exited(state.id, code, oom, _end_time(paths.exit), exit_message(code, oom, state.memory_bytes))


def started_at(paths: Paths) -> float:
    """Unix time; 0 when it was never started."""
    try:
        return float(paths.started.read_text())
    except (OSError, ValueError):
        return 0.0


def _exec_failure(state: State, paths: Paths) -> RuntimeFailed | None:
    if not state.log or time.time() - started_at(paths) > _EXEC_FAILURE_S:
        return None
    text = last_bytes(Path(state.log), _LAST_LOG_BYTES)
    if EXEC_FAILURE not in text:
        return None
    return create_error(text[text.index(EXEC_FAILURE) :], read_process(paths)["args"][0])


def _oom_kills(state: State, cgroups: CgroupDriver) -> int:
    files = cgroups.open_usage(state.cgroup)
    usage = files.read(0.0)
    files.close()
    return usage.oom_kills if usage else 0


def _end_time(exit_file: Path) -> float:
    try:
        return exit_file.stat().st_mtime
    except OSError:
        return time.time()
