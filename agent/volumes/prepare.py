"""From mount plans to host mounts: volumes made and filled, bind sources checked or made.

Rules: blocking calls. Nothing here mounts into a container; the result names existing host paths for the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.plan.container import HostMount
from agent.plan.mounts import MountPlan
from agent.plan.records import WantedVolume
from agent.volumes.copyup import copy_from_image
from agent.volumes.port import Volumes


def host_mounts(
    plans: Sequence[MountPlan], volumes: Volumes, known: Mapping[str, WantedVolume], layers: Sequence[Path], work_dir: Path
) -> tuple[HostMount, ...]:
    """One host mount for each plan, in order. Raises RuntimeFailed, DiskFull."""
    return tuple(_host_mount(plan, volumes, known, layers, work_dir) for plan in plans)


def _host_mount(
    plan: MountPlan, volumes: Volumes, known: Mapping[str, WantedVolume], layers: Sequence[Path], work_dir: Path
) -> HostMount:
    mount = plan.mount
    if mount.type == "tmpfs":
        return HostMount(
            mount.target, read_only=mount.read_only, tmpfs_size_bytes=mount.tmpfs_size_bytes, tmpfs_mode=mount.tmpfs_mode
        )
    if mount.type == "bind":
        return HostMount(mount.target, volumes.bind_source(mount), mount.read_only, mount.propagation)
    wanted = known.get(plan.volume, WantedVolume(plan.volume))

    def fill(path: Path) -> None:
        if not mount.nocopy and layers:
            copy_from_image(layers, mount.target, path, work_dir)

    volume = volumes.ensure(wanted, fill, anonymous=plan.anonymous)
    volumes.check_part(volume, mount.subpath)
    return HostMount(mount.target, str(volume.path), mount.read_only, mount.propagation, subpath=mount.subpath)
