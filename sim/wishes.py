"""What people write into their Compose files in the simulation: resolved projects, drawn from a handful of everyday ones.

Rules: a draw is a plain project as the command line would send it. A file is edited by drawing one change at a time, so that
what is applied next resembles what was applied before. What is asked for fits a healthy cluster most of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any, Final

from sim.scenario import LARGE

Project = dict[str, Any]
Draw = Callable[[Random, int], dict[str, Any]]
VERSIONS: Final = 9
ZONES: Final = ("a", "b", "c")
PORTS: Final = range(8000, 8100)
HOST_PORTS: Final = range(9000, 9020)
SCALED_PORTS: Final = range(7000, 7900)
SCALED_MAX: Final = 8
CROWD: Final = 250
"""Replicas of one service, in the first file of a large cluster."""


def replicas(rng: Random, nodes: int) -> int:
    """Mostly few, now and then several a node."""
    return 1 + int(min(1.5 * nodes, 60) * rng.random() ** 3)


def update(rng: Random) -> dict[str, Any]:
    return {
        "parallelism": rng.choice((0, 1, 1, 2, 3)),
        "order": rng.choice(("stop-first", "stop-first", "start-first")),
        "failure_action": rng.choice(("pause", "continue")),
        "delay": rng.choice(("0s", "0s", "2s")),
        "monitor": rng.choice(("0s", "1s", "5s")),
    }


def limits(rng: Random) -> dict[str, Any]:
    cpus, memory = rng.choice(("0.05", "0.1", "0.25", "0.5")), rng.choice((16 << 20, 64 << 20, 256 << 20))
    return {"reservations": {"cpus": cpus, "memory": memory}}


def image(rng: Random) -> str:
    return f"demo/web:{rng.randrange(VERSIONS)}"


def base(rng: Random, nodes: int) -> dict[str, Any]:
    deploy = {"replicas": replicas(rng, nodes), "update_config": update(rng)}
    return {"image": image(rng), "networks": {"default": None}, "deploy": deploy, "stop_grace_period": rng.choice(("1s", "5s"))}


def web(rng: Random, nodes: int) -> dict[str, Any]:
    """Behind published ports, the cluster's choice or its own."""
    found = base(rng, nodes)
    port: dict[str, Any] = {"target": 80, "protocol": "tcp", "mode": "ingress" if nodes <= LARGE else "host"}
    if rng.random() < 0.6 and nodes <= LARGE:
        port["published"] = str(rng.choice(PORTS))
    found["ports"] = [port]
    if rng.random() < 0.5:
        found["healthcheck"] = {"test": ["CMD", "true"], "interval": "5s", "timeout": "2s", "retries": 2, "start_period": "1s"}
    return found


def worker(rng: Random, nodes: int) -> dict[str, Any]:
    """Reserves, spreads, and may be only some on a node."""
    found = base(rng, nodes)
    deploy = found["deploy"]
    deploy["resources"] = limits(rng)
    placement: dict[str, Any] = {}
    if rng.random() < 0.5:
        placement["preferences"] = [{"spread": "node.labels.zone"}]
    if rng.random() < 0.3:
        placement["max_replicas_per_node"] = 1 + deploy["replicas"] * 2 // nodes
    if rng.random() < 0.3:
        placement["constraints"] = [f"node.labels.zone!={rng.choice(ZONES)}"]
    deploy["placement"] = placement
    return found


def db(rng: Random, nodes: int) -> dict[str, Any]:
    """One with a volume."""
    found = base(rng, nodes)
    found["deploy"]["replicas"] = 1
    found["deploy"]["update_config"]["order"] = "stop-first"
    found["volumes"] = [{"type": "volume", "source": "data", "target": "/data"}]
    return found


def everywhere(rng: Random, nodes: int) -> dict[str, Any]:
    found = base(rng, nodes)
    found["deploy"] = {"mode": "global", "update_config": update(rng)}
    if nodes > LARGE:
        found["deploy"]["placement"] = {"constraints": [f"node.labels.zone=={rng.choice(ZONES)}"]}
    if rng.random() < 0.5:
        port = {"target": 80, "published": str(rng.choice(HOST_PORTS)), "protocol": "tcp", "mode": "host"}
        found["ports"] = [port]
    return found


def job(rng: Random, nodes: int) -> dict[str, Any]:
    found = base(rng, nodes)
    del found["deploy"]["update_config"]
    found["deploy"]["mode"] = "replicated-job"
    found["deploy"]["restart_policy"] = {"condition": "on-failure"}
    found["command"] = ["job", str(rng.randrange(1, 20))]
    return found


def job_everywhere(rng: Random, nodes: int) -> dict[str, Any]:
    found = everywhere(rng, nodes)
    found.pop("ports", None)
    found["deploy"] |= {"mode": "global-job", "restart_policy": {"condition": "on-failure"}}
    del found["deploy"]["update_config"]
    found["command"] = ["job", str(rng.randrange(1, 10))]
    return found


