"""The node's volumes: a directory each below <data-dir>/volumes/NAME, with `_data` for the content.

Rules: blocking calls, from several threads at once; one volume is made or deleted by one of them at a time. A volume is made
when a replica first needs it and kept when the replica goes; only anonymous ones go with their replica. What cannot be served
is refused with its name, never ignored. `volume.json` is written last: a volume without it is half made and is made again; a
damaged one costs the labels, never the content.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

from agent.images.trees import remove_tree
from agent.plan.records import WantedVolume
from model.errors import Conflict, DiskFull, ImageError, NotFound, RuntimeFailed

log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_NO_SPACE = {28, 122}
_LOCKS = 64


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume. `path` is where its content is; `device` the host directory it stands for (driver option), or empty."""

    name: str
    path: Path
    driver: str = "local"
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    anonymous: bool = False

    def plain(self, in_use_by: Iterable[str] = ()) -> dict[str, Any]:
        """Docker's shape of a volume, with who uses it."""
        return {
            "Name": self.name, "Driver": self.driver, "Mountpoint": str(self.path), "CreatedAt": self.created, "Scope": "local",
            "Labels": dict(self.labels), "Options": dict(self.options), "Anonymous": self.anonymous,
            "InUseBy": sorted(in_use_by),
        }  # fmt: skip


class VolumeStore:
    """Volumes of one node. `users` tells which replicas (by name) use which volume."""

    def __init__(self, root: Path, users: Callable[[], Mapping[str, Collection[str]]]) -> None:
        self._root = root
        self._users = users
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
        root.mkdir(parents=True, exist_ok=True, mode=0o711)

    def get(self, name: str) -> Volume | None:
        folder = self._root / _checked(name)
        try:
            plain = _noted(folder)
        except FileNotFoundError:
            return None
        path = _content(folder, plain["options"])
        return Volume(name, path, plain["driver"], plain["options"], plain["labels"], plain["created"], plain["anonymous"])

    def all(self) -> list[Volume]:
        names = sorted(path.name for path in self._root.iterdir() if _NAME.fullmatch(path.name))
        return [volume for name in names if (volume := self.get(name)) is not None]

    def ensure(self, wanted: WantedVolume, fill: Callable[[Path], None] | None = None, *, anonymous: bool = False) -> Volume:
        """The volume, made if it is not there. `fill` puts the image's content into a new, empty one.

        Raises RuntimeFailed (permanent for a driver or option that is not served) and DiskFull.
        """
        with self._lock(_checked(wanted.name)):
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
        created = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
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

    def remove(self, name: str, *, force: bool = False) -> None:
        """Raises NotFound (unless forced) and Conflict while a replica uses it."""
        volume = self.get(name)
        if volume is None:
            if force:
                return
            raise NotFound(f"volume {name}: not on this node")
        users = self._users().get(name, ())
        if users:
            raise Conflict(f"volume {name} is used by {', '.join(sorted(users))}: remove the replica first")
        self._delete(name)

    def prune(self, *, everything: bool, keep: Collection[str] = ()) -> list[str]:
        """Remove unused anonymous volumes, with `everything` named ones too; the names removed."""
        users = self._users()
        removed = []
        for volume in self.all():
            if volume.name not in keep and not users.get(volume.name) and (everything or volume.anonymous):
                self._delete(volume.name)
                removed.append(volume.name)
        return removed

    def release(self, names: Iterable[str]) -> None:
        """Remove anonymous volumes of a replica that is gone; unknown names are fine."""
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


def check_options(name: str, driver: str, options: Mapping[str, str]) -> None:
    """Refuse what this node does not serve: another driver, NFS and other file systems to be mounted."""
    if driver not in ("", "local"):
        raise RuntimeFailed(f"volume {name}: driver {driver!r} is not available: only 'local' is", permanent=True)
    unknown = sorted(set(options) - {"type", "o", "device"})
    if unknown:
        raise RuntimeFailed(f"volume {name}: driver option {unknown[0]!r} is not known: use type, o, device", permanent=True)
    kind = options.get("type", "none" if "device" in options else "")
    if kind not in ("", "none"):
        raise RuntimeFailed(
            f"volume {name}: type {kind!r} is not served yet: mount it on the node and use type=none,o=bind,device=PATH",
            permanent=True,
        )
    if kind == "none" and options:
        if "bind" not in options.get("o", "").split(","):
            raise RuntimeFailed(f"volume {name}: type 'none' needs o=bind", permanent=True)
        if not options.get("device", "").startswith("/"):
            raise RuntimeFailed(f"volume {name}: device must be an absolute path on the node", permanent=True)


def disk_problem(error: OSError, what: str) -> RuntimeFailed:
    """An OSError as one line; a full disk has its own class."""
    if error.errno in _NO_SPACE:
        return DiskFull(f"{what}: disk full: {error.filename or 'no space left'}: free space on this node")
    return RuntimeFailed(f"{what}: {error.strerror}: {error.filename}")


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


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RuntimeFailed(f"volume name {name[:80]!r}: use letters, digits, '_', '.', '-'", permanent=True)
    return name
