"""What dies comes back or is replaced, and nothing else is touched: containers, nodes, daemons, networks."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.harness import LabUnderTest, eventually, identity

SLEEPERS = """
services:
  web:
    image: busybox
    command: sleep 100000
    init: true
    deploy:
      replicas: 9
"""


def kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # etcd ends with its controller
            os.kill(pid, signal.SIGKILL)


def test_a_killed_container_is_back_within_two_seconds(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, SLEEPERS, "shop")
    victim = lab.running("shop_web")[0]
    pid = lab.container(victim["name"])["State"]["Pid"]
    begin = time.monotonic()
    lab.on(victim["node"], "kill", "-KILL", str(pid))

    def back() -> bool:
        rows = [row for row in lab.running("shop_web") if row["name"] == victim["name"]]
        return bool(rows) and rows[0]["restarts"] == victim["restarts"] + 1

    eventually(back, "the killed container running again")
    assert time.monotonic() - begin < 2.0


def test_a_killed_node_is_replaced_and_its_return_restarts_nothing(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, SLEEPERS, "shop")
    others = identity([row for row in lab.running("shop_web") if row["node"] != "n3"])
    begin = time.monotonic()
    lab.lab("kill", "n3")
    eventually(lambda: len([r for r in lab.running("shop_web") if r["node"] != "n3"]) == 9, "nine replicas on two nodes")
    assert time.monotonic() - begin < 10.0
    assert lab.node_states()["n3"] == "down"
    lab.lab("start", "n3")
    eventually(lambda: len(lab.replicas("shop_web", every=True)) == 9, "the surplus trimmed")
    eventually(lambda: len(lab.running("shop_web")) == 9, "nine running")
    now = identity(lab.running("shop_web"))
    assert {name: now.get(name) for name in others} == others


def test_a_partitioned_node_keeps_its_containers_and_the_surplus_is_trimmed_youngest_first(
    lab: LabUnderTest, tmp_path: Path
) -> None:
    lab.apply(tmp_path, SLEEPERS, "shop")
    before = identity(lab.running("shop_web"))
    lab.lab("partition", "n2")
    eventually(lambda: lab.node_states()["n2"] == "down", "n2 down")
    eventually(lambda: len([r for r in lab.running("shop_web") if r["node"] != "n2"]) == 9, "replaced elsewhere")
    lab.lab("heal", "n2")
    eventually(lambda: lab.node_states()["n2"] == "ready", "n2 ready")
    eventually(lambda: identity(lab.running("shop_web")) == before, "exactly the containers of before")
    eventually(lambda: len(lab.replicas("shop_web", every=True)) == 9, "the surplus gone")


def test_losing_most_nodes_at_once_moves_nothing(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, SLEEPERS, "shop")
    before = {row["name"]: (row["node"], row["container_id"]) for row in lab.running("shop_web")}
    lab.lab("partition", "n2", "n3")
    eventually(lambda: list(lab.node_states().values()).count("unreachable") == 2, "two nodes unreachable")
    eventually(lambda: "nothing is moved" in lab("events"), "an event that says so")
    assert "down" not in lab.node_states().values()
    lab.lab("heal")
    eventually(lambda: set(lab.node_states().values()) == {"ready"}, "all ready")
    after = {row["name"]: (row["node"], row["container_id"]) for row in lab.running("shop_web")}
    assert after == before


def test_killing_daemons_in_turn_and_together_restarts_no_container_and_loses_no_exit_code(
    lab: LabUnderTest, tmp_path: Path
) -> None:
    lab.apply(tmp_path, SLEEPERS, "shop")
    before = identity(lab.running("shop_web"))
    victims: dict[str, Callable[[], list[int]]] = {
        "controller": lambda: lab.daemon_pids("controller", "controller"),
        "etcd": lambda: lab.daemon_pids("controller", "etcd"),
        "agents": lambda: [pid for node in ("n1", "n2", "n3") for pid in lab.daemon_pids(node, "agent")],
    }
    lab("run", "-d", "--name", "short", "busybox", "sh", "-c", "sleep 2; exit 7")
    kill(victims["agents"]())
    eventually(
        lambda: lab.call("ps", "short").out.count("failed (7)") == 1, "the exit code of a container that ended alone", 20
    )
    for name, find in victims.items():
        kill(find())
        goes_on(lab, f"{name} killed")
        assert identity(lab.running("shop_web")) == before
    kill([pid for find in victims.values() for pid in find()])
    goes_on(lab, "everything killed")
    assert identity(lab.running("shop_web")) == before


def goes_on(lab: LabUnderTest, what: str) -> None:
    """The cluster takes and performs an order within ten seconds; the tenth replica comes and goes."""
    begin = time.monotonic()
    eventually(lambda: lab.call("service", "scale", "shop_web=10", "--timeout", "5").code == 0, f"{what}: scaling works", 20)
    eventually(lambda: len(lab.running("shop_web")) == 10, f"{what}: ten replicas")
    assert time.monotonic() - begin < 10.0, what
    lab("service", "scale", "shop_web=9")
    eventually(lambda: len(lab.replicas("shop_web", every=True)) == 9, f"{what}: nine replicas again")
    eventually(lambda: set(lab.node_states().values()) == {"ready"}, f"{what}: every node ready")
