"""The plots of the known bugs. Each is shared by the bugs that would show in it."""

from __future__ import annotations

from typing import Any, Final

from sim.faults import Fault
from tests.sim.known_bugs_world import (
    Plot,
    apply,
    journals_full,
    network,
    node,
    on,
    remove_node,
    scale,
    scaling,
    service,
    slow_tables,
    stack,
    stop,
    unstack,
)  # fmt: skip

HOST_PORT: Final[dict[str, Any]] = {"target": 80, "published": "9001", "protocol": "tcp", "mode": "host"}
VOLUME: Final[dict[str, Any]] = {"type": "volume", "source": "data", "target": "/data"}

ENDPOINTS: Final = Plot(
    1,
    (
        network(4, "shared"),
        apply(5, stack("rest", "shared", all=service(deploy={"mode": "global"}))),
        apply(6, stack("old", "shared", web=service(2, deploy=on("n1"), stop_grace_period="10s"))),
        slow_tables(25, "n2", 1.8),
        unstack(30, "old"),
        apply(30.5, stack("new", "shared", web=service(24, deploy=on("n1")))),
    ),
    until_s=40, quiet_s=20,
)  # fmt: skip
"""A service goes and others come at once on the same node; another node's kernel is slow to follow."""

LOST_NODE: Final = Plot(
    2,
    (apply(4, stack("base", web=service(6))), apply(5, stack("gone", web=service(3))), unstack(34, "gone")),
    (Fault(15.0, "cut", "n2", 30.0),),
    until_s=46,
)
"""A node is cut off for so long that its replicas are started elsewhere; a service is removed meanwhile."""

NODES: Final = Plot(
    3,
    (
        apply(4, stack("base", web=service(4))),
        apply(5, stack("all", agent=service(deploy={"mode": "global", "placement": {"constraints": ["node.labels.zone==a"]}}))),
        node(6, "n1", zone="a"),
        node(12, "n3", "drain"),
        scale(25, "base_web", 8),
        node(30, "n2", zone="a"),
        remove_node(33, "n4"),
    ),
    nodes=4, until_s=35, quiet_s=30,
)  # fmt: skip
"""A node is drained, one gets a label, one is removed."""

RESERVED: Final = {"resources": {"reservations": {"cpus": "1.0"}}}
FAILOVER: Final = Plot(
    4,
    (
        apply(4, stack("base", web=service(3))),
        apply(5, stack("big", web=service(5, deploy=RESERVED))),
        scale(50, "big_web", 60),
        scale(58, "big_web", 5),
    ),
    (
        Fault(20.0, "controller-pause", "c1", 6.0),
        Fault(36.0, "controller-pause", "c2", 6.0),
        *(Fault(begin_s + n, "crash", f"n{n}", 0.0, 1.0) for begin_s in (21.0, 37.0) for n in (1, 2, 3)),
    ),
    until_s=60,
)
"""Whoever leads stands still while containers end, and finds that another one leads; then more is wanted than fits."""

MOST_SILENT: Final = Plot(
    5, (apply(4, stack("base", web=service(10))),),
    tuple(Fault(20.0, "cut", name, 25.0) for name in ("n1", "n2", "n3", "n4")), nodes=5, until_s=46,
)  # fmt: skip
"""Four of five nodes are cut off at once."""

ROOM: Final = Plot(
    6,
    (
        apply(4, stack("one", web=service(2, ports=[HOST_PORT]), db=service(1, volumes=[VOLUME]))),
        node(12, "n1", "drain"), node(18, "n1", "active"),
        node(19, "n2", "drain"), node(25, "n2", "active"),
        node(26, "n3", "drain"), node(32, "n3", "active"),
        scale(34, "one_web", 4),
        scale(40, "one_web", 2),
    ),
    until_s=42, quiet_s=30,
)  # fmt: skip
"""Host ports for less replicas than wanted; every node is drained once, also that of the volume."""

FAILING: Final = {"update_config": {"parallelism": 1, "monitor": "5s", "failure_action": "pause"}}
UPDATE: Final = Plot(
    7,
    (
        apply(4, stack("base", web=service(6, deploy=FAILING))),
        apply(14, stack("base", web=service(6, "demo/web:2", deploy=FAILING, command=["fail", "0.5"]))),
    ),
    until_s=50, quiet_s=20,
)  # fmt: skip
"""The new version ends half a second after its start."""

