"""Volumes in memory: same promises, no disk. For tests and the simulation.

Rules: they outlive the agent as long as this object does. Paths are those the real ones would have; nothing is read or written
there.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path

from agent.plan.records import WantedVolume
from agent.volumes.port import (
    Users,
    Volume,
    absolute_source,
    check_options,
    checked,
    disk_problem,
    in_use,
    no_part,
    no_source,
)
from model.errors import NotFound, RuntimeFailed
from model.spec import Mount
from model.stamps import utc_text


class MemoryVolumes:
    """See agent.volumes.port.Volumes. `now` gives Unix time. `full`: the disk has no space. `paths`: what else is on this node,
    bind sources and parts of volumes."""

    def __init__(self, users: Users, now: Callable[[], float], root: Path = Path("/memory/volumes")) -> None:
        self.full = False
        self.paths: dict[str, None] = {}
        self._users = users
        self._now = now
        self._root = root
        self._volumes: dict[str, Volume] = {}

    def get(self, name: str) -> Volume | None:
        return self._volumes.get(checked(name))

    def all(self) -> list[Volume]:
        return [self._volumes[name] for name in sorted(self._volumes)]

    def ensure(self, wanted: WantedVolume, fill: Callable[[Path], None] | None = None, *, anonymous: bool = False) -> Volume:
        volume = self.get(wanted.name) or self._make(wanted, fill, anonymous)
        device = volume.options.get("device")
        if device and device not in self.paths:
            raise RuntimeFailed(f"volume {volume.name}: {volume.path} is not a directory on this node")
        return volume

    def _make(self, wanted: WantedVolume, fill: Callable[[Path], None] | None, anonymous: bool) -> Volume:
        options = dict(wanted.options)
        check_options(wanted.name, wanted.driver, options)
        folder = self._root / wanted.name
        if self.full:
            raise disk_problem(_no_space(str(folder)), f"volume {wanted.name}")
        device = options.get("device")
        path = Path(device) if device else folder / "_data"
        if fill is not None and (not device or device in self.paths):
            fill(path)
        created = utc_text(datetime.fromtimestamp(self._now(), UTC), "milliseconds")
        volume = Volume(wanted.name, path, wanted.driver, options, dict(wanted.labels), created, anonymous)
        self._volumes[volume.name] = volume
        return volume

    def bind_source(self, mount: Mount) -> str:
        path = str(absolute_source(mount))
        if path not in self.paths:
            if not mount.create_host_path:
                raise no_source(mount)
            if self.full:
                raise disk_problem(_no_space(path), f"bind mount {mount.target}")
            self.paths[path] = None
        return path

    def check_part(self, volume: Volume, subpath: str) -> None:
        if subpath and posixpath.normpath(volume.path / subpath) not in self.paths:
            raise no_part(volume, subpath)

    def remove(self, name: str, *, force: bool = False) -> None:
        if self.get(name) is None:
            if force:
                return
            raise NotFound(f"volume {name}: not on this node")
        if users := self._users().get(name, ()):
            raise in_use(name, users)
        del self._volumes[name]

    def prune(self, *, everything: bool, keep: Collection[str] = ()) -> list[str]:
        users = self._users()
        unused = [volume for volume in self.all() if volume.name not in keep and not users.get(volume.name)]
        removed = [volume.name for volume in unused if everything or volume.anonymous]
        for name in removed:
            del self._volumes[name]
        return removed

    def release(self, names: Iterable[str]) -> None:
        for name in names:
            volume = self.get(name)
            if volume is not None and volume.anonymous:
                del self._volumes[name]


def _no_space(path: str) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
