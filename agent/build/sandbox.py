"""Where a build's programs run: in a cgroup of their own, with a root, mounts and process numbers of their own.

Rules: nothing outlives `Sandbox.run`, whether it ends, is cancelled or its agent is killed: the first process of the namespace
is killed with its parent, all others with it, and mounts are in no other namespace. What is written is passed on as it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from agent.plan.build import CPU_SHARES_V1, CPU_WEIGHT_V2, Sight, confined
from agent.runtime.cgroups import ROOT, CgroupDriver
from agent.runtime.spawn import Child, readable
from model.errors import RuntimeFailed

_READ_BYTES: Final = 65_536
_SAID_CHARS_MAX: Final = 300


class Sandbox:
    """Of one build; `cgroup` is its path below each hierarchy. Use it with `with`."""

    def __init__(self, cgroups: CgroupDriver, cgroup: str, env: Mapping[str, str], root: Path = ROOT) -> None:
        self._cgroups = cgroups
        self._cgroup = cgroup
        self._env = env
        self._root = root
        self._files: list[Path] = []

    def __enter__(self) -> Sandbox:
        above, _, name = self._cgroup.strip("/").rpartition("/")
        self._cgroups.prepare(above)
        if self._cgroups.version == 1:
            self._cgroups.prepare(self._cgroup)
            trees = [tree for tree in sorted(self._root.iterdir()) if tree.is_dir() and not tree.is_symlink()]
        else:
            (self._root / above / name).mkdir(exist_ok=True)
            trees = [self._root]
        found = [tree / self._cgroup.strip("/") for tree in trees]
        for path in found:
            for file, weight in (("cpu.shares", CPU_SHARES_V1), ("cpu.weight", CPU_WEIGHT_V2)):
                if (path / file).exists():
                    (path / file).write_text(str(weight))
        self._files = [path / "cgroup.procs" for path in found if (path / "cgroup.procs").exists()]
        return self

    def __exit__(self, *_: object) -> None:
        self._cgroups.remove(self._cgroup)

    async def run(self, words: Sequence[str], sees: Sight, take: Callable[[bytes], Awaitable[None]]) -> int:
        """The exit code; `take` gets what is written to both outputs."""
        reading, writing = os.pipe()
        env = {**self._env, "SHOAL_CGROUPS": " ".join(map(str, self._files))}
        try:
            child = Child(confined(words, sees), env=env, stdout=writing, stderr=subprocess.STDOUT)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        try:
            os.set_blocking(reading, False)
            while data := await _piece(reading):
                await take(data)
            return await child.wait()
        finally:
            os.close(reading)
            if child.returncode is None:
                self._cgroups.kill(self._cgroup)
                child.end()

    async def short(self, words: Sequence[str], sees: Sight, what: str) -> str:
        """What a program that must succeed writes. Raises RuntimeFailed."""
        said: list[bytes] = []

        async def take(data: bytes) -> None:
            said.append(data)

        code = await self.run(words, sees, take)
        text = b"".join(said).decode("utf-8", "replace").strip()
        if code:
            last = text.splitlines()[-1] if text else f"exit code {code}"
            raise RuntimeFailed(f"{what}: {last.removeprefix('Error: ')[:_SAID_CHARS_MAX]}")
        return text


async def _piece(fd: int) -> bytes:
    while True:
        with contextlib.suppress(BlockingIOError):
            return os.read(fd, _READ_BYTES)
        await readable(fd)


async def in_thread_to_end(work: Callable[[], object]) -> None:
    """In a thread; also when this is cancelled it is waited for."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
