"""What a person wants: the frozen records a resolved Compose project is converted to.

Rules: pure data, no behaviour beyond validation-free defaults. Units stand last in the names. A field that is `None` or
empty means "not said". Everything in `ContainerSpec` makes a new version of the service when it changes; everything
else in `ServiceSpec` (replicas, placement, update policy, labels) does not restart a container.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from model.autoscale import Autoscale, MetricsPort

Pairs = tuple[tuple[str, str], ...]
Counts = tuple[tuple[str, int], ...]
"""(kind, how many) of generic resources, each kind once, sorted."""
Mode = Literal["replicated", "global", "replicated-job", "global-job"]


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of a container. `source` is a volume's full name (empty: anonymous), a host path, or empty for tmpfs."""

    type: Literal["volume", "bind", "tmpfs"]
    target: str
    source: str = ""
    read_only: bool = False
    nocopy: bool = False
    subpath: str = ""
    propagation: str = ""
    create_host_path: bool = True
    tmpfs_size_bytes: int | None = None
    tmpfs_mode: int | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """One network of a container; `network` is the network's full name (`shop_default`, or `host` / `none` / `bridge`)."""

    network: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    mac_address: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Port:
    """One published port. `published` 0: the cluster (ingress) or the node (host) chooses one.

    `published_end`: the last port of the range one may be chosen from; 0: only `published`. `local` (`x-ingress: local`): only
    nodes with a replica answer, and the client's address is kept.
    """

    target: int
    published: int = 0
    protocol: str = "tcp"
    mode: Literal["ingress", "host"] = "ingress"
    host_ip: str = ""
    published_end: int = 0
    local: bool = False


@dataclass(frozen=True, slots=True)
class Ulimit:
    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Healthcheck:
    test: tuple[str, ...] = ()
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0
    start_interval_s: float = 5.0
    disable: bool = False


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When the agent starts a replica's container again. Defaults are those of shoal: at once, then with back-off.

    `any` restarts also after exit code 0; `max_attempts` counts within `window_s` (0: for ever).
    """

    condition: Literal["any", "on-failure", "none"] = "any"
    delay_s: float | None = None
    max_attempts: int | None = None
    window_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Resources:
    """Amounts of one container; 0 means none asked for / no limit. `cpus` in cores, memory in bytes. `generic` (reserved only):
    how many of each kind of the node's generic resources, sorted by kind."""

    cpus: float = 0.0
    memory_bytes: int = 0
    pids: int = 0
    generic: Counts = ()


@dataclass(frozen=True, slots=True)
class FileRef:
    """A secret or config to be mounted as a file (carried; served by a later release)."""

    source: str
    target: str = ""
    uid: str = ""
    gid: str = ""
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """How to run one container. `command`/`entrypoint` None: the image's own."""

    image: str
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: Pairs = ()
    labels: Pairs = ()
    working_dir: str = ""
    user: str = ""
    group_add: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    read_only: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    sysctls: Pairs = ()
    ulimits: tuple[Ulimit, ...] = ()
    limits: Resources = Resources()
    memswap_limit_bytes: int | None = None
    shm_size_bytes: int | None = None
    oom_score_adj: int | None = None
    cpu_shares: int | None = None
    cpuset: str = ""
    mounts: tuple[Mount, ...] = ()
    devices: tuple[str, ...] = ()
    networks: tuple[Attachment, ...] = ()
    ports: tuple[Port, ...] = ()
    expose: tuple[str, ...] = ()
    """`80`, `80/udp`: besides what the image exposes."""
    publish_all: bool = False
    """Every exposed port is published on the replica's node, on a port the node chooses (`run -P`)."""
    links: Pairs = ()
    """(full name of a service or container, further name for it here)."""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    extra_hosts: Pairs = ()
    pid_mode: str = ""
    ipc_mode: str = ""
    healthcheck: Healthcheck | None = None
    restart: RestartPolicy = RestartPolicy()
    stop_signal: str = ""
    stop_grace_period_s: float = 10.0
    log_driver: str = ""
    log_options: Pairs = ()
    secrets: tuple[FileRef, ...] = ()
    configs: tuple[FileRef, ...] = ()
    pull_policy: Literal["missing", "always", "never"] = "missing"
    platform: str = ""
    image_digest: str = ""
    """What `image` stood for when the service was written, of an index or a manifest: every replica runs it. Empty: each node
    asks for itself."""


PRIORITY_MAX: Final = 1_000
GENERIC_MAX: Final = 1_000_000
"""Of one kind of generic resource."""
"""Priorities are from minus this to this."""


@dataclass(frozen=True, slots=True)
class Placement:
    """`constraints` as written (`node.labels.zone==a`); `spread` holds label paths (`node.labels.zone`)."""

    constraints: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    max_replicas_per_node: int = 0
    node: str = ""


@dataclass(frozen=True, slots=True)
class UpdateConfig:
    """`parallelism` 0: all at once."""

    parallelism: int = 1
    delay_s: float = 0.0
    order: Literal["stop-first", "start-first"] = "stop-first"
    failure_action: Literal["pause", "continue", "rollback"] = "pause"
    monitor_s: float = 5.0
    max_failure_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service. `name` is the full name, `<stack>_<service>`, or the plain name for a single container.

    `single` marks a service made by `shoal run`: one replica, no stack, shown under its plain name.
    """

    name: str
    container: ContainerSpec
    stack: str = ""
    mode: Mode = "replicated"
    replicas: int = 1
    placement: Placement = Placement()
    reservations: Resources = Resources()
    update: UpdateConfig = UpdateConfig()
    rollback: UpdateConfig = UpdateConfig()
    labels: Pairs = ()
    endpoint_mode: Literal["vip", "dnsrr"] = "vip"
    single: bool = False
    auto_remove: bool = False
    extensions: Pairs = ()
    """`x-` keys as (name, JSON text)."""
    priority: int = 0
    """`x-priority`: who has more gets room first, and where there is none, that of replicas of those who have less."""
    autoscale: Autoscale | None = None
    """`x-autoscale`; None: only people change the number of replicas."""
    metrics: MetricsPort | None = None
    """`x-metrics`."""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A user network. `name` is the full name. `subnet` empty: chosen from the cluster's pool."""

    name: str
    stack: str = ""
    driver: str = "overlay"
    subnet: str = ""
    subnet6: str = ""
    internal: bool = False
    attachable: bool = True
    external: bool = False
    enable_ipv6: bool = False
    options: Pairs = ()
    labels: Pairs = ()


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A named volume. It lives on ONE node (for global services: one copy a node) and its replicas go where it is."""

    name: str
    stack: str = ""
    driver: str = "local"
    external: bool = False
    options: Pairs = ()
    labels: Pairs = ()


@dataclass(frozen=True, slots=True)
class StackSpec:
    name: str
    services: tuple[ServiceSpec, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    warnings: tuple[str, ...] = field(default=())
