"""The node's volumes on its disk: a directory each below <data-dir>/volumes/NAME, with `_data` for the content.

Rules: what cannot be served is refused with its name, never ignored. `volume.json` is written last: a volume without it is half
made and is made again; a damaged one costs the labels, never the content.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

from agent.images.trees import remove_tree
from agent.plan.records import WantedVolume
from agent.volumes.port import (
    Users,
    Volume,
    absolute_source,
    check_options,
    checked,
    disk_problem,
    in_use,
    is_name,
    no_part,
    no_source,
)
from model.errors import ImageError, NotFound, RuntimeFailed
from model.spec import Mount
from model.stamps import utc_text

log = logging.getLogger(__name__)
_LOCKS = 64


class VolumeStore:
    """The real Volumes."""

    def __init__(self, root: Path, users: Users) -> None:
        self._root = root
        self._users = users
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
        root.mkdir(parents=True, exist_ok=True, mode=0o711)

    def get(self, name: str) -> Volume | None:
        folder = self._root / checked(name)
        try:
            plain = _noted(folder)
        except FileNotFoundError:
            return None
        path = _content(folder, plain["options"])
        return Volume(name, path, plain["driver"], plain["options"], plain["labels"], plain["created"], plain["anonymous"])

    def all(self) -> list[Volume]:
        names = sorted(path.name for path in self._root.iterdir() if is_name(path.name))
        return [volume for name in names if (volume := self.get(name)) is not None]

    def ensure(self, wanted: WantedVolume, fill: Callable[[Path], None] | None = None, *, anonymous: bool = False) -> Volume:
        with self._lock(checked(wanted.name)):
            volume = self.get(wanted.name) or self._make(wanted, fill, anonymous)
        if not volume.path.is_dir():
            raise RuntimeFailed(f"volume {volume.name}: {volume.path} is not a directory on this node")
        return volume

    def _lock(self, name: str) -> threading.Lock:
        return self._locks[crc32(name.encode()) % _LOCKS]

    def _make(self, wanted: WantedVolume, fill: Callable[[Path], None] | None, anonymous: bool) -> Volume:
        options = dict(wanted.options)
        check_options(wanted.name, wanted.driver, options)
        folder = self._root / wanted.name
        content = _content(folder, options)
        created = utc_text(datetime.now(UTC), "milliseconds")
        volume = Volume(wanted.name, content, wanted.driver, options, dict(wanted.labels), created, anonymous)
        try:
            folder.mkdir(exist_ok=True, mode=0o701)
            if content.parent == folder:
                _empty_folder(content)
            if fill is not None and content.is_dir() and not any(content.iterdir()):
                fill(content)
            _note(folder, volume)
        except OSError as error:
            raise disk_problem(error, f"volume {wanted.name}") from error
        return volume

    def bind_source(self, mount: Mount) -> str:
        path = absolute_source(mount)
        if not path.exists():
            if not mount.create_host_path:
                raise no_source(mount)
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_problem(error, f"bind mount {mount.target}") from error
        return str(path)

    def check_part(self, volume: Volume, subpath: str) -> None:
        path = (volume.path / subpath).resolve()
        if subpath and (not path.is_relative_to(volume.path.resolve()) or not path.is_dir()):
            raise no_part(volume, subpath)

    def remove(self, name: str, *, force: bool = False) -> None:
        volume = self.get(name)
        if volume is None:
            if force:
                return
            raise NotFound(f"volume {name}: not on this node")
        users = self._users().get(name, ())
        if users:
            raise in_use(name, users)
        self._delete(name)

    def prune(self, *, everything: bool, keep: Collection[str] = ()) -> list[str]:
        users = self._users()
        removed = []
        for volume in self.all():
            if volume.name not in keep and not users.get(volume.name) and (everything or volume.anonymous):
                self._delete(volume.name)
                removed.append(volume.name)
        return removed

    def release(self, names: Iterable[str]) -> None:
        for name in names:
            volume = self.get(name)
            if volume is not None and volume.anonymous:
                self._delete(name)

    def _delete(self, name: str) -> None:
        with self._lock(name):
            folder = self._root / name
            (folder / "volume.json").unlink(missing_ok=True)
            try:
                remove_tree(folder)
            except ImageError as error:
                raise RuntimeFailed(f"volume {name} cannot be deleted: {error}") from error
            except OSError as error:
                raise RuntimeFailed(f"volume {name} cannot be deleted: {error.strerror}: {error.filename}") from error


def _content(folder: Path, options: Mapping[str, str]) -> Path:
    device = options.get("device")
    return Path(device) if device else folder / "_data"


def _note(folder: Path, volume: Volume) -> None:
    """On the disk before anybody writes into the volume: without its note it would be taken for half made and emptied."""
    plain = {
        "driver": volume.driver, "options": dict(volume.options), "labels": dict(volume.labels),
        "anonymous": volume.anonymous, "created": volume.created,
    }  # fmt: skip
    temporary = folder / ".volume.json"
    with temporary.open("w") as file:
        file.write(json.dumps(plain))
        file.flush()
        if not volume.anonymous:
            os.fsync(file.fileno())
    temporary.replace(folder / "volume.json")


def _noted(folder: Path) -> dict[str, Any]:
    raw = (folder / "volume.json").read_bytes()
    plain: dict[str, Any] = {"driver": "local", "options": {}, "labels": {}, "anonymous": False, "created": ""}
    try:
        plain |= json.loads(raw)
    except (ValueError, TypeError):
        log.warning("volume %s: its volume.json is damaged: labels and options are lost", folder.name)
    return plain


def _empty_folder(path: Path) -> None:
    """A fresh directory: the rest of a copy that was cut off is taken away."""
    remove_tree(path)
    path.mkdir(mode=0o755)
    os.chmod(path, 0o755)
