"""The logs of the node's containers: `<data-dir>/logs/<log key>/`; see agent.plan.log_lines for the names.

Rules: conmon bounds the size by itself, also while no agent runs: it replaces the file it writes. The agent gives every such
file a second, numbered name, told of each replacement by inotify, and deletes the oldest. Readers use numbered names only.
Disk use per replica: (files_max + 1) x bytes_max x CONTAINERS_MAX at worst. A failed link costs old lines, never a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.plan.container import LogLine
from agent.plan.log_lines import LogName, parse_name, parts, surplus, surplus_containers
from agent.runtime.inotify import CREATE, MODIFY, MOVED_TO, Inotify
from agent.runtime.log_reader import LogCursor, first_cursor, tail_cursor

CONTAINERS_MAX: Final = 10
_QUIET: Final = MOVED_TO
_FOLLOWED: Final = MOVED_TO | MODIFY | CREATE


@dataclass(slots=True)
class _Key:
    """One replica's directory. `live`: container id -> how many parts it may keep."""

    live: dict[str, int] = field(default_factory=dict)
    watch: int = -1
    followers: list[asyncio.Event] = field(default_factory=list)
    gone: bool = False


class LogStore:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._keys: dict[str, _Key] = {}
        self._inotify: Inotify | None = None

    # Writing side

    def begin(self, log_key: str, container_id: str) -> Path:
        """The file conmon shall write for a new container; old containers' logs make room."""
        directory = self._path(log_key)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        names = os.listdir(directory)
        live = self._keys[log_key].live if log_key in self._keys else {}
        for name in surplus_containers(names, CONTAINERS_MAX - 1):
            parsed = parse_name(name)
            if parsed is not None and parsed.container_id not in live:
                (directory / name).unlink(missing_ok=True)
        number = max((found.number for found in map(parse_name, names) if found is not None), default=0) + 1
        return directory / LogName(number, container_id).text

    def began(self, log_key: str, file: Path, files_max: int) -> None:
        """conmon has made the file: keep it, and hear of its replacement."""
        name = parse_name(file.name)
        if name is None:
            return
        key = self._keys.setdefault(log_key, _Key())
        key.live[name.container_id] = files_max
        self._keep(log_key, name)
        self._rewatch(log_key, key)
        self._wake(key)

    def recover(self, live: Mapping[str, tuple[Path, int]]) -> None:
        """Take over the logs that containers (by id) write; what was replaced meanwhile gets its name now."""
        for file, files_max in live.values():
            if file.exists():
                self.began(file.parent.name, file, files_max)

    def ended(self, log_key: str, container_id: str) -> None:
        """The container is gone: its parts stay, the name conmon wrote to goes."""
        key = self._keys.get(log_key)
        directory = self._path(log_key)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(directory):
                parsed = parse_name(name)
                if parsed is not None and parsed.container_id == container_id and not parsed.part:
                    self._keep(log_key, parsed)
                    (directory / name).unlink(missing_ok=True)
        if key is not None:
            key.live.pop(container_id, None)
            self._wake(key)

    def delete(self, log_key: str) -> None:
        """Delete a replica's logs. Blocking."""
        directory = self._path(log_key)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(directory):
                (directory / name).unlink(missing_ok=True)
            directory.rmdir()

    def forget(self, log_key: str) -> None:
        """End the followers of a deleted log."""
        key = self._keys.pop(log_key, None)
        if key is None:
            return
        if self._inotify is not None and key.watch >= 0:
            self._inotify.unwatch(key.watch)
        key.gone = True
        self._wake(key)

    def close(self) -> None:
        for log_key in list(self._keys):
            self.forget(log_key)
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _path(self, log_key: str) -> Path:
        if not log_key or "/" in log_key or log_key in (".", ".."):
            raise ValueError(f"log key {log_key!r}")
        return self._directory / log_key

    def _changed(self, log_key: str, name: str) -> None:
        """inotify: a file was replaced, or grew while somebody follows."""
        parsed = parse_name(name)
        key = self._keys.get(log_key)
        if key is None or parsed is None or parsed.part:
            return
        self._keep(log_key, parsed)
        self._wake(key)

    def _keep(self, log_key: str, name: LogName) -> None:
        """Give the file conmon writes now its numbered name unless it has one; delete what is too much."""
        directory = self._path(log_key)
        own = [part for part in parts(os.listdir(directory)) if part.container_id == name.container_id]
        live = directory / name.text
        try:
            inode = live.stat().st_ino
            if own and (directory / own[-1].text).stat().st_ino == inode:
                return
            fresh = LogName(name.number, name.container_id, own[-1].part + 1 if own else 1)
            os.link(live, directory / fresh.text)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST, errno.ENOSPC, errno.EDQUOT):
                raise
            return
        key = self._keys.get(log_key)
        files_max = key.live.get(name.container_id, 1) if key is not None else 1
        for old in surplus([*own, fresh], files_max):
            (directory / old.text).unlink(missing_ok=True)

    def _rewatch(self, log_key: str, key: _Key) -> None:
        if self._inotify is None:
            self._inotify = Inotify()
        mask = _FOLLOWED if key.followers else _QUIET
        key.watch = self._inotify.watch(self._path(log_key), mask, lambda name: self._changed(log_key, name))

    def _wake(self, key: _Key) -> None:
        for follower in key.followers:
            follower.set()

    # Reading side

    async def lines(self, log_key: str, *, follow: bool, tail: int, since_ms: int, until_ms: int) -> AsyncIterator[LogLine]:
        directory = self._path(log_key)
        cursor = await asyncio.to_thread(tail_cursor, directory, tail)
        if not follow:
            async for line in _selected(cursor, since_ms, until_ms):
                yield line
            return
        with self._following(log_key, cursor) as (key, changed):
            while True:
                changed.clear()
                async for line in _selected(cursor, since_ms, until_ms):
                    yield line
                if key.gone or (until_ms and cursor.at_ns > until_ms * 1_000_000):
                    return
                await changed.wait()

    async def written_by(self, log_key: str, container_id: str, ended: asyncio.Event) -> AsyncGenerator[LogLine, None]:
        """Everything one container writes: what is kept of it so far, then what comes, until `ended`."""
        cursor = first_cursor(self._path(log_key), container_id)
        ending = asyncio.ensure_future(ended.wait())
        try:
            with self._following(log_key, cursor) as (key, changed):
                ending.add_done_callback(lambda _: changed.set())
                while True:
                    changed.clear()
                    last = ended.is_set() or key.gone
                    async for line in _selected(cursor, 0, 0):
                        if line.container_id == container_id:
                            yield line
                    if last:
                        return
                    await changed.wait()
        finally:
            ending.cancel()

    @contextlib.contextmanager
    def _following(self, log_key: str, cursor: LogCursor) -> Iterator[tuple[_Key, asyncio.Event]]:
        """`changed` is set whenever there may be more for `cursor`, which is closed in the end."""
        key = self._keys.setdefault(log_key, _Key())
        changed = asyncio.Event()
        key.followers.append(changed)
        try:
            if self._path(log_key).is_dir():
                self._rewatch(log_key, key)
            yield key, changed
        finally:
            cursor.close()
            key.followers.remove(changed)
            if not key.gone and not key.followers and key.watch >= 0:
                with contextlib.suppress(OSError):
                    self._rewatch(log_key, key)


async def _selected(cursor: LogCursor, since_ms: int, until_ms: int) -> AsyncIterator[LogLine]:
    """Everything up to the present end. Lets others run between blocks."""
    since_ns, until_ns = since_ms * 1_000_000, until_ms * 1_000_000
    while block := cursor.read():
        for line in block:
            if line.at_ns >= since_ns and (not until_ns or line.at_ns <= until_ns):
                yield line
        await asyncio.sleep(0)
