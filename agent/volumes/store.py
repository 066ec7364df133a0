"""The node's volumes: a directory each below <data-dir>/volumes/NAME, with `_data` for the content.

Rules: blocking calls (run them in a thread). A volume is made when a replica first needs it and kept when the replica goes;
only anonymous ones go with their replica. What cannot be served is refused with its name, never ignored. `volume.json`
is written last: a volume without it is half made and is made again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.plan.records import WantedVolume
from model.errors import Conflict, DiskFull, NotFound, RuntimeFailed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_NO_SPACE = {28, 122}


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
        root.mkdir(parents=True, exist_ok=True, mode=0o711)

    def get(self, name: str) -> Volume | None:
        try:
            plain = json.loads((self._root / _checked(name) / "volume.json").read_bytes())
        except FileNotFoundError:
            return None
        return Volume(
            name,
            _content(self._root / name, plain["options"]),
            plain["driver"],
            plain["options"],
            plain["labels"],
            plain["created"],
            plain["anonymous"],
        )

    def all(self) -> list[Volume]:
        names = sorted(path.name for path in self._root.iterdir() if _NAME.fullmatch(path.name))
        return [volume for name in names if (volume := self.get(name)) is not None]

    def ensure(self, wanted: WantedVolume, fill: Callable[[Path], None] | None = None, *, anonymous: bool = False) -> Volume:
        """The volume, made if it is not there. `fill` puts the image's content into a new, empty one.

        Raises RuntimeFailed (permanent for a driver or option that is not served) and DiskFull.
        """
        found = self.get(wanted.name)
        if found is not None:
            return found
        options = dict(wanted.options)
        check_options(wanted.name, wanted.driver, options)
        folder = self._root / wanted.name
        try:
            content = _content(folder, options)
            folder.mkdir(exist_ok=True, mode=0o701)
            if content.parent == folder:
                _empty_folder(content)
            if fill is not None and content.is_dir() and not any(content.iterdir()):
                fill(content)
            plain = {
                "driver": wanted.driver, "options": options, "labels": dict(wanted.labels), "anonymous": anonymous,
                "created": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            }  # fmt: skip
            temporary = folder / ".volume.json"
            temporary.write_text(json.dumps(plain))
            temporary.replace(folder / "volume.json")
        except OSError as error:
            raise disk_problem(error, f"volume {wanted.name}") from error
        volume = self.get(wanted.name)
        assert volume is not None
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
        folder = self._root / name
        (folder / "volume.json").unlink(missing_ok=True)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            pass
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
    if device:
        path = Path(device)
        if not path.is_dir():
            raise RuntimeFailed(f"volume {folder.name}: device {device} is not a directory on this node")
        return path
    return folder / "_data"


def _empty_folder(path: Path) -> None:
    """A fresh directory: the rest of a copy that was cut off is taken away."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(mode=0o755)
    os.chmod(path, 0o755)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RuntimeFailed(f"volume name {name[:80]!r}: use letters, digits, '_', '.', '-'", permanent=True)
    return name
