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
from agent.volumes.store import Volume, VolumeStore, disk_problem
from model.errors import RuntimeFailed
from model.spec import Mount


def host_mounts(
    plans: Sequence[MountPlan], volumes: VolumeStore, known: Mapping[str, WantedVolume], layers: Sequence[Path], work_dir: Path
) -> tuple[HostMount, ...]:
    """One host mount for each plan, in order. Raises RuntimeFailed, DiskFull."""
    return tuple(_host_mount(plan, volumes, known, layers, work_dir) for plan in plans)


def _host_mount(
    plan: MountPlan, volumes: VolumeStore, known: Mapping[str, WantedVolume], layers: Sequence[Path], work_dir: Path
) -> HostMount:
    mount = plan.mount
    if mount.type == "tmpfs":
        return HostMount(
            mount.target, read_only=mount.read_only, tmpfs_size_bytes=mount.tmpfs_size_bytes, tmpfs_mode=mount.tmpfs_mode
        )
    if mount.type == "bind":
        return HostMount(mount.target, _bind_source(mount), mount.read_only, mount.propagation)
    wanted = known.get(plan.volume, WantedVolume(plan.volume))

    def fill(path: Path) -> None:
        if not mount.nocopy and layers:
            copy_from_image(layers, mount.target, path, work_dir)

    volume = volumes.ensure(wanted, fill, anonymous=plan.anonymous)
    _check_part(volume, mount.subpath)
    return HostMount(mount.target, str(volume.path), mount.read_only, mount.propagation, subpath=mount.subpath)


def _bind_source(mount: Mount) -> str:
    path = Path(mount.source)
    if not path.is_absolute():
        raise RuntimeFailed(f"bind mount {mount.target}: source {mount.source!r} is not an absolute path", permanent=True)
    if not path.exists():
        if not mount.create_host_path:
            raise RuntimeFailed(f"bind mount {mount.target}: {path} does not exist on this node", permanent=True)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_problem(error, f"bind mount {mount.target}") from error
    return str(path)


def _check_part(volume: Volume, subpath: str) -> None:
    """Says early what cannot be mounted; a link made later in the volume is met when it is mounted."""
    path = (volume.path / subpath).resolve()
    if subpath and (not path.is_relative_to(volume.path.resolve()) or not path.is_dir()):
        raise RuntimeFailed(f"volume {volume.name}: subpath {subpath!r} is no directory in it", permanent=True)
