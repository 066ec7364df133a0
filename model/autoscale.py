"""`x-autoscale` of a service as records: what a person wants of its number of replicas.

Rules: pure data with the defaults of docs/autoscaling.md. A policy changes no container: it stands beside `ContainerSpec`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MetricKind = Literal["cpu", "memory", "connections", "inflight", "bytes", "prometheus", "scrape"]
ScalingMode = Literal["on", "recommend", "off"]


@dataclass(frozen=True, slots=True)
class ScalingMetric:
    """One sensor and what one replica should bear of it.

    `target`: cpu and memory as a share of the reservation (0.6; without a reservation of the limit), connections and
    bytes per second, inflight as open connections, prometheus and scrape as the query's own unit. `query`: PromQL, or the
    name of a metric the replicas themselves expose. `url`: the Prometheus to ask, empty: the controller's.
    """

    kind: MetricKind
    target: float
    query: str = ""
    url: str = ""

    @property
    def name(self) -> str:
        """Tells the metrics of one policy apart: `cpu`, `prometheus:sum(rate(x[30s]))`."""
        return f"{self.kind}:{self.query}" if self.query else self.kind


@dataclass(frozen=True, slots=True)
class ScaleOut:
    """At most max(`at_least`, `step` x present count) more within `every_s`; a need within `tolerance` of the target is
    none."""

    step: float = 1.0
    at_least: int = 4
    every_s: float = 15.0
    tolerance: float = 0.05


@dataclass(frozen=True, slots=True)
class ScaleIn:
    """To the largest count wanted within `window_s`, at most `step` x present count fewer within `every_s`."""

    window_s: float = 300.0
    step: float = 0.25
    every_s: float = 60.0
    tolerance: float = 0.10
    to_zero_after_s: float = 300.0


@dataclass(frozen=True, slots=True)
class ScalingFallback:
    """What holds after a metric has failed `after` times in a row: `replicas`, the present count, or the higher of both."""

    after: int = 3
    replicas: int = 0
    behavior: Literal["static", "current", "higher"] = "higher"


@dataclass(frozen=True, slots=True)
class ScalingSchedule:
    """From each time `cron` names (five fields, in `time_zone`) for `for_s`: other bounds. None: the policy's own."""

    cron: str
    for_s: float
    time_zone: str = "UTC"
    min: int | None = None
    max: int | None = None


@dataclass(frozen=True, slots=True)
class Autoscale:
    """`activation`: a metric's total at or above which a service at zero is woken, and strictly below which it may sleep."""

    min: int = 1
    max: int = 1
    metrics: tuple[ScalingMetric, ...] = ()
    scale_out: ScaleOut = ScaleOut()
    scale_in: ScaleIn = ScaleIn()
    fallback: ScalingFallback | None = None
    schedules: tuple[ScalingSchedule, ...] = ()
    mode: ScalingMode = "on"
    activation: float = 0.0

    @property
    def may_sleep(self) -> bool:
        """Whether it may ever have no replica, so that who calls it then is held and wakes it."""
        return self.mode == "on" and 0 in (self.min, *(schedule.min for schedule in self.schedules))


@dataclass(frozen=True, slots=True)
class MetricsPort:
    """`x-metrics`: where each replica exposes metrics of its own (Prometheus text)."""

    port: int
    path: str = "/metrics"


@dataclass(frozen=True, slots=True)
class MachineTemplate:
    """What a machine of a node group will be. Memory in bytes."""

    cpus: float = 1.0
    memory_bytes: int = 1 << 30
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """Who makes machines. `lab`: the lab this cluster is; `exec`: the operator's commands; `ssh`: machines in `hosts`
    (HOST or HOST:PORT); `known_hosts` empty: a host's key is taken at first sight and kept, else it must stand in that file."""

    kind: Literal["lab", "exec", "ssh"]
    create: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    list: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    user: str = "root"
    key_file: str = ""
    known_hosts: str = ""
    timeout_s: float = 900.0


@dataclass(frozen=True, slots=True)
class NodeGroupSpec:
    """Machines of one kind that come and go. Times in seconds; `buffer`: so many empty machines are kept spare.

    A node may leave when less than `utilization` of it is requested for `idle_s`, not within `after_add_s` of an addition;
    nothing is removed while more than `unready_max` of all nodes are not ready. `remove_volumes`: also nodes that hold
    local volumes.
    """

    name: str
    provider: ProviderSpec
    min: int = 0
    max: int = 1
    template: MachineTemplate = MachineTemplate()
    buffer: int = 0
    utilization: float = 0.5
    idle_s: float = 600.0
    after_add_s: float = 600.0
    provision_s: float = 900.0
    back_off_s: float = 300.0
    unready_max: float = 0.45
    remove_volumes: bool = False
