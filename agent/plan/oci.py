"""The OCI config of one container, whole, as plain data.

Rules: pure. Everything read from the machine or the image comes in as a value (`HostFacts`, `RootFacts`). Least rights by
default: no new privileges, Docker's masked and read-only paths, a system call filter, few capabilities; only `privileged`,
`cap_add` and `security_opt` widen them. What cannot be done is RuntimeFailed with `permanent`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.plan import capabilities, oci_mounts, oci_process
from agent.plan.cgroups import resources
from agent.plan.container import ContainerOrder
from agent.plan.seccomp import Filter, default_filter, oci_seccomp
from agent.plan.users import find_user
from model.errors import RuntimeFailed
from model.spec import ContainerSpec

INIT_TARGET: Final = "/dev/init"
_MASKED: Final = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_DEFAULT_SYSCTLS: Final = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
_IPC = "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced"
_IPC_SYSCTLS: Final = frozenset(f"kernel.{name}" for name in _IPC.split())


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the node is. `capabilities`: those it can give. `rlimits`: hard limits by RLIMIT name, -1 for none.

    `init`: path of catatonit, empty when it is not installed. `oom_score_floor`: the least value this agent may set.
    """

    machine: str
    cgroup_version: int
    capabilities: tuple[str, ...]
    rlimits: Mapping[str, int] = field(default_factory=dict)
    swap: bool = False
    init: str = ""
    oom_score_floor: int = -1000
    node: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """A device node to be made in the container. `kind` is `c` or `b`."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


@dataclass(frozen=True, slots=True)
class RootFacts:
    """What stands in the container's root: the files' text, where mount targets really lie (in the order of `order.mounts`)."""

    passwd: str = ""
    group: str = ""
    mount_targets: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class BundlePlace:
    """Host paths of the container's own files, and its cgroup."""

    rootfs: str
    hosts: str
    hostname: str
    resolv_conf: str
    cgroup: str


def hostname(order: ContainerOrder) -> str:
    return order.spec.hostname or order.id[:12]


def seccomp_filter(spec: ContainerSpec, facts: HostFacts) -> Filter | None:
    """The filter the container gets; None: unconfined."""
    if spec.privileged or oci_process.security(spec).seccomp_unconfined:
        return None
    found = default_filter(facts.machine, capabilities.held(spec, facts.capabilities))
    if found is None:
        raise RuntimeFailed(f"no system call filter for {facts.machine}: say security_opt seccomp=unconfined", permanent=True)
    return found


def oci_config(
    order: ContainerOrder, facts: HostFacts, place: BundlePlace, root: RootFacts, seccomp_bpf: str | None = None
) -> dict[str, Any]:
    """The config. `seccomp_bpf`: the filter compiled and in base64, for crun; None: the rules are written out."""
    spec = order.spec
    user = find_user(spec.user or order.image.user, spec.group_add, root.passwd, root.group)
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": oci_process.process(order, facts, user, hostname(order)),
        "root": {"path": place.rootfs, "readonly": spec.read_only},
        "hostname": hostname(order),
        "mounts": oci_mounts.mounts(order, facts, place, root),
        "linux": _linux(order, facts, place, root),
        "annotations": {"shoal.replica": order.name},
    }
    wanted = seccomp_filter(spec, facts)
    if wanted is not None and seccomp_bpf is not None:
        config["annotations"]["run.oci.seccomp_bpf_data"] = seccomp_bpf
    elif wanted is not None:
        config["linux"]["seccomp"] = oci_seccomp(wanted)
    return config


def _linux(order: ContainerOrder, facts: HostFacts, place: BundlePlace, root: RootFacts) -> dict[str, Any]:
    spec = order.spec
    linux: dict[str, Any] = {
        "cgroupsPath": place.cgroup,
        "namespaces": _namespaces(order, facts),
        "resources": resources(spec, swap=facts.swap) | {"devices": _device_rules(spec, root)},
        "sysctl": _sysctls(order),
        "rootfsPropagation": "rprivate",
    }
    if root.devices:
        linux["devices"] = [_device(device) for device in root.devices]
    if not spec.privileged and not oci_process.security(spec).paths_unconfined:
        linux["maskedPaths"] = list(_MASKED)
        linux["readonlyPaths"] = list(_READ_ONLY)
    return linux


def _namespaces(order: ContainerOrder, facts: HostFacts) -> list[dict[str, str]]:
    spec = order.spec
    if spec.pid_mode not in ("", "host"):
        raise RuntimeFailed(f"pid: {spec.pid_mode!r} is not supported: only host", permanent=True)
    if spec.ipc_mode not in ("", "host", "private", "shareable", "none"):
        raise RuntimeFailed(f"ipc: {spec.ipc_mode!r} is not supported: only host, private, shareable, none", permanent=True)
    found = [{"type": "mount"}, {"type": "uts"}]
    if spec.pid_mode != "host":
        found.append({"type": "pid"})
    if spec.ipc_mode != "host":
        found.append({"type": "ipc"})
    if order.netns != "host":
        found.append({"type": "network"} | ({"path": order.netns} if order.netns else {}))
    if facts.cgroup_version == 2:
        found.append({"type": "cgroup"})
    return found


def _sysctls(order: ContainerOrder) -> dict[str, str]:
    """Only those of a namespace the container has for itself; any other would change the whole machine."""
    spec = order.spec
    found = {} if order.netns == "host" else dict(_DEFAULT_SYSCTLS)
    if spec.domainname:
        found["kernel.domainname"] = spec.domainname
    for name, value in spec.sysctls:
        own_network = name.startswith("net.") and order.netns != "host"
        own_ipc = (name in _IPC_SYSCTLS or name.startswith("fs.mqueue.")) and spec.ipc_mode != "host"
        if not own_network and not own_ipc and name != "kernel.domainname":
            raise RuntimeFailed(f"sysctl {name!r} is not the container's own: it would change the whole node", permanent=True)
        found[name] = value
    return found


def _device_rules(spec: ContainerSpec, root: RootFacts) -> list[dict[str, Any]]:
    if spec.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [
        {"allow": True, "type": device.kind, "major": device.major, "minor": device.minor, "access": device.access}
        for device in root.devices
    ]
    return rules


def _device(device: Device) -> dict[str, Any]:
    return {
        "path": device.path, "type": device.kind, "major": device.major, "minor": device.minor, "fileMode": device.mode,
        "uid": device.uid, "gid": device.gid,
    }  # fmt: skip


def parse_device(text: str) -> tuple[str, str, str]:
    """`/dev/fuse[:/dev/x][:rwm]` as host path, path in the container, access."""
    parts = text.split(":")
    host, target, access = parts[0], parts[0], "rwm"
    for part in parts[1:]:
        if part.startswith("/"):
            target = part
        else:
            access = part
    clean = posixpath.normpath(target)
    if not host.startswith("/") or not clean.startswith("/dev/") or not access or set(access) - set("rwm") or len(parts) > 3:
        raise RuntimeFailed(f"device {text!r}: expected /dev/x[:/dev/y][:rwm]", permanent=True)
    return host, clean, access
