"""The cgroups of the node's containers: one small driver for v1 (also hybrid) and one for v2.

Rules: the OCI runtime makes and limits a container's cgroup; the drivers prepare the parent, read, kill and remove.
A hierarchy's other cgroups are never touched. Removing leaves nothing, also when processes are still inside.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from agent.plan.cgroups import V1_FILES, V2_FILES, usage_v1, usage_v2
from agent.plan.container import Usage
from agent.plan.samples import CPU, V1_SAMPLED, V2_SAMPLED, CgroupCounters, Counters
from agent.runtime.high import moved
from model.errors import RuntimeFailed

ROOT: Final = Path("/sys/fs/cgroup")
_READ_BYTES: Final = 8192
_turns: Final = itertools.count()
"""Of all cgroups as many are read in full each time, so that no time is a peak."""
_EMPTY_WAIT_S: Final = 0.002
_EMPTY_TRIES: Final = 500
_V2_CONTROLLERS: Final = ("cpuset", "cpu", "io", "memory", "pids")


class CgroupDriver(Protocol):
    version: int

    def prepare(self, parent: str) -> None:
        """Make the parent cgroup ready to hold containers. Raises RuntimeFailed."""

    def open_usage(self, path: str) -> UsageFiles:
        """Keep the files of a container's cgroup open for `read`."""

    def kill(self, path: str) -> None:
        """SIGKILL to every process in it."""

    def remove(self, path: str) -> None:
        """Kill what is in it, remove it and all below it. Fine when it is gone."""

    def pids(self, path: str) -> tuple[int, ...]: ...


class UsageFiles:
    """Open files of one cgroup; `read` costs one pread each."""

    def __init__(self, files: Iterable[tuple[str, Path]], version: int) -> None:
        self._version = version
        self._fds: dict[str, int] = {}
        for name, path in files:
            with contextlib.suppress(OSError):
                self._fds[name] = _open(path)
        names = [name for _, name in (V1_SAMPLED if version == 1 else V2_SAMPLED)]
        self._sampled = {place: self._fds[name] for place, name in enumerate(names) if name in self._fds}
        self._counters = CgroupCounters(version)
        self._turn = next(_turns)

    def read(self, at: float) -> Usage | None:
        """None when the cgroup is gone."""
        texts: dict[str, str] = {}
        for name, fd in self._fds.items():
            with contextlib.suppress(OSError):
                texts[name] = os.pread(fd, _READ_BYTES, 0).decode(errors="replace")
        if not texts:
            return None
        return usage_v1(texts, at) if self._version == 1 else usage_v2(texts, at)

    def sample(self, at_s: float) -> Counters | None:
        """Fewer files, and of each only what counts: 5 to 10 us. What changes slowly, or hardly matters, is read every second,
        fifth or tenth time. `at_s`: the time that has passed. None when the cgroup is gone."""
        self._turn = turn = self._turn + 1
        fds = self._sampled
        try:
            cpu = os.pread(fds[CPU], _READ_BYTES, 0) if CPU in fds else b""
            places = self._counters.due(turn, cpu)
            texts = [(place, os.pread(fds[place], _READ_BYTES, 0)) for place in places if place in fds]
        except OSError:
            return None
        return self._counters.take(turn, at_s, cpu, texts) if fds else None

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds, self._sampled = {}, {}


class CgroupV1:
    """Every controller is a tree of its own; a container has the same path in each of them."""

    version = 1

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._trees = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.is_symlink()]
        self._trees.sort(key=lambda path: path.name == "unified")

    def prepare(self, parent: str) -> None:
        for tree in self._trees:
            if tree.name != "unified" and (tree / "cgroup.procs").exists():
                _make(tree, parent)

    def open_usage(self, path: str) -> UsageFiles:
        return UsageFiles(((name, self._root / controller / path.lstrip("/") / name) for controller, name in V1_FILES), 1)

    def pids(self, path: str) -> tuple[int, ...]:
        return tuple(sorted({pid for tree in self._trees for pid in _pids(tree / path.lstrip("/"))}))

    def kill(self, path: str) -> None:
        _kill(self.pids(path))

    def remove(self, path: str) -> None:
        for tree in self._trees:
            _remove(tree / path.lstrip("/"))


class CgroupV2:
    version = 2

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root

    def prepare(self, parent: str) -> None:
        """Every level above hands its controllers down; on a level with processes of its own the kernel refuses."""
        here = self._root
        for part in [*parent.strip("/").split("/"), ""]:
            have = (here / "cgroup.controllers").read_text().split()
            on = (here / "cgroup.subtree_control").read_text().split()
            for name in _V2_CONTROLLERS:
                if name in have and name not in on:
                    _enable(here, name)
            if part:
                here = here / part
                here.mkdir(exist_ok=True)

    def open_usage(self, path: str) -> UsageFiles:
        return UsageFiles(((name, self._root / path.lstrip("/") / name) for _, name in V2_FILES), 2)

    def pids(self, path: str) -> tuple[int, ...]:
        return _pids(self._root / path.lstrip("/"))

    def kill(self, path: str) -> None:
        _kill_in(self._root / path.lstrip("/"))

    def remove(self, path: str) -> None:
        _remove(self._root / path.lstrip("/"))


def cgroup_driver(root: Path = ROOT) -> CgroupDriver:
    return CgroupV2(root) if (root / "cgroup.controllers").exists() else CgroupV1(root)


def _open(path: Path) -> int:
    return moved(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _enable(directory: Path, controller: str) -> None:
    try:
        (directory / "cgroup.subtree_control").write_text(f"+{controller}")
    except OSError as error:
        hint = "it holds processes of its own; name another --cgroup-parent" if error.errno == errno.EBUSY else error.strerror
        raise RuntimeFailed(f"cgroup {directory}: cannot hand down the {controller} controller: {hint}") from None


def _make(tree: Path, path: str) -> None:
    here = tree
    for part in path.strip("/").split("/"):
        here = here / part
        here.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # an empty cpuset takes no process
            file = here / name
            if file.exists() and not file.read_text().strip():
                file.write_text((here.parent / name).read_text())


def _pids(directory: Path) -> tuple[int, ...]:
    found: list[int] = []
    for path, _, _ in os.walk(directory):
        with contextlib.suppress(OSError):
            found += [int(line) for line in Path(path, "cgroup.procs").read_text().split()]
    return tuple(found)


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        if pid > 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _kill_in(directory: Path) -> None:
    """All at once where the kernel can (v2, since 5.14): what forks fast outruns killing one by one."""
    with contextlib.suppress(OSError):
        fd = os.open(directory / "cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"1")
            return
        finally:
            os.close(fd)
    _kill(_pids(directory))


def _remove(directory: Path) -> None:
    """Deepest first. A process that was just killed holds its cgroup a moment longer."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)
        return
    for path, _, files in os.walk(directory, topdown=False):
        for attempt in range(_EMPTY_TRIES):
            try:
                os.rmdir(path)
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno == errno.ENOTEMPTY and "cgroup.procs" in files:  # crun's plain directory, no cgroup
                    Path(path, "cgroup.procs").unlink(missing_ok=True)
                    continue
                if error.errno != errno.EBUSY or attempt + 1 == _EMPTY_TRIES:
                    raise RuntimeFailed(f"cannot remove cgroup {path}: {error.strerror}") from None
                _kill_in(Path(path))
                time.sleep(_EMPTY_WAIT_S)
            else:
                break
