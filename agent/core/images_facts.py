"""What is told of a node's images besides what the store hands out: their config as an object, their layers, who uses them.

Rules: pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from agent.images.describe import diff_ids
from agent.plan.mounts import mount_plans
from model.image_ref import parse_image_ref

if TYPE_CHECKING:
    from agent.images.records import Details, RemoteImage
    from agent.plan.records import Life


def config(details: Details | RemoteImage) -> dict[str, Any]:
    """The image's config as its maker wrote it."""
    found = json.loads(details.config)
    return found if isinstance(found, dict) else {}


def manifest_of(details: Details, name: str) -> str:
    """Digest of the manifest that an image came with, under that name where it has one."""
    return details.manifests.get(parse_image_ref(name).familiar, details.manifest)


def layer_digests(details: Details, name: str) -> tuple[str, ...]:
    """Of its layers as the registry has them, bottom first; where that is not kept their diff ids."""
    return details.blobs.get(manifest_of(details, name)) or diff_ids(config(details))


def not_its_own(life: Life) -> frozenset[str]:
    """Paths in a container's root that something is mounted on: what the node writes for it, and its volumes."""
    targets = (plan.mount.target.strip("/") for plan in mount_plans(life))
    return frozenset(("etc/hosts", "etc/hostname", "etc/resolv.conf", *targets))


def users(lives: Iterable[Life]) -> dict[str, list[dict[str, Any]]]:
    """By image id the replicas of this node that were made of it, and whether a process of them runs."""
    found: dict[str, list[dict[str, Any]]] = {}
    for life in sorted(lives, key=lambda life: life.name):
        if life.image is not None:
            row = {"id": life.container_id, "name": life.name, "running": life.may_run()}
            found.setdefault(life.image.id, []).append(row)
    return found
