"""What a replica mounts: its spec's mounts and the image's own volumes, with the names of anonymous volumes settled.

Rules: pure. An anonymous volume's name follows from the replica and the target, so it is the same over restarts and needs no
record. A mount of the spec hides an image volume of the same target.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256

from agent.plan.records import Life, ReplicaId
from model.spec import Mount


@dataclass(frozen=True, slots=True)
class MountPlan:
    """One mount. `volume`: the volume it needs (empty: bind or tmpfs); `anonymous` volumes go with the replica."""

    mount: Mount
    volume: str = ""
    anonymous: bool = False


def mount_plans(life: Life) -> tuple[MountPlan, ...]:
    """The spec's mounts in their order, then the image's volumes that no mount covers."""
    own = tuple(_plan(life.id, mount) for mount in life.spec.container.mounts)
    covered = {posixpath.normpath(plan.mount.target) for plan in own}
    image_volumes = life.image.volumes if life.image else ()
    extra = (posixpath.normpath(target) for target in image_volumes)
    return own + tuple(_plan(life.id, Mount("volume", target)) for target in sorted(set(extra) - covered))


def _plan(replica: ReplicaId, mount: Mount) -> MountPlan:
    if mount.type != "volume":
        return MountPlan(mount)
    if mount.source:
        return MountPlan(mount, mount.source)
    name = anonymous_name(replica, mount.target)
    return MountPlan(replace(mount, source=name), name, anonymous=True)


def anonymous_name(replica: ReplicaId, target: str) -> str:
    """64 hex digits, as Docker names them."""
    return sha256(f"volume {replica.text} {posixpath.normpath(target)}".encode()).hexdigest()


def named_volumes(life: Life) -> tuple[str, ...]:
    """Names of the volumes the replica uses that stay when it goes."""
    return tuple(plan.volume for plan in mount_plans(life) if plan.volume and not plan.anonymous)


def volume_users(lives: Iterable[Life]) -> dict[str, list[str]]:
    """Which replicas, by name, use which volume."""
    users: dict[str, list[str]] = {}
    for life in lives:
        for plan in mount_plans(life):
            if plan.volume:
                users.setdefault(plan.volume, []).append(life.name)
    return users
