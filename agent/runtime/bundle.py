"""The files of one container: `<data-dir>/containers/<id>/`, and how they come and go.

Rules: `state.json` is written first: whatever is half made is found again, and a directory without it is only deleted.
Nothing is deleted before its mounts are gone, and deleting never crosses a mount. Blocking: called in a thread.

    state.json     what `recover` needs            config.json   the OCI config
    rootfs/        the mounted root                upper/ work/  its writable layer
    parts/         mounted parts of volumes
    pids           once it is created              hosts, hostname, resolv.conf   bind-mounted
    started        Unix time of the start          <id>, pidfile, conmon.pid, attach, ctl, winsz, oom   conmon's
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.images.overlay import mount_root, remove_root
from agent.images.roots import check_root, read_in_root
from agent.plan import etc_files
from agent.plan.container import ContainerOrder
from agent.plan.oci import BundlePlace, Device, HostFacts, RootFacts, hostname, oci_config, parse_device
from agent.plan.oci_process import working_dir
from agent.runtime import pins
from model import codec
from model.errors import DiskFull, RuntimeFailed
from model.spec import Pairs

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_OWN_DEVICES = frozenset({"console", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero"})
_HOST_RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class State:
    """`state.json`."""

    id: str
    name: str
    log_key: str
    cgroup: str
    boot_id: str
    meta: Pairs = ()
    memory_bytes: int = 0
    tty: bool = False
    stdin: bool = False
    log: str = ""
    log_files: int = 1


@dataclass(frozen=True, slots=True)
class Pids:
    """`pids`: the container's first process and its conmon; pid and start time together name one process."""

    pid: int = 0
    pid_start: int = 0
    monitor: int = 0
    monitor_start: int = 0


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything of one container stands."""

    directory: Path

    @property
    def state(self) -> Path:
        return self.directory / "state.json"

    @property
    def config(self) -> Path:
        return self.directory / "config.json"

    @property
    def rootfs(self) -> Path:
        return self.directory / "rootfs"

    @property
    def upper(self) -> Path:
        return self.directory / "upper"

    @property
    def paused(self) -> Path:
        """A mark: its processes stand still."""
        return self.directory / "paused"

    @property
    def pins(self) -> Path:
        return self.directory / "parts"

    @property
    def pids(self) -> Path:
        return self.directory / "pids"

    @property
    def exit(self) -> Path:
        """conmon names it after the container."""
        return self.directory / self.directory.name

    @property
    def started(self) -> Path:
        return self.directory / "started"

    @property
    def oom(self) -> Path:
        return self.directory / "oom"

    @property
    def monitor_pid(self) -> Path:
        return self.directory / "conmon.pid"


def check_id(container_id: str) -> str:
    if not _ID.fullmatch(container_id):
        raise RuntimeFailed(
            f"container id {container_id[:140]!r}: expected [A-Za-z0-9][A-Za-z0-9_.-]*, 128 at most", permanent=True
        )
    return container_id


def prepare(order: ContainerOrder, state: State, paths: Paths, facts: HostFacts, seccomp_bpf: str | None) -> None:
    """Make the bundle with its root mounted. The caller disposes of it when this fails.

    Raises RuntimeFailed, ImageError, DiskFull.
    """
    working_dir(order.spec.working_dir or order.image.working_dir)
    try:
        _directories(paths)
        paths.state.write_bytes(codec.encode(state))
        _mount(order, paths)
        order = replace(order, mounts=pins.pinned(order.mounts, paths.pins))
        place = _etc(order, paths, state.cgroup)
        config = oci_config(order, facts, place, _root_facts(order, paths.rootfs), seccomp_bpf)
        _write(paths.config, json.dumps(config, separators=(",", ":")))
    except OSError as error:
        raise disk_problem(error, order.name) from None


def dispose(paths: Paths) -> None:
    """Unmount and delete; nothing there is fine. Raises ImageError when something stays mounted below."""
    if paths.directory.exists():
        pins.release(paths.pins)
        remove_root(paths.directory, paths.rootfs)


def disk_problem(error: OSError, name: str) -> RuntimeFailed:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"cannot start {name}: disk full at {error.filename or 'the data directory'}: free space or enlarge it")
    return RuntimeFailed(f"cannot start {name}: {error.strerror or error}: {error.filename or ''}".rstrip(": "))


def write_pids(paths: Paths, pids: Pids) -> None:
    """One write: a killed agent leaves all of it or nothing. A power cut does not matter: the processes are gone as well."""
    paths.pids.write_bytes(codec.encode(pids))


def read_pids(paths: Paths) -> Pids:
    try:
        return codec.decode(Pids, paths.pids.read_bytes())
    except (FileNotFoundError, ValueError):
        return Pids()


def read_state(paths: Paths) -> State | None:
    try:
        return codec.decode(State, paths.state.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def read_process(paths: Paths) -> dict[str, Any]:
    """`process` of the container's config."""
    found: dict[str, Any] = json.loads(paths.config.read_bytes())["process"]
    return found