def failing(rng: Random, nodes: int) -> dict[str, Any]:
    """Ends badly again and again."""
    found = base(rng, nodes)
    found["deploy"]["replicas"] = 1
    found["deploy"]["restart_policy"] = {"condition": "on-failure", "max_attempts": 3}
    found["command"] = ["fail", str(rng.randrange(1, 5))]
    return found


KINDS: Final[Sequence[tuple[Draw, int]]] = (
    (web, 6), (worker, 6), (db, 3), (everywhere, 2), (job, 1), (job_everywhere, 1), (failing, 1),
)  # fmt: skip


def service(rng: Random, nodes: int) -> dict[str, Any]:
    (draw,) = rng.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])
    found = draw(rng, nodes)
    if rng.random() < 0.2:
        found["x-priority"] = rng.choice((1, 5, 10))
    return found


def project(rng: Random, stack: str, nodes: int) -> Project:
    """One to three services on one or two networks."""
    found: Project = {"name": stack, "services": {}, "networks": {"default": {"name": f"{stack}_default"}}}
    for key in ("one", "two", "three")[: rng.choice((1, 1, 2, 3))]:
        found["services"][key] = service(rng, nodes)
    if rng.random() < 0.3:
        found["networks"]["back"] = {"name": f"{stack}_back", "internal": True}
        found["services"]["one"]["networks"]["back"] = {"aliases": ["backend"]}
    return _with_volumes(found)


def scaled(rng: Random, name: str, port: int) -> dict[str, Any]:
    """Scales itself with its callers, who come by a published port; now and then a Prometheus says the same of them."""
    policy: dict[str, Any] = {
        "min": rng.choice((0, 0, 1, 2)), "max": SCALED_MAX, "metrics": [{"connections": "10/s"}],
        "scale_out": {"every": "5s"},
        "scale_in": {"window": "20s", "step": "100%", "every": "5s", "to_zero_after": "10s"},
    }  # fmt: skip
    if rng.random() < 0.3:
        policy["metrics"].append({"prometheus": {"query": name, "target": 10}})
    if rng.random() < 0.3:
        policy["fallback"] = {"after": 3, "replicas": 3, "behavior": rng.choice(("current", "higher"))}
    found = _first(rng.choice((1, 2, 3))) | {"networks": {"default": None}, "x-autoscale": policy}
    found["ports"] = [{"target": 80, "published": str(port), "protocol": "tcp", "mode": "ingress"}]
    return found


def scaling(rng: Random, stack: str) -> Project:
    found: Project = {"name": stack, "services": {}, "networks": {"default": {"name": f"{stack}_default"}}}
    for key in ("one", "two")[: rng.choice((1, 2))]:
        found["services"][key] = scaled(rng, f"{stack}_{key}", rng.choice(SCALED_PORTS))
    return found


def first(nodes: int) -> Project:
    """Of a cluster that has work: about a replica a node. In a large one most of them talk to nobody."""
    networks = {"default": {"name": "base_default"}}
    services = {"web": _first(web_replicas(nodes)) | {"networks": {"default": None}}}
    for number, start in enumerate(range(web_replicas(nodes), nodes, CROWD), 1):
        services[f"crowd{number}"] = _first(min(CROWD, nodes - start)) | {"network_mode": "none"}
    return {"name": "base", "services": services, "networks": networks}


def web_replicas(nodes: int) -> int:
    """Of the first service: they all know each other."""
    return nodes if nodes <= LARGE else LARGE // 4


def _first(replicas: int) -> dict[str, Any]:
    return {"image": "demo/web:1", "deploy": {"replicas": replicas}, "stop_grace_period": "1s"}


def edited(rng: Random, before: Project, nodes: int) -> Project:
    """The file with one change."""
    found = deepcopy(before)
    key = rng.choice(sorted(found["services"]))
    one = found["services"][key]
    deploy = one["deploy"]
    match rng.choice(("image", "image", "env", "replicas", "update", "another", "gone", "add", "network")):
        case "image":
            one["image"] = image(rng)
        case "env":
            one["environment"] = {"BUILD": str(rng.randrange(1000))}
        case "replicas" if deploy.get("mode") is None and "volumes" not in one:
            deploy["replicas"] = replicas(rng, nodes)
        case "update" if "job" not in deploy.get("mode", ""):
            deploy["update_config"] = update(rng)
        case "another":
            found["services"][key] = service(rng, nodes)
        case "gone" if len(found["services"]) > 1:
            del found["services"][key]
        case "add":
            found["services"].setdefault(rng.choice(("one", "two", "three")), service(rng, nodes))
        case "network":
            found["networks"].setdefault("back", {"name": f"{found['name']}_back"})
            one["networks"]["back"] = None
        case _:
            one["image"] = image(rng)
    return _with_volumes(found)


def _with_volumes(found: Project) -> Project:
    """Volumes that services name, each service's its own."""
    found["volumes"] = {}
    for key in sorted(found["services"]):
        for mount in found["services"][key].get("volumes", ()):
            mount["source"] = f"data-{key}"
            found["volumes"][mount["source"]] = {"name": f"{found['name']}_{mount['source']}"}
    return found
