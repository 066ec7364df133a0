"""What the agent says about one container: frozen records shared by the plans, the runtime and the agent's core.

Rules: pure data. Paths are absolute paths of the host unless a field says otherwise. Bytes and seconds stand last in names.
A container is ONE run of a replica: a restart is a new container with a new id.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from model.spec import ContainerSpec, Pairs

if TYPE_CHECKING:
    from agent.images.records import ImageConfig


@dataclass(frozen=True, slots=True)
class HostMount:
    """One mount with its host side settled. `source` empty: a tmpfs. `target` is the path in the container.

    `source` must exist (a file or a directory); making volumes and bind sources is the volumes room's work.
    """

    target: str
    source: str = ""
    read_only: bool = False
    propagation: str = ""
    """`private`, `rprivate`, `slave`, `rslave`, `shared`, `rshared`; empty: rprivate."""
    tmpfs_size_bytes: int | None = None
    tmpfs_mode: int | None = None
    subpath: str = ""
    """The part of `source` that is mounted: others may write to `source`, so it is resolved only when it is mounted."""


@dataclass(frozen=True, slots=True)
class ContainerOrder:
    """Everything needed to make one container.

    id: unique on the node, `[A-Za-z0-9][A-Za-z0-9_.-]{0,127}`; 64 hex digits by custom.
    name: the replica's name (`shop_web.3`); shown in messages.
    log_key: directory name of the replica's logs; containers with the same key share one log history.
    layers: unpacked read-only image layers, BOTTOM first; one empty directory is a legal image.
    netns: path of a network namespace file, `host`, or empty for a namespace of its own without any link.
    addresses: the container's own addresses without prefix length, for /etc/hosts.
    nameservers: our own name server; empty: what the spec's `dns` says, else the host's file is copied.
    forwarder: who is asked instead of host's servers that answer only on the host itself.
    host_gateway: the address `host-gateway` stands for in `extra_hosts`.
    mounts: the host side of `spec.mounts`, in the same order (tmpfs included).
    meta: anything; `recover` gives it back. It is the agent's only record of which replica a container belongs to.
    """

    id: str
    name: str
    log_key: str
    spec: ContainerSpec
    image: ImageConfig
    layers: tuple[Path, ...]
    netns: str = ""
    addresses: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    mounts: tuple[HostMount, ...] = ()
    meta: Pairs = ()
    forwarder: str = ""
    host_gateway: str = ""


@dataclass(frozen=True, slots=True)
class Exited:
    """A container's end. `at` is Unix time. `exit_code` is 128 + signal for a killed one, None when nobody could learn it.

    `message` is one line for people (`out of memory: killed at 64.0 MiB (exit code 137)`), empty after exit code 0.
    """

    container_id: str
    exit_code: int | None
    oom: bool
    at: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """One container that `recover` found. `exit` is set when state is `exited`; `pid` is 0 then.

    `broken`: half made (the agent died while it was being created), state `exited`, exit code None: only delete it.
    """

    container_id: str
    name: str
    log_key: str
    meta: Pairs
    state: Literal["created", "running", "exited"]
    pid: int = 0
    started_at: float = 0.0
    exit: Exited | None = None
    broken: bool = False


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """One more process in a running container. Empty `user` and `working_dir`: those of the container."""

    command: tuple[str, ...]
    tty: bool = False
    stdin: bool = False
    user: str = ""
    working_dir: str = ""
    env: Pairs = ()
    privileged: bool = False
    rows: int = 0
    columns: int = 0


@dataclass(frozen=True, slots=True)
class LogLine:
    """`line` ends with its newline unless the container wrote it in parts. `stream` is `stdout` or `stderr`."""

    at_ns: int
    stream: str
    line: bytes
    container_id: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container uses now. `memory_bytes` is the working set (without page cache that can be dropped); limit 0: none."""

    at: float
    cpu_s: float
    memory_bytes: int
    memory_limit_bytes: int
    pids: int
    pids_limit: int
    read_bytes: int
    write_bytes: int
    throttled_s: float = 0.0
    oom_kills: int = 0