def _directories(paths: Paths) -> None:
    paths.directory.mkdir(parents=True, mode=0o700)
    for name in ("rootfs", "upper", "work"):
        (paths.directory / name).mkdir(mode=0o755)


def _mount(order: ContainerOrder, paths: Paths) -> None:
    upper = paths.upper
    if order.layers:  # overlayfs shows the upper directory's own owner and mode as those of `/`
        top = os.stat(order.layers[-1])
        os.chown(upper, top.st_uid, top.st_gid)
        os.chmod(upper, stat.S_IMODE(top.st_mode) | 0o555)
    mount_root(order.layers, upper, paths.directory / "work", paths.rootfs)


def _etc(order: ContainerOrder, paths: Paths, cgroup: str) -> BundlePlace:
    for file, text in {**_addressed(order), "hostname": f"{hostname(order)}\n"}.items():
        _write(paths.directory / file, text)
    own = str(paths.directory)
    return BundlePlace(str(paths.rootfs), f"{own}/hosts", f"{own}/hostname", f"{own}/resolv.conf", cgroup)


def _addressed(order: ContainerOrder) -> dict[str, str]:
    """The files that depend on the container's networks."""
    spec = order.spec
    return {
        "hosts": etc_files.hosts(hostname(order), spec.domainname, order.addresses, spec.extra_hosts, order.host_gateway),
        "resolv.conf": etc_files.resolv_conf(spec, order.nameservers, _host_resolv_conf(), order.forwarder),
    }


def rewrite_etc(order: ContainerOrder, paths: Paths) -> None:
    """In place: the container has these very files mounted. Whoever reads meanwhile never finds them empty."""
    for file, text in _addressed(order).items():
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(paths.directory / file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.ftruncate(descriptor, os.pwrite(descriptor, text.encode(), 0))
            finally:
                os.close(descriptor)


def _root_facts(order: ContainerOrder, rootfs: Path) -> RootFacts:
    spec = order.spec
    targets = [mount.target for mount in order.mounts]
    found = check_root(rootfs, [*targets, "/etc/hosts"], spec.working_dir or order.image.working_dir or "/")
    for mount in order.mounts:
        if mount.source and not os.path.lexists(mount.source):
            raise RuntimeFailed(f"cannot start: {mount.source}, to be mounted on {mount.target}, does not exist on this node")
    return RootFacts(
        passwd=_text(rootfs, "/etc/passwd"),
        group=_text(rootfs, "/etc/group"),
        mount_targets=found[: len(targets)],
        devices=tuple(_devices((*(_host_devices() if spec.privileged else ()), *spec.devices))),
    )


def _devices(written: tuple[str, ...]) -> list[Device]:
    found = []
    for text in written:
        host, target, access = parse_device(text)
        try:
            facts = os.stat(host)
        except OSError as error:
            raise RuntimeFailed(f"cannot start: device {host}: {error.strerror}", permanent=True) from None
        if not stat.S_ISCHR(facts.st_mode) and not stat.S_ISBLK(facts.st_mode):
            raise RuntimeFailed(f"cannot start: {host} is not a device", permanent=True)
        kind = "c" if stat.S_ISCHR(facts.st_mode) else "b"
        major, minor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
        mode = stat.S_IMODE(facts.st_mode)
        found.append(Device(target, kind, major, minor, mode, facts.st_uid, facts.st_gid, access))
    return found


def _host_devices() -> list[str]:
    """All device nodes of the host but those every container has of its own."""
    found = []
    for directory, below, names in os.walk("/dev"):
        below[:] = sorted(name for name in below if directory != "/dev" or name not in _OWN_DEVICES)
        for name in sorted(names):
            path = f"{directory}/{name}"
            mode = os.lstat(path).st_mode
            if (
                (stat.S_ISCHR(mode) or stat.S_ISBLK(mode))
                and path.removeprefix("/dev/") not in _OWN_DEVICES
                and ":" not in path
            ):
                found.append(path)
    return found


def _text(rootfs: Path, path: str) -> str:
    return (read_in_root(rootfs, path) or b"").decode(errors="replace")


def _host_resolv_conf() -> str:
    try:
        return _HOST_RESOLV_CONF.read_text(errors="replace")
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)  # whatever the agent's umask: other users of the container read it
        data = memoryview(text.encode())
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
