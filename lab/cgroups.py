"""The cgroups of a lab's machines: limits, membership, killing, removal. cgroup v1 (also hybrid) and v2.

Rules: a machine's cgroup is `<root>/<lab>/<machine>`, with `daemons` for its own processes and `replicas` for containers
below it (v2 allows processes in leaves only). Every process of a lab stands in its cgroup: that is how `down` finds them all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from model.errors import RuntimeFailed

_MOUNT: Final = Path("/sys/fs/cgroup")
_PERIOD_US: Final = 100_000
_V2_CONTROLLERS: Final = ("cpu", "memory", "pids", "cpuset", "io")


def is_v2() -> bool:
    return (_MOUNT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """The mounts in which every machine gets its directory; for v1 one for each set of controllers."""
    if is_v2():
        return [_MOUNT]
    found = [path for path in sorted(_MOUNT.iterdir()) if path.is_dir() and not path.is_symlink()]
    return [path for path in found if path.name != "unified" and (path / "cgroup.procs").exists()]


def make(path: str, cpus: float, memory_bytes: int) -> None:
    """The machine's cgroup with its limits; 0 means none."""
    for root in hierarchies():
        target = root / path
        _make_path(root, path)
        for leaf in ("daemons", "replicas"):
            _make_path(root, f"{path}/{leaf}")
        _limit(target, cpus, memory_bytes)


def _make_path(root: Path, path: str) -> None:
    here = root
    for part in path.split("/"):
        if is_v2():
            _delegate(here)
        here = here / part
        with contextlib.suppress(FileExistsError):
            here.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):
            file = here / name
            if not is_v2() and file.exists() and not file.read_text().strip():
                file.write_text((here.parent / name).read_text())


def _delegate(path: Path) -> None:
    have = (path / "cgroup.controllers").read_text().split()
    for name in _V2_CONTROLLERS:
        if name in have:
            with contextlib.suppress(OSError):
                (path / "cgroup.subtree_control").write_text(f"+{name}")


def _limit(target: Path, cpus: float, memory_bytes: int) -> None:
    rows = []
    if cpus:
        quota = int(cpus * _PERIOD_US)
        rows += [("cpu.max", f"{quota} {_PERIOD_US}"), ("cpu.cfs_period_us", _PERIOD_US), ("cpu.cfs_quota_us", quota)]
    if memory_bytes:
        rows += [("memory.max", memory_bytes), ("memory.limit_in_bytes", memory_bytes)]
    for name, value in rows:
        if (target / name).exists():
            (target / name).write_text(str(value))


def join_script(path: str) -> str:
    """Shell text by which a process puts itself into `path`/daemons."""
    files = [str(root / path / "daemons" / "cgroup.procs") for root in hierarchies()]
    return "\n".join(f"echo $$ > {file}" for file in files)


def _directories(path: str) -> Iterator[Path]:
    for root in hierarchies():
        if (root / path).is_dir():
            for folder, _, _ in os.walk(root / path, topdown=False):
                yield Path(folder)


def processes(path: str) -> list[int]:
    """Every process in `path` and below."""
    found: set[int] = set()
    for folder in _directories(path):
        with contextlib.suppress(OSError):
            found.update(int(word) for word in (folder / "cgroup.procs").read_text().split())
    return sorted(found - {0, os.getpid()})


def kill_all(path: str, timeout_s: float = 20.0) -> None:
    """SIGKILL everything in `path` until nothing is left; RuntimeFailed when something stays."""
    end = time.monotonic() + timeout_s
    pause = 0.005
    while left := processes(path):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise RuntimeFailed(f"processes {left} of {path} do not end: look at them with ps, then take the lab down again")
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def remove(path: str, timeout_s: float = 10.0) -> None:
    """The directories of `path` are gone, leaves first. The kernel frees a killed process's cgroup a moment later: wait."""
    end = time.monotonic() + timeout_s
    while True:
        for folder in list(_directories(path)):
            with contextlib.suppress(OSError):
                folder.rmdir()
        if not list(_directories(path)):
            return
        if time.monotonic() > end:
            raise RuntimeFailed(f"cgroup {path} is still busy: processes {processes(path)}")
        time.sleep(0.01)


def children(path: str) -> list[str]:
    """Names of the directories right below `path`."""
    return sorted(
        {child.name for root in hierarchies() if (root / path).is_dir() for child in (root / path).iterdir() if child.is_dir()}
    )


def remove_if_empty(path: str) -> None:
    """`path` itself goes when nothing stands below it."""
    for root in hierarchies():
        with contextlib.suppress(OSError):
            (root / path).rmdir()
