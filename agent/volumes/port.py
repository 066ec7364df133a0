"""The port between the agent and its volumes, and what every implementation refuses in the same words.

Rules: blocking calls, from several threads at once; one volume is made or deleted by one of them at a time. A volume is made
when a replica first needs it and kept when the replica goes; only anonymous ones go with their replica.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.plan.records import WantedVolume
from model.errors import Conflict, DiskFull, RuntimeFailed
from model.spec import Mount

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_NO_SPACE = {28, 122}

Users = Callable[[], Mapping[str, Collection[str]]]
"""Which replicas, by name, use which volume."""


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


class Volumes(Protocol):
    """Volumes of one node."""

    def get(self, name: str) -> Volume | None: ...

    def all(self) -> list[Volume]:
        """Sorted by name."""

    def ensure(self, wanted: WantedVolume, fill: Callable[[Path], None] | None = None, *, anonymous: bool = False) -> Volume:
        """The volume, made if it is not there. `fill` puts the image's content into a new, empty one; if it fails there is no
        volume yet.

        Raises RuntimeFailed (permanent for a driver or option that is not served) and DiskFull.
        """

    def bind_source(self, mount: Mount) -> str:
        """The host path of a bind mount, made when it may be. Raises RuntimeFailed, DiskFull."""

    def check_part(self, volume: Volume, subpath: str) -> None:
        """Says early, with RuntimeFailed, what cannot be mounted; a link made later in the volume is met when it is mounted."""

    def remove(self, name: str, *, force: bool = False) -> None:
        """Raises NotFound (unless forced) and Conflict while a replica uses it."""

    def prune(self, *, everything: bool, keep: Collection[str] = ()) -> list[str]:
        """Remove unused anonymous volumes, with `everything` named ones too; the names removed."""

    def release(self, names: Iterable[str]) -> None:
        """Remove anonymous volumes of a replica that is gone; unknown names are fine."""


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


def in_use(name: str, users: Iterable[str]) -> Conflict:
    return Conflict(f"volume {name} is used by {', '.join(sorted(users))}: remove the replica first")


def absolute_source(mount: Mount) -> Path:
    path = Path(mount.source)
    if not path.is_absolute():
        raise RuntimeFailed(f"bind mount {mount.target}: source {mount.source!r} is not an absolute path", permanent=True)
    return path


def no_source(mount: Mount) -> RuntimeFailed:
    return RuntimeFailed(f"bind mount {mount.target}: {mount.source} does not exist on this node", permanent=True)


def no_part(volume: Volume, subpath: str) -> RuntimeFailed:
    return RuntimeFailed(f"volume {volume.name}: subpath {subpath!r} is no directory in it", permanent=True)


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def checked(name: str) -> str:
    if not is_name(name):
        raise RuntimeFailed(f"volume name {name[:80]!r}: use letters, digits, '_', '.', '-'", permanent=True)
    return name