CLOCK: Final = Plot(
    8,
    (
        apply(4, stack("base", web=service(6, deploy={"update_config": {"parallelism": 1, "monitor": "2s"}}))),
        apply(14, stack("base", web=service(6, "demo/web:2", deploy={"update_config": {"parallelism": 1, "monitor": "2s"}}))),
    ),
    (Fault(10.0, "node-clock", "n1", 0.0, 3600.0), Fault(10.0, "node-clock", "n2", 0.0, 3600.0)),
    until_s=20, quiet_s=40,
)  # fmt: skip
"""The clocks of two nodes are an hour fast during an update."""

JOB: Final = {"mode": "replicated-job", "restart_policy": {"condition": "on-failure"}}
AGENTS: Final = Plot(
    9,
    (
        apply(4, stack("work", job=service(3, deploy=JOB, command=["job", "2"]))),
        apply(20, stack("base", web=service(12))),
    ),
    (
        *(Fault(20.0 + 0.23 * k + 0.07 * n, "agent-kill", f"n{n}", 0.1) for k in range(12) for n in (1, 2, 3)),
        Fault(35.0, "agent-kill", "n1", 1.0),
    ),
    until_s=38,
)  # fmt: skip
"""Agents are killed while they start containers, and again when all run."""

FULL_DISK: Final = Plot(
    10,
    (
        apply(4, stack("warm", web=service(3))),
        journals_full(13, True),
        apply(15, stack("base", web=service(6))),
        journals_full(17, False),
        apply(18, stack("other", web=service(deploy={"mode": "global"}))),
    ),
    tuple(Fault(19.6, "agent-kill", f"n{n}", 1.0) for n in (1, 2, 3)), until_s=25,
)  # fmt: skip
"""Where agents write down what they do there is no room for a while; they are killed before they have made up for it."""

UNKNOWN: Final = Plot(
    30,
    (
        *(apply(4 + n / 2, stack(f"s{n}", web=service(1))) for n in range(24)),
        *(scale(21 + n / 10, f"s{n}_web", 2) for n in range(24)),
    ),
    (Fault(20.0, "store-unknown", "c1", 12.0, 0.5), Fault(20.0, "store-unknown", "c2", 12.0, 0.5)),
    until_s=40,
)  # fmt: skip
"""Half of all writes lose their answer while services are scaled."""

LATE_WATCH: Final = Plot(
    12,
    (
        *(apply(4 + n, stack(f"s{n}", web=service(2))) for n in range(6)),
        *(act for n in range(6) for act in (scale(21 + n, f"s{n}_web", 3), stop(21.2 + n, f"s{n}_web"))),
    ),
    (Fault(20.0, "watch-late", "c1", 10.0, 5.0), Fault(20.0, "watch-late", "c2", 10.0, 5.0)),
    until_s=40,
)  # fmt: skip
"""Two edits of each service right after one another, at controllers that hear late of what others write."""

LOST_WATCH: Final = Plot(
    13,
    (*(apply(4 + n, stack(f"s{n}", web=service(1))) for n in range(8)), *(scale(16 + n, f"s{n}_web", 3) for n in range(8))),
    (Fault(15.0, "watch-loses", "c1", 10.0, 1.0), Fault(15.0, "watch-loses", "c2", 10.0, 1.0)),
    until_s=26, quiet_s=80,
)  # fmt: skip
"""Nothing of what others write is heard while a service is scaled."""

SCALING: Final = Plot(
    18,
    (
        *(slow_tables(4, name, 2.0) for name in ("n1", "n2", "n3")),
        apply(5, stack("auto", web=service(2, **scaling(7000)))),
        apply(85, stack("auto", web=service(2, "demo/web:2", **scaling(7000)))),
        *(slow_tables(95, name, 0.0) for name in ("n1", "n2", "n3")),
    ),
    (
        Fault(105.0, "samples-missing", "n1", 90.0),
        Fault(105.0, "samples-missing", "n2", 90.0),
        Fault(105.0, "samples-missing", "n3", 90.0),
    ),
    until_s=200, quiet_s=110, load=(("auto_web", ((30.0, 4.0), (200.0, 45.0))),),
)  # fmt: skip
"""A load comes where replicas are slow to start, the file is applied again, and then no sensor says anything for long."""

SILENT: Final = Plot(
    19,
    (apply(4, stack("auto", web=service(2, **scaling(7000)))),),
    (Fault(60.0, "samples-missing", "n1", 70.0), Fault(60.0, "samples-missing", "n2", 70.0)),
    until_s=140, quiet_s=110, load=(("auto_web", ((140.0, 45.0),)),),
)  # fmt: skip
"""Two nodes of three say nothing of their callers."""
